"""Opening files with libsndfile, by way of soundfile, where both need care."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import mp3, ogg, tags
from pipeline.decoding.damage import MIN_PRESENT

#: libsndfile gives more frames than any file has where it does not know.
_UNKNOWN_FRAMES = 1 << 40


@contextlib.contextmanager
def open_sound(source: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """Opens an audio file that is open as a file already.

    Args:
      source: at any position.

    Raises:
      soundfile.LibsndfileError: it is no audio, or damaged.
      Exception: what reading the source raises.
    """
    source.seek(0)
    reader = _Reader(source)
    try:
        with soundfile.SoundFile(reader) as file:
            yield file
    except soundfile.LibsndfileError:
        if reader.error is None:
            raise
    if reader.error is not None:
        raise reader.error


def has_length(file: soundfile.SoundFile) -> bool:
    """Whether libsndfile knows how long a file is."""
    return bool(file.frames < _UNKNOWN_FRAMES)


def announced_seconds(source: BinaryIO) -> float:
    """Length by the file's own header; 0 where it does not tell."""
    stream = mp3.read_stream(source)
    if stream is not None and stream.frames is not None:
        return stream.frames * stream.frame.seconds
    try:
        with open_sound(source) as file:
            return file.frames / file.samplerate if has_length(file) else 0.0
    except soundfile.LibsndfileError:
        return 0.0


class _Reader:
    """A file as libsndfile's callbacks need it.

    Python drops what is raised in a callback from C, with a traceback on stderr:
    a store that fails would look like the end of the file. And libsndfile seeks
    before the beginning, or beyond all bounds, where a damaged header sends it there.

    A clip takes over two thousand callbacks: a frame each, and its header.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.error: Exception | None = None
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._position = file.seek(0)
        self._moved = False

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer as far as there is a file; not at all after an error."""
        if self.error is not None:
            return 0
        try:
            if self._moved:
                self._file.seek(self._position)
                self._moved = False
            count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - to be raised by `open_sound`
            self.error = error
            return 0
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seeks, as far as there is a file."""
        bases = {os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = min(max(bases.get(whence, 0) + offset, 0), self._size)
        self._moved = True
        return self._position

    def tell(self) -> int:
        """Position in the file."""
        return self._position


class FlacDigest(NamedTuple):
    """MD5 of a FLAC file's samples, and the bits of each."""

    md5: bytes
    bits: int


def read_flac_digest(source: BinaryIO) -> FlacDigest | None:
    """What STREAMINFO holds (RFC 9639, 8.2), where it can be checked."""
    source.seek(0)
    head = source.read(42)
    if len(head) < 42 or not head.startswith(b"fLaC"):
        return None
    bits = ((head[20] & 1) << 4 | head[21] >> 4) + 1
    md5 = head[26:42]
    # Without one it is zero; other sizes are scaled in ways that vary.
    return FlacDigest(md5, bits) if any(md5) and bits in (8, 16, 24) else None


def measure_links(
    source: BinaryIO, links: Sequence[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """Frames, rate in Hz and channels of each link of a chained Ogg file.

    libsndfile itself knows the first alone.

    Args:
      source: the file.
      links: first byte and last byte + 1 of each.

    Raises:
      AudioError: libsndfile cannot read one.
    """
    found = []
    for number in range(len(links)):
        with _open_link(source, links, number) as file:
            found.append((file.frames, file.samplerate, file.channels))
    return found


def read_links(
    source: BinaryIO,
    links: Sequence[tuple[int, int]],
    lengths: Sequence[tuple[int, int, int]],
    begin: float,
    end: float,
) -> list[tuple[NDArray[np.float32], int]]:
    """What lies between two seconds of a chained Ogg file.

    Returns:
      Of each link that has a share of it, frames (n, channels) and their rate in Hz.

    Raises:
      AudioError: a link is damaged, or less of it can be decoded than is in it.
    """
    parts = []
    for number, (total, rate, _) in enumerate(lengths):
        first = min(max(round(begin * rate), 0), total)
        last = min(max(round(end * rate), 0), total)
        begin -= total / rate
        end -= total / rate
        if first == last:
            continue
        # A link may end where the next one begins.
        ended = number == len(links) - 1
        link = tags.take(source, *links[number])
        ogg.check_part(link, first / total, last / total, ended=ended)
        with _open_link(source, links, number) as file:
            file.seek(first)
            frames = file.read(last - first, dtype="float32", always_2d=True)
        if len(frames) < MIN_PRESENT * (last - first):
            raise AudioError(
                Reason.TRUNCATED,
                f"of {last - first:,} frames of link {number + 1} of {len(links)}, "
                f"{len(frames):,} can be decoded",
            )
        parts.append((frames, rate))
    return parts


@contextlib.contextmanager
def _open_link(
    source: BinaryIO, links: Sequence[tuple[int, int]], number: int
) -> Iterator[soundfile.SoundFile]:
    try:
        with open_sound(tags.take(source, *links[number])) as file:
            yield file
    except soundfile.LibsndfileError as error:
        raise AudioError(
            Reason.UNDECODABLE,
            f"is chained, and libsndfile says of link {number + 1} of {len(links)}: "
            f"{error.error_string.strip()}",
        ) from error

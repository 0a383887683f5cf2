"""Opening files with libsndfile, by way of soundfile, where both need care."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import soundfile

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

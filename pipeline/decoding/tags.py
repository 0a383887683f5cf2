"""Tags in front of and behind the audio of a file, which are no audio.

ID3v2: id3.org/id3v2.4.0-structure; ID3v1 and its extension "TAG+"; Lyrics3:
id3.org/Lyrics3v2; APEv2: wiki.hydrogenaud.io, "APE Tags Header".
"""

from __future__ import annotations

import io
import os
import struct
from typing import Any, BinaryIO, cast

#: Tags on one side of a file; more are taken for audio.
MAX_TAGS = 1_000
ID3V1, _ID3V1_EXTENSION = 128, 227
_APE_HEADER, _APE_HAS_HEADER, _APE_IS_HEADER = 32, 1 << 31, 1 << 29
#: Of Lyrics3 before version 2, which does not tell its size.
_LYRICS3_BYTES = 5_100
#: Copied rather than looked at through a window.
_SMALL = 4 << 20


def find_audio(file: BinaryIO) -> tuple[int, int]:
    """First byte of the audio, and the one behind it.

    Args:
      file: seekable, at any position.
    """
    size = file.seek(0, os.SEEK_END)
    start, end = 0, size
    for _ in range(MAX_TAGS):
        file.seek(start)
        length = measure_tag(file.read(_APE_HEADER))
        if not 0 < length <= size - start:
            # A tag that lies about its size hides all that follows.
            start = size if length else start
            break
        start += length
    for _ in range(MAX_TAGS):
        length = _measure_last_tag(file, start, end)
        if not 0 < length <= end - start:
            break
        end -= length
    return start, end


def strip_to(file: BinaryIO, start: int, end: int) -> BinaryIO:
    """The audio of a file alone, at its beginning; often the file itself."""
    size = file.seek(0, os.SEEK_END)
    if (start, end) == (0, size) or start >= end:
        file.seek(0)
        return file
    return take(file, start, end)


def take(
    file: BinaryIO, start: int, end: int, *, patch: tuple[int, bytes] = (0, b"")
) -> BinaryIO:
    """A part of a file, as a file at its beginning.

    Args:
      file: seekable.
      start: first byte.
      end: byte behind the last one.
      patch: bytes that stand in the part in place of the file's own, and where.
    """
    if end - start > _SMALL:
        window = io.BufferedReader(_Window(file, start, end, patch), 1 << 16)
        return cast(BinaryIO, window)
    file.seek(start)
    data = file.read(end - start)
    place, content = patch
    if content:
        data = data[:place] + content + data[place + len(content) :]
    return io.BytesIO(data)


def measure_tag(data: bytes | memoryview) -> int:
    """Bytes of the tag that begins here; 0 if none does.

    Args:
      data: 32 bytes or more, as far as there are any.
    """
    if data[:3] == b"ID3" and len(data) >= 10:
        if data[3] == 0xFF or data[4] == 0xFF or max(data[6:10]) > 0x7F:
            return 0
        footer = 10 if data[3] >= 4 and data[5] & 0x10 else 0
        return 10 + _synchsafe(data[6:10]) + footer
    if data[:8] == b"APETAGEX" and len(data) >= _APE_HEADER:
        size, _, flags = struct.unpack_from("<III", data, 12)
        # A footer alone has its items in front of it.
        return _APE_HEADER + int(size) if flags & _APE_IS_HEADER else _APE_HEADER
    return 0


def _measure_last_tag(file: BinaryIO, start: int, end: int) -> int:
    """Bytes of the tag that ends at `end`; 0 if none does."""
    first = max(end - ID3V1 - _ID3V1_EXTENSION, start)
    file.seek(first)
    data = file.read(end - first)
    if data[-ID3V1:-125] == b"TAG" and len(data) >= ID3V1:
        extended = data[-ID3V1 - _ID3V1_EXTENSION :][:4] == b"TAG+"
        return ID3V1 + (_ID3V1_EXTENSION if extended else 0)
    footer = data[-_APE_HEADER:]
    if footer[:8] == b"APETAGEX" and len(footer) == _APE_HEADER:
        size, _, flags = struct.unpack_from("<III", footer, 12)
        if flags & _APE_IS_HEADER:
            return 0
        return int(size) + (_APE_HEADER if flags & _APE_HAS_HEADER else 0)
    if data[-10:-7] == b"3DI" and max(data[-4:]) <= 0x7F:
        return 20 + _synchsafe(data[-4:])
    if data[-9:] == b"LYRICS200" and data[-15:-9].isdigit():
        return int(data[-15:-9]) + 15
    if data[-9:] == b"LYRICSEND":
        first = max(end - _LYRICS3_BYTES - 20, start)
        file.seek(first)
        found = file.read(end - first).rfind(b"LYRICSBEGIN")
        return end - first - found if found >= 0 else 0
    return 0


def _synchsafe(digits: bytes | memoryview) -> int:
    """Four bytes of seven bits each."""
    size = 0
    for byte in digits:
        size = size << 7 | byte & 0x7F
    return size


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(
        self, file: BinaryIO, start: int, end: int, patch: tuple[int, bytes]
    ) -> None:
        self._file = file
        self._patch = patch
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(bases[whence] + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self._size - self._position, 0))
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        view[: len(data)] = data
        first, patch = self._patch[0] - self._position, self._patch[1]
        for place, byte in enumerate(patch, first):
            if 0 <= place < len(data):
                view[place] = byte
        self._position += len(data)
        return len(data)

"""Ogg files: their pages, and the links that a chained file is made of (RFC 3533)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.checksums import ogg_crc

#: A larger file is not looked through.
MAX_BYTES = 1 << 30
_PIECE = 4 << 20
_HEADER = 27
#: The largest page.
_MAX_PAGE = _HEADER + 255 + 255 * 255
_BEGIN, _END = 2, 4  # flags of a stream's first and last page


class _Page(NamedTuple):
    """A page: its byte in the file, its bytes in all, its flags."""

    start: int
    size: int
    flags: int


def is_ogg(file: BinaryIO) -> bool:
    """Whether a file begins with an Ogg page."""
    file.seek(0)
    return file.read(4) == b"OggS"


def find_links(file: BinaryIO) -> list[tuple[int, int]]:
    """First and last byte + 1 of each link; a file that is not chained has one.

    Args:
      file: seekable, an Ogg file without tags.

    Raises:
      AudioError: it is too large to be looked through.
    """
    size = file.seek(0, io.SEEK_END)
    if size > MAX_BYTES:
        raise AudioError(
            Reason.TOO_LARGE,
            f"has {size:,} bytes of Ogg; up to {MAX_BYTES:,} are looked through",
        )
    starts: list[int] = []
    begun = False
    for page in _read_pages(file, size):
        # All streams of a link begin with their first pages, before any other.
        begins = bool(page.flags & _BEGIN)
        if begins and not begun:
            starts.append(page.start)
        begun = begins
    starts = starts or [0]
    return list(zip(starts, [*starts[1:], size], strict=True))


def _read_pages(file: BinaryIO, size: int) -> Iterator[_Page]:
    """All pages, also behind damage."""
    base, data, place = 0, b"", 0
    while base + place < size:
        if len(data) - place < _MAX_PAGE and base + len(data) < size:
            base, data = base + place, data[place:]
            place = 0
            file.seek(base + len(data))
            data += file.read(_PIECE)
        if not data.startswith(b"OggS", place):
            found = data.find(b"OggS", place)
            if found < 0 and base + len(data) >= size:
                return
            place = found if found >= 0 else max(len(data) - 3, place + 1)
            continue
        content = place + _HEADER + (data[place + 26] if len(data) > place + 26 else 0)
        length = content - place + sum(data[place + _HEADER : content])
        if place + length > len(data):
            return
        yield _Page(base + place, length, data[place + 5])
        place += length


def check(data: bytes) -> None:
    """Refuses an Ogg file with a damaged page or without an end.

    Args:
      data: of the whole file; of another format it is left alone.

    Raises:
      AudioError: it is damaged or truncated.
    """
    position, ended = 0, True
    while data.startswith(b"OggS", position):
        header = data[position : position + _HEADER]
        # The last byte counts those that add up to the length of the content.
        content = position + _HEADER + (header[26] if len(header) > 26 else 0)
        end = content + sum(data[position + _HEADER : content])
        if end > len(data) or len(header) < _HEADER:
            ended = False
            break
        page = data[position:end]
        (crc,) = struct.unpack_from("<I", page, 22)
        if ogg_crc(page[:22] + bytes(4) + page[26:]) != crc:
            raise AudioError(
                Reason.CHECKSUM,
                f"the Ogg page at byte {position:,} is not what its checksum says",
            )
        ended = bool(page[5] & _END)
        position = end
    if position and data.find(b"OggS", position + 1) >= 0:
        raise AudioError(
            Reason.CORRUPT, f"byte {position:,} should be an Ogg page, and is not"
        )
    if not ended:
        raise AudioError(
            Reason.TRUNCATED, "ends before the page that marks the end of Ogg streams"
        )

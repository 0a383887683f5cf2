"""Ogg files: their pages, and the links that a chained file is made of (RFC 3533)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pipeline.common.rejects import AudioError, Reason

#: A larger file is not looked through.
MAX_BYTES = 1 << 30
_PIECE = 4 << 20
_HEADER = 27
#: The largest page.
_MAX_PAGE = _HEADER + 255 + 255 * 255
_BEGIN, _END = 2, 4  # flags of a stream's first and last page


#: How the first pages of audio streams begin, behind their headers.
_AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_NO_END = "ends before the page that marks the end of Ogg streams"
_PAGES_AROUND = 3
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class _Page(NamedTuple):
    """A page.

    Attributes:
      start: its byte in the file.
      size: its bytes in all.
      flags: whether it begins or ends a stream.
      place: samples of the stream up to its end; -1 if no packet ends on it.
      serial: of its stream.
    """

    start: int
    size: int
    flags: int
    place: int
    serial: int


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
        flags, end, serial = struct.unpack_from("<BqI", data, place + 5)
        yield _Page(base + place, length, flags, end, serial)
        place += length


def check_part(
    file: BinaryIO, first: float, last: float, *, ended: bool = True
) -> None:
    """Refuses a file that is damaged in a part of its audio, or ends too soon.

    Args:
      file: seekable, an Ogg file that is not chained.
      first: share of its audio at which the part begins.
      last: share at which it ends.
      ended: the last page must be one that ends the audio.

    Raises:
      AudioError: it is damaged or truncated.
    """
    pages = list(_read_pages(file, file.seek(0, io.SEEK_END)))
    serials = {page.serial for page in pages if _begins_audio(file, page)}
    audio = [page for page in pages if page.serial in serials or not serials]
    if ended and audio and not audio[-1].flags & _END:
        raise AudioError(Reason.TRUNCATED, _NO_END)
    # A recording of a broadcast does not begin at 0.
    begun = next((page.place for page in audio if page.place > 0), 0)
    total = max((page.place for page in audio), default=0) - begun
    used = [
        number
        for number, page in enumerate(audio)
        if first * total <= page.place - begun <= last * total
    ]
    if not used:
        return
    joined = {page.start + page.size for page in pages}
    # Decoders need what comes before a part, too.
    for page in audio[max(used[0] - _PAGES_AROUND, 0) : used[-1] + _PAGES_AROUND]:
        if page.start and page.start not in joined:
            raise AudioError(
                Reason.CORRUPT,
                f"what is before byte {page.start:,} should be an Ogg page, and is not",
            )
        file.seek(page.start)
        _check_sum(file.read(page.size), page.start)


def _begins_audio(file: BinaryIO, page: _Page) -> bool:
    if not page.flags & _BEGIN:
        return False
    file.seek(page.start)
    # The first page of a stream holds one packet.
    return file.read(page.size)[_HEADER + 1 :].startswith(_AUDIO)


def _check_sum(page: bytes, position: int) -> None:
    (crc,) = struct.unpack_from("<I", page, 22)
    if page_crc(page[:22] + bytes(4) + page[26:]) != crc:
        raise AudioError(
            Reason.CHECKSUM,
            f"the Ogg page at byte {position:,} is not what its checksum says",
        )


def check_used(file: BinaryIO, first: float, last: float) -> None:
    """Checks a file of which all is used as `check`, and another as `check_part`."""
    if (first, last) == (0, 1):
        file.seek(0)
        check(file.read())
    else:
        check_part(file, first, last)


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
        _check_sum(page, position)
        ended = bool(page[5] & _END)
        position = end
    if position and data.find(b"OggS", position + 1) >= 0:
        raise AudioError(
            Reason.CORRUPT, f"byte {position:,} should be an Ogg page, and is not"
        )
    if not ended:
        raise AudioError(Reason.TRUNCATED, _NO_END)


def page_crc(page: bytes) -> int:
    """CRC-32 of an Ogg page (RFC 3533): polynomial 0x04C11DB7, from 0.

    zlib's has the same polynomial with all bits in the other order, and starts
    and ends with an inversion. A loop over bytes in Python takes longer than decoding.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")

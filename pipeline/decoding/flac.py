"""FLAC (RFC 9639): what a file says of its own length and samples."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import MAX_CLIP_SECONDS
from pipeline.common.rejects import AudioError, Reason

#: Places at which frames are looked for, the last of them the end, and bytes searched
#: at each at least.
PLACES, SEARCHED_BYTES = 5, 1 << 16
#: Read at once.
_PIECE = 4 << 20
#: What a frame begins with: of a constant, of a varying number of samples.
_MARK = re.compile(rb"\xff[\xf8\xf9]")


def check_length(file: BinaryIO, size: int) -> None:
    """Holds STREAMINFO's number of samples against where the last frame belongs.

    Sections 8.2 and 9.1; each frame says where it belongs.

    Args:
      file: FLAC, from its mark on.
      size: of it, in bytes.

    Raises:
      AudioError: it is cut short, longer than it says, or another stream follows.
    """
    file.seek(0)
    info = file.read(42)
    if len(info) < 42:
        return
    block, longest = struct.unpack_from(">HH", info, 8)
    rate = int.from_bytes(info[18:21], "big") >> 4
    channels, bits = (info[20] >> 1 & 7) + 1, (info[20] & 1) << 4 | info[21] >> 4
    # A frame that is not compressed is as large, and bears no larger one.
    largest = longest * channels * (bits + 1) // 8 + 64
    promised = int.from_bytes(info[21:26], "big") & 0xF_FFFF_FFFF
    # Two frames whole.
    largest = min(int.from_bytes(info[15:18], "big") or largest, largest)
    window = max(SEARCHED_BYTES, 2 * largest + 16)
    places = [size * place // PLACES for place in range(1, PLACES)]
    found = [
        number
        for end in places
        for number in _find_last_frame(_read_before(file, end, window), block, longest)
    ]
    # Behind the audio, zeros or anything else may stand.
    for end in range(size, places[-1], largest + 16 - window):
        data = _read_before(file, end, window)
        if last := _find_last_frame(data, block, longest):
            found += last if last != found[-1:] else []
            break
    if not promised or not found:
        return
    # What is missing of a clip, decoding finds; of a longer file its middle is used.
    short = promised <= MAX_CLIP_SECONDS * rate
    few = found[-1] + 2 * longest < promised and not short
    several = found != sorted(set(found)) or (few and _holds_another(file, size))
    if several or promised <= found[-1]:
        raise AudioError(
            Reason.UNANNOUNCED,
            f"its header promises {promised:,} samples, but "
            + ("another stream follows" if several else f"it has over {found[-1]:,}"),
        )
    if few:
        raise AudioError(
            Reason.TRUNCATED,
            f"its header promises {promised:,} samples, but its last frame begins at "
            f"{found[-1]:,}",
        )


def _read_before(file: BinaryIO, end: int, count: int) -> bytes:
    start = max(end - count, 0)
    file.seek(start)
    return file.read(end - start)


def _holds_another(file: BinaryIO, size: int) -> bool:
    """Whether a second FLAC stream follows the first."""
    position = 4
    while position < size:
        file.seek(position)
        data = file.read(_PIECE)
        if b"fLaC" in data or not data:
            return bool(data)
        position += max(len(data) - 3, 1)
    return False


def _find_last_frame(data: bytes, block: int, longest: int) -> list[int]:
    """Number of the sample at which the last frame in some bytes begins, if one does.

    Another frame has to be in front of it: single bytes may look like a header.
    """
    later: list[int] = []
    for position in reversed([found.start() for found in _MARK.finditer(data)]):
        number = _parse_frame(data[position : position + 16])
        if number is None:
            continue
        # Frames have numbers, or their first sample's where their sizes vary.
        fixed = data[position + 1] == 0xF8
        for candidate in later:
            if 0 < candidate - number <= (1 if fixed else longest):
                return [candidate * block if fixed else candidate]
        later.append(number)
    return []


def _parse_frame(header: bytes) -> int | None:
    """The number in a frame's header, from its mark on; None if it is no header."""
    if len(header) < 6 or header[3] & 1:
        return None
    # Coded as UTF-8 does it, in up to seven bytes.
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    length = max(ones, 1)
    if ones == 1 or ones == 8 or len(header) < 4 + length:
        return None
    number = header[4] & (0x7F >> ones)
    for byte in header[5 : 4 + length]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    sizes, rates = header[2] >> 4, header[2] & 0xF
    end = 4 + length + {6: 1, 7: 2}.get(sizes, 0) + {12: 1, 13: 2, 14: 2}.get(rates, 0)
    if len(header) <= end or header[end] != crc8(header[:end]):
        return None
    return number


def crc8(data: bytes) -> int:
    """CRC-8 of a FLAC frame's header (RFC 9639, 9.1.8): polynomial 0x07, from 0."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) & 0xFF ^ (0x07 if value & 0x80 else 0)
    return value


def samples_md5(frames: NDArray[np.float32], bits: int) -> bytes:
    """MD5 of decoded samples as FLAC's STREAMINFO holds it (RFC 9639, 8.2).

    Args:
      frames: all of the file's, shape (n, channels), full scale 1.
      bits: of a sample in the file, at most 24, which float32 holds exactly.
    """
    size = (bits + 7) // 8
    integers = np.rint(frames * np.float32(1 << (bits - 1))).astype("<i4")
    octets = integers.reshape(-1, 1).view(np.uint8)[:, :size]
    return hashlib.md5(octets.tobytes(), usedforsecurity=False).digest()

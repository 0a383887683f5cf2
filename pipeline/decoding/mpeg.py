"""Frames of MPEG audio: their headers, and the chain that they make.

Header layout: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3. Xing header and LAME tag:
Gabriel Bouvigne's "MP3 Infotag" description. VBRI header: his "MPEG Audio Frame
Header", section VBRI.
"""

from __future__ import annotations

import array
import functools
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decoding.tags import ID3V1, measure_tag

#: Read at once where a chain is followed.
PIECE = 4 << 20
#: No chain is followed further than this.
MAX_FOLLOWED_BYTES = 1 << 30
#: More than a frame and the header behind it; the largest frame has 2,881 bytes.
_ROOM = 8_192

_KBPS_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)
#: Where Fraunhofer's header lies in its frame, in every version.
_VBRI_OFFSET = 36
#: Powers of x modulo the CRC-16's polynomial repeat after so many.
_PERIOD = 32_767


class Frame(NamedTuple):
    """A layer III frame's header: sizes in bytes, rate in Hz, bit rate in kbit/s."""

    size: int
    samples: int
    sample_rate: int
    side_info: int
    kbps: int

    @property
    def kind(self) -> tuple[int, int, int]:
        """What does not change within a stream: version, rate, mono or stereo."""
        return self[1:4]

    @property
    def mean_size(self) -> float:
        """Bytes of a frame at this bit rate, without rounding to whole bytes."""
        return self.samples * self.kbps * 125 / self.sample_rate

    @property
    def seconds(self) -> float:
        """Length of a frame."""
        return self.samples / self.sample_rate


class Checksum(NamedTuple):
    """What a LAME tag says of the bytes of its stream.

    Attributes:
      length: of the stream, from its Xing frame on.
      crc: CRC-16 of the stream without the Xing frame.
      intact: whether the tag is what its own checksum says.
    """

    length: int
    crc: int
    intact: bool = True


class Header(NamedTuple):
    """What a first frame says of its stream in place of audio.

    Attributes:
      name: `Xing`, `Info` or `VBRI`.
      frames: number of audio frames; None where it does not say.
      size: bytes from the frame on; None where it does not say.
      checksum: of the LAME tag, where that is to be believed; None without.
    """

    name: bytes
    frames: int | None
    size: int | None
    checksum: Checksum | None


class Chain(NamedTuple):
    """What following the headers of a stream finds.

    Attributes:
      starts: byte of each frame of audio.
      gaps: numbers of frames before each place where no header is where one should
        be, but later again; tags are skipped and are no gap.
      missing: bytes that the last frame lacks.
      foreign: frames of another version, rate or number of channels than the first.
    """

    starts: array.array[int]
    gaps: tuple[int, ...]
    missing: int
    foreign: int


def parse_frame(data: bytes, position: int) -> Frame | None:
    """Parses the four header bytes at `position`; None if they are no header."""
    return _parse(data[position : position + 4])


@functools.lru_cache(maxsize=4096)
def _parse(header: bytes) -> Frame | None:
    if len(header) < 4:
        return None
    sync, second, third, fourth = header
    # Eleven sync bits, then version (not reserved) and layer III.
    if sync != 0xFF or second & 0xE6 != 0xE2 or second & 0x18 == 0x08:
        return None
    version = (second >> 3) & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    rate_index, kbps_index = (third >> 2) & 3, third >> 4
    if rate_index == 3 or kbps_index in (0, 15):
        return None
    first = version == 3
    kbps = (_KBPS_V1 if first else _KBPS_V2)[kbps_index]
    sample_rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = (third >> 1) & 1
    samples = 1152 if first else 576
    mono = fourth >> 6 == 3
    return Frame(
        size=samples // 8 * kbps * 1000 // sample_rate + padding,
        samples=samples,
        sample_rate=sample_rate,
        side_info=(17 if mono else 32) if first else (9 if mono else 17),
        kbps=kbps,
    )


def find_frame(data: bytes, position: int = 0, frames: int = 2) -> int | None:
    """First position of consecutive frames of one kind; None without.

    Args:
      data: part of a file.
      position: to begin at.
      frames: how many.
    """
    while (position := data.find(b"\xff", position)) >= 0:
        first = frame = parse_frame(data, position)
        place = position
        for _ in range(frames - 1):
            if frame is None:
                break
            place += frame.size
            frame = parse_frame(data, place)
        if first is not None and frame is not None and frame[1:3] == first[1:3]:
            return position
        position += 1
    return None


def find_header(data: bytes, position: int, frame: Frame) -> bytes:
    """Name of the header that a frame holds in place of audio; empty without one."""
    tag = position + 4 + frame.side_info
    name = data[tag : tag + 4]
    if name in (b"Xing", b"Info"):
        return name
    tag = position + _VBRI_OFFSET
    return b"VBRI" if data[tag : tag + 4] == b"VBRI" else b""


def read_header(data: bytes, frame: Frame) -> Header | None:
    """The header that a frame holds in place of audio; None without one.

    Args:
      data: from the frame's first byte on.
      frame: the frame's own header.
    """
    name = find_header(data, 0, frame)
    data = data[: frame.size]
    position = 4 + frame.side_info + 8
    frames = size = 0
    if name == b"VBRI":
        # Behind version, delay and quality.
        if len(data) >= _VBRI_OFFSET + 18:
            size, frames = struct.unpack_from(">II", data, _VBRI_OFFSET + 10)
        return Header(name, frames or None, size or None, None)
    if not name:
        return None
    if len(data) < position + 8:
        return Header(name, None, None, None)
    (flags,) = struct.unpack_from(">I", data, position - 4)
    if flags & 1:
        (frames,) = struct.unpack_from(">I", data, position)
        position += 4
    if flags & 2:
        (size,) = struct.unpack_from(">I", data, position)
        position += 4
    if flags & 4:
        position += 100  # Places of every percent, to a 256th of the stream.
    if flags & 8:
        position += 4
    checksum = _parse_lame(data, position, size)
    return Header(name, frames or None, size or None, checksum)


def _parse_lame(frame: bytes, position: int, size: int) -> Checksum | None:
    """Reads a LAME tag, if it is one and as it was written.

    Its own checksum says so, or else that it and the Xing header before it agree
    about the length.
    """
    if not any(frame[position : position + 4]) or len(frame) < position + 36:
        return None
    length, crc, own = struct.unpack_from(">IHH", frame, position + 28)
    # LAME computes it over all that comes before it; ffmpeg always over 190 bytes,
    # even where it lies among them, still zero.
    blank = frame[: position + 34] + bytes(2) + frame[position + 36 :]
    intact = own in (crc16(blank[: position + 34]), crc16(blank[:190]))
    return Checksum(length, crc, intact) if intact or length == size else None


def follow(file: BinaryIO, start: int, end: int) -> Chain:
    """Follows a stream from header to header, finding sync again after damage.

    Args:
      file: seekable.
      start: byte to begin at.
      end: byte to stop before.
    """
    starts: array.array[int] = array.array("Q")
    gaps: list[int] = []
    foreign = 0
    kind = None
    behind = position = start  # `behind`: end of the last frame or tag
    base, data = start, b""
    while position < end:
        if position + _ROOM > base + len(data) and base + len(data) < end:
            # What was read already up to here is done with.
            data = data[position - base :] if position < base + len(data) else b""
            base = position
            file.seek(base + len(data))
            more = file.read(min(PIECE, end - base - len(data)))
            data += more
            if not more:
                break
        place = position - base
        frame = parse_frame(data, place)
        if frame is None:
            length = _measure_inner_tag(data[place : place + 32])
            if length and position == behind:
                behind = position = position + length
                continue
            found = find_frame(data, place + (position == behind))
            if found is None:
                if base + len(data) >= end:
                    break
                found = max(len(data) - _ROOM // 2, place + 1)
            position = base + found
            continue
        if kind is None:
            kind = frame.kind
        if position != behind:
            gaps.append(len(starts))
        if frame.kind != kind:
            foreign += 1
        elif not find_header(data, place, frame):
            starts.append(position)
        behind = position = position + frame.size
    missing = max(behind - end, 0) if starts else 0
    return Chain(starts, tuple(gaps), missing, foreign)


def _measure_inner_tag(data: bytes) -> int:
    """Bytes of a tag between two streams; 0 if none begins here."""
    return ID3V1 if data[:3] == b"TAG" else measure_tag(data)


def take_frames(data: bytes, starts: array.array[int], base: int = 0) -> bytes:
    """Puts frames together, without what lies between them.

    Args:
      data: bytes of a file from `base` on.
      starts: of frames, ascending.
      base: byte of the file.
    """
    parts = []
    for start in starts:
        frame = parse_frame(data, start - base)
        if frame is not None:
            parts.append(data[start - base : start - base + frame.size])
    return b"".join(parts)


def add_length(data: bytes) -> bytes:
    """Puts a Xing frame with the frame count before a bare stream.

    Args:
      data: frames, one behind the other.

    Returns:
      The same audio, whose length decoders then know.
    """
    frame = parse_frame(data, 0)
    if frame is None:
        raise ValueError(f"Expected an MPEG frame. Received: {data[:4].hex()}")
    count = position = 0
    following: Frame | None = frame
    while following is not None:
        count += 1
        position += following.size
        following = parse_frame(data, position)
    tag = struct.pack(">4sII", b"Xing", 1, count)
    header = data[:4] + bytes(frame.side_info) + tag
    if frame.size < len(header):
        return data
    return header + bytes(frame.size - len(header)) + data


def crc16(data: bytes | memoryview) -> int:
    """CRC-16 of a LAME tag: polynomial 0x8005, reflected, from 0.

    The polynomial is (x + 1)(x^15 + x + 1), whose powers of x have a period of
    2^15 - 1. So blocks of that many bytes, and then of that many bits, may be
    added up before anything is divided.
    """
    bits = np.unpackbits(_fold(np.frombuffer(data, np.uint8)), bitorder="little")
    if len(bits) > _PERIOD:
        bits = np.bitwise_xor.reduce(bits.reshape(8, _PERIOD), axis=0)
    remainders = _remainders()[_PERIOD - len(bits) :]
    return int(np.bitwise_xor.reduce(remainders * bits))


def _fold(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds up blocks of a period's bytes, (n,) to (32767,); keeps what is short."""
    if len(octets) * 8 <= _PERIOD:
        return octets
    length = -(-len(octets) // _PERIOD) * _PERIOD
    # Leading zeros change nothing.
    padded = np.zeros(length, np.uint8)
    padded[length - len(octets) :] = octets
    return np.asarray(np.bitwise_xor.reduce(padded.reshape(-1, _PERIOD), axis=0))


@functools.cache
def _remainders() -> NDArray[np.uint16]:
    """What each bit of a folded block adds to the checksum, (32767,)."""
    powers = np.empty(_PERIOD, np.uint16)
    value = 0x8000  # x^0, reflected
    for exponent in range(_PERIOD):
        powers[exponent] = value
        value = value >> 1 ^ (0xA001 if value & 1 else 0)
    # The first bit is of the highest power; a CRC multiplies all by x^16.
    exponents = np.arange(_PERIOD - 1, -1, -1) + 16
    return powers[exponents % _PERIOD]

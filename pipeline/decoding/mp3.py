"""MPEG audio streams, as far as needed to cut them without decoding them.

Two things libsndfile cannot do: find the middle of an hour-long file on an
object store without reading it, and tell the length of a variable-bit-rate
stream that has no Xing header (it stops at a guess).

Header layout: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3; Xing header: Gabriel
Bouvigne's "MP3 Infotag" description.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

from pipeline.common.clip_config import EXCERPT_SECONDS, MAX_CLIP_SECONDS
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.checksums import crc16

#: Read to find the first frame; ID3 tags with cover art are skipped by length.
HEAD_BYTES = 1 << 16
#: Files up to this size are counted to the last frame, where that is needed.
COUNTED_BYTES = 4 << 20
#: Seconds more than needed, since byte positions are estimates.
EXCERPT_MARGIN = 0.5
#: Share of what a header promises that must be there.
MIN_PRESENT = 0.95

#: First bytes of files whose samples may look like frames.
_OTHER_FORMATS = frozenset(
    [
        *(b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd"),
        *(b"fLaC", b"OggS"),
        # Matroska and WebM, ASF and WMA, FLV, WavPack, Monkey's Audio.
        *(b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"FLV\x01", b"wvpk", b"MAC "),
    ]
)
_KBPS_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44_100, 48_000, 32_000)


class Frame(NamedTuple):
    """A layer III frame's header: sizes in bytes, rate in Hz."""

    size: int
    samples: int
    sample_rate: int
    side_info: int


class Checksum(NamedTuple):
    """What a LAME tag says of the bytes of its stream.

    Attributes:
      length: of the stream, from its Xing frame on.
      crc: CRC-16 of the stream without the Xing frame.
    """

    length: int
    crc: int


class Stream(NamedTuple):
    """Where a file's audio lies.

    Attributes:
      start: byte of the first frame (the Xing frame, where there is one).
      frame: header of the first frame.
      frames: number of audio frames by the Xing header; None without.
      toc: Xing's table: byte position, in 256ths of the stream, of every
        percent of the duration; None without.
      size: bytes from `start` on, by the Xing header; None without.
      checksum: of the LAME tag, where it is intact; None without.
    """

    start: int
    frame: Frame
    frames: int | None
    toc: bytes | None
    size: int | None = None
    checksum: Checksum | None = None


class Survey(NamedTuple):
    """What following the headers of a stream finds.

    Attributes:
      frames: number of frames, the Xing frame included.
      gaps: places where no header is where one should be, but later again.
      missing: bytes that the last frame lacks.
    """

    frames: int
    gaps: int
    missing: int


def parse_frame(data: bytes, position: int) -> Frame | None:
    """Parses the four header bytes at `position`; None if they are no header."""
    if position + 4 > len(data):
        return None
    sync, second, third, fourth = data[position : position + 4]
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
    )


def find_frame(data: bytes, position: int = 0) -> int | None:
    """First position of two consecutive frames of one kind; None without."""
    while (position := data.find(b"\xff", position)) >= 0:
        frame = parse_frame(data, position)
        if frame is not None:
            following = parse_frame(data, position + frame.size)
            if following is not None and following[1:3] == frame[1:3]:
                return position
        position += 1
    return None


def read_stream(file: BinaryIO) -> Stream | None:
    """Finds the MPEG stream in a seekable file; None if there is none."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    offset = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        # Four bytes of seven bits each.
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        offset = 10 + size
        if offset + 4 > len(head):
            file.seek(offset)
            head = file.read(HEAD_BYTES)
        else:
            head = head[offset:]
    if head[:4] in _OTHER_FORMATS or head[4:8] == b"ftyp":
        return None
    start = find_frame(head)
    if start is None:
        return None
    frame = parse_frame(head, start)
    if frame is None:  # pragma: no cover - find_frame returns frames only
        return None
    return _parse_xing(head, start, offset, frame)


def _parse_xing(head: bytes, start: int, offset: int, frame: Frame) -> Stream:
    """Reads the Xing header of a first frame, and the LAME tag behind it."""
    bare = Stream(offset + start, frame, None, None)
    tag = start + 4 + frame.side_info
    if head[tag : tag + 4] not in (b"Xing", b"Info") or len(head) < tag + 120:
        return bare
    (flags,) = struct.unpack_from(">I", head, tag + 4)
    position = tag + 8
    frames = size = toc = None
    if flags & 1:
        (frames,) = struct.unpack_from(">I", head, position)
        position += 4
    if flags & 2:
        (size,) = struct.unpack_from(">I", head, position)
        position += 4
    if flags & 4:
        toc = head[position : position + 100]
        position += 100
    if flags & 8:
        position += 4
    checksum = _parse_lame(head[start : start + frame.size], position - start, size)
    return bare._replace(frames=frames, toc=toc, size=size, checksum=checksum)


def _parse_lame(frame: bytes, position: int, size: int | None) -> Checksum | None:
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
    if length != size and own not in (
        crc16(blank[: position + 34]),
        crc16(blank[:190]),
    ):
        return None
    return Checksum(length, crc)


def survey(data: bytes, limit: int | None = None) -> Survey:
    """Follows a stream from header to header, finding sync again after damage.

    Args:
      data: a stream.
      limit: of frames; None for all.
    """
    frames = gaps = end = 0
    position = find_frame(data)
    while position is not None and position < len(data) and frames != limit:
        frame = parse_frame(data, position)
        if frame is None:
            position = find_frame(data, position + 1)
            gaps += position is not None
            continue
        frames += 1
        position += frame.size
        end = position
    return Survey(frames, gaps, max(end - len(data), 0))


def count_frames(data: bytes) -> int:
    """Counts the frames of a stream, finding sync again after damage."""
    return survey(data).frames


def add_length(data: bytes) -> bytes:
    """Puts a Xing frame with the frame count before a bare stream.

    Args:
      data: bytes that begin with a frame, without a Xing header.

    Returns:
      The same audio, whose length decoders now know.
    """
    frame = parse_frame(data, 0)
    if frame is None:
        raise ValueError(f"Expected an MPEG frame. Received: {data[:4].hex()}")
    tag = struct.pack(">4sII", b"Xing", 1, count_frames(data))
    header = data[:4] + bytes(frame.side_info) + tag
    if frame.size < len(header):
        return data
    return header + bytes(frame.size - len(header)) + data


def prepare(file: BinaryIO, excerpt: str) -> BinaryIO:
    """Returns what a decoder should read of an audio file.

    Args:
      file: seekable, at any position; not necessarily MP3.
      excerpt: `middle` or `start`, for files over 31 s.

    Returns:
      An excerpt of some 30 s, read from the estimated bytes alone, for a longer
      MP3; a stream with its length in front for an MP3 without a Xing header;
      otherwise the file itself, rewound.

    Raises:
      AudioError: a longer MP3 ends before what its header places there.
    """
    stream = read_stream(file)
    if stream is not None:
        size = file.seek(0, io.SEEK_END)
        seconds = find_duration(file, stream, size)
        if seconds > MAX_CLIP_SECONDS:
            return io.BytesIO(_cut(file, stream, size, seconds, excerpt))
        if stream.frames is None:
            file.seek(stream.start)
            return io.BytesIO(add_length(file.read()))
    file.seek(0)
    return file


def announced_seconds(file: BinaryIO) -> float:
    """Length by the Xing header of an MP3; 0 where there is none."""
    stream = read_stream(file)
    if stream is None or stream.frames is None:
        return 0.0
    return stream.frames * stream.frame.samples / stream.frame.sample_rate


def find_duration(file: BinaryIO, stream: Stream, size: int) -> float:
    """Seconds of a file of `size` bytes: by its Xing header, or counted.

    Of a large file the first ones are counted, and their mean size stands for
    all: exact for a constant bit rate, an estimate for a variable one.
    """
    frame = stream.frame
    if stream.frames is not None:
        return stream.frames * frame.samples / frame.sample_rate
    file.seek(stream.start)
    small = size - stream.start <= COUNTED_BYTES
    sample = file.read(COUNTED_BYTES if small else HEAD_BYTES)
    mean_size = len(sample) / max(count_frames(sample), 1)
    return (size - stream.start) / mean_size * frame.samples / frame.sample_rate


def _cut(
    file: BinaryIO, stream: Stream, size: int, seconds: float, excerpt: str
) -> bytes:
    """Reads the frames of the excerpt, with their number in front."""
    length = EXCERPT_SECONDS + EXCERPT_MARGIN
    begin = (seconds - length) / 2 if excerpt == "middle" else 0.0
    first = _byte_at(stream, size, begin / seconds)
    last = _byte_at(stream, size, min((begin + length) / seconds, 1.0))
    file.seek(first)
    data = file.read(max(last - first, 0))  # A table may run backwards.
    # The positions are estimates: where the bit rate is higher, the same number
    # of bytes lasts less long.
    frames = int(length * stream.frame.sample_rate / stream.frame.samples)
    while 0 < (count := count_frames(data)) < frames:
        more = file.read((frames - count) * (len(data) // count + 1))
        if not more:
            break
        data += more
    if stream.frames is not None and count < MIN_PRESENT * frames:
        found = count * stream.frame.samples / stream.frame.sample_rate
        raise AudioError(
            Reason.TRUNCATED,
            f"announces {seconds:,.0f} s, but of the {length:g} s to be used it has "
            f"{found:.2f} s",
        )
    start = find_frame(data)
    if start is None:
        return data
    if first == stream.start and stream.frames is not None:
        start += stream.frame.size  # Xing's own frame tells the whole length.
    return add_length(data[start:])


def _byte_at(stream: Stream, size: int, share: float) -> int:
    """Byte position of a share of the duration."""
    if stream.toc is not None:
        percent = share * 100
        index = min(int(percent), 99)
        left = stream.toc[index]
        right = stream.toc[index + 1] if index < 99 else 256
        share = (left + (right - left) * (percent - index)) / 256
    return stream.start + int((size - stream.start) * share)

"""MP3 files: how long they are, their middle, and whether they are whole.

Three things libsndfile cannot do: find the middle of an hour-long file on an object
store without reading it; tell the length of a stream whose header does not know or
lies; and see that audio is missing, or follows behind the end that a header tells.
"""

from __future__ import annotations

import array
import dataclasses
import io
from typing import BinaryIO, NamedTuple

from pipeline.common.clip_config import EXCERPT_SECONDS, MAX_CLIP_SECONDS
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import damage, mpeg, tags
from pipeline.decoding.mpeg import Frame, find_frame, parse_frame

#: Read to find the first frame; tags and zeros in front of it are skipped.
HEAD_BYTES = 1 << 16
#: Zeros in front of the first frame that are skipped.
MAX_ZEROS = 16 << 20
#: Other bytes in front of it that are skipped, if so many frames follow each other.
MAX_JUNK, SURE_FRAMES = 1 << 20, 6
#: Files up to this size are followed to the last frame, where their length must be
#: found; larger ones only if their bit rate varies.
FOLLOWED_BYTES = 4 << 20
#: Places of a large file whose frames are looked at, and bytes of each.
PLACES, PLACE_BYTES = 16, 8_192
#: Seconds read behind an excerpt, for the decoder's delay.
EXCERPT_MARGIN = 0.5
#: Frames read in front of an excerpt. A frame's bits may begin up to 511 bytes before
#: it (ISO 11172-3, main_data_begin), in ten frames at 32 kbit/s; and the first one that
#: is decoded lacks the half of its samples that the one before it holds.
LEAD_FRAMES = 12
#: Share of what a header promises that must be there, and the other way round.
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
#: WAVE_FORMAT_MPEG and WAVE_FORMAT_MPEGLAYER3 (RFC 2361).
_MPEG_IN_WAV = (0x50, 0x55)
#: Boxes that an MP4 file may begin with.
_MP4_BOXES = frozenset([b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"])


class Stream(NamedTuple):
    """Where a file's audio lies, and what its header says of it.

    Attributes:
      start: byte of the first frame (the header's, where there is one).
      end: byte behind the last one, without the tags behind the audio.
      frame: header of the first frame that holds audio.
      audio: byte of that frame.
      header: `Xing`, `Info` or `VBRI`, if the first frame holds that in place of
        audio; else empty.
      frames: number of audio frames by that header; None where it does not say.
      size: bytes from `start` on, by that header; None where it does not say.
      checksum: of the LAME tag, where that is to be believed; None without.
    """

    start: int
    end: int
    frame: Frame
    audio: int
    header: bytes = b""
    frames: int | None = None
    size: int | None = None
    checksum: mpeg.Checksum | None = None


class Excerpt(io.BytesIO):
    """Frames of a longer MP3, which decoders take for a file.

    Attributes:
      seconds: length of the whole file.
      lead: samples in front that only help to decode the others.
    """

    def __init__(self, data: bytes, seconds: float, lead: int) -> None:
        super().__init__(data)
        self.seconds = seconds
        self.lead = lead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
    """How much audio a stream holds, measured by its frames.

    Attributes:
      stream: the stream.
      frames: number of audio frames.
      chain: all of them; None of a stream of constant bit rate, whose frames' places
        can be computed.
    """

    stream: Stream
    frames: int
    chain: mpeg.Chain | None

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.frames * self.stream.frame.seconds


def read_stream(file: BinaryIO) -> Stream | None:
    """Finds the MPEG stream in a seekable file; None if there is none."""
    return find_stream(file, *tags.find_audio(file))


def find_stream(file: BinaryIO, begin: int, end: int) -> Stream | None:
    """As `read_stream`, where it is known where the tags end and begin."""
    file.seek(begin)
    head = file.read(min(HEAD_BYTES, max(end - begin, 0)))
    if (inner := _find_in_wav(file, begin, end, head)) is not None:
        begin, end = inner
        file.seek(begin)
        head = file.read(min(HEAD_BYTES, end - begin))
    if head[:4] in _OTHER_FORMATS or head[4:8] in _MP4_BOXES:
        return None
    for _ in range(MAX_ZEROS // HEAD_BYTES):
        if head.strip(b"\0") or not head:
            break
        begin += len(head)
        head = file.read(min(HEAD_BYTES, end - begin))
    start = find_frame(head)
    if start is None:
        file.seek(begin)
        start = find_frame(file.read(min(MAX_JUNK, end - begin)), 0, SURE_FRAMES)
    if start is None:
        return None
    if start:  # A header needs all of its frame.
        begin += start
        file.seek(begin)
        head = file.read(min(HEAD_BYTES, end - begin))
    frame = parse_frame(head, 0)
    if frame is None:  # pragma: no cover - find_frame returns frames only
        return None
    header = mpeg.read_header(head, frame)
    if header is None:
        return Stream(begin, end, frame, begin)
    # The bit rate of the first frame may be its own.
    second = parse_frame(head, frame.size) or frame
    return Stream(begin, end, second, begin + frame.size, *header)


def _find_in_wav(
    file: BinaryIO, begin: int, end: int, head: bytes
) -> tuple[int, int] | None:
    """Where an MPEG stream lies in a WAV, whose length libsndfile only guesses.

    Raises:
      AudioError: it has less than the WAV's header promises.
    """
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return None
    wav = tags.take(file, begin, end)
    form = damage.find_riff_chunk(wav, b"fmt ")
    if form is None:
        return None
    wav.seek(form[0])
    if int.from_bytes(wav.read(2), "little") not in _MPEG_IN_WAV:
        return None
    audio = damage.find_riff_chunk(damage.check_length(wav), b"data")
    return None if audio is None else (begin + audio[0], begin + sum(audio))


def measure(file: BinaryIO, stream: Stream) -> Measure:
    """Measures a stream: by following its frames, or by their constant size.

    Raises:
      AudioError: its bit rate varies, and it is too long to be followed.
    """
    length = stream.end - stream.audio
    if length > FOLLOWED_BYTES:
        for end in (stream.end, min(stream.start + (stream.size or 0), stream.end)):
            if end > stream.audio and _is_constant(file, stream, end):
                frames = round((end - stream.audio) / stream.frame.mean_size)
                return Measure(stream=stream, frames=frames, chain=None)
        if length > mpeg.MAX_FOLLOWED_BYTES:
            raise AudioError(
                Reason.TOO_LARGE,
                f"has {length:,} bytes of a bit rate that varies; up to "
                f"{mpeg.MAX_FOLLOWED_BYTES:,} are followed",
            )
    chain = mpeg.follow(file, stream.start, stream.end)
    return Measure(stream=stream, frames=len(chain.starts), chain=chain)


def _is_constant(file: BinaryIO, stream: Stream, end: int) -> bool:
    """Whether all frames up to `end` are of one size, and none follow.

    An intact header that fits to the byte proves it; else frames at many places.
    """
    frame, length = stream.frame, end - stream.audio
    if stream.checksum is not None and stream.checksum.intact and stream.frames:
        off = stream.frames * frame.mean_size - length
        if end == stream.end and abs(off) < 2 * frame.mean_size:
            return True
    for place in range(PLACES):
        start = stream.audio + (length - PLACE_BYTES) * place // (PLACES - 1)
        file.seek(start)
        data = file.read(PLACE_BYTES)
        position = find_frame(data)
        if position is None or position > 2 * frame.mean_size + 1:
            return False
        while position <= len(data) - 4:
            found = parse_frame(data, position)
            if found is None or found.kbps != frame.kbps or found.kind != frame.kind:
                return False
            position += found.size
    file.seek(end)
    behind = file.read(min(PLACE_BYTES, stream.end - end))
    return find_frame(behind) is None


def prepare(file: BinaryIO, excerpt: str, *, checksums: bool = True) -> BinaryIO:
    """Returns what a decoder should read of an audio file.

    Args:
      file: seekable, at any position; not necessarily MP3.
      excerpt: `middle` or `start`, for files over 31 s.
      checksums: look at them; else only at the order of the frames.

    Returns:
      An `Excerpt` of some 30 s, read from its bytes alone, for a longer MP3; a
      stream with its length in front for an MP3 whose header does not know it;
      otherwise the file itself, rewound, without tags and what else is in front.

    Raises:
      AudioError: the MP3 is damaged, or is not as long as its header says.
    """
    if isinstance(file, Excerpt):
        file.seek(0)
        return file
    begin, end = tags.find_audio(file)
    stream = find_stream(file, begin, end)
    if stream is None:
        return tags.strip_to(file, begin, end)
    if _is_as_announced(file, stream, checksums):
        return tags.strip_to(file, stream.start, stream.end)
    found = measure(file, stream)
    check_announced(found)
    if found.seconds > MAX_CLIP_SECONDS:
        first = (found.seconds - EXCERPT_SECONDS) / 2 if excerpt == "middle" else 0.0
        return cut(file, found, first)
    if _is_believed(found) and stream.header != b"VBRI":
        return tags.strip_to(file, stream.start, stream.end)
    return io.BytesIO(mpeg.add_length(_take(file, found, 0, found.frames)))


def _is_as_announced(file: BinaryIO, stream: Stream, checksums: bool) -> bool:
    """Whether a checksum says that a clip is what its intact header announces."""
    checksum = stream.checksum
    if checksum is None or stream.frames is None or not checksums:
        return False
    length = stream.end - stream.start
    header = stream.audio - stream.start
    fits = header < checksum.length <= length
    if not fits or stream.frames * stream.frame.seconds > MAX_CLIP_SECONDS:
        return False
    if length > FOLLOWED_BYTES and checksum.length < MIN_PRESENT * length:
        return False
    file.seek(stream.audio)
    data = file.read(checksum.length - header)
    if mpeg.crc16(data) != checksum.crc:
        raise AudioError(
            Reason.CHECKSUM,
            "its audio is not that of the checksum in its LAME tag: damaged, or "
            "edited after it was encoded (--ignore_checksums)",
        )
    return checksum.intact and checksum.length >= MIN_PRESENT * length


def _is_believed(found: Measure) -> bool:
    """Whether a header's number of frames is about the one that there is."""
    announced = found.stream.frames
    return announced is not None and announced >= MIN_PRESENT * found.frames


def check_announced(found: Measure) -> None:
    """Holds what was measured against what the header announces.

    Raises:
      AudioError: the stream is truncated or damaged, or several follow each other
        that make no whole.
    """
    stream, announced = found.stream, found.stream.frames
    seconds = stream.frame.seconds
    chain = found.chain
    short = found.seconds <= MAX_CLIP_SECONDS
    believed = _is_believed(found)
    if chain is not None:
        if chain.foreign * seconds > (1 - MIN_PRESENT) * found.seconds:
            raise AudioError(
                Reason.MIXED,
                f"{chain.foreign} of its {chain.foreign + found.frames} frames have "
                "another sampling rate or number of channels than the first",
            )
        limit = announced if believed and announced is not None else found.frames
        gaps = sum(number < limit for number in chain.gaps)
        if gaps and announced is not None and not believed:
            raise AudioError(
                Reason.UNANNOUNCED,
                f"its header announces {announced * seconds:.2f} s, but behind other "
                f"bytes more audio follows, {found.seconds:.2f} s in all",
            )
        if gaps and short:
            times = "once" if gaps == 1 else f"{gaps} times"
            raise AudioError(Reason.CORRUPT, f"the chain of its frames breaks {times}")
    if announced is None:
        if chain is not None and chain.missing and short:
            raise AudioError(
                Reason.TRUNCATED,
                f"its last frame lacks {chain.missing} bytes, and no header tells "
                "how many frames there were",
            )
    elif found.frames < MIN_PRESENT * announced:
        raise AudioError(
            Reason.TRUNCATED,
            f"has {found.seconds:.2f} s of the announced {announced * seconds:.2f} s",
        )


def cut(file: BinaryIO, found: Measure, first: float) -> Excerpt:
    """Some 30 s from second `first` on.

    Raises:
      AudioError: they are damaged.
    """
    frame = found.stream.frame
    index = int(first / frame.seconds)
    count = int((EXCERPT_SECONDS + EXCERPT_MARGIN) / frame.seconds) + 1
    lead = min(index, LEAD_FRAMES)
    data = mpeg.add_length(_take(file, found, index - lead, lead + count))
    return Excerpt(data, found.seconds, lead * frame.samples)


def _take(file: BinaryIO, found: Measure, index: int, count: int) -> bytes:
    """Frames of a stream, without what lies between them."""
    stream = found.stream
    if found.chain is not None:
        starts = found.chain.starts[index : index + count]
        file.seek(starts[0])
        data = file.read(starts[-1] - starts[0] + 4)
        last = parse_frame(data, starts[-1] - starts[0])
        data += file.read(last.size - 4 if last is not None else 0)
        gaps = sum(index < number <= index + count for number in found.chain.gaps)
        data = mpeg.take_frames(data, starts, starts[0])
    else:
        data, gaps = _take_computed(file, stream, index, count)
    if gaps:
        times = "once" if gaps == 1 else f"{gaps} times"
        raise AudioError(
            Reason.CORRUPT,
            f"the chain of its frames breaks {times} in the part to be used",
        )
    return data


def _take_computed(
    file: BinaryIO, stream: Stream, index: int, count: int
) -> tuple[bytes, int]:
    """Frames of a stream of constant bit rate, and the gaps between them."""
    mean = stream.frame.mean_size
    first = stream.audio + int(index * mean)
    file.seek(first)
    data = file.read(min(int((count + 2) * mean), stream.end - first))
    start = find_frame(data)
    if start is None:
        return b"", 1
    chain = mpeg.follow(io.BytesIO(data), start, len(data))
    starts: array.array[int] = chain.starts[:count]
    gaps = sum(number < len(starts) for number in chain.gaps)
    return mpeg.take_frames(data, starts), gaps

"""Holds what a file says of itself against its bytes, without decoding it.

Decoders are made to play on: libsndfile takes the rest of a truncated WAV for
the whole, and a damaged frame sounds like any other. Lengths in headers, the
marks at a stream's end and the checksums that some formats carry know better.

RIFF, RF64, W64, AIFF, AU and CAF tell the number of bytes; Ogg has a mark at
its end and a checksum a page (RFC 3533); MP3 has them in a LAME tag, which ffmpeg
writes too, or at least the chain of its frames.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

from pipeline.common.clip_config import MAX_CLIP_SECONDS
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import mp3
from pipeline.decoding.checksums import crc16, ogg_crc

#: Chunks before the audio of a file.
_MAX_CHUNKS = 1_000
#: What a program writes for a length that it does not know when it starts.
_UNKNOWN = 0x7FFF_F000
_OGG_HEADER = 27
_OGG_END = 4  # flag of a stream's last page


class _Chunks(NamedTuple):
    """How a format frames its chunks.

    Attributes:
      start: byte of the first one.
      name: bytes of a chunk's name.
      size: struct format of the size behind it.
      align: chunks begin at multiples of this.
      inclusive: bytes of its own header that a chunk's size counts.
      audio: name of the chunk with the audio.
    """

    start: int
    name: int
    size: str
    align: int
    inclusive: int
    audio: bytes


_W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_FORMATS = {
    b"RIFF": _Chunks(12, 4, "<I", 2, 0, b"data"),
    b"RIFX": _Chunks(12, 4, ">I", 2, 0, b"data"),
    b"RF64": _Chunks(12, 4, "<I", 2, 0, b"data"),
    b"FORM": _Chunks(12, 4, ">I", 2, 0, b"SSND"),
    b"caff": _Chunks(8, 4, ">q", 1, 0, b"data"),
    b"riff": _Chunks(40, 16, "<Q", 8, 24, b"data" + _W64),
}


def check_length(file: BinaryIO) -> None:
    """Refuses a file that has less audio than its header promises.

    Args:
      file: seekable; of a format without such a header it is left alone.

    Raises:
      AudioError: it is truncated.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    if magic == b".snd":
        found = _find_au_audio(file)
    elif magic in _FORMATS:
        found = _find_chunk(file, size, _FORMATS[magic])
    else:
        return
    if found is None:
        return
    start, promised = found
    present = max(size - start, 0)
    if present < mp3.MIN_PRESENT * promised:
        raise AudioError(
            Reason.TRUNCATED,
            f"has {present:,} of the {promised:,} bytes of audio that its header "
            "promises",
        )


def _find_au_audio(file: BinaryIO) -> tuple[int, int] | None:
    header = file.read(8)
    if len(header) < 8:
        return None
    start, promised = struct.unpack(">II", header)
    return None if promised >= _UNKNOWN else (start, promised)


def _find_chunk(
    file: BinaryIO, file_size: int, chunks: _Chunks
) -> tuple[int, int] | None:
    """Where the audio starts, and its promised size; None where it does not say."""
    position, long_size = chunks.start, None
    width = chunks.name + struct.calcsize(chunks.size)
    for _ in range(_MAX_CHUNKS):
        # Sizes of 64 bits may lead to where no file system can go.
        file.seek(min(position, file_size))
        header = file.read(width)
        if len(header) < width:
            return None
        name = header[: chunks.name]
        (size,) = struct.unpack(chunks.size, header[chunks.name :])
        size -= chunks.inclusive
        if name == b"ds64":  # RF64 has its sizes of 64 bits here: file, then audio.
            sizes = file.read(16)
            long_size = int.from_bytes(sizes[8:], "little")
        if name == chunks.audio:
            if size == 0xFFFF_FFFF and long_size:
                return position + width, long_size
            unknown = size < 0 or _UNKNOWN <= size <= 0xFFFF_FFFF
            return None if unknown else (position + width, size)
        if size < 0:
            return None
        position += width + size
        position += -position % chunks.align
    return None


def check_content(file: BinaryIO, *, checksums: bool = True) -> None:
    """Refuses a clip whose checksums, or whose order, show that it is damaged.

    MP3s over 31 s are left alone: only a part of them is used.

    Args:
      file: seekable.
      checksums: look at them; else only at the order of the frames.

    Raises:
      AudioError: it is damaged or truncated.
    """
    stream = mp3.read_stream(file)
    if stream is None:
        return
    size = file.seek(0, io.SEEK_END)
    if mp3.find_duration(file, stream, size) > MAX_CLIP_SECONDS:
        return
    file.seek(stream.start)
    data = file.read(mp3.COUNTED_BYTES)
    checksum = stream.checksum if checksums else None
    if checksum is not None and stream.frame.size < checksum.length <= len(data):
        audio = memoryview(data)[stream.frame.size : checksum.length]
        if crc16(audio) != checksum.crc:
            raise AudioError(
                Reason.CHECKSUM,
                "its audio is not that of the checksum in its LAME tag: damaged, or "
                "edited after it was encoded (--ignore_checksums)",
            )
        return
    # What follows the announced frames, decoders leave alone.
    limit = None if stream.frames is None else stream.frames + 1
    _check_frames(stream, mp3.survey(data, limit))


def _check_frames(stream: mp3.Stream, survey: mp3.Survey) -> None:
    """Holds the frames of a stream against their number in its header."""
    if survey.gaps:
        times = "once" if survey.gaps == 1 else f"{survey.gaps} times"
        raise AudioError(Reason.CORRUPT, f"the chain of its frames breaks {times}")
    frame = stream.frame
    if stream.frames is None:
        if survey.missing:
            raise AudioError(
                Reason.TRUNCATED,
                f"its last frame lacks {survey.missing} bytes, and no header tells "
                "how many frames there were",
            )
        return
    found = survey.frames - 1  # without Xing's own
    if found < mp3.MIN_PRESENT * stream.frames:
        seconds = frame.samples / frame.sample_rate
        raise AudioError(
            Reason.TRUNCATED,
            f"has {found * seconds:.2f} s of the announced "
            f"{stream.frames * seconds:.2f} s",
        )


def check_ogg(data: bytes) -> None:
    """Refuses an Ogg file with a damaged page or without an end.

    Args:
      data: of the whole file; of another format it is left alone.

    Raises:
      AudioError: it is damaged or truncated.
    """
    position, ended = 0, True
    while data.startswith(b"OggS", position):
        header = data[position : position + _OGG_HEADER]
        # The last byte counts those that add up to the length of the content.
        content = position + _OGG_HEADER + (header[26] if len(header) > 26 else 0)
        end = content + sum(data[position + _OGG_HEADER : content])
        if end > len(data) or len(header) < _OGG_HEADER:
            ended = False
            break
        page = data[position:end]
        (crc,) = struct.unpack_from("<I", page, 22)
        if ogg_crc(page[:22] + bytes(4) + page[26:]) != crc:
            raise AudioError(
                Reason.CHECKSUM,
                f"the Ogg page at byte {position:,} is not what its checksum says",
            )
        ended = bool(page[5] & _OGG_END)
        position = end
    if position and data.find(b"OggS", position + 1) >= 0:
        raise AudioError(
            Reason.CORRUPT, f"byte {position:,} should be an Ogg page, and is not"
        )
    if not ended:
        raise AudioError(
            Reason.TRUNCATED, "ends before the page that marks the end of Ogg streams"
        )

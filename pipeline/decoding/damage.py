"""Holds what a file says of itself against its bytes, without decoding it.

Decoders are made to play on: libsndfile takes the rest of a truncated WAV for
the whole, and a damaged frame sounds like any other. Lengths in headers, the
marks at a stream's end and the checksums that some formats carry know better.

RIFF, RF64, W64, AIFF, AU and CAF tell the number of bytes. For FLAC see `flac`, for MP3
`mp3`, for Ogg `ogg`.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, NamedTuple

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import flac, tags

#: Chunks before the audio of a file.
_MAX_CHUNKS = 1_000
#: Share of what a header promises that must be there, and the other way round.
MIN_PRESENT = 0.95
#: In Hz; beyond telephone and studio.
SAMPLE_RATES = (4_000, 192_000)
MAX_CHANNELS = 8
#: A program that does not know a length when it starts writes zero, or a size of 32
#: bits from here on: 2e9, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, ...
UNKNOWN_SIZE = 2_000_000_000
#: The same for sizes of 64 bits: no file is as large.
UNKNOWN_LONG_SIZE = 1 << 48
#: Looked at behind the audio.
BEHIND_BYTES = 1 << 16


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


class _Audio(NamedTuple):
    """What a header says of its audio.

    Attributes:
      start: its first byte.
      size: in bytes, as the header has it.
      field: byte of that size in the file.
      form: struct format of that size.
      inclusive: bytes more that the field counts.
    """

    start: int
    size: int
    field: int
    form: str
    inclusive: int


#: The largest size of audio that fits into 32 bits of a file's own size, too.
_MOST = 0xFFFF_0000
_W64 = bytes.fromhex("f3acd3118cd100c04f8edb8a")
#: First bytes of files, which are not names of chunks.
FILE_NAMES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"riff", b"fLaC", b"OggS")
_FORMATS = {
    b"RIFF": _Chunks(12, 4, "<I", 2, 0, b"data"),
    b"RIFX": _Chunks(12, 4, ">I", 2, 0, b"data"),
    b"RF64": _Chunks(12, 4, "<I", 2, 0, b"data"),
    b"FORM": _Chunks(12, 4, ">I", 2, 0, b"SSND"),
    b"caff": _Chunks(8, 4, ">q", 1, 0, b"data"),
    b"riff": _Chunks(40, 16, "<Q", 8, 24, b"data" + _W64),
}


def check_format(sample_rate: int, channels: int) -> None:
    """Refuses what no music has, before memory is taken for it."""
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise AudioError(
            Reason.SAMPLE_RATE,
            f"has {sample_rate:,} samples a second; {low:,} to {high:,} are expected",
        )
    if channels > MAX_CHANNELS:
        raise AudioError(
            Reason.CHANNELS,
            f"has {channels} channels; at most {MAX_CHANNELS} are expected",
        )


def check_length(file: BinaryIO) -> BinaryIO:
    """Refuses a file that has less audio than its header promises, or much more.

    Args:
      file: seekable, without tags; of a format without such a header it is left
        alone.

    Returns:
      What a decoder should read: the file, at any position, or, where its header
      does not know the size, one that says it.

    Raises:
      AudioError: it is truncated, or more audio follows.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(4)
    if magic == b"fLaC":
        flac.check_length(file, size)
        return file
    if magic == b".snd":
        found = _find_au_audio(file)
    elif magic == b"RIFF" and file.read(8)[4:] == b"AVI ":
        _check_avi(file, size)
        return file
    elif magic in _FORMATS:
        _check_frames(file, size, magic)
        found = _find_chunk(file, size, _FORMATS[magic])
    else:
        return file
    if found is None:
        return file
    start = found.start
    present = max(size - start, 0)
    promised = known_size(found.size, present, long=found.form.endswith(("q", "Q")))
    if promised is None:
        length = struct.pack(found.form, min(present + found.inclusive, _MOST))
        return tags.take(file, 0, size, patch=(found.field, length))
    if present < MIN_PRESENT * promised:
        raise AudioError(
            Reason.TRUNCATED,
            f"has {present:,} of the {promised:,} bytes of audio that its header "
            "promises",
        )
    chunks = _FORMATS.get(magic)
    behind = start + promised
    behind += -behind % (chunks.align if chunks is not None else 1)
    if chunks is not None and behind < size:
        another = _find_chunk(file, size, chunks._replace(start=behind))
        if another is not None:
            raise AudioError(
                Reason.UNANNOUNCED,
                f"holds audio twice, at byte {start:,} and at byte {another.start:,}; "
                "decoders take one of them",
            )
    if promised < max(MIN_PRESENT * present, present - BEHIND_BYTES):
        _check_behind(file, behind, size, promised)
    return file


def find_riff_chunk(file: BinaryIO, name: bytes) -> tuple[int, int] | None:
    """First byte and size of what a chunk of a WAV holds, as far as it is there."""
    size = file.seek(0, io.SEEK_END)
    found = _find_chunk(file, size, _FORMATS[b"RIFF"]._replace(audio=name))
    return None if found is None else (found.start, min(found.size, size - found.start))


def _check_frames(file: BinaryIO, size: int, magic: bytes) -> None:
    """Refuses a WAV of other channels than its bytes a frame and a second both say."""
    chunks = _FORMATS[magic]
    found = _find_chunk(file, size, chunks._replace(audio=b"fmt " + chunks.audio[4:]))
    if found is None or magic in (b"FORM", b"caff"):
        return
    file.seek(found.start + 2)
    fields = struct.unpack(f"{chunks.size[0]}HIIHH", file.read(14).ljust(14, b"\0"))
    announced = find_channels(*fields)
    if announced != fields[0]:
        raise AudioError(
            Reason.CHANNELS,
            f"has as many channels as its header says ({fields[0]}), or as its "
            f"{fields[3]} bytes a frame of {fields[4]} bits say ({announced})",
        )


def find_channels(channels: int, rate: int, second: int, frame: int, bits: int) -> int:
    """The channels of a WAV as its other fields say it, if all of them do.

    One alone is often wrong. `trainer.export.graph_wav` has the same rule.

    Args:
      channels: what the header says.
      rate: frames a second.
      second: bytes of them.
      frame: bytes of one; some programs mean bits, or have 24 of them in four bytes.
      bits: of a sample.
    """
    width = bits // 8
    usual = (channels * bits, channels * (4 if bits == 24 else width))
    if not width or bits % 8 or frame % width or second != rate * frame:
        return channels
    found = frame // width
    return found if 0 < found <= MAX_CHANNELS and frame not in usual else channels


def _check_avi(file: BinaryIO, size: int) -> None:
    """Holds a file's length against the size of all that its header announces."""
    file.seek(0)
    promised = avi_size(file.read(12), size)
    if promised is not None and size - 8 < MIN_PRESENT * promised:
        raise AudioError(
            Reason.TRUNCATED,
            f"has {size:,} of the {promised + 8:,} bytes that its header promises",
        )


def avi_size(head: bytes, size: int) -> int | None:
    """Bytes behind the first 8 that an AVI announces; None if it does not know.

    Args:
      head: 12 bytes of a file.
      size: bytes of the whole file.
    """
    return known_size(int.from_bytes(head[4:8], "little"), size - 8)


def known_size(size: int, present: int, *, long: bool = False) -> int | None:
    """The size that a header tells for its audio; None if it only means "unknown".

    `trainer.export.graph_audio` has the same rule as TensorFlow operations.

    Args:
      size: what the header says, in bytes.
      present: bytes from the audio's start to the end of the file.
      long: the header has 64 bits for it.
    """
    if size <= 0 or (size > present and size >= UNKNOWN_SIZE and not long):
        return None
    return None if size > present and size >= UNKNOWN_LONG_SIZE else size


def _check_behind(file: BinaryIO, start: int, end: int, promised: int) -> None:
    """Refuses what stands behind the audio, unless it is a chunk, a tag or zeros."""
    file.seek(start)
    data = file.read(min(BEHIND_BYTES, end - start))
    name, left = data[:4], end - start
    is_chunk = (
        len(data) >= 8
        and all(0x20 <= byte <= 0x7E for byte in name)
        and name not in FILE_NAMES
        and min(int.from_bytes(data[4:8], order) for order in ("little", "big")) <= left
    )
    if is_chunk or not data.strip(b"\0"):
        return
    # Behind a tag, another file may follow.
    length = tags.measure_tag(data)
    if length and left - length <= max(BEHIND_BYTES, len(data) - length):
        return
    raise AudioError(
        Reason.UNANNOUNCED,
        f"its header promises {promised:,} bytes of audio, but {left:,} bytes follow "
        "that are no chunk",
    )


def _find_au_audio(file: BinaryIO) -> _Audio | None:
    header = file.read(8)
    if len(header) < 8:
        return None
    start, promised = struct.unpack(">II", header)
    return _Audio(start, promised, 8, ">I", 0)


def _find_chunk(file: BinaryIO, file_size: int, chunks: _Chunks) -> _Audio | None:
    """Where the audio starts, and its promised size."""
    position, long_size, long_field = chunks.start, None, 0
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
            long_size, long_field = int.from_bytes(sizes[8:], "little"), position + 16
        if name == chunks.audio:
            if size == 0xFFFF_FFFF and long_size is not None:
                return _Audio(position + width, long_size, long_field, "<Q", 0)
            field = position + chunks.name
            start = position + width
            return _Audio(start, size, field, chunks.size, chunks.inclusive)
        if size < 0:
            return None
        position += width + size
        position += -position % chunks.align
    return None

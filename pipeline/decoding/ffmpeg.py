"""Decoding by ffmpeg, from the imageio-ffmpeg wheel, and pydub.

pydub's own call of ffmpeg takes no options for the input. Here ffmpeg is started
with those that make it safe for files of unknown origin, and pydub reads the WAV
that it writes.

ffmpeg seeks, and so reads a copy in the temporary folder: a file without a name, of
`MAX_SOURCE_BYTES` at most, which is gone with the last process that has it open,
however that ends. What ffmpeg writes comes through a pipe.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import damage

with warnings.catch_warnings():
    # At import pydub looks for ffmpeg on the PATH and warns if there is none.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

#: A larger file is not copied to the temporary folder.
MAX_SOURCE_BYTES = 1 << 30
#: Ten minutes of decoded stereo take 200 MB; of a longer file parts are decoded.
WHOLE_SECONDS = 600
#: Many channels at a high rate end sooner. It is held three times for a moment.
MAX_BYTES = 1 << 29
#: Of a list of packets: some 60 a packet, for six hours of video or ten of audio.
MAX_LIST_BYTES = 1 << 27
#: Seconds decoded before a part, so that the decoder knows what came before it.
PREROLL = 1
#: Ten minutes of music take 2 s to decode.
TIME_LIMIT = 15.0
#: Crashes before a file is given up. A process also dies when others have used up the
#: memory, or when all are asked to end, which is not the file's fault.
ATTEMPTS = 2
#: Levels up to this many times full scale survive in the 32 bits decoded to.
HEADROOM = 32
#: What full scale becomes.
FULL_SCALE = (1 << 31) // HEADROOM
#: Share of what a container announces that a stream must reach.
_REACHED = 0.95
#: Flag of packets that are not to be heard.
_DISCARD = 4

#: Formats whose files hold the audio themselves. Playlists (HLS, DASH, concat,
#: SDP) do not: they name other files or addresses, and ffmpeg would open them.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,iff,loas,matroska,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,ogg,oma,tak,tta,w64,wav,wv"
)
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (-?[\d.]+))?")
_ERROR = re.compile(r"^((?:\[[^]]+\] )*)\[(?:error|fatal|panic)\] (.*)", re.MULTILINE)
_CODEC = re.compile(r"^\[info\]   Stream #0:(\d+)\S*: (\w+): (\w+)", re.MULTILINE)
_PICTURE = re.compile(r"picture|APIC|attached|cover art", re.IGNORECASE)
_OTHER_STREAM = re.compile(r"\bstream (\d+)\b")
#: What ffmpeg says last, before exit code 255, if a signal ends it that it handles.
_SIGNAL = re.compile(r"^\[info\] Exiting normally, received signal (\d+)\.$", re.M)

#: From a file's frames and their rate in Hz to the parts to decode: the first frame
#: and the number of frames of each.
Place = Callable[[int, int], Sequence[tuple[int, int]]]


class FfmpegError(Exception):
    """ffmpeg finds no audio in a file; the message is ffmpeg's own last line."""


class Decoding(NamedTuple):
    """What ffmpeg made of a file, or of a part of it.

    Attributes:
      frames: shape (n, channels), int32; `FULL_SCALE` is full scale.
      sample_rate: in Hz.
      announced: seconds of audio that should be in the file, by its header or by
        its packets; 0 if neither tells.
      errors: what ffmpeg reports of the audio and goes on after.
      total: frames of the whole file.
    """

    frames: NDArray[np.int32]
    sample_rate: int
    announced: float
    errors: tuple[str, ...]
    total: int


class _Packets(NamedTuple):
    """What a container holds, without decoding it.

    Attributes:
      stream: index of the first audio stream.
      others: names of the codecs of other streams.
      first: second at which the audio begins.
      seconds: length of the audio.
      sample_rate: in Hz.
      announced: seconds of audio that should be there.
    """

    stream: int
    others: frozenset[str]
    first: float
    seconds: float
    sample_rate: int
    announced: float


def scale(frames: NDArray[np.int32]) -> NDArray[np.float32]:
    """Integers of a `Decoding` as float32, full scale 1."""
    samples = frames.astype(np.float32)
    samples /= np.float32(FULL_SCALE)
    return samples


def decode_parts(file: BinaryIO, place: Place) -> Iterator[Decoding]:
    """Decodes parts of the first audio stream of a file, and says how that went.

    Args:
      file: seekable.
      place: where the parts lie, once the length is known.

    Raises:
      FfmpegError: there is no audio that ffmpeg can decode.
      AudioError: ffmpeg crashes, or takes longer than `TIME_LIMIT`; the file is too
        large, or the temporary folder too small.
    """
    with _copy(file) as source:
        packets = _measure(source)
        if packets.seconds <= WHOLE_SECONDS:
            frames, rate, errors = _decode(source, packets)
            if frames.nbytes < 0.99 * MAX_BYTES:
                for start, length in place(len(frames), rate):
                    part = frames[start : start + length]
                    yield Decoding(part, rate, packets.announced, errors, len(frames))
                return
            del frames
        rate = packets.sample_rate
        total = round(packets.seconds * rate)
        for start, length in place(total, rate):
            frames, _, errors = _decode(source, packets, start, length)
            yield Decoding(frames, rate, packets.announced, errors, total)


@contextlib.contextmanager
def _copy(file: BinaryIO) -> Iterator[BinaryIO]:
    """A copy that ffmpeg can seek in, and that nobody has to remove."""
    size = file.seek(0, 2)
    if size > MAX_SOURCE_BYTES:
        raise AudioError(
            Reason.TOO_LARGE,
            f"libsndfile cannot read it, and for ffmpeg its {size:,} bytes are too "
            f"many; up to {MAX_SOURCE_BYTES:,} are copied",
        )
    file.seek(0)
    with contextlib.ExitStack() as stack:
        with _writing(size):
            copy = stack.enter_context(tempfile.TemporaryFile(prefix="decode-"))
        while piece := file.read(1 << 20):
            with _writing(size):
                copy.write(piece)
        with _writing(size):
            copy.flush()
        yield cast(BinaryIO, copy)


@contextlib.contextmanager
def _writing(size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "the temporary folder"
        raise AudioError(
            Reason.NO_SPACE,
            f"{folder} does not take its {size:,} bytes for ffmpeg ("
            f"{error.strerror}); make room there, or set TMPDIR to another folder",
        ) from error


def _measure(source: BinaryIO) -> _Packets:
    """Looks at all packets of a container."""
    output = ["-ignore_unknown", "-c", "copy", "-fs", str(MAX_LIST_BYTES)]
    output += ["-f", "framecrc", "pipe:1"]
    try:
        listed, log = _run(source, [], ["-map", "0", *output])
    except FfmpegError as error:
        if "opening input" in str(error):
            raise
        # Another stream may be what is wrong.
        listed, log = _run(source, [], ["-map", "0:a:0", *output])
    if len(listed) > 0.99 * MAX_LIST_BYTES:
        raise AudioError(Reason.TOO_LARGE, "has more packets than can be listed")
    codecs = _CODEC.findall(log.partition("Stream mapping:")[0])
    indices = [int(index) for index, kind, _ in codecs if kind == "Audio"]
    units: dict[int, float] = {}
    rates: dict[int, int] = {}
    kinds: list[int] = []
    ends: dict[int, float] = {}
    begins: dict[int, float] = {}
    for line in listed.splitlines():
        if line.startswith(b"#"):
            name, _, value = line.decode(errors="replace")[1:].partition(": ")
            key, _, stream = name.partition(" ")
            if key == "tb":
                numerator, _, denominator = value.partition("/")
                units[int(stream)] = int(numerator) / int(denominator)
            elif key == "media_type" and value == "audio":
                kinds.append(int(stream))
            elif key == "sample_rate":
                rates[int(stream)] = int(value)
            continue
        fields = line.split(b",")
        if len(fields) < 6 or any(_is_discarded(field) for field in fields[6:]):
            continue
        index = int(fields[0])
        begin = int(fields[2]) * units[index]
        begins.setdefault(index, begin)
        ends[index] = max(ends.get(index, 0.0), begin + int(fields[3]) * units[index])
    audio = min(kinds, default=-1)
    if audio not in ends or not rates.get(audio):
        raise FfmpegError(_last_error(log))
    first = max(begins[audio], 0.0)
    announced = _announced_seconds(source, log)
    # A container may last longer than its audio, but not than all of its streams.
    if max(ends.values()) >= _REACHED * announced:
        announced = ends[audio] - first
    return _Packets(
        stream=indices[0] if indices else 0,
        others=frozenset(name for _, kind, name in codecs if kind != "Audio"),
        first=first,
        seconds=ends[audio] - first,
        sample_rate=rates[audio],
        announced=announced,
    )


def _is_discarded(field: bytes) -> bool:
    found = field.strip()
    return found.startswith(b"F=0x") and bool(int(found[2:], 16) & _DISCARD)


def _decode(
    source: BinaryIO, packets: _Packets, start: int = 0, length: int = 0
) -> tuple[NDArray[np.int32], int, tuple[str, ...]]:
    """Decodes all audio, or `length` frames from frame `start` on.

    Returns:
      Frames (n, channels), their rate in Hz, and errors.
    """
    seek: list[str] = []
    filters = f"volume=1/{HEADROOM}:precision=float"
    if length:
        seconds = start / packets.sample_rate
        before = min(seconds, PREROLL)
        seek = ["-ss", f"{packets.first + seconds - before:.9f}"]
        last = before + length / packets.sample_rate
        seek += ["-t", f"{last + PREROLL:.9f}"]
        filters = f"atrim=start={before:.9f}:end={last:.9f},{filters}"
    output = ["-map", "0:a:0", "-map_metadata", "-1", "-af", filters]
    output += ["-c:a", "pcm_s32le", "-fs", str(MAX_BYTES), "-f", "wav", "pipe:1"]
    wav, log = _run(source, [*seek, "-err_detect", "crccheck"], output)
    segment = AudioSegment(data=wav)
    frames = np.frombuffer(segment.raw_data, np.int32).reshape(-1, segment.channels)
    if length:
        frames = frames[:length]
    return frames, int(segment.frame_rate), tuple(_audio_errors(log, packets))


def _run(
    source: BinaryIO, before: Sequence[str], after: Sequence[str]
) -> tuple[bytes, str]:
    """Runs ffmpeg with options of the input and of the output.

    Returns:
      What it writes to its pipe, and what it says.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin"]
    command += ["-v", "repeat+level+info", "-nostats", "-threads", "1"]
    # Should nobody be left to end it, or it take more than two cores.
    cpu_limit = f"{2 * TIME_LIMIT + 1:.0f}"
    command += ["-timelimit", cpu_limit]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _FORMATS]
    command += [*before, "-i", f"/dev/fd/{source.fileno()}", *after]
    for _ in range(ATTEMPTS):
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=[source.fileno()],
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise AudioError(
                Reason.DECODER_TIMED_OUT, f"ffmpeg takes longer than {TIME_LIMIT:g} s"
            ) from error
        log = done.stderr.decode(errors="replace")
        ended = _SIGNAL.search(log) if done.returncode == 255 else None
        number = int(ended[1]) if ended else -done.returncode
        if number == signal.SIGXCPU:
            raise AudioError(
                Reason.DECODER_TIMED_OUT,
                f"ffmpeg takes more than {cpu_limit} s of CPU time",
            )
        if number <= 0:
            if done.returncode:
                raise FfmpegError(_last_error(log))
            return done.stdout, log
    raise AudioError(
        Reason.DECODER_CRASHED, f"ffmpeg died {ATTEMPTS} times ({signal_name(number)})"
    )


def signal_name(number: int) -> str:
    """What a signal means, e.g. Segmentation fault."""
    return signal.strsignal(number) or f"signal {number}"


def _last_error(log: str) -> str:
    errors = [message for _, message in _ERROR.findall(log)]
    lines = errors or log.strip().splitlines() or ["no audio"]
    return str(lines[-1]).strip()


def _audio_errors(log: str, packets: _Packets) -> Iterator[str]:
    """Errors but those of pictures, of video and of other streams."""
    for context, message in _ERROR.findall(log):
        names = set(re.split(r"[^\w]+", context))
        stream = _OTHER_STREAM.search(message)
        if (
            names & packets.others
            or _PICTURE.search(message)
            or (stream is not None and int(stream[1]) != packets.stream)
        ):
            continue
        yield str(message)


def _announced_seconds(source: BinaryIO, log: str) -> float:
    """The container's own length, not one that ffmpeg estimates."""
    found = _DURATION.search(log)
    if found is None or "Estimating duration from bitrate" in log:
        return 0.0
    source.seek(0)
    head, size = source.read(12), source.seek(0, 2)
    if head[8:] == b"AVI " and damage.avi_size(head, size) is None:
        return 0.0
    hours, minutes, seconds, start = found.groups(default="0")
    length = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    # Where Matroska's ends, from zero on; its packets are counted from the first.
    return length - float(start) if "Input #0, matroska" in log else length

"""Decoding by ffmpeg, from the imageio-ffmpeg wheel, and pydub.

pydub's own call of ffmpeg takes no options for the input. Here ffmpeg is started
with those that make it safe for files of unknown origin, and pydub reads the WAV
that it writes.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from pipeline.common.rejects import AudioError, Reason

with warnings.catch_warnings():
    # At import pydub looks for ffmpeg on the PATH and warns if there is none.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment

#: Ten minutes of decoded stereo take 200 MB; a longer file counts as this long.
MAX_SECONDS = 600
#: Many channels at a high rate end sooner.
MAX_BYTES = 1 << 29
#: Ten minutes of music take 2 s to decode.
TIME_LIMIT = 15.0
#: Levels up to this many times full scale survive in the 32 bits decoded to.
HEADROOM = 32
#: What full scale becomes.
FULL_SCALE = (1 << 31) // HEADROOM

#: Formats whose files hold the audio themselves. Playlists (HLS, DASH, concat,
#: SDP) do not: they name other files or addresses, and ffmpeg would open them.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,iff,loas,matroska,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,ogg,oma,tak,tta,w64,wav,wv"
)
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_ERROR = re.compile(r"^(?:\[[^]]+\] )*\[(?:error|fatal|panic)\] (.*)", re.MULTILINE)


class FfmpegError(Exception):
    """ffmpeg finds no audio in a file; the message is ffmpeg's own last line."""


class Decoding(NamedTuple):
    """What ffmpeg made of a file.

    Attributes:
      frames: shape (n, channels), int32; `FULL_SCALE` is full scale.
      sample_rate: in Hz.
      announced: seconds that the file's header announces, as far as they were
        to be decoded; 0 if it does not.
      errors: what ffmpeg reports and goes on after.
    """

    frames: NDArray[np.int32]
    sample_rate: int
    announced: float
    errors: tuple[str, ...]


def decode(file: BinaryIO) -> tuple[NDArray[np.float32], int]:
    """Decodes the first audio stream of a file.

    Args:
      file: at its beginning.

    Returns:
      Samples, shape (n, channels), float32, full scale 1; and their rate in Hz.

    Raises:
      FfmpegError: there is no audio that ffmpeg can decode.
      AudioError: ffmpeg crashes, or takes longer than `TIME_LIMIT`.
    """
    decoding = decode_integers(file)
    return scale(decoding.frames), decoding.sample_rate


def scale(frames: NDArray[np.int32]) -> NDArray[np.float32]:
    """Integers of a `Decoding` as float32, full scale 1."""
    samples = frames.astype(np.float32)
    samples /= np.float32(FULL_SCALE)
    return samples


def decode_integers(file: BinaryIO) -> Decoding:
    """Decodes the first audio stream of a file, and says how that went.

    By way of temporary files, since MP4 cannot be read from a pipe.

    Args:
      file: at its beginning.

    Raises:
      FfmpegError: there is no audio that ffmpeg can decode.
      AudioError: ffmpeg crashes, or takes longer than `TIME_LIMIT`.
    """
    with tempfile.TemporaryDirectory(prefix="decode-") as folder:
        source, target = Path(folder, "source"), Path(folder, "target.wav")
        with source.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        log = _run(source, target)
        segment = AudioSegment(data=target.read_bytes())
    frames = np.frombuffer(segment.raw_data, np.int32).reshape(-1, segment.channels)
    whole = frames.nbytes < 0.99 * MAX_BYTES
    return Decoding(
        frames=frames,
        sample_rate=int(segment.frame_rate),
        announced=min(_announced_seconds(log), MAX_SECONDS) if whole else 0.0,
        errors=tuple(_ERROR.findall(log)),
    )


def _run(source: Path, target: Path) -> str:
    """Runs ffmpeg; returns what it says."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y"]
    command += ["-v", "repeat+level+info", "-nostats", "-threads", "1"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
    command += ["-err_detect", "crccheck", "-t", str(MAX_SECONDS), "-i", str(source)]
    command += ["-map", "0:a:0", "-map_metadata", "-1"]
    command += ["-af", f"volume=1/{HEADROOM}:precision=float", "-c:a", "pcm_s32le"]
    command += ["-fs", str(MAX_BYTES), "-f", "wav", str(target)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AudioError(
            Reason.DECODER_TIMED_OUT, f"ffmpeg takes longer than {TIME_LIMIT:g} s"
        ) from error
    log = done.stderr.decode(errors="replace")
    if done.returncode < 0:
        raise AudioError(
            Reason.DECODER_CRASHED, f"ffmpeg died ({signal_name(-done.returncode)})"
        )
    if done.returncode:
        raise FfmpegError(_last_error(log))
    return log


def signal_name(number: int) -> str:
    """What a signal means, e.g. Segmentation fault."""
    return signal.strsignal(number) or f"signal {number}"


def _last_error(log: str) -> str:
    errors = _ERROR.findall(log) or log.strip().splitlines() or ["no audio"]
    return str(errors[-1]).strip()


def _announced_seconds(log: str) -> float:
    """The container's own length, not one that ffmpeg estimates."""
    found = _DURATION.search(log)
    if found is None or "Estimating duration from bitrate" in log:
        return 0.0
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

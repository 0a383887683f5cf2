"""Decoding by pydub, with the ffmpeg that the imageio-ffmpeg wheel carries."""

from __future__ import annotations

import functools
import warnings
from typing import Any, BinaryIO

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

with warnings.catch_warnings():
    # At import pydub looks for ffmpeg on the PATH and warns if there is none.
    warnings.simplefilter("ignore")
    from pydub import AudioSegment
    from pydub.exceptions import CouldntDecodeError

#: Ten minutes of decoded stereo take 100 MB; a longer file counts as this long.
MAX_SECONDS = 600


class FfmpegError(Exception):
    """ffmpeg finds no audio in a file; the message is ffmpeg's own last line."""


@functools.cache
def _segment_class() -> Any:
    """The AudioSegment of pydub, bound to the wheel's ffmpeg."""
    converter = imageio_ffmpeg.get_ffmpeg_exe()
    return type("Segment", (AudioSegment,), {"converter": converter})


def decode(file: BinaryIO) -> tuple[NDArray[np.float32], int]:
    """Decodes the first audio stream of a file to 16 bits.

    pydub's way over temporary files, since MP4 cannot be read from a pipe and
    the other way needs an ffprobe, which the wheel does not carry.

    Args:
      file: at its beginning.

    Returns:
      Samples in [-1, 1), shape (n, channels), float32, and their rate in Hz.

    Raises:
      FfmpegError: there is no audio that ffmpeg can decode.
    """
    try:
        segment = _segment_class().from_file_using_temporary_files(
            file, duration=MAX_SECONDS
        )
    except (CouldntDecodeError, IndexError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise FfmpegError(lines[-1].strip()) from error
    integers = np.frombuffer(segment.raw_data, np.int16)
    samples = integers.astype(np.float32).reshape(-1, segment.channels)
    samples /= np.float32(32768)
    return samples, int(segment.frame_rate)

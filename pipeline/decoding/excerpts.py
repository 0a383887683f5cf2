"""Clips from audio of any length: one of a short file, several of a long one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.common.clip_config import EXCERPT_SECONDS, MAX_CLIP_SECONDS, ClipConfig
from pipeline.common.regular_file import open_regular
from pipeline.decoding import ffmpeg, libsndfile
from pipeline.decoding.waveform import (
    MAX_PEAK,
    MIN_DECODED,
    MIN_PEAK,
    Loader,
    downmix,
    fit_length,
    load_waveform,
    resample,
)

Float32 = NDArray[np.float32]


def load_excerpts(path: str, config: ClipConfig, limit: int) -> list[Float32]:
    """Decodes one or more clips of a local audio file, in this process.

    Args:
      path: any file that `load_waveform` takes.
      config: clip parameters.
      limit: take no more than this many.

    Returns:
      Waveforms `(1321967,)`, at least one.

    Raises:
      AudioError: the file cannot be used.
      OSError: it cannot be read, or is no file.
    """
    with open_regular(path) as file:
        return list(decode_excerpts(file, config, limit))


def decode_excerpts(
    file: BinaryIO, config: ClipConfig, limit: int, load: Loader = load_waveform
) -> Iterator[Float32]:
    """Decodes one or more clips of an audio file, one after the other.

    Of a file that is no longer than a clip, the one that training would have made.
    A longer file is cut into equal parts, and the middle of each is taken; silent
    and damaged ones are left out.

    Args:
      file: seekable; any that `load_waveform` takes.
      config: clip parameters.
      limit: take no more than this many.
      load: decodes the clip of a short file.

    Yields:
      Waveforms `(1321967,)`, at least one.

    Raises:
      AudioError: the file cannot be used.
    """
    excerpts: list[Float32] = []
    if limit > 1:
        try:
            excerpts = _read_excerpts(file, limit)
        except soundfile.LibsndfileError:
            excerpts = _decode_excerpts(file, limit)
    file.seek(0)
    # Short files, and those of which nothing could be used: it says why.
    yield from excerpts or [load(file, config).samples]


def excerpt_starts(
    frames: int, sample_rate: int, limit: int
) -> tuple[NDArray[np.int64], int]:
    """First frames of the excerpts of a file, and their length in frames.

    None of a file that is no longer than a clip.
    """
    length = round(EXCERPT_SECONDS * sample_rate)
    if frames <= MAX_CLIP_SECONDS * sample_rate:
        return np.zeros(0, np.int64), length
    count = max(1, min(limit, frames // length))
    centres = (np.arange(count) + 0.5) * frames / count
    return np.asarray(centres - length / 2, np.int64).clip(0, frames - length), length


def _read_excerpts(source: BinaryIO, limit: int) -> list[Float32]:
    """By seeking, so that an hour of music is not decoded for five minutes of it."""
    with libsndfile.open_sound(source) as file:
        starts, length = excerpt_starts(file.frames, file.samplerate, limit)

        def read(start: int) -> Float32:
            file.seek(start)
            frames: Float32 = file.read(length, dtype="float32", always_2d=True)
            return frames

        return _make_clips(starts, length, file.samplerate, read)


def _decode_excerpts(file: BinaryIO, limit: int) -> list[Float32]:
    """With ffmpeg, which decodes from the beginning."""
    file.seek(0)
    try:
        frames, sample_rate = ffmpeg.decode(file)
    except ffmpeg.FfmpegError:
        return []
    starts, length = excerpt_starts(len(frames), sample_rate, limit)
    return _make_clips(
        starts, length, sample_rate, lambda start: frames[start : start + length]
    )


def _make_clips(
    starts: NDArray[np.int64],
    length: int,
    sample_rate: int,
    read: Callable[[int], Float32],
) -> list[Float32]:
    clips = []
    for start in starts.tolist():
        frames = read(start)
        if len(frames) < MIN_DECODED * length:
            continue
        samples = downmix(frames)
        peak = np.abs(samples).max()
        if MIN_PEAK <= peak <= MAX_PEAK:
            clips.append(fit_length(resample(samples, sample_rate)))
    return clips

"""Clips from audio of any length: one of a short file, several of a long one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.common.clip_config import EXCERPT_SECONDS, MAX_CLIP_SECONDS, ClipConfig
from pipeline.common.regular_file import open_regular
from pipeline.common.rejects import AudioError
from pipeline.decoding import damage, ffmpeg, libsndfile, mp3, ogg, tags
from pipeline.decoding.waveform import (
    MAX_PEAK,
    MIN_DECODED,
    MIN_PEAK,
    Loader,
    decode_links,
    fit_clip,
    load_waveform,
    mix,
)

Float32 = NDArray[np.float32]


class Part(NamedTuple):
    """A clip, and where in its file it lies.

    Attributes:
      samples: waveform `(1321967,)`, mono at 44,100 Hz.
      length: so many of them are the file's own, see `waveform.Waveform`.
      start: seconds from the beginning of the file.
      seconds: length of the whole file.
    """

    samples: Float32
    length: int
    start: float
    seconds: float


def load_excerpts(path: str, config: ClipConfig, limit: int) -> list[Part]:
    """Decodes one or more clips of a local audio file, in this process.

    Args:
      path: any file that `load_waveform` takes.
      config: clip parameters.
      limit: take no more than this many.

    Returns:
      Clips, at least one, in their order.

    Raises:
      AudioError: the file cannot be used.
      OSError: it cannot be read, or is no file.
    """
    with open_regular(path) as file:
        return list(decode_parts(file, config, limit))


def decode_parts(
    file: BinaryIO, config: ClipConfig, limit: int, load: Loader = load_waveform
) -> Iterator[Part]:
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
      Clips, at least one, in their order.

    Raises:
      AudioError: the file cannot be used.
    """
    found = False
    if limit > 1:
        for part in _decode_parts(file, config, limit):
            found = True
            yield part
    if not found:
        file.seek(0)
        # A short file, or one of which nothing could be used: it says why.
        waveform = load(file, config)
        spare = waveform.seconds - EXCERPT_SECONDS
        excerpted = config.excerpt == "middle" and waveform.seconds > MAX_CLIP_SECONDS
        start = spare / 2 if excerpted else 0.0
        yield Part(waveform.samples, waveform.length, start, waveform.seconds)


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


class _Places:
    """Where the clips of a file lie; keeps in seconds what it was asked for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._starts: list[float] = []
        self._seconds = 0.0

    def __call__(self, frames: int, sample_rate: int) -> list[tuple[int, int]]:
        starts, length = excerpt_starts(frames, sample_rate, self._limit)
        self._seconds = frames / sample_rate
        self._starts = (starts / sample_rate).tolist()
        return [(start, length) for start in starts.tolist()]

    def make_part(self, index: int, samples: Float32, length: int) -> Part:
        return Part(samples, length, self._starts[index], self._seconds)


def _decode_parts(file: BinaryIO, config: ClipConfig, limit: int) -> Iterator[Part]:
    """Clips of a file longer than one; none of another file."""
    places = _Places(limit)
    begin, end = tags.find_audio(file)
    stream = mp3.find_stream(file, begin, end)
    if stream is not None:
        found = mp3.measure(file, stream)
        mp3.check_announced(found)
        rate = stream.frame.sample_rate
        for index, (start, _) in enumerate(places(round(found.seconds * rate), rate)):
            with contextlib.suppress(AudioError):
                waveform = load_waveform(mp3.cut(file, found, start / rate), config)
                yield places.make_part(index, waveform.samples, waveform.length)
        return
    source = damage.check_length(tags.strip_to(file, begin, end))
    if ogg.is_ogg(source) and len(links := ogg.find_links(source)) > 1:
        for index, part in enumerate(decode_links(source, links, places)):
            if MIN_PEAK <= part.peak <= MAX_PEAK:
                clip = fit_clip(part.samples, part.sample_rate)
                yield places.make_part(index, *clip)
        return
    try:
        yield from _read_parts(source, places)
    except soundfile.LibsndfileError:
        yield from _decode_with_ffmpeg(source, places)


def _read_parts(source: BinaryIO, places: _Places) -> Iterator[Part]:
    """By seeking, so that an hour of music is not decoded for five minutes of it."""
    is_ogg = ogg.is_ogg(source)
    with libsndfile.open_sound(source) as file:
        damage.check_format(file.samplerate, file.channels)
        if libsndfile.has_length(file):
            parts = places(file.frames, file.samplerate)
            for index, (start, length) in enumerate(parts):
                file.seek(start)
                frames = file.read(length, dtype="float32", always_2d=True)
                if not is_ogg or _is_whole(source, start, length, file.frames):
                    for clip in _make_clip(frames, length, file.samplerate):
                        yield places.make_part(index, *clip)
            return
    yield from _decode_with_ffmpeg(source, places)


def _is_whole(source: BinaryIO, start: int, length: int, total: int) -> bool:
    """Whether a part of an Ogg file is not damaged."""
    try:
        ogg.check_part(source, start / total, (start + length) / total)
    except AudioError:
        return False
    return True


def _decode_with_ffmpeg(source: BinaryIO, places: _Places) -> Iterator[Part]:
    with contextlib.suppress(ffmpeg.FfmpegError):
        for index, part in enumerate(ffmpeg.decode_parts(source, places)):
            damage.check_format(part.sample_rate, part.frames.shape[1])
            if not part.errors:
                length = round(EXCERPT_SECONDS * part.sample_rate)
                frames = ffmpeg.scale(part.frames)
                for clip in _make_clip(frames, length, part.sample_rate):
                    yield places.make_part(index, *clip)


def _make_clip(
    frames: Float32, length: int, sample_rate: int
) -> list[tuple[Float32, int]]:
    """A clip and its own length, unless it is silent or damaged."""
    if len(frames) < MIN_DECODED * length:
        return []
    try:
        samples, peak = mix(frames)
    except AudioError:
        return []
    return [fit_clip(samples, sample_rate)] if peak >= MIN_PEAK else []

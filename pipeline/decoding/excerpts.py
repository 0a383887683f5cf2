"""Clips from audio of any length: one of a short file, several of a long one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.common.clip_config import EXCERPT_SECONDS, MAX_CLIP_SECONDS, ClipConfig
from pipeline.common.regular_file import open_regular
from pipeline.common.rejects import AudioError
from pipeline.decoding import damage, ffmpeg, libsndfile, mp3, ogg, tags
from pipeline.decoding.waveform import (
    FFMPEG,
    LIBSNDFILE,
    MAX_PEAK,
    MIN_DECODED,
    MIN_PEAK,
    Loader,
    Waveform,
    decode_links,
    load_waveform,
    make_waveform,
    mix,
)

Float32 = NDArray[np.float32]


def load_excerpts(path: str, config: ClipConfig, limit: int) -> list[Waveform]:
    """Decodes one or more clips of a local audio file, in this process.

    Args:
      path: any file that `load_waveform` takes.
      config: clip parameters.
      limit: take no more than this many.

    Returns:
      At least one.

    Raises:
      AudioError: the file cannot be used.
      OSError: it cannot be read, or is no file.
    """
    with open_regular(path) as file:
        return list(decode_excerpts(file, config, limit))


def decode_excerpts(
    file: BinaryIO, config: ClipConfig, limit: int, load: Loader = load_waveform
) -> Iterator[Waveform]:
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
      At least one.

    Raises:
      AudioError: the file cannot be used.
    """
    found = False
    if limit > 1:
        for waveform in _decode_parts(file, config, limit):
            found = True
            yield waveform
    if not found:
        file.seek(0)
        # A short file, or one of which nothing could be used: it says why.
        yield load(file, config)


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


def _decode_parts(file: BinaryIO, config: ClipConfig, limit: int) -> Iterator[Waveform]:
    """Clips of a file longer than one; none of another file."""

    def place(frames: int, sample_rate: int) -> list[tuple[int, int]]:
        starts, length = excerpt_starts(frames, sample_rate, limit)
        return [(start, length) for start in starts.tolist()]

    begin, end = tags.find_audio(file)
    stream = mp3.find_stream(file, begin, end)
    if stream is not None:
        found = mp3.measure(file, stream)
        mp3.check_announced(found)
        rate = stream.frame.sample_rate
        for start, _ in place(round(found.seconds * rate), rate):
            with contextlib.suppress(AudioError):
                excerpt = mp3.Excerpt(mp3.cut(file, found, start / rate), found.seconds)
                yield load_waveform(excerpt, config)
        return
    source = damage.check_length(tags.strip_to(file, begin, end))
    if ogg.is_ogg(source) and len(links := ogg.find_links(source)) > 1:
        for part in decode_links(source, links, place):
            if MIN_PEAK <= part.peak <= MAX_PEAK:
                yield make_waveform(
                    part.samples, part.sample_rate, part.decoder, part.seconds
                )
        return
    try:
        yield from _read_parts(source, place)
    except soundfile.LibsndfileError:
        yield from _decode_with_ffmpeg(source, place)


def _read_parts(source: BinaryIO, place: ffmpeg.Place) -> Iterator[Waveform]:
    """By seeking, so that an hour of music is not decoded for five minutes of it."""
    is_ogg = ogg.is_ogg(source)
    with libsndfile.open_sound(source) as file:
        damage.check_format(file.samplerate, file.channels)
        if libsndfile.has_length(file):
            rate, seconds = file.samplerate, file.frames / file.samplerate
            for start, length in place(file.frames, rate):
                file.seek(start)
                frames = file.read(length, dtype="float32", always_2d=True)
                if not is_ogg or _is_whole(source, start, length, file.frames):
                    yield from _make_clip(frames, length, rate, LIBSNDFILE, seconds)
            return
    yield from _decode_with_ffmpeg(source, place)


def _is_whole(source: BinaryIO, start: int, length: int, total: int) -> bool:
    """Whether a part of an Ogg file is not damaged."""
    try:
        ogg.check_part(source, start / total, (start + length) / total)
    except AudioError:
        return False
    return True


def _decode_with_ffmpeg(source: BinaryIO, place: ffmpeg.Place) -> Iterator[Waveform]:
    with contextlib.suppress(ffmpeg.FfmpegError):
        for part in ffmpeg.decode_parts(source, place):
            damage.check_format(part.sample_rate, part.frames.shape[1])
            if not part.errors:
                length = round(EXCERPT_SECONDS * part.sample_rate)
                frames = ffmpeg.scale(part.frames)
                seconds = part.total / part.sample_rate
                yield from _make_clip(frames, length, part.sample_rate, FFMPEG, seconds)


def _make_clip(
    frames: Float32, length: int, sample_rate: int, decoder: str, seconds: float
) -> list[Waveform]:
    """A clip, unless it is silent or damaged."""
    if len(frames) < MIN_DECODED * length:
        return []
    try:
        samples, peak = mix(frames)
    except AudioError:
        return []
    if peak < MIN_PEAK:
        return []
    return [make_waveform(samples, sample_rate, decoder, seconds)]

"""The pipeline's way from samples to a mel image or windows, as TensorFlow operations.

What is exported with a model has to do without Python. Here is the same arithmetic
as in `pipeline.decoding.waveform` and `pipeline.representations`, equal to it within
rounding: tests hold both side by side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.common.clip_config import (
    CLIP_FRAMES,
    CLIP_SAMPLES,
    EXCERPT_SECONDS,
    HOP_LENGTH,
    MAX_CLIP_SECONDS,
    N_FFT,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    ClipConfig,
)
from pipeline.decoding.waveform import (
    LEVEL_PARTS,
    LEVEL_STEP,
    MAX_CANCELLED,
    MAX_PADDING,
    MAX_PEAK,
    MIN_DOWNMIX,
    MIN_PEAK,
)
from pipeline.representations.filters import mel_filters
from pipeline.representations.mel import DEPTH_DB, IMAGE_FRAMES, SIZE, pixel_edges
from pipeline.representations.spectrum import hann_window
from pipeline.representations.windows import window_starts
from trainer.export.graph_resampling import resample
from trainer.export.graph_wav import check


class Clip(NamedTuple):
    """A clip in the graph.

    Attributes:
      samples: mono at 44,100 Hz, float32 `(1321967,)`.
      heard: so many of them are the audio's own; int32.
    """

    samples: tf.Tensor
    heard: tf.Tensor


def make_clip(frames: tf.Tensor, rate: tf.Tensor, config: ClipConfig) -> Clip:
    """Downmixes, excerpts, resamples and fits to a clip, as `load_waveform` does.

    Args:
      frames: float32 `(n, channels)`.
      rate: in Hz, int32.
      config: clip parameters.
    """
    count = tf.shape(frames)[0]
    seconds = tf.cast(count, tf.float32) / tf.cast(rate, tf.float32)
    shortest = f"The audio is shorter than {config.min_duration:g} s"
    with tf.control_dependencies([check(seconds >= config.min_duration, shortest)]):
        length = tf.cast(
            tf.round(EXCERPT_SECONDS * tf.cast(rate, tf.float32)), tf.int32
        )
    start = (count - length) // 2 if config.excerpt == "middle" else 0
    excerpt = tf.cond(
        seconds <= MAX_CLIP_SECONDS,
        lambda: frames,
        lambda: frames[start : start + length],
    )
    samples = tf.reduce_mean(excerpt, axis=1)
    peak = tf.reduce_max(tf.abs(samples))
    adds_up = _adds_up(excerpt, samples)
    with tf.control_dependencies(
        [
            check(peak <= MAX_PEAK, "The audio is damaged: far over full scale"),
            check(adds_up, "The channels of the audio cancel each other"),
            check(peak >= MIN_PEAK, "The audio is silent"),
        ]
    ):
        resampled = resample(samples, rate)
        own = tf.minimum(tf.size(resampled), CLIP_SAMPLES)
        return Clip(fit_length(resampled), own)


def even_starts(last: tf.Tensor, count: int) -> tf.Tensor:
    """`count` whole numbers from 0 to `last`, int32; of one, the middle."""
    if count == 1:
        return last[tf.newaxis] // 2
    return tf.range(count) * last // (count - 1)


def _adds_up(frames: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
    """`pipeline.decoding.waveform.check_downmix`: whether little is lost."""
    several, mono = frames[::LEVEL_STEP], samples[::LEVEL_STEP]
    length = tf.maximum(tf.size(mono) // LEVEL_PARTS, 1)
    used = tf.size(mono) // length * length
    channels = tf.shape(frames)[1]
    several = tf.reshape(several[:used], [-1, length, channels])
    mono = tf.reshape(mono[:used], [-1, length])
    levels = tf.sqrt(tf.reduce_mean(tf.square(several), axis=1))
    loudest = tf.reduce_max(levels, axis=1)
    mixed = tf.sqrt(tf.reduce_mean(tf.square(mono), axis=1))
    loud = loudest >= tf.maximum(MIN_PEAK, MIN_DOWNMIX * tf.reduce_max(loudest))
    lost = tf.logical_and(loud, mixed < MIN_DOWNMIX * loudest)
    parts = tf.reduce_sum(tf.cast(lost, tf.float32))
    return parts <= MAX_CANCELLED * tf.reduce_sum(tf.cast(loud, tf.float32))


def fit_length(samples: tf.Tensor) -> tf.Tensor:
    """`pipeline.decoding.waveform.fit_length`: `(n,)` to `(1321967,)`."""
    count = tf.size(samples)
    missing = CLIP_SAMPLES - count

    def pad() -> tf.Tensor:
        return tf.pad(samples, [[0, tf.maximum(missing, 0)]])[:CLIP_SAMPLES]

    def repeat() -> tf.Tensor:
        return tf.tile(samples, [CLIP_SAMPLES // count + 1])[:CLIP_SAMPLES]

    fitted = tf.cond(missing <= MAX_PADDING, pad, repeat)
    return tf.ensure_shape(fitted, (CLIP_SAMPLES,))


def make_mel_images(clip: Clip, config: ClipConfig) -> tf.Tensor:
    """`pipeline.representations.mel.compute`: uint8 `(images, 224, 224, 3)`."""
    count, samples, heard = config.mel_images_per_clip, clip.samples, CLIP_FRAMES
    if count > 1:
        silent = tf.range(CLIP_SAMPLES) >= clip.heard
        samples = tf.where(silent, 0.0, samples)
        heard = 1 + clip.heard // HOP_LENGTH
    padded = tf.pad(samples, [[N_FFT // 2, N_FFT // 2]])
    framed = tf.signal.frame(padded, N_FFT, HOP_LENGTH)
    spectrum = tf.signal.rfft(framed * hann_window())
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    filters = mel_filters(SIZE, SAMPLE_RATE, N_FFT)
    mel = power @ np.ascontiguousarray(filters.T, np.float32)
    loudest = tf.reduce_max(mel[:heard])
    length, starts, channels = IMAGE_FRAMES, [tf.constant(0)], config.mel_channels
    if count == 1:
        length = CLIP_FRAMES
    else:
        starts = tf.unstack(even_starts(tf.maximum(heard - length, 0), count))
    images = [
        _draw(
            tf.ensure_shape(mel[start : start + length], (length, SIZE)),
            loudest,
            channels,
        )
        for start in starts
    ]
    return tf.stack(images)


def _draw(frames: tf.Tensor, loudest: tf.Tensor, channels: str) -> tf.Tensor:
    """An image `(224, 224, 3)` of mel power `(frames, 224)`."""
    pixels = np.repeat(np.arange(SIZE), np.diff(pixel_edges(frames.shape[0])))
    mean = tf.math.segment_mean(frames, pixels)
    if channels == "repeat":
        levels = [_to_levels(mean, loudest)] * 3
    else:
        maximum = tf.math.segment_max(frames, pixels)
        minimum = tf.math.segment_min(frames, pixels)
        levels = [_to_levels(part, loudest) for part in (mean, maximum, minimum)]
    return tf.ensure_shape(tf.stack(levels, axis=2), (SIZE, SIZE, 3))


def _to_levels(power: tf.Tensor, loudest: tf.Tensor) -> tf.Tensor:
    """Power (time, bands) to grey levels (bands, time)."""
    quietest = np.float32(1e-10)
    natural = tf.math.log(tf.maximum(power, quietest) / tf.maximum(loudest, quietest))
    levels = natural * (10 / math.log(10) * 255 / DEPTH_DB) + 255.5
    return tf.transpose(tf.cast(tf.maximum(levels, 0), tf.uint8))


def cut_windows(clip: Clip, config: ClipConfig) -> tf.Tensor:
    """`pipeline.representations.windows.compute`: float32 `(windows, 10000)`."""
    starts = window_starts(config.windows_per_clip)
    samples = clip.samples
    return tf.stack([samples[start : start + WINDOW_SAMPLES] for start in starts])


#: What makes the records of a representation `(records, ...)` from a clip.
COMPUTE = {"mel": make_mel_images, "windows": cut_windows}

"""The pipeline's way from samples to a mel image or windows, as TensorFlow operations.

What is exported with a model has to do without Python. Here is the same arithmetic
as in `pipeline.decoding.waveform` and `pipeline.representations`, equal to it within
rounding: tests hold both side by side.

Sampling rates other than `RATES` end in an `InvalidArgumentError` that says so.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr
import tensorflow as tf
from librosa.filters import mel as mel_filterbank

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
    LEVEL_STEP,
    MAX_PADDING,
    MAX_PEAK,
    MIN_DOWNMIX,
    MIN_PEAK,
)
from pipeline.representations.mel import DEPTH_DB, SIZE, image_spans, pixel_edges
from pipeline.representations.spectrum import hann_window
from pipeline.representations.windows import window_starts
from trainer.export.graph_wav import check

#: Sampling rates in Hz that can be resampled in the graph.
RATES = (
    8_000,
    11_025,
    12_000,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    88_200,
    96_000,
    176_400,
    192_000,
)

#: Input samples on each side that soxr's filter spans, at rates up to 44,100 Hz.
FILTER_REACH = 192
#: Outputs at the beginning that soxr computes in a way of its own.
FIRST_OUTPUTS = 96
#: Input samples that a row of the resampling product advances by, about.
_BLOCK = 256


class ResamplingFilter(NamedTuple):
    """soxr's filter from one rate to 44,100 Hz.

    Output m is the sum over n of `input[n] * taps[m * down - n * up + reach * up]`,
    but for the first few: these are `first @ input`, as soxr begins a little otherwise.
    """

    up: int
    down: int
    reach: int  # in input samples
    taps: npt.NDArray[np.float32]  # (2 * reach * up + 1,)
    first: npt.NDArray[np.float32]  # (FIRST_OUTPUTS, inputs)


def make_clip(frames: tf.Tensor, rate: tf.Tensor, config: ClipConfig) -> tf.Tensor:
    """Downmixes, excerpts, resamples and fits to a clip, as `load_waveform` does.

    Args:
      frames: float32 `(n, channels)`.
      rate: in Hz, int32.
      config: clip parameters.

    Returns:
      Mono at 44,100 Hz, float32 `(1321967,)`.
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
    channels = tf.reduce_mean(tf.square(excerpt[::LEVEL_STEP]), axis=0)
    loudest = tf.sqrt(tf.reduce_max(channels))
    mixed = tf.sqrt(tf.reduce_mean(tf.square(samples[::LEVEL_STEP])))
    adds_up = tf.logical_or(loudest < MIN_PEAK, mixed >= MIN_DOWNMIX * loudest)
    with tf.control_dependencies(
        [
            check(peak <= MAX_PEAK, "The audio is damaged: far over full scale"),
            check(adds_up, "The channels of the audio cancel each other"),
            check(peak >= MIN_PEAK, "The audio is silent"),
        ]
    ):
        return fit_length(resample(samples, rate))


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


def resample(samples: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Resamples `(n,)` from one of `RATES` to 44,100 Hz, as the pipeline does."""
    matches = tf.equal(rate, RATES)
    message = "The sampling rate must be one of " + ", ".join(map(str, RATES))
    with tf.control_dependencies([check(tf.reduce_any(matches), message)]):
        branch = tf.cast(tf.argmax(tf.cast(matches, tf.int32)), tf.int32)
    return tf.switch_case(
        branch, [functools.partial(_resample_from, samples, rate) for rate in RATES]
    )


def _resample_from(samples: tf.Tensor, rate: int) -> tf.Tensor:
    if rate == SAMPLE_RATE:
        return samples
    up, down, reach, taps, first = resampling_filter(rate)
    # Blocks of `up` outputs depend on `down` new inputs: a matrix product.
    repeats = max(1, _BLOCK // down)
    rows, columns = repeats * down + 2 * reach + 1, repeats * up
    offsets = (
        tf.range(columns)[tf.newaxis, :] * down
        - (tf.range(rows)[:, tf.newaxis] - reach) * up
        + reach * up
    )
    inside = tf.logical_and(offsets >= 0, offsets < len(taps))
    weights = tf.where(
        inside, tf.gather(taps, tf.clip_by_value(offsets, 0, len(taps) - 1)), 0.0
    )
    count = tf.size(samples)
    # As soxr: n * 44100 / rate, rounded.
    length = tf.cast((2 * tf.cast(count, tf.int64) * up + down) // (2 * down), tf.int32)
    blocks = -(-length // columns)
    after = blocks * repeats * down + reach + 1 - count
    padded = tf.pad(samples, [[reach, tf.maximum(after, 0)]])
    framed = tf.signal.frame(padded, rows, repeats * down)[:blocks]
    regular = tf.reshape(framed @ weights, [-1])
    inputs = first.shape[1]
    head = tf.pad(samples[:inputs], [[0, tf.maximum(inputs - count, 0)]])
    beginning = tf.linalg.matvec(first, tf.ensure_shape(head, (inputs,)))
    return tf.concat([beginning, regular[FIRST_OUTPUTS:]], axis=0)[:length]


@functools.cache
def resampling_filter(rate: int) -> ResamplingFilter:
    """Measures soxr's filter ("HQ") by its response to impulses.

    The filter is linear and repeats after `down` inputs, so that impulses at that
    many different phases, far enough apart, tell all of it.
    """
    common = math.gcd(SAMPLE_RATE, rate)
    up, down = SAMPLE_RATE // common, rate // common
    reach = math.ceil(FILTER_REACH * max(1.0, rate / SAMPLE_RATE))
    distance = down * math.ceil(2 * reach / down) + 1
    places = 2 * reach + distance * np.arange(down)
    impulses = np.zeros(places[-1] + 2 * reach + 1)
    impulses[places] = 1
    response = soxr.resample(impulses, rate, SAMPLE_RATE, quality="HQ")
    taps = np.zeros(2 * reach * up + 1, np.float32)
    for place in places:
        first = math.ceil((place - reach) * up / down)
        last = (place + reach) * up // down
        outputs = np.arange(first, last + 1)
        taps[outputs * down - place * up + reach * up] = response[outputs]
    inputs = math.ceil(FIRST_OUTPUTS * down / up) + reach
    # Each input sample alone, as a channel of its own.
    alone = np.eye(inputs + 2 * reach, inputs)
    first = soxr.resample(alone, rate, SAMPLE_RATE, quality="HQ")[:FIRST_OUTPUTS]
    return ResamplingFilter(up, down, reach, taps, first.astype(np.float32))


def make_mel_images(samples: tf.Tensor, config: ClipConfig) -> tf.Tensor:
    """`pipeline.representations.mel.compute`: uint8 `(images, 224, 224, 3)`."""
    padded = tf.pad(samples, [[N_FFT // 2, N_FFT // 2]])
    framed = tf.signal.frame(padded, N_FFT, HOP_LENGTH)
    spectrum = tf.signal.rfft(framed * hann_window())
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    filters = mel_filterbank(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=SIZE)
    mel = power @ np.ascontiguousarray(filters.T, np.float32)
    loudest = tf.reduce_max(mel)
    spans = image_spans(config.mel_images_per_clip, CLIP_FRAMES, CLIP_FRAMES)
    return tf.stack([_draw(mel, span, loudest, config.mel_channels) for span in spans])


def _draw(mel: tf.Tensor, span: slice, loudest: tf.Tensor, channels: str) -> tf.Tensor:
    """An image `(224, 224, 3)` of some of the mel power's frames `(frames, 224)`."""
    frames = mel[span]
    pixels = np.repeat(np.arange(SIZE), np.diff(pixel_edges(span.stop - span.start)))
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


def cut_windows(samples: tf.Tensor, config: ClipConfig) -> tf.Tensor:
    """`pipeline.representations.windows.compute`: float32 `(windows, 10000)`."""
    starts = window_starts(config.windows_per_clip)
    return tf.stack([samples[start : start + WINDOW_SAMPLES] for start in starts])


#: What makes the records of a representation `(records, ...)` from a clip.
COMPUTE = {"mel": make_mel_images, "windows": cut_windows}

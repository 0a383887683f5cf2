"""soxr's resampling as TensorFlow operations, equal to it within rounding.

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

from pipeline.common.clip_config import SAMPLE_RATE
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

#: Samples on each side that soxr's filter spans, at the lower of two rates.
FILTER_REACH = 192
#: Outputs at the beginning that soxr computes in a way of its own.
FIRST_OUTPUTS = 96
#: Input samples that a row of the resampling product advances by, about.
_BLOCK = 256


class ResamplingFilter(NamedTuple):
    """soxr's filter from one rate to another.

    Output m is the sum over n of `input[n] * taps[m * down - n * up + reach * up]`,
    but for the first few: these are `first @ input`, as soxr begins a little otherwise.
    """

    up: int
    down: int
    reach: int  # in input samples
    taps: npt.NDArray[np.float32]  # (2 * reach * up + 1,)
    first: npt.NDArray[np.float32]  # (FIRST_OUTPUTS, inputs)


def resample(samples: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
    """Resamples `(n,)` from one of `RATES` to 44,100 Hz, as the pipeline does."""
    matches = tf.equal(rate, RATES)
    message = "The sampling rate must be one of " + ", ".join(map(str, RATES))
    with tf.control_dependencies([check(tf.reduce_any(matches), message)]):
        branch = tf.cast(tf.argmax(tf.cast(matches, tf.int32)), tf.int32)
    return tf.switch_case(
        branch,
        [functools.partial(convert, samples, rate, SAMPLE_RATE) for rate in RATES],
    )


def convert(samples: tf.Tensor, rate: int, target: int) -> tf.Tensor:
    """`soxr.resample(samples, rate, target, quality="HQ")` of float32 `(n,)`."""
    if rate == target:
        return samples
    if samples.shape[0] is not None:
        return _convert_static(samples, rate, target)
    up, down, reach, taps, first = resampling_filter(rate, target)
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
    # As soxr: n * target / rate, rounded.
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


def _convert_static(samples: tf.Tensor, rate: int, target: int) -> tf.Tensor:
    """`convert` where the length is known, of what every format of a model has.

    One convolution, whose kernel is a constant of the graph.
    """
    up, down, reach, taps, first = resampling_filter(rate, target)
    count = samples.shape[0]
    length = (2 * count * up + down) // (2 * down)
    repeats = max(1, _BLOCK // down)
    rows, columns = repeats * down + 2 * reach + 1, repeats * up
    offsets = np.arange(columns) * down - (np.arange(rows)[:, None] - 2 * reach) * up
    inside = (offsets >= 0) & (offsets < len(taps))
    weights = np.where(inside, taps[offsets.clip(0, len(taps) - 1)], np.float32(0))
    blocks = -(-length // columns)
    after = (blocks - 1) * repeats * down + rows - reach - count
    padded = tf.pad(samples, [[reach, max(after, 0)]])
    regular = tf.nn.conv1d(
        padded[tf.newaxis, :, tf.newaxis], weights[:, None], repeats * down, "VALID"
    )[0, :blocks]
    inputs = min(first.shape[1], count)
    beginning = samples[tf.newaxis, :inputs] @ first.T[:inputs]
    rest = tf.reshape(regular, [-1])[FIRST_OUTPUTS:]
    return tf.concat([beginning[0], rest], axis=0)[:length]


@functools.cache
def resampling_filter(rate: int, target: int) -> ResamplingFilter:
    """Measures soxr's filter ("HQ") by its response to impulses.

    The filter is linear and repeats after `down` inputs, so that impulses at that
    many different phases, far enough apart, tell all of it.
    """
    common = math.gcd(target, rate)
    up, down = target // common, rate // common
    reach = math.ceil(FILTER_REACH * max(1.0, rate / target))
    distance = down * math.ceil(2 * reach / down) + 1
    places = 2 * reach + distance * np.arange(down)
    impulses = np.zeros(places[-1] + 2 * reach + 1)
    impulses[places] = 1
    response = soxr.resample(impulses, rate, target, quality="HQ")
    taps = np.zeros(2 * reach * up + 1, np.float32)
    for place in places:
        first = math.ceil((place - reach) * up / down)
        last = (place + reach) * up // down
        outputs = np.arange(first, last + 1)
        taps[outputs * down - place * up + reach * up] = response[outputs]
    inputs = math.ceil(FIRST_OUTPUTS * down / up) + reach
    # Each input sample alone, as a channel of its own.
    alone = np.eye(inputs + 2 * reach, inputs)
    first = soxr.resample(alone, rate, target, quality="HQ")[:FIRST_OUTPUTS]
    return ResamplingFilter(up, down, reach, taps, first.astype(np.float32))

"""Feature vector: 33 features of every frame, and four of the clip.

85,210 values = 33 x 2,582 + 4: 20 MFCC, 12 chroma and the zero-crossing rate,
each over all frames, then mean and standard deviation of spectral centroid and
spectral roll-off. All follow librosa's defaults at 44,100 Hz.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from pipeline.common.clip_config import (
    CLIP_FRAMES,
    FREQUENCY_BINS,
    HOP_LENGTH,
    N_FFT,
    SAMPLE_RATE,
    ClipConfig,
)
from pipeline.representations.spectrum import (
    CHUNK_FRAMES,
    TINY,
    Float32,
    Spectrum,
    chroma_filters,
    power_to_db,
)
from pipeline.schema import RepresentationSchema, Segment

NAME = "features"
MFCC = 20
CHROMA = 12
MEL_BANDS = 128
ROLLOFF = np.float32(0.85)
#: Bins are summed in blocks of this many to find the roll-off.
ROLLOFF_BLOCK = 32
BIN_HERTZ = SAMPLE_RATE / N_FFT

SEGMENTS = (
    *(Segment(name=f"mfcc_{i:02d}", length=CLIP_FRAMES) for i in range(1, MFCC + 1)),
    *(Segment(name=f"chroma_{i:02d}", length=CLIP_FRAMES) for i in range(1, 13)),
    Segment(name="zero_crossing_rate", length=CLIP_FRAMES),
    Segment(name="spectral_centroid_mean", length=1),
    Segment(name="spectral_centroid_std", length=1),
    Segment(name="spectral_rolloff_mean", length=1),
    Segment(name="spectral_rolloff_std", length=1),
)


class Brightness(NamedTuple):
    """Spectral centroid and roll-off of each frame in Hz, shape (frames,)."""

    centroid: NDArray[Any]
    rolloff: NDArray[Any]


def make_schema(config: ClipConfig) -> RepresentationSchema:
    """One vector a clip."""
    del config  # The layout is fixed.
    return RepresentationSchema.of_vectors(NAME, "features", SEGMENTS)


def compute(spectrum: Spectrum, config: ClipConfig) -> NDArray[np.float32]:
    """Computes the vector: shape (1, 85210), float32, laid out as `SEGMENTS`."""
    del config  # The layout is fixed.
    rows = (MFCC + CHROMA + 1) * spectrum.frames
    vector = np.empty((1, rows + 4), np.float32)
    matrix = vector[0, :rows].reshape(MFCC + CHROMA + 1, spectrum.frames)
    matrix[:MFCC] = spectrum.once(compute_mfcc)
    matrix[MFCC : MFCC + CHROMA] = spectrum.once(compute_chroma)
    matrix[-1] = spectrum.once(compute_zero_crossing_rate)
    centroid, rolloff = spectrum.once(compute_brightness)
    vector[0, rows:] = centroid.mean(), centroid.std(), rolloff.mean(), rolloff.std()
    return vector


def compute_mfcc(spectrum: Spectrum) -> Float32:
    """`librosa.feature.mfcc`: shape (20, frames)."""
    decibels = power_to_db(spectrum.mel(MEL_BANDS))
    return dct_matrix() @ decibels.T


def compute_chroma(spectrum: Spectrum) -> Float32:
    """`librosa.feature.chroma_stft`: shape (12, frames), each frame's maximum 1."""
    chroma = spectrum.power @ chroma_filters(spectrum.tuning)
    loudest = chroma.max(axis=1, keepdims=True)
    chroma /= np.where(loudest < TINY, 1, loudest)
    return chroma.T


def compute_zero_crossing_rate(spectrum: Spectrum) -> NDArray[np.float64]:
    """`librosa.feature.zero_crossing_rate`: shape (frames,), in crossings a sample.

    librosa pads with the edge values, counts sign changes in frames of 2,048
    samples, takes |x| <= 1e-10 as zero (a positive sign) and ignores a change
    at a frame's first sample. Here each block of 512 samples is counted once,
    as bits, and four blocks make a frame.
    """
    samples, count = spectrum.samples, spectrum.frames
    pad = N_FFT // 2
    length = (count + N_FFT // HOP_LENGTH - 1) * HOP_LENGTH
    negative = np.empty(max(length, len(samples) + N_FFT), bool)
    np.less(samples, np.float32(-1e-10), out=negative[pad : pad + len(samples)])
    negative[:pad] = negative[pad]
    negative[pad + len(samples) :] = negative[pad + len(samples) - 1]
    changed = np.empty(length, bool)
    changed[0] = False
    np.not_equal(negative[1:length], negative[: length - 1], out=changed[1:])
    words = np.packbits(changed).view(np.uint64).reshape(-1, HOP_LENGTH // 64)
    blocks = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    crossings = np.lib.stride_tricks.sliding_window_view(
        blocks, N_FFT // HOP_LENGTH
    ).sum(axis=1)
    crossings -= changed[: count * HOP_LENGTH : HOP_LENGTH]
    return np.asarray(crossings / N_FFT)


def compute_brightness(spectrum: Spectrum) -> Brightness:
    """`librosa.feature.spectral_centroid` and `spectral_rolloff` (0.85).

    The centroid is the mean frequency, weighted by magnitude. The roll-off is the
    lowest frequency below which 85 % of the magnitude lies.

    One small matrix product sums each block of 32 bins, plainly and weighted by
    the bin's place in the block; the sums give the centroid and the block of the
    roll-off, and a cumulative sum within that block its bin. Summing in blocks
    is also more exact than librosa's one long float32 sum.
    """
    power = spectrum.power
    count = FREQUENCY_BINS // ROLLOFF_BLOCK
    sums, places = np.empty((2, len(power), count), np.float32)
    buffer = spectrum.workspace.array("magnitude-chunk", CHUNK_FRAMES, FREQUENCY_BINS)
    for start in range(0, len(power), CHUNK_FRAMES):
        chunk = slice(start, start + CHUNK_FRAMES)
        magnitude = np.sqrt(power[chunk], out=buffer[: len(power[chunk])])
        # The very last bin has no block of its own.
        blocks = magnitude[:, :-1].reshape(-1, count, ROLLOFF_BLOCK)
        sums[chunk], places[chunk] = np.moveaxis(blocks @ block_weights(), 2, 0)
    last = np.sqrt(power[:, -1])
    total = sums.sum(axis=1) + last
    starts = np.arange(0, FREQUENCY_BINS - 1, ROLLOFF_BLOCK).astype(np.float32)
    moment = sums @ starts
    moment += places.sum(axis=1) + last * (FREQUENCY_BINS - 1)
    centroid = moment / np.where(total < TINY, 1, total)
    bins = _find_rolloff(power, sums, ROLLOFF * total)
    return Brightness(centroid * np.float32(BIN_HERTZ), bins * BIN_HERTZ)


def _find_rolloff(
    power: Float32, sums: Float32, threshold: Float32
) -> NDArray[np.int64]:
    """Bin at which the cumulative sum of magnitudes reaches the threshold.

    Args:
      power: (frames, bins).
      sums: of the magnitudes in each block, (frames, blocks).
      threshold: of each frame, (frames,).

    Returns:
      Shape (frames,), int64.
    """
    rows = np.arange(len(power))
    reached = np.cumsum(sums, axis=1)
    block = np.count_nonzero(reached < threshold[:, None], axis=1)
    inside = np.minimum(block, sums.shape[1] - 1)
    before = np.where(inside > 0, reached[rows, inside - 1], 0)
    columns = inside[:, None] * ROLLOFF_BLOCK + np.arange(ROLLOFF_BLOCK)
    within = np.cumsum(np.sqrt(power[rows[:, None], columns]), axis=1)
    within += before[:, None]
    below = np.count_nonzero(within < threshold[:, None], axis=1)
    return np.asarray(inside * ROLLOFF_BLOCK + below)


@functools.cache
def dct_matrix() -> Float32:
    """First 20 rows of the orthonormal DCT-II of 128 mel bands."""
    matrix = scipy.fft.dct(np.eye(MEL_BANDS), type=2, norm="ortho", axis=0)
    return np.ascontiguousarray(matrix[:MFCC], np.float32)


@functools.cache
def block_weights() -> Float32:
    """Columns: ones, and a bin's place in its block; shape (32, 2)."""
    places = np.arange(ROLLOFF_BLOCK)
    return np.stack([np.ones(ROLLOFF_BLOCK), places], axis=1).astype(np.float32)

"""Clip statistics: the 518 features of FMA's features.csv.

Seven moments over time of 74 features of a frame, named and ordered as the
columns of features.csv: `chroma_cens_kurtosis_01` is its column ("chroma_cens",
"kurtosis", "01"). The definitions are those of FMA's features.py (M. Defferrard
et al., "FMA: A Dataset For Music Analysis", 2017), but for two things that keep
the values from equalling the published ones:

* All frequencies are computed at 44,100 Hz. features.py omits the sampling rate
  in five calls, so that librosa assumes 22,050 Hz: there, centroid, bandwidth
  and roll-off come out half as high, and contrast and `chroma_stft` in other
  bands.
* A constant feature has no skewness and kurtosis; here they are 0, not NaN.

Chroma from the constant-Q transform has 12 bins an octave, librosa's default
when FMA was made. Today's default, 36, would fold the 84 semitones onto wrong
pitch classes.

Values are within 0.1 % of those of librosa 0.11 and scipy.stats on music, but for
those next to zero: skewness and kurtosis (off by up to 0.0002, mostly the
roll-off's, which rounding moves by one bin in 0.1 % of frames) and the MFCC of
silent frames (0 in librosa, here up to 0.00001).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import FREQUENCY_BINS, N_FFT, SAMPLE_RATE, ClipConfig
from pipeline.representations import features
from pipeline.representations.constant_q import compute_constant_q
from pipeline.representations.filters import fft_frequencies
from pipeline.representations.spectrum import (
    CHUNK_FRAMES,
    TINY,
    Float32,
    Spectrum,
    bin_frequencies,
    estimate_tuning,
    power_to_db,
)
from pipeline.representations.tonality import (
    compute_cens,
    compute_tonnetz,
    fold_octaves,
    normalise_peak,
)
from pipeline.schema import RepresentationSchema, Segment

NAME = "statistics"

#: FMA's names, in the order of its features.csv.
SEVEN_NUMBERS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")
#: Values a frame, by feature, in the order of features.csv.
FEATURES = {
    "chroma_cens": 12,
    "chroma_cqt": 12,
    "chroma_stft": 12,
    "mfcc": 20,
    "rmse": 1,
    "spectral_bandwidth": 1,
    "spectral_centroid": 1,
    "spectral_contrast": 7,
    "spectral_rolloff": 1,
    "tonnetz": 6,
    "zcr": 1,
}
SEGMENTS = tuple(
    Segment(name=f"{feature}_{summary}_{number:02d}", length=1)
    for feature, size in FEATURES.items()
    for summary in SEVEN_NUMBERS
    for number in range(1, size + 1)
)

#: Hz between the seven contrast bands.
CONTRAST_EDGES = (200, 400, 800, 1600, 3200, 6400)
#: Share of a band's bins that make its peak, and its valley.
CONTRAST_QUANTILE = 0.02


def make_schema(config: ClipConfig) -> RepresentationSchema:
    """One vector a clip."""
    del config  # The layout is fixed.
    return RepresentationSchema.of_vectors(NAME, "statistics", SEGMENTS)


def compute(spectrum: Spectrum, config: ClipConfig) -> NDArray[np.float32]:
    """Computes the vector: shape (1, 518), float32, laid out as `SEGMENTS`."""
    del config  # The layout is fixed.
    frames = compute_frame_features(spectrum)
    moments = [summarise(frames[name]).ravel() for name in FEATURES]
    return np.concatenate(moments, dtype=np.float32)[None]


def summarise(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Summarises each row by seven numbers, in the order of `SEVEN_NUMBERS`.

    Skewness and kurtosis are the biased estimators m3 / m2^1.5 and
    m4 / m2^2 - 3, as in `scipy.stats`. Those have no value for a constant row
    (variance zero within rounding); here it gets 0, like a symmetric one, since
    a NaN in one record would spoil all training statistics.

    Args:
      rows: finite values, shape (n, frames), frames > 0, any real dtype.

    Returns:
      Shape (7, n), float64; computed in float64.
    """
    values = np.sort(np.asarray(rows, np.float64), axis=1)
    count = values.shape[1]
    median = (values[:, (count - 1) // 2] + values[:, count // 2]) / 2
    lowest, highest = values[:, 0].copy(), values[:, -1].copy()
    mean = values.mean(axis=1)
    values -= mean[:, None]
    squares = values * values
    m2 = squares.mean(axis=1)
    m3 = np.vecdot(squares, values) / count
    m4 = np.vecdot(squares, squares) / count
    constant = m2 <= (np.finfo(np.float64).eps * mean) ** 2
    scale = np.where(constant, 1, m2)
    skew = np.where(constant, 0, m3 / scale**1.5)
    kurtosis = np.where(constant, 0, m4 / scale**2 - 3)
    return np.stack([kurtosis, highest, mean, median, lowest, skew, np.sqrt(m2)])


def compute_frame_features(spectrum: Spectrum) -> dict[str, NDArray[Any]]:
    """Computes the 74 features of each frame.

    Args:
      spectrum: of double precision, which contrast and bandwidth need.

    Returns:
      Arrays of shape (size, frames), by the names and sizes of `FEATURES`.

    Raises:
      ValueError: the spectrum is of single precision.
    """
    if not spectrum.double:
        raise ValueError("Expected a Spectrum of double precision. Received: single")
    tuning = estimate_tuning(spectrum.magnitude)
    chroma = fold_octaves(compute_constant_q(spectrum.samples, tuning))
    cens = compute_cens(chroma)
    centroid, rolloff = spectrum.once(features.compute_brightness)
    power = spectrum.power
    return {
        "chroma_cens": cens.T,
        "chroma_cqt": normalise_peak(chroma).T,
        "chroma_stft": spectrum.once(features.compute_chroma),
        "mfcc": spectrum.once(features.compute_mfcc),
        "rmse": compute_rms(power)[None],
        "spectral_bandwidth": compute_bandwidth(power, centroid)[None],
        "spectral_centroid": centroid[None],
        "spectral_contrast": compute_contrast(power),
        "spectral_rolloff": rolloff[None],
        "tonnetz": compute_tonnetz(cens).T,
        "zcr": spectrum.once(features.compute_zero_crossing_rate)[None],
    }


def compute_rms(power: Float32) -> Float32:
    """`librosa.feature.rms(S=magnitude)`, by Parseval's theorem: shape (frames,)."""
    weights = np.full(FREQUENCY_BINS, 2 / N_FFT**2, np.float32)
    weights[[0, -1]] /= 2
    rms: Float32 = np.sqrt(power @ weights)
    return rms


def compute_bandwidth(power: Float32, centroid: NDArray[Any]) -> Float32:
    """`librosa.feature.spectral_bandwidth`: shape (frames,), in Hz.

    The centroid is subtracted before squaring: the mean square less the squared
    centroid would cancel for a high, pure tone.

    Args:
      power: shape (frames, 1025), of a float64 FFT: under a bass note, the noise
        of a float32 FFT at high frequencies adds up to 0.2 %.
      centroid: spectral centroid in Hz, shape (frames,).
    """
    frequencies = bin_frequencies()
    spread, total = np.empty((2, len(power)), np.float32)
    for start in range(0, len(power), CHUNK_FRAMES):
        chunk = slice(start, start + CHUNK_FRAMES)
        magnitude = np.sqrt(power[chunk])
        deviation = np.subtract(frequencies, centroid[chunk, None], dtype=np.float32)
        deviation *= deviation
        np.vecdot(magnitude, deviation, out=spread[chunk])
        np.sum(magnitude, axis=1, out=total[chunk])
    bandwidth: Float32 = np.sqrt(spread / np.where(total < TINY, 1, total))
    return bandwidth


def compute_contrast(power: Float32) -> Float32:
    """`librosa.feature.spectral_contrast`: shape (7, frames), in dB.

    Mean magnitude of the loudest 2 % of a band's bins over that of the quietest.

    Args:
      power: shape (frames, 1025), of a float64 FFT: the quietest bins of the top
        band lie above the low-pass filter of an MP3, where a float32 FFT has
        only its own rounding noise.
    """
    bands = contrast_bands()
    peaks = np.empty((len(bands), len(power)), np.float32)
    valleys = np.empty_like(peaks)
    for row, (bins, count) in enumerate(bands):
        ordered = np.sort(power[:, bins], axis=1)
        peaks[row] = np.sqrt(ordered[:, -count:]).mean(axis=1)
        valleys[row] = np.sqrt(ordered[:, :count]).mean(axis=1)
    return power_to_db(peaks) - power_to_db(valleys)


@functools.cache
def contrast_bands() -> tuple[tuple[slice, int], ...]:
    """Bins of each contrast band, and how many of them make a peak or a valley.

    As in librosa, a band begins at the last bin below its edge, and a bin that
    belongs to the next band counts towards the 2 %.
    """
    frequencies = fft_frequencies(SAMPLE_RATE, N_FFT)
    starts = np.searchsorted(frequencies, CONTRAST_EDGES) - 1
    edges = [0, *starts.tolist(), FREQUENCY_BINS]
    bands = []
    for start, end in itertools.pairwise(edges):
        bins = end - start + (end < FREQUENCY_BINS)
        bands.append((slice(start, end), max(1, round(CONTRAST_QUANTILE * bins))))
    return tuple(bands)

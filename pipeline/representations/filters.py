"""Windows, filters and tuning with exactly librosa's values.

librosa's functions for them import scipy.signal, scipy.stats, scikit-learn and numba:
more than a second that every process would pay, for what NumPy says in a few lines. And
numba compiles some of them at their first import: 15 s in each process of a fresh
installation. Tests hold the two side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

A440 = 440.0
SEMITONES = 12
#: Semitones from one possible tuning to the next.
TUNING_STEP = 0.01


def fft_frequencies(rate: float, size: int) -> Float64:
    """Frequency in Hz of each bin of an FFT: shape (size // 2 + 1,)."""
    return np.asarray(np.fft.rfftfreq(size, 1.0 / rate), np.float64)


def hann(size: int, *, periodic: bool = True) -> Float64:
    """Hann window, shape (size,); one that is not periodic is symmetric."""
    angles = np.linspace(-np.pi, np.pi, size + periodic)[:size]
    return np.asarray(0.5 + 0.5 * np.cos(angles))


def mel_filters(bands: int, rate: float, size: int) -> NDArray[np.float32]:
    """Triangles of equal area on Slaney's mel scale, from 0 Hz to half the rate.

    The scale is linear up to 1,000 Hz, at 3 mel in 200 Hz, then logarithmic, with 27
    mel in a factor of 6.4 (M. Slaney, "Auditory Toolbox", 1998).

    Args:
      bands: number of filters.
      rate: sampling rate in Hz.
      size: of the FFT.

    Returns:
      Shape (bands, size // 2 + 1), float32.
    """
    hertz, knee, step = 200.0 / 3, 1000.0, np.log(6.4) / 27
    top = knee / hertz + np.log(rate / 2 / knee) / step
    mels = np.linspace(0, top, bands + 2)
    edges = hertz * mels
    high = mels >= knee / hertz
    edges[high] = knee * np.exp(step * (mels[high] - knee / hertz))
    widths = np.diff(edges)[:, None]
    away = fft_frequencies(rate, size) - edges[:, None]
    filters = np.minimum(away[:-2] / widths[:-1], -away[2:] / widths[1:])
    filters = np.maximum(filters, 0).astype(np.float32)
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters


def chroma_filters(tuning: float, rate: float, size: int) -> NDArray[np.float32]:
    """Share of each bin in the twelve pitch classes, the first of which is C.

    Gaussian bumps about each semitone, weighted by another one about five octaves
    above A0 (D. Ellis, "Chroma feature analysis and synthesis", 2007).

    Args:
      tuning: from A440, in semitones.
      rate: sampling rate in Hz.
      size: of the FFT.

    Returns:
      Shape (12, size // 2 + 1), float32.
    """
    frequencies = np.arange(1, size // 2 + 2, dtype=np.float64) * (rate / size)
    pitches = SEMITONES * _octaves(frequencies, tuning)
    # 0 Hz counts as one and a half octaves below the first bin.
    pitches = np.append(pitches[0] - 1.5 * SEMITONES, pitches)
    widths = np.maximum(np.diff(pitches), 1.0)
    pitches = pitches[:-1]
    half = SEMITONES / 2
    away = np.subtract.outer(pitches, np.arange(SEMITONES, dtype=float)).T
    away = np.remainder(away + half + 10 * SEMITONES, SEMITONES) - half
    bumps = np.exp(-0.5 * (2 * away / widths) ** 2)
    bumps /= np.sqrt(np.sum(bumps**2, axis=0))
    bumps *= np.exp(-0.5 * ((pitches / SEMITONES - 5) / 2) ** 2)
    return np.asarray(np.roll(bumps, -3, axis=0), np.float32)


def wavelets(frequencies: Float64, rate: float) -> tuple[NDArray[Any], Float64]:
    """Hann-windowed oscillations of one quality, each of sum 1.

    Args:
      frequencies: in Hz, ascending, at least two, in steps of a constant ratio.
      rate: sampling rate in Hz.

    Returns:
      Wavelets, complex64, shape (n, a power of two), and their lengths in samples.
    """
    logarithms = np.log2(frequencies)
    a_octave = np.empty_like(frequencies)
    a_octave[0] = 1 / (logarithms[1] - logarithms[0])
    a_octave[-1] = 1 / (logarithms[-1] - logarithms[-2])
    a_octave[1:-1] = 2 / (logarithms[2:] - logarithms[:-2])
    ratio = 2.0 ** (2 / a_octave)
    lengths = 1.0 / ((ratio - 1) / (ratio + 1)) * rate / frequencies
    size = int(2.0 ** np.ceil(np.log2(lengths.max())))
    bank = np.zeros((len(frequencies), size), np.complex64)
    for row, length, frequency in zip(bank, lengths, frequencies, strict=True):
        angles = np.arange(-length // 2, length // 2) * 2 * np.pi * frequency / rate
        wavelet = np.cos(angles) + 1j * np.sin(angles)
        wavelet *= hann(len(wavelet))
        wavelet /= np.abs(wavelet).sum()
        start = (size - len(wavelet)) // 2
        row[start : start + len(wavelet)] = wavelet
    return bank, lengths


def drop_smallest(rows: NDArray[Any], share: float) -> NDArray[Any]:
    """Sets the smallest magnitudes of each row to zero, up to a share of their sum."""
    magnitudes = np.abs(rows)
    ascending = np.sort(magnitudes, axis=1)
    sums = np.cumsum(ascending / magnitudes.sum(axis=1, keepdims=True), axis=1)
    first = np.argmin(sums < share, axis=1, keepdims=True)
    least = np.take_along_axis(ascending, first, axis=1)
    return np.where(magnitudes >= least, rows, 0)


def find_tuning(pitches: Float64) -> float:
    """Deviation from A440 that most pitches share.

    Args:
      pitches: in Hz, more than 0, shape (n,), n > 0.

    Returns:
      Fraction of a semitone, in [-0.5, 0.5), in steps of 0.01.
    """
    deviations = np.mod(SEMITONES * _octaves(pitches), 1.0)
    deviations[deviations >= 0.5] -= 1.0
    edges = np.linspace(-0.5, 0.5, round(1 / TUNING_STEP) + 1)
    counts, edges = np.histogram(deviations, edges)
    return float(edges[np.argmax(counts)])


def _octaves(frequencies: Float64, tuning: float = 0.0) -> Float64:
    """Octaves above A0."""
    lowest = A440 * 2.0 ** (tuning / SEMITONES) / 16
    return np.asarray(np.log2(frequencies / lowest))

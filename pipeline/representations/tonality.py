"""Pitch classes and tonal centroids from a constant-Q transform."""

from __future__ import annotations

import functools

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from pipeline.representations.constant_q import OCTAVES
from pipeline.representations.filters import SEMITONES, hann
from pipeline.representations.spectrum import TINY, Float32

#: A share of a frame's energy counts a quarter for each of these it exceeds.
CENS_STEPS = (0.4, 0.2, 0.1, 0.05)
#: Frames smoothed over, the window's two zeros not counted.
CENS_SMOOTHING = 41


def fold_octaves(constant_q: Float32) -> Float32:
    """Sums the octaves of each pitch class: (frames, 84) to (frames, 12), C first."""
    octaves = constant_q.reshape(-1, OCTAVES, SEMITONES)
    chroma: Float32 = octaves.sum(axis=1)
    return chroma


def normalise_peak(chroma: Float32) -> Float32:
    """Scales each frame's largest value to 1, as `librosa.feature.chroma_cqt`."""
    return _divide(chroma, chroma.max(axis=1))


def compute_cens(chroma: Float32) -> Float32:
    """Chroma energy normalised statistics, as `librosa.feature.chroma_cens`.

    Shares of each frame's sum, quantised to quarters, smoothed over 41 frames,
    scaled to Euclidean length 1 (M. Müller and S. Ewert, "Chroma Toolbox", 2011).

    Args:
      chroma: shape (frames, 12), float32, not negative.

    Returns:
      Shape (frames, 12), float32.
    """
    shares = _divide(chroma, chroma.sum(axis=1))
    quantised = np.zeros_like(shares)
    for step in CENS_STEPS:
        quantised += shares > np.float32(step)
    window = hann(CENS_SMOOTHING + 2, periodic=False)
    window /= window.sum() * len(CENS_STEPS)
    smooth = scipy.ndimage.convolve1d(quantised, window, axis=0, mode="constant")
    return _divide(smooth, np.sqrt(np.vecdot(smooth, smooth)))


def compute_tonnetz(chroma: Float32) -> NDArray[np.float64]:
    """Tonal centroids, as `librosa.feature.tonnetz`.

    Pitch classes on the circles of fifths, minor thirds and major thirds (radii
    1, 1 and 1/2), their centroid weighted by chroma (C. Harte, M. Sandler and
    M. Gasser, "Detecting harmonic change in musical audio", 2006).

    Args:
      chroma: shape (frames, 12), float32, not negative.

    Returns:
      Shape (frames, 6), float64: x and y on each circle.
    """
    return _divide(chroma, chroma.sum(axis=1)) @ tonnetz_matrix()


@functools.cache
def tonnetz_matrix() -> NDArray[np.float64]:
    """Position of each pitch class on the three circles, shape (12, 6)."""
    steps = np.array([7, 9, 4]) * np.pi / 6
    angles = np.multiply.outer(np.arange(SEMITONES), steps)
    circles = np.stack([np.sin(angles), np.cos(angles)], axis=2)
    circles *= np.array([1, 1, 0.5])[:, None]
    return circles.reshape(SEMITONES, 6)


def _divide(rows: Float32, sizes: Float32) -> Float32:
    """Divides each row by its size, and leaves silent ones as they are."""
    return np.asarray(rows / np.where(sizes < TINY, 1, sizes)[:, None], np.float32)

"""Normalisation by the training split's statistics, outside of a network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from pipeline.schema import Normalisation, RepresentationSchema


def expand_normalisation(
    layout: RepresentationSchema, normalisation: Normalisation
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Repeats each segment's mean and variance over its values: two `(d,)`.

    A segment that is constant in the training split gets variance 1: it stays 0,
    and a record that differs does not become a huge number.
    """
    mean = np.array(normalisation.mean, np.float64)
    variance = np.array(normalisation.variance, np.float64)
    # The variance of a constant is not always 0 in floating point.
    constant = variance <= 1e-12 * np.maximum(mean**2, 1e-12)
    variance = np.where(constant, 1.0, variance)
    lengths = [segment.length for segment in layout.segments]
    return (
        np.repeat(mean, lengths).astype(np.float32),
        np.repeat(variance, lengths).astype(np.float32),
    )


def normalise(
    values: NDArray[np.float32],
    mean: NDArray[np.float32],
    variance: NDArray[np.float32],
) -> None:
    """Replaces values by (value - mean) / sqrt(variance), in place.

    Args:
      values: `(clips, values)`, overwritten.
      mean: of each column, `(values,)`.
      variance: of each column, `(values,)`; positive.
    """
    values -= mean
    values /= np.sqrt(variance)

"""The seven numbers that summarise a feature's frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: FMA's names, in the order of its features.csv.
SEVEN_NUMBERS = ("kurtosis", "max", "mean", "median", "min", "skew", "std")


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

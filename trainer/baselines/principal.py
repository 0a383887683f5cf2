"""Principal components from the distances between clips.

With 85,210 values a clip the covariance of the values has 29 GB; the same components
come from the much smaller matrix of products between clips, which the distances hold.

scikit-learn's `KernelPCA(kernel="precomputed", eigen_solver="randomized")` finds the
same components in less time (for 6,400 clips 15 s of processor time against 23), but
keeps the matrix and a centred copy of it: 810 MB against 416, a tenth of all that the
baselines take.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

from trainer.data.distances import COLUMN_BLOCK

Float64s = NDArray[np.float64]

#: Components that are kept.
COMPONENTS = 200

#: Up to so many clips all eigenvalues are computed, which is exact and quick.
SMALL = 1_000

#: Vectors that are iterated beside those that are wanted, and iterations, of two
#: products each.
OVERSAMPLING = 20
ITERATIONS = 4

#: Share of the largest eigenvalue below which a component is rounding error.
TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PrincipalComponents:
    """Components of training clips, for clips given by their distances to them.

    Attributes:
      vectors: eigenvectors over their square roots of eigenvalues, `(clips, k)`.
      row_means: mean squared distance of each training clip to all, `(clips,)`.
      total_mean: mean of these.
      scale: what scores are multiplied by.
      share: of the variance of the training clips, what the components hold.
    """

    vectors: Float64s
    row_means: Float64s
    total_mean: float
    scale: float
    share: float

    def project(self, squared_distances: Float64s) -> Float64s:
        """Scores `(n, k)` of clips, from distances to training clips `(n, clips)`.

        Source: J. C. Gower, Adding a Point to Vector Diagrams in Multivariate
        Analysis (1968), Biometrika 55.
        """
        own_means = squared_distances.mean(axis=1, keepdims=True)
        products = squared_distances - own_means
        products -= self.row_means - self.total_mean
        products *= -0.5
        scores: Float64s = (products @ self.vectors) * self.scale
        return scores

    def as_projection(
        self, rows: NDArray[np.float32] | Float64s
    ) -> tuple[Float64s, Float64s]:
        """The same as `project` from the values themselves.

        Args:
          rows: values of the training clips, `(clips, values)`.

        Returns:
          Centre `(values,)` and matrix `(values, k)`: scores are (x - centre) matrix.
        """
        centre = rows.mean(axis=0, dtype=np.float64)
        scaled = self.vectors * self.scale
        matrix = np.empty((rows.shape[1], scaled.shape[1]))
        for start in range(0, rows.shape[1], COLUMN_BLOCK):
            block = slice(start, start + COLUMN_BLOCK)
            matrix[block] = (rows[:, block] - centre[block]).T @ scaled
        return centre, matrix


def find_components(
    squared_distances: Float64s, components: int = COMPONENTS
) -> PrincipalComponents:
    """Principal components of training clips.

    Args:
      squared_distances: between all of them, `(clips, clips)`.
      components: at most so many.

    Returns:
      Components whose scores have a mean square of 1.
    """
    clips = len(squared_distances)
    row_means = squared_distances.mean(axis=1)
    total_mean = float(row_means.mean())
    # Classical scaling: the products of the centred clips.
    products = squared_distances - row_means
    products -= row_means[:, np.newaxis] - total_mean
    products *= -0.5
    variance = float(np.trace(products))
    if clips <= SMALL or components >= clips:
        values, vectors = eigh(products, overwrite_a=True, check_finite=False)
    else:
        # Exact to rounding but for the last ones, which mix with those left out.
        vectors, values, _ = randomized_svd(
            products,
            components,
            n_oversamples=OVERSAMPLING,
            n_iter=ITERATIONS,
            power_iteration_normalizer="QR",
            random_state=0,
        )
    order = np.argsort(values)[::-1][:components]
    order = order[values[order] > TOLERANCE * max(values.max(), 0.0)]
    values, vectors = values[order], vectors[:, order]
    held = float(values.sum())
    return PrincipalComponents(
        vectors=vectors / np.sqrt(values),
        row_means=row_means,
        total_mean=total_mean,
        scale=float(np.sqrt(clips * len(values) / held)) if held else 1.0,
        share=held / variance if variance else 0.0,
    )

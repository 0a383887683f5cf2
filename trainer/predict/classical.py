"""Classical classifiers as arrays: what scikit-learn fits, without scikit-learn.

Each maps normalised rows to probabilities by the same arithmetic as the estimator that
it was taken from, and is nothing but arrays and numbers, which `arrays` names and the
constructor takes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from trainer.data.distances import share_of_nearest, squared_distances

Floats = NDArray[np.float32] | NDArray[np.float64]
Float64s = NDArray[np.float64]


class Classifier(Protocol):
    """Maps rows `(n, values)` to probabilities, float64 `(n, classes)`."""

    @property
    def width(self) -> int:
        """Values of a row."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    def predict(self, rows: Floats) -> Float64s:
        """Probabilities of rows."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LogisticRegression:
    """Multinomial logistic regression: softmax(x W + b).

    Attributes:
      coefficients: W, `(values, classes)`.
      intercepts: b, `(classes,)`.
    """

    coefficients: Floats
    intercepts: Floats

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        _check_shape("coefficients", self.coefficients, (None, None))
        _check_shape("intercepts", self.intercepts, (self.classes,))

    @property
    def width(self) -> int:
        """See `Classifier`."""
        return int(self.coefficients.shape[0])

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return int(self.coefficients.shape[1])

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        scores = rows.astype(np.float64) @ self.coefficients + self.intercepts
        probabilities: Float64s = softmax(scores, axis=1)
        return probabilities


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNaiveBayes:
    """Naive Bayes with a normal distribution of each value in each class.

    Attributes:
      means: `(classes, values)`.
      variances: likewise; positive.
      log_priors: `(classes,)`.
      temperature: probabilities are softmax(log joint densities / temperature).
    """

    means: Floats
    variances: Floats
    log_priors: Floats
    temperature: float

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        _check_shape("means", self.means, (None, None))
        _check_shape("variances", self.variances, self.means.shape)
        _check_shape("log_priors", self.log_priors, (self.classes,))
        _check_positive("variances", self.variances)
        _check_positive("temperature", self.temperature)

    @property
    def width(self) -> int:
        """See `Classifier`."""
        return int(self.means.shape[1])

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return int(self.means.shape[0])

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        scores = np.empty((len(rows), self.classes))
        for label in range(self.classes):
            variances = self.variances[label].astype(np.float64)
            squares = (rows - self.means[label].astype(np.float64)) ** 2 / variances
            scores[:, label] = self.log_priors[label] - 0.5 * (
                np.log(2 * np.pi * variances).sum() + squares.sum(axis=1)
            )
        probabilities: Float64s = softmax(scores / self.temperature, axis=1)
        return probabilities


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NeighbourShares:
    """Share of the nearest training clips that have each of several genres.

    Attributes:
      vectors: the training clips, `(clips, values)`.
      labels: int8 `(clips, classes)`, 1 for each genre of a clip.
      neighbours: how many are asked.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[Any]
    neighbours: int

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        _check_shape("vectors", self.vectors, (None, None))
        if not 0 < self.neighbours <= len(self.vectors):
            raise ValueError(f"{self.neighbours} neighbours of {len(self.vectors)}")
        self._check_labels()

    def _check_labels(self) -> None:
        _check_shape("labels", self.labels, (len(self.vectors), None))
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError("labels must be 0 or 1")

    @property
    def width(self) -> int:
        """See `Classifier`."""
        return int(self.vectors.shape[1])

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return int(self.labels.shape[1])

    @property
    def marks(self) -> NDArray[Any]:
        """1 for each genre of a training clip, 0 for all others: `(clips, classes)`."""
        return self.labels

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        distances = squared_distances(rows.astype(np.float32), self.vectors)
        return share_of_nearest(distances, self.marks, self.neighbours)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NearestNeighbours(NeighbourShares):
    """The same of one genre a clip: `labels` are classes, int64 `(clips,)`."""

    def _check_labels(self) -> None:
        _check_shape("labels", self.labels, (len(self.vectors),))
        if self.labels.dtype.kind != "i" or self.labels.min() < 0:
            raise ValueError("labels must be integers of 0 or more")

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return int(self.labels.max()) + 1

    @property
    def marks(self) -> NDArray[Any]:
        """See `NeighbourShares`."""
        marks: NDArray[np.int8] = np.eye(self.classes, dtype=np.int8)[self.labels]
        return marks


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RbfSvm:
    """Support vector machines of all pairs of classes, kernel exp(-gamma d²).

    Scores are the pairs' votes, and among equally many the sum of their decision
    values, as in scikit-learn's `SVC(decision_function_shape="ovr")`.

    Attributes:
      vectors: support vectors, those of a class together, `(vectors, values)`.
      counts: of each class, `(classes,)`.
      coefficients: libsvm's dual ones, `(classes - 1, vectors)`.
      intercepts: of the pairs 0-1, 0-2, ..., 1-2, ..., `(pairs,)`.
      gamma: of the kernel.
      temperature: probabilities are softmax(scores / temperature).
    """

    vectors: Floats
    counts: NDArray[np.int64]
    coefficients: Floats
    intercepts: Floats
    gamma: float
    temperature: float

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        _check_shape("vectors", self.vectors, (None, None))
        _check_shape("counts", self.counts, (None,))
        if self.counts.dtype.kind != "i" or self.counts.min() < 0:
            raise ValueError("counts must be integers of 0 or more")
        classes, vectors = self.classes, len(self.vectors)
        if int(self.counts.sum()) != vectors or classes < 2:
            raise ValueError(f"{vectors} vectors of {self.counts.tolist()[:10]}")
        _check_shape("coefficients", self.coefficients, (classes - 1, vectors))
        _check_shape("intercepts", self.intercepts, (classes * (classes - 1) // 2,))
        _check_positive("gamma", self.gamma)
        _check_positive("temperature", self.temperature)

    @property
    def width(self) -> int:
        """See `Classifier`."""
        return int(self.vectors.shape[1])

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return len(self.counts)

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        distances = squared_distances(
            rows.astype(np.float32), self.vectors.astype(np.float32)
        )
        kernel = np.exp(-float(self.gamma) * distances)
        edges = np.concatenate([[0], np.cumsum(self.counts)])
        parts = [slice(a, b) for a, b in itertools.pairwise(edges.tolist())]
        votes = np.zeros((len(rows), self.classes))
        sums = np.zeros_like(votes)
        pairs = itertools.combinations(range(self.classes), 2)
        for number, (i, j) in enumerate(pairs):
            decision = self.intercepts[number] + (
                kernel[:, parts[i]] @ self.coefficients[j - 1, parts[i]]
                + kernel[:, parts[j]] @ self.coefficients[i, parts[j]]
            )
            votes[:, i] += decision >= 0
            votes[:, j] += decision < 0
            sums[:, i] += decision
            sums[:, j] -= decision
        # Of two classes scikit-learn gives the one decision value as it is.
        several = self.classes > 2
        scores = votes + sums / (3 * (np.abs(sums) + 1)) if several else sums
        probabilities: Float64s = softmax(scores / self.temperature, axis=1)
        return probabilities


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OnComponents:
    """A classifier of principal components: of (x - centre) M.

    Attributes:
      centre: `(values,)`.
      matrix: M, `(values, components)`.
      classifier: reads the components.
    """

    centre: Floats
    matrix: Floats
    classifier: Classifier

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        _check_shape("matrix", self.matrix, (None, self.classifier.width))
        _check_shape("centre", self.centre, (self.width,))

    @property
    def width(self) -> int:
        """See `Classifier`."""
        return int(self.matrix.shape[0])

    @property
    def classes(self) -> int:
        """See `Classifier`."""
        return self.classifier.classes

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        centred = rows.astype(np.float64) - self.centre
        return self.classifier.predict(centred @ self.matrix)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LogisticRegressions(LogisticRegression):
    """A logistic regression for each of several genres: sigmoid(x W + b)."""

    def predict(self, rows: Floats) -> Float64s:
        """See `Classifier`."""
        scores = rows.astype(np.float64) @ self.coefficients + self.intercepts
        return np.asarray(expit(scores))


#: Classes by the names that files have for them.
CLASSIFIERS: Mapping[str, type] = {
    "logistic_regression": LogisticRegression,
    "gaussian_nb": GaussianNaiveBayes,
    "knn": NearestNeighbours,
    "rbf_svm": RbfSvm,
    "logistic_regressions": LogisticRegressions,
    "neighbour_shares": NeighbourShares,
}
_COMPONENTS = ("centre", "matrix")


def to_arrays(classifier: Classifier) -> tuple[str, dict[str, NDArray[Any]]]:
    """Name and arrays of a classifier; numbers are arrays without axes."""
    arrays: dict[str, NDArray[Any]] = {}
    if isinstance(classifier, OnComponents):
        arrays |= {name: getattr(classifier, name) for name in _COMPONENTS}
        classifier = classifier.classifier
    kind = next(name for name, cls in CLASSIFIERS.items() if type(classifier) is cls)
    fields = dataclasses.fields(CLASSIFIERS[kind])
    arrays |= {f.name: np.asarray(getattr(classifier, f.name)) for f in fields}
    return kind, arrays


def with_temperature(classifier: Classifier, temperature: float) -> Classifier:
    """The same classifier with another temperature.

    Raises:
      ValueError: it has none.
    """
    if not isinstance(classifier, GaussianNaiveBayes | RbfSvm):
        raise ValueError(f"Expected scores to scale. Received: {type(classifier)}")
    return dataclasses.replace(classifier, temperature=temperature)


def count_numbers(classifier: Classifier) -> int:
    """How many numbers a classifier consists of."""
    return sum(array.size for array in to_arrays(classifier)[1].values())


def from_arrays(kind: str, arrays: Mapping[str, NDArray[Any]]) -> Classifier:
    """Inverse of `to_arrays`.

    Raises:
      ValueError: they are not the arrays of such a classifier.
    """
    if kind not in CLASSIFIERS:
        raise ValueError(f"there is no classifier {kind!r:.40}")
    for name, array in arrays.items():
        if array.dtype.kind not in "fi" or not np.all(np.isfinite(array)):
            raise ValueError(f"{name:.40} holds what is no finite number")
    values: dict[str, Any] = dict(arrays)
    outer = {name: values.pop(name) for name in _COMPONENTS if name in values}
    fields = {field.name for field in dataclasses.fields(CLASSIFIERS[kind])}
    if set(values) != fields or len(outer) not in (0, len(_COMPONENTS)):
        raise ValueError(f"a {kind} has no {', '.join(sorted(values))[:200]}")
    values = {n: v.item() if v.ndim == 0 else v for n, v in values.items()}
    inner: Classifier = CLASSIFIERS[kind](**values)
    return OnComponents(classifier=inner, **outer) if outer else inner


def _check_shape(name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    found = np.shape(array)
    fits = len(found) == len(shape) and all(
        size == wanted or (wanted is None and size > 0)
        for size, wanted in zip(found, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have the shape ({wanted}). Received: {found}")


def _check_positive(name: str, values: Any) -> None:
    if not np.all(np.asarray(values) > 0):
        raise ValueError(f"{name} must be over 0")

"""Classical classifiers as TensorFlow operations, equal to `trainer.predict.classical`.

In float32 throughout, which every format of a model has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.schema import UserError
from trainer.data.normalisation import expand_normalisation
from trainer.predict.baseline import Baseline
from trainer.predict.classical import (
    Classifier,
    GaussianNaiveBayes,
    LogisticRegression,
    LogisticRegressions,
    NeighbourShares,
    OnComponents,
    RbfSvm,
    count_numbers,
)

#: Bytes of numbers that a graph may hold; a protocol buffer ends at 2 GiB.
MAX_BYTES = 1 << 30

Score = Callable[[tf.Tensor], tf.Tensor]


def make_score(baseline: Baseline) -> Score:
    """A baseline as a function of records.

    Returns:
      From records `(n, *value.shape)` to probabilities before calibration, float32
      `(n, genres)`; genres that it does not know have 0.

    Raises:
      UserError: it is too large for a graph.
    """
    size = 4 * count_numbers(baseline.classifier)
    if size > MAX_BYTES:
        raise UserError(
            f"The baseline consists of {size / 1e9:.1f} GB of numbers, a graph holds "
            f"{MAX_BYTES / 1e9:.1f}; export its form on principal components (pca_...)."
        )
    layout = baseline.manifest.representations[baseline.representation]
    mean, variance = expand_normalisation(
        layout, baseline.manifest.normalisation[baseline.representation]
    )
    deviation = np.sqrt(variance)
    classify = make_classifier(baseline.classifier)
    places = np.zeros((len(baseline.classes), len(baseline.genres)), np.float32)
    places[np.arange(len(baseline.classes)), baseline.classes] = 1

    def score(records: tf.Tensor) -> tf.Tensor:
        rows = tf.cast(tf.reshape(records, (-1, layout.value.size)), tf.float32)
        return classify((rows - mean) / deviation) @ places

    return score


def make_classifier(classifier: Classifier) -> Score:
    """A classifier as a function from rows to probabilities.

    Raises:
      ValueError: it is none of `trainer.predict.classical`.
    """
    match classifier:
        case LogisticRegressions():
            return _logistic_regression(classifier, tf.sigmoid)
        case LogisticRegression():
            return _logistic_regression(classifier, tf.nn.softmax)
        case GaussianNaiveBayes():
            return _naive_bayes(classifier)
        case NeighbourShares():
            return _neighbours(classifier)
        case RbfSvm():
            return _svm(classifier)
        case OnComponents():
            inner = make_classifier(classifier.classifier)
            centre, matrix = _float32(classifier.centre), _float32(classifier.matrix)
            return lambda rows: inner((rows - centre) @ matrix)
    raise ValueError(f"Expected a known classifier. Received: {type(classifier)}")


def _float32(values: Any) -> Any:
    return np.asarray(values, np.float32)


def _logistic_regression(classifier: LogisticRegression, activation: Score) -> Score:
    coefficients = _float32(classifier.coefficients)
    intercepts = _float32(classifier.intercepts)
    return lambda rows: activation(rows @ coefficients + intercepts)


def _naive_bayes(classifier: GaussianNaiveBayes) -> Score:
    variances = np.asarray(classifier.variances, np.float64)
    constants = classifier.log_priors - 0.5 * np.log(2 * np.pi * variances).sum(axis=1)
    # Only their differences count, and small numbers are added up more exactly.
    constants = _float32(constants - constants.max())
    means, scales = _float32(classifier.means), _float32(1 / np.sqrt(variances))

    def score(rows: tf.Tensor) -> tf.Tensor:
        squares = [
            tf.reduce_sum(tf.square((rows - mean) * scale), axis=1)
            for mean, scale in zip(means, scales, strict=True)
        ]
        densities = constants - 0.5 * tf.stack(squares, axis=1)
        return tf.nn.softmax(densities / classifier.temperature)

    return score


def _squared_distances(rows: tf.Tensor, others: Any) -> tf.Tensor:
    lengths = tf.reduce_sum(tf.square(rows), axis=1, keepdims=True)
    products = rows @ np.ascontiguousarray(others.T)
    return tf.maximum(lengths + np.square(others).sum(axis=1) - 2 * products, 0)


def _neighbours(classifier: NeighbourShares) -> Score:
    vectors, marks = _float32(classifier.vectors), _float32(classifier.marks)

    def score(rows: tf.Tensor) -> tf.Tensor:
        distances = _squared_distances(rows, vectors)
        _, nearest = tf.math.top_k(-distances, k=int(classifier.neighbours))
        return tf.reduce_mean(tf.gather(marks, nearest), axis=1)

    return score


def _svm(classifier: RbfSvm) -> Score:
    """All decision values are one product: of the kernel with a sparse matrix."""
    edges = np.concatenate([[0], np.cumsum(classifier.counts)]).tolist()
    parts = [slice(first, last) for first, last in itertools.pairwise(edges)]
    pairs = list(itertools.combinations(range(classifier.classes), 2))
    weights = np.zeros((len(classifier.vectors), len(pairs)), np.float32)
    # Whom a pair's decision is for, and whom it is against.
    first, second = np.zeros((2, len(pairs), classifier.classes), np.float32)
    for number, (i, j) in enumerate(pairs):
        weights[parts[i], number] = classifier.coefficients[j - 1, parts[i]]
        weights[parts[j], number] = classifier.coefficients[i, parts[j]]
        first[number, i] = second[number, j] = 1
    vectors, intercepts = _float32(classifier.vectors), _float32(classifier.intercepts)

    def score(rows: tf.Tensor) -> tf.Tensor:
        kernel = tf.exp(-classifier.gamma * _squared_distances(rows, vectors))
        decisions = kernel @ weights + intercepts
        sums = decisions @ (first - second)
        wins = tf.cast(decisions >= 0, tf.float32)
        votes = wins @ first + (1 - wins) @ second
        scores = votes + sums / (3 * (tf.abs(sums) + 1))
        if classifier.classes == 2:
            scores = sums
        return tf.nn.softmax(scores / classifier.temperature)

    return score

"""Classifiers of several genres a clip: one logistic regression each, and kNN.

Labels are uint8 `(clips, genres)`. Candidates are judged by the mean of the genres'
average precisions on the validation clips, as models are.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from trainer.baselines.choice import Classifier, Examples, Float64s, Floats, choose
from trainer.baselines.classifiers import (
    LOGISTIC_MAX_ITERATIONS,
    LOGISTIC_TOLERANCE,
    list_logistic_strengths,
    list_neighbours,
)
from trainer.data.distances import share_of_nearest
from trainer.evaluation.tasks.multi_label_scores import macro_ap
from trainer.predict import classical

#: Eigenvalues that are a smaller share of the largest one are rounding errors.
RANK_TOLERANCE = 1e-7


def fit_logistic_regressions(examples: Examples) -> Classifier:
    """A logistic regression with an L2 penalty for each genre.

    A penalised solution is a sum of training rows. So each is fitted in the space that
    these span, which has far fewer dimensions than a row has values.
    """
    rows, labels = examples.training, examples.training_labels
    products = np.asarray(rows @ rows.T, np.float64)
    lengths, directions = np.linalg.eigh(products)
    used = lengths > RANK_TOLERANCE * max(lengths[-1], 1e-30)
    directions, scale = directions[:, used], np.sqrt(lengths[used])
    coordinates = directions * scale

    def candidates() -> Iterator[Classifier]:
        for strength in list_logistic_strengths(examples):
            inner, intercepts = _fit_each(coordinates, labels, strength)
            of_rows = (directions / scale) @ inner
            coefficients = np.asarray(rows.T @ of_rows.astype(rows.dtype), np.float64)
            model = classical.LogisticRegressions(
                coefficients=coefficients, intercepts=intercepts
            )
            yield Classifier(
                parameters={"C": strength},
                predict=model.predict,
                classes=np.arange(labels.shape[1]),
                extract=functools.partial(_keep, model),
            )

    return choose(candidates(), examples, _measure_precision)


def _fit_each(
    rows: Float64s, labels: NDArray[Any], strength: float
) -> tuple[Float64s, Float64s]:
    """Coefficients `(values, genres)` and intercepts `(genres,)`."""
    clips, genres = labels.shape
    coefficients = np.zeros((rows.shape[1], genres))
    share = (labels.sum(axis=0) + 0.5) / (clips + 1)
    # What nobody has, or everybody, is known from its share alone.
    intercepts: Float64s = np.log(share / (1 - share))
    for genre in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0)):
        model = LogisticRegression(
            C=strength, tol=LOGISTIC_TOLERANCE, max_iter=LOGISTIC_MAX_ITERATIONS
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, labels[:, genre])
        coefficients[:, genre], intercepts[genre] = model.coef_[0], model.intercept_[0]
    return coefficients, intercepts


def _keep(model: classical.Classifier, _: Floats) -> classical.Classifier:
    return model


def fit_neighbour_shares(examples: Examples) -> Classifier:
    """Shares of the nearest training clips that have each genre, from distances."""
    labels = examples.training_labels
    clips = len(labels)

    def extract(k: int, rows: Floats) -> classical.Classifier:
        return classical.NeighbourShares(
            vectors=rows.astype(np.float32, copy=False),
            labels=labels.astype(np.int8),
            neighbours=k,
        )

    def candidates() -> Iterator[Classifier]:
        for k in list_neighbours(examples):
            yield Classifier(
                parameters={"k": k},
                predict=functools.partial(
                    share_of_nearest, labels=labels, neighbours=k
                ),
                classes=np.arange(labels.shape[1]),
                extract=functools.partial(extract, k),
                clips=clips,
                notes=("A training clip counts among its own neighbours.",),
            )

    return choose(candidates(), examples, _measure_precision)


def _measure_precision(candidate: Classifier, examples: Examples) -> float:
    """Macro average precision on the validation clips."""
    # Of all folds at once: in one alone, most genres would have no clip.
    known = np.ones(len(examples.validation), np.bool_)
    if examples.folds is not None and np.any(examples.folds >= 0):
        known = examples.folds >= 0
    probabilities = candidate.predict(examples.validation)
    return macro_ap(examples.validation_labels[known], probabilities[known])

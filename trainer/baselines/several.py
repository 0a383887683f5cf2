"""Logistic regressions for several genres a clip: one each."""

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
)
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

    return choose(candidates(), examples)


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

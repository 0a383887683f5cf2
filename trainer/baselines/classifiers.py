"""Classical classifiers for few clips of very many values, in bounded memory.

scikit-learn's support vector machines turn their input into float64 copies, and
its naive Bayes and nearest neighbours make copies as large as the input. Here
naive Bayes reads blocks of rows, and the other two get the distances between clips,
which BLAS computes once, block by block.

No function here sees the test split: what there is to choose is chosen by the
accuracy on folds of the validation split, each with artists of its own. Candidates
come from the smoothest to the most flexible, and the first of equally good ones is
taken.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from trainer.baselines.distances import squared_distances
from trainer.baselines.principal import find_components
from trainer.evaluation.calibration import fit_temperature

Floats = NDArray[np.float32] | NDArray[np.float64]
Float64s = NDArray[np.float64]

#: Rows in a block: 64 rows of 85,210 float64 values take 44 MB.
ROW_BLOCK = 64

#: Inverse strength of the penalty, times the number of values: the products of
#: two clips grow with that number. Likewise below, first the smoothest.
LOGISTIC_C_TIMES_VALUES = (1.0, 10.0, 100.0)
LOGISTIC_MAX_ITERATIONS = 500
#: Largest component of the mean loss's gradient at which lbfgs stops. A smaller one
#: doubles the time and changes no prediction to speak of.
LOGISTIC_TOLERANCE = 1e-3
#: Share of the largest variance that is added to all.
NAIVE_BAYES_SMOOTHING = (1.0, 0.1, 1e-3, 1e-9)
#: As far as they are at most a quarter of the training clips.
NEIGHBOURS = (51, 31, 21, 15, 11, 7, 5, 3, 1)
#: Gamma, times the mean squared distance; 2 is scikit-learn's gamma="scale".
SVM_GAMMA_TIMES_DISTANCE = (0.5, 2.0)
SVM_C = (1.0, 10.0)
#: Bounds of the temperature: scores of naive Bayes are sums over all values.
SCORE_TEMPERATURES = (0.1, 1e6)

_TEMPERED = (
    "Probabilities are softmax(scores / temperature); the temperature minimises the "
    "log-loss on the validation split and changes no prediction."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What a classifier is fitted to and chosen with.

    Attributes:
      training: normalised values `(clips, values)`, or for `fit_knn` and
        `fit_rbf_svm` the squared distances `(clips, training clips)`.
      training_labels: int64 `(clips,)`.
      validation: as `training`; without rows, defaults are taken.
      validation_labels: int64 `(clips,)`.
      genres: number of genres, of which the training split may lack some.
      folds: fold of each validation clip, int64 `(clips,)`; candidates are judged by
        the mean of their accuracies over folds. None for one fold.
    """

    training: Floats
    training_labels: NDArray[np.int64]
    validation: Floats
    validation_labels: NDArray[np.int64]
    genres: int
    folds: NDArray[np.int64] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
      parameters: how it was fitted; JSON values.
      predict: maps rows like the training ones to probabilities, float64
        `(rows, genres)`; within this module also to scores.
      notes: sentences that a reader of its scores has to know.
    """

    parameters: Mapping[str, Any]
    predict: Callable[[Floats], Float64s]
    notes: tuple[str, ...] = ()


def fit_logistic_regression(examples: Examples) -> Classifier:
    """Multinomial logistic regression with an L2 penalty; lbfgs keeps float32."""
    values = examples.training.shape[1]
    grid = [multiple / values for multiple in LOGISTIC_C_TIMES_VALUES]

    def candidates() -> Iterator[Classifier]:
        # Each fit starts from the solution for the stronger penalty before it.
        model = LogisticRegression(
            warm_start=True, tol=LOGISTIC_TOLERANCE, max_iter=LOGISTIC_MAX_ITERATIONS
        )
        for strength in grid if len(examples.validation) else grid[1:2]:
            model.set_params(C=strength)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(examples.training, examples.training_labels)
            yield _logistic_classifier(copy.deepcopy(model), examples.genres)

    return choose(candidates(), examples)


def _logistic_classifier(model: Any, genres: int) -> Classifier:
    iterations = int(model.n_iter_.max())
    stopped = iterations >= LOGISTIC_MAX_ITERATIONS
    return Classifier(
        parameters={"C": float(model.C), "iterations": iterations},
        predict=lambda rows: expand(model.predict_proba(rows), model.classes_, genres),
        notes=(f"Stopped after {iterations} iterations.",) if stopped else (),
    )


def fit_gaussian_nb(examples: Examples) -> Classifier:
    """Gaussian naive Bayes; scikit-learn's, block by block of rows."""
    model = GaussianNB(var_smoothing=0)
    labels = examples.training_labels
    classes = np.unique(labels)
    for start in range(0, len(labels), ROW_BLOCK):
        block = slice(start, start + ROW_BLOCK)
        values = examples.training[block].astype(np.float64)
        model.partial_fit(values, labels[block], classes)
    # It scales its smoothing by the variances of one block; here by those of all.
    mean = model.class_prior_ @ model.theta_
    square = model.class_prior_ @ (model.var_ + model.theta_**2)
    largest = float((square - mean**2).max())

    def candidates() -> Iterator[Classifier]:
        grid = NAIVE_BAYES_SMOOTHING
        for smoothing in grid if len(examples.validation) else grid[-1:]:
            smoothed = copy.copy(model)
            smoothed.var_ = model.var_ + smoothing * largest
            yield Classifier(
                parameters={"var_smoothing": smoothing},
                predict=_expanded(
                    _by_block(smoothed.predict_joint_log_proba),
                    classes,
                    examples.genres,
                ),
            )

    return temper(choose(candidates(), examples), examples)


def _by_block(predict: Callable[[Floats], Float64s]) -> Callable[[Floats], Float64s]:
    """Computes `ROW_BLOCK` rows at a time, of which float64 copies are small."""

    def predict_rows(rows: Floats) -> Float64s:
        starts = range(0, len(rows), ROW_BLOCK)
        return np.concatenate(
            [predict(rows[start : start + ROW_BLOCK]) for start in starts]
        )

    return predict_rows


def fit_knn(examples: Examples) -> Classifier:
    """Majority of the nearest training clips, from squared distances."""
    clips = len(examples.training)
    grid = [k for k in NEIGHBOURS if k <= max(1, clips // 4)]

    def candidates() -> Iterator[Classifier]:
        for k in grid if len(examples.validation) else [min(5, clips)]:
            model = KNeighborsClassifier(k, metric="precomputed")
            model.fit(examples.training, examples.training_labels)
            yield Classifier(
                parameters={"k": k},
                predict=_expanded(
                    model.predict_proba, model.classes_, examples.genres, absent=0.0
                ),
                notes=("A training clip counts among its own neighbours.",),
            )

    return choose(candidates(), examples)


def fit_rbf_svm(examples: Examples) -> Classifier:
    """Support vector machine, kernel exp(-gamma d²), from squared distances d².

    Among genres with equally many votes the decision values choose, as in
    scikit-learn's `SVC(break_ties=True)`.
    """
    mean_distance = float(examples.training.mean())

    def candidates() -> Iterator[Classifier]:
        chosen = len(examples.validation) > 0
        multiples = SVM_GAMMA_TIMES_DISTANCE if chosen else (2.0,)
        strengths = SVM_C if chosen else (1.0,)
        for multiple in multiples:
            # Clips that are all alike have no distance to scale by.
            gamma = multiple / (mean_distance or 1.0)
            kernel = rbf_kernel(examples.training, gamma)
            for strength in strengths:
                model = SVC(kernel="precomputed", C=strength)
                model.fit(kernel, examples.training_labels)
                yield Classifier(
                    parameters={
                        "C": strength,
                        "gamma": gamma,
                        "support_vectors": int(model.n_support_.sum()),
                    },
                    predict=_expanded(
                        _svm_scores(model, gamma), model.classes_, examples.genres
                    ),
                )

    return temper(choose(candidates(), examples), examples)


def fit_on_components(
    fit: Callable[[Examples], Classifier], *, on_distances: bool = False
) -> Callable[[Examples], Classifier]:
    """Lets a classifier read principal components of the training clips.

    Args:
      fit: fits it to values, or to squared distances.
      on_distances: which of them.

    Returns:
      A function that fits it to squared distances between the clips themselves.
    """

    def fit_components(examples: Examples) -> Classifier:
        components = find_components(np.asarray(examples.training, np.float64))
        training = components.project(np.asarray(examples.training, np.float64))

        def read(rows: Floats) -> Floats:
            scores = components.project(np.asarray(rows, np.float64))
            return _distances(scores, training) if on_distances else scores

        validation: Floats = np.zeros((0, training.shape[1]))
        if len(examples.validation):
            validation = read(examples.validation)
        inner = fit(
            dataclasses.replace(
                examples,
                training=_distances(training, training) if on_distances else training,
                validation=validation,
            )
        )
        return Classifier(
            parameters={
                "components": training.shape[1],
                "variance_held": components.share,
                **inner.parameters,
            },
            predict=lambda rows: inner.predict(read(rows)),
            notes=inner.notes,
        )

    return fit_components


def _distances(rows: Float64s, others: Float64s) -> Float64s:
    return squared_distances(rows.astype(np.float32), others.astype(np.float32))


def rbf_kernel(squared_distances: Floats, gamma: float) -> Float64s:
    """exp(-gamma d²) in one float64 array, the type that libsvm works on."""
    kernel = np.multiply(squared_distances, -gamma, dtype=np.float64)
    return np.exp(kernel, out=kernel)


def _svm_scores(model: Any, gamma: float) -> Callable[[Floats], Float64s]:
    def scores(rows: Floats) -> Float64s:
        decision: Float64s = model.decision_function(rbf_kernel(rows, gamma))
        if decision.ndim == 1:  # of two genres there is only the second's
            decision = np.stack([-decision, decision], axis=1)
        return decision

    return scores


def choose(candidates: Iterable[Classifier], examples: Examples) -> Classifier:
    """The candidate of the best accuracy over folds, the first of equals.

    Candidates are fitted as they are drawn, so only two are held at a time.
    """
    best: Classifier | None = None
    best_score = -1.0
    for candidate in candidates:
        score = 0.0
        if len(examples.validation):
            predicted = np.argmax(candidate.predict(examples.validation), axis=1)
            score = mean_over_folds(
                predicted == examples.validation_labels, examples.folds
            )
        # Sums of the same numbers in another order are no better.
        if score > best_score + 1e-9:
            best, best_score = candidate, score
    if best is None:
        raise ValueError("Expected at least one candidate. Received: none")
    return best


def mean_over_folds(hits: NDArray[np.bool_], folds: NDArray[np.int64] | None) -> float:
    """Mean over folds of the share of hits, `(clips,)`; negative folds are left out."""
    if folds is None or not np.any(folds >= 0):
        return float(hits.mean())
    used = [fold for fold in np.unique(folds) if fold >= 0]
    return float(np.mean([hits[folds == fold].mean() for fold in used]))


def temper(classifier: Classifier, examples: Examples) -> Classifier:
    """Turns a classifier of scores into one of probabilities."""
    temperature = 1.0
    if len(examples.validation):
        scores = classifier.predict(examples.validation)
        temperature = fit_temperature(
            scores, examples.validation_labels, SCORE_TEMPERATURES
        )
    return Classifier(
        parameters={**classifier.parameters, "temperature": temperature},
        predict=lambda rows: softmax(classifier.predict(rows) / temperature, axis=1),
        notes=(*classifier.notes, _TEMPERED),
    )


def expand(
    scores: Floats, classes: NDArray[np.int64], genres: int, *, absent: float = 0.0
) -> Float64s:
    """Gives genres that the training split lacks a column of their own."""
    expanded = np.full((len(scores), genres), absent)
    expanded[:, classes] = scores
    return expanded


def _expanded(
    predict: Callable[[Floats], Floats],
    classes: NDArray[np.int64],
    genres: int,
    *,
    absent: float = -np.inf,
) -> Callable[[Floats], Float64s]:
    return lambda rows: expand(predict(rows), classes, genres, absent=absent)

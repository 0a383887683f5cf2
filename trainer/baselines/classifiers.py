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
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from trainer.baselines.choice import (
    Classifier,
    Examples,
    Float64s,
    Floats,
    choose,
    expand,
    expand_all,
    list_values,
    temper,
)
from trainer.baselines.principal import find_components
from trainer.data.distances import squared_distances
from trainer.predict import classical

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


def fit_logistic_regression(examples: Examples) -> Classifier:
    """Multinomial logistic regression with an L2 penalty; lbfgs keeps float32."""
    grid = list_logistic_strengths(examples)

    def candidates() -> Iterator[Classifier]:
        # Each fit starts from the solution for the stronger penalty before it.
        model = LogisticRegression(
            warm_start=True, tol=LOGISTIC_TOLERANCE, max_iter=LOGISTIC_MAX_ITERATIONS
        )
        for strength in grid:
            model.set_params(C=strength)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(examples.training, examples.training_labels)
            yield _logistic_classifier(copy.deepcopy(model), examples.genres)

    return choose(candidates(), examples)


def list_logistic_strengths(examples: Examples) -> Sequence[float]:
    """Values of C to try, the smoothest first."""
    values = examples.training.shape[1]
    grid = [multiple / values for multiple in LOGISTIC_C_TIMES_VALUES]
    return list_values(examples, "C", grid, grid[1])


def list_neighbours(examples: Examples) -> Sequence[int]:
    """Numbers of neighbours to try, the smoothest first.

    Without validation clips five, of one genre a clip not more than a genre has clips,
    and an odd number: else genres of other clips outvote the right one, or draw.
    """
    clips, labels = len(examples.training), examples.training_labels
    grid = [k for k in NEIGHBOURS if k <= max(1, clips // 4)]
    usual = min(5, clips)
    if labels.ndim == 1:
        mean = clips // len(np.unique(labels))
        usual = min(usual, mean - 1 + mean % 2 or 1)
    return list_values(examples, "k", grid, usual)


def _logistic_classifier(model: Any, genres: int) -> Classifier:
    iterations = int(model.n_iter_.max())
    stopped = iterations >= LOGISTIC_MAX_ITERATIONS

    def extract(_: Floats) -> classical.Classifier:
        coefficients, intercepts = model.coef_, model.intercept_
        if len(coefficients) == 1:  # of two genres there is only the second's
            coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
            intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
        return classical.LogisticRegression(
            coefficients=coefficients.T, intercepts=intercepts
        )

    return Classifier(
        parameters={"C": float(model.C), "iterations": iterations},
        predict=lambda rows: expand(model.predict_proba(rows), model.classes_, genres),
        classes=model.classes_,
        extract=extract,
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
        for smoothing in list_values(examples, "var_smoothing", grid, grid[-1]):
            smoothed = copy.copy(model)
            smoothed.var_ = model.var_ + smoothing * largest
            yield Classifier(
                parameters={"var_smoothing": smoothing},
                predict=expand_all(
                    _by_block(smoothed.predict_joint_log_proba),
                    classes,
                    examples.genres,
                ),
                classes=classes,
                extract=functools.partial(_extract_naive_bayes, smoothed),
            )

    return temper(choose(candidates(), examples), examples)


def _extract_naive_bayes(model: Any, _: Floats) -> classical.GaussianNaiveBayes:
    return classical.GaussianNaiveBayes(
        means=model.theta_,
        variances=model.var_,
        log_priors=np.log(model.class_prior_),
        temperature=1.0,
    )


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

    def extract(k: int, classes: NDArray[np.int64], rows: Floats) -> Any:
        labels = np.searchsorted(classes, examples.training_labels)
        return classical.NearestNeighbours(
            vectors=rows.astype(np.float32, copy=False), labels=labels, neighbours=k
        )

    def candidates() -> Iterator[Classifier]:
        for k in list_neighbours(examples):
            model = KNeighborsClassifier(k, metric="precomputed")
            model.fit(examples.training, examples.training_labels)
            yield Classifier(
                parameters={"k": k},
                predict=expand_all(
                    model.predict_proba, model.classes_, examples.genres, absent=0.0
                ),
                classes=model.classes_,
                extract=functools.partial(extract, k, model.classes_),
                clips=clips,
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
        # Clips that are all alike have no distance to scale by.
        scale = 1 / (mean_distance or 1.0)
        gammas = [multiple * scale for multiple in SVM_GAMMA_TIMES_DISTANCE]
        for gamma in list_values(examples, "gamma", gammas, 2.0 * scale):
            kernel = rbf_kernel(examples.training, gamma)
            for strength in list_values(examples, "C", SVM_C, 1.0):
                model = SVC(kernel="precomputed", C=strength)
                model.fit(kernel, examples.training_labels)
                yield Classifier(
                    parameters={
                        "C": strength,
                        "gamma": gamma,
                        "support_vectors": int(model.n_support_.sum()),
                    },
                    predict=expand_all(
                        _svm_scores(model, gamma), model.classes_, examples.genres
                    ),
                    classes=model.classes_,
                    extract=functools.partial(_extract_svm, model, gamma),
                    clips=int(model.n_support_.sum()),
                )

    return temper(choose(candidates(), examples), examples)


def _extract_svm(model: Any, gamma: float, rows: Floats) -> classical.RbfSvm:
    # Of two classes scikit-learn turns libsvm's signs round.
    sign = -1.0 if len(model.classes_) == 2 else 1.0
    return classical.RbfSvm(
        vectors=rows[model.support_],
        counts=model.n_support_.astype(np.int64),
        coefficients=sign * model.dual_coef_,
        intercepts=sign * model.intercept_,
        gamma=gamma,
        temperature=1.0,
    )


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

        def extract(rows: Floats) -> classical.Classifier:
            centre, matrix = components.as_projection(rows)
            classifier = inner.extract(training)
            if isinstance(classifier, classical.LogisticRegression):
                # Linear in the components is linear in the values.
                coefficients = matrix @ classifier.coefficients
                return classical.LogisticRegression(
                    coefficients=coefficients,
                    intercepts=classifier.intercepts - centre @ coefficients,
                )
            return classical.OnComponents(
                centre=centre.astype(np.float32),
                matrix=matrix.astype(np.float32),
                classifier=classifier,
            )

        return Classifier(
            parameters={
                "components": training.shape[1],
                "variance_held": components.share,
                **inner.parameters,
            },
            predict=lambda rows: inner.predict(read(rows)),
            classes=inner.classes,
            extract=extract,
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

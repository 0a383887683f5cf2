"""How a classifier is chosen, and what all of them are made to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from trainer.evaluation.calibration import fit_temperature
from trainer.evaluation.tasks.multi_label_scores import macro_ap
from trainer.predict import classical

Floats = NDArray[np.float32] | NDArray[np.float64]
Float64s = NDArray[np.float64]

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
      training_labels: int64 `(clips,)`; of several genres a clip, uint8 `(clips,
        genres)`.
      validation: as `training`; without rows, defaults are taken.
      validation_labels: as `training_labels`.
      genres: number of genres, of which the training split may lack some.
      folds: fold of each validation clip, int64 `(clips,)`; candidates are judged by
        the mean of their accuracies over folds. None for one fold.
      chosen: parameters of an earlier fit, which are taken in place of a choice.
    """

    training: Floats
    training_labels: NDArray[Any]
    validation: Floats
    validation_labels: NDArray[Any]
    genres: int
    folds: NDArray[np.int64] | None = None
    chosen: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
      parameters: how it was fitted; JSON values.
      predict: maps rows like the training ones to probabilities, float64
        `(rows, genres)`; within this module also to scores.
      classes: indices of the genres that the training split has, int64.
      extract: makes arrays of it that predict from values alone, given the values
        `(training clips, values)` that it was fitted to.
      clips: number of training clips whose values are among these arrays.
      notes: sentences that a reader of its scores has to know.
    """

    parameters: Mapping[str, Any]
    predict: Callable[[Floats], Float64s]
    classes: NDArray[np.int64]
    extract: Callable[[Floats], classical.Classifier]
    clips: int = 0
    notes: tuple[str, ...] = ()


def list_values(
    examples: Examples, name: str, values: Sequence[Any], default: Any
) -> Sequence[Any]:
    """Values of a parameter to try: what was chosen before, or a default alone.

    Args:
      examples: what they are tried with.
      name: of the parameter.
      values: what there is to choose from, where validation clips can say.
      default: where they cannot.
    """
    if examples.chosen is not None:
        return [examples.chosen[name]]
    return values if len(examples.validation) else [default]


def measure_accuracy(candidate: Classifier, examples: Examples) -> float:
    """Accuracy on the validation clips, the mean over folds."""
    predicted = np.argmax(candidate.predict(examples.validation), axis=1)
    return mean_over_folds(predicted == examples.validation_labels, examples.folds)


def measure_precision(candidate: Classifier, examples: Examples) -> float:
    """Macro average precision on the validation clips, of several genres a clip."""
    # Of all folds at once: in one alone, most genres would have no clip.
    known = np.ones(len(examples.validation), np.bool_)
    if examples.folds is not None and np.any(examples.folds >= 0):
        known = examples.folds >= 0
    probabilities = candidate.predict(examples.validation)
    return macro_ap(examples.validation_labels[known], probabilities[known])


def choose(candidates: Iterable[Classifier], examples: Examples) -> Classifier:
    """The candidate that is judged best, the first of equals.

    Judged as models are: by accuracy, or by macro average precision. Candidates are
    fitted as they are drawn, so only two are held at a time.
    """
    several = examples.training_labels.ndim > 1
    judge = measure_precision if several else measure_accuracy
    best: Classifier | None = None
    best_score = -1.0
    for candidate in candidates:
        score = judge(candidate, examples) if len(examples.validation) else 0.0
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
    if examples.chosen is not None:
        temperature = examples.chosen["temperature"]
    elif len(examples.validation):
        scores = classifier.predict(examples.validation)
        temperature = fit_temperature(
            scores, examples.validation_labels, SCORE_TEMPERATURES
        )
    return Classifier(
        parameters={**classifier.parameters, "temperature": temperature},
        predict=lambda rows: softmax(classifier.predict(rows) / temperature, axis=1),
        classes=classifier.classes,
        extract=lambda rows: classical.with_temperature(
            classifier.extract(rows), temperature
        ),
        clips=classifier.clips,
        notes=(*classifier.notes, _TEMPERED),
    )


def expand(
    predict: Callable[[Floats], Floats],
    classes: NDArray[np.int64],
    genres: int,
    *,
    absent: float,
) -> Callable[[Floats], Float64s]:
    """Has a function of rows give genres that training lacks a column of their own.

    Args:
      predict: from rows to probabilities or scores, `(rows, classes)`.
      classes: the genre that each of its columns stands for.
      genres: number of genres.
      absent: what the others get.
    """

    def expanded(rows: Floats) -> Float64s:
        scores = np.full((len(rows), genres), absent)
        scores[:, classes] = predict(rows)
        return scores

    return expanded

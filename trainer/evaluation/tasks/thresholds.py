"""From which probability on a genre is given, and how far probabilities hold.

Both are fitted to the validation split: first the temperature of all genres' log-odds,
then, of the probabilities with it, a threshold for each genre.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from trainer.evaluation.calibration import BOUNDS, MIN_CLIPS, Fit
from trainer.evaluation.predictions import ClipPredictions, Float64s
from trainer.evaluation.tasks.multi_label_scores import FLOOR, binary_losses

#: A genre with fewer validation clips takes the threshold that is best for all.
FEWEST_CLIPS = 5
#: Where there are no validation clips.
DEFAULT = 0.5
DEFAULT_NOTE = (
    f"No validation clips: every genre is given from a probability of {DEFAULT:g} on."
)


def apply_temperature(probabilities: Float64s, temperature: float) -> Float64s:
    """Scales the log-odds of probabilities; their order stays."""
    if temperature == 1:
        return probabilities
    clipped = np.clip(probabilities, FLOOR, 1 - FLOOR)
    scaled: Float64s = expit(logit(clipped) / temperature)
    return scaled


def fit_temperature_and_thresholds(clips: ClipPredictions | None, genres: int) -> Fit:
    """See `trainer.evaluation.tasks.task.Task.fit`."""
    temperature, count = None, 0
    if clips is not None and len(clips.labels) >= MIN_CLIPS:
        temperature = fit_temperature(clips.probabilities, clips.labels)
        count = len(clips.labels)
        scaled = apply_temperature(clips.probabilities, temperature)
        clips = dataclasses.replace(clips, probabilities=scaled)
    thresholds = choose_thresholds(clips, genres)
    return Fit(temperature=temperature, clips=count, thresholds=thresholds)


def fit_temperature(probabilities: Float64s, labels: npt.NDArray[np.uint8]) -> float:
    """The temperature with the least binary cross-entropy.

    Args:
      probabilities: `(clips, genres)`.
      labels: `(clips, genres)`, 0 or 1.
    """

    def loss(log_temperature: float) -> float:
        scaled = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(binary_losses(labels, scaled).mean())

    minimum = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded")
    return float(np.exp(minimum.x))


def choose_thresholds(validation: ClipPredictions | None, genres: int) -> Float64s:
    """Thresholds of the highest F1 on the validation clips, of each genre.

    Args:
      validation: labels `(clips, genres)`; None for no clips.
      genres: number of genres.

    Returns:
      `(genres,)`; the one with the highest F1 over all pairs for genres with fewer
      than `FEWEST_CLIPS` clips.
    """
    if validation is None or not len(validation.labels):
        return np.full(genres, DEFAULT)
    labels, probabilities = validation.labels, validation.probabilities
    shared = find_threshold(labels.ravel(), probabilities.ravel())
    return np.array(
        [
            find_threshold(labels[:, genre], probabilities[:, genre])
            if labels[:, genre].sum() >= FEWEST_CLIPS
            else shared
            for genre in range(genres)
        ]
    )


def find_threshold(labels: npt.NDArray[np.uint8], probabilities: Float64s) -> float:
    """The threshold with the highest F1, halfway to the next lower probability.

    Args:
      labels: `(n,)`, 0 or 1.
      probabilities: `(n,)`.
    """
    if not labels.any():
        return DEFAULT
    order = np.argsort(-probabilities, kind="stable")
    sorted_, hits = probabilities[order], np.cumsum(labels[order], dtype=np.float64)
    # A threshold can only lie between two different probabilities.
    last = np.append(sorted_[:-1] > sorted_[1:], True)
    f1 = np.where(last, 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1]), -1)
    best = int(np.argmax(f1))
    below = sorted_[best + 1] if best + 1 < len(sorted_) else 0.0
    return float((sorted_[best] + below) / 2)

"""How far a model's probabilities can be believed, and temperature scaling.

Of the clips that a calibrated model gives 70 %, it is right about 70 %.

Source: C. Guo et al., On Calibration of Modern Neural Networks (2017),
https://arxiv.org/abs/1706.04599, sections 2 and 4.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from trainer.evaluation.predictions import Float64s

#: Bins of equal width that confidences are counted in, and half as many where
#: there are fewer clips than this.
BINS = 10
FEW_CLIPS = 200
#: A temperature is not fitted to fewer validation clips.
MIN_CLIPS = 10
#: Probabilities below count as this.
FLOOR = 1e-12
#: Where the temperature is looked for. Few clips, all of them right, would have 0.
BOUNDS = (0.2, 20.0)
#: Temperatures at which probabilities can be computed: others end in no numbers.
USABLE = (1e-3, 1e3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Clips whose confidence lies in one bin.

    Attributes:
      clips: how many.
      confidence: their mean probability of the predicted genre.
      accuracy: share of them that is right.
    """

    clips: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reliability:
    """How confidences and hits agree.

    Attributes:
      log_loss: mean of -ln(probability of the true genre), in nats.
      error: expected calibration error: the mean distance between confidence and
        accuracy of the bins, weighted by their clips.
      bins: by ascending confidence, without empty ones.
    """

    log_loss: float
    error: float
    bins: tuple[ReliabilityBin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What temperature scaling does for a model.

    Attributes:
      temperature: probabilities p become softmax(ln(p) / temperature).
      clips: validation clips that it was fitted to.
      before: reliability on the test split of what the model says.
      after: the same with the temperature.
    """

    temperature: float
    clips: int
    before: Reliability
    after: Reliability


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """What is fitted to clips that a model did not hear.

    Attributes:
      temperature: None where there are fewer than `MIN_CLIPS` clips.
      clips: that it was fitted to.
      thresholds: of several genres a clip, from which each is given, `(genres,)`.
    """

    temperature: float | None = None
    clips: int = 0
    thresholds: Float64s | None = None


def log_loss(probabilities: Float64s, labels: NDArray[np.int64]) -> float:
    """Mean of -ln(probability of the true genre), in nats.

    As in scikit-learn, a probability of 0 does not make it infinite.
    """
    true = probabilities[np.arange(len(labels)), labels]
    epsilon = np.finfo(np.float64).eps
    return float(-np.mean(np.log(np.clip(true, epsilon, 1 - epsilon))))


def measure_reliability(
    probabilities: Float64s, labels: NDArray[np.int64]
) -> Reliability:
    """Counts confidences in bins of equal width.

    Args:
      probabilities: `(clips, genres)`; at least one clip.
      labels: true genres, `(clips,)`.
    """
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    count = BINS if len(labels) >= FEW_CLIPS else BINS // 2
    return count_bins(confidence, hits, count, log_loss(probabilities, labels))


def count_bins(
    confidence: Float64s, hits: NDArray[Any], count: int, loss: float
) -> Reliability:
    """Holds confidences against what came true, in bins of equal width.

    Args:
      confidence: `(n,)`, from 0 to 1.
      hits: what came true, `(n,)`, 0 or 1.
      count: bins at most; empty ones are left out.
      loss: log-loss of the probabilities.
    """
    numbers = np.minimum((confidence * count).astype(int), count - 1)
    bins = []
    for number in np.unique(numbers):
        inside = numbers == number
        bins.append(
            ReliabilityBin(
                clips=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(hits[inside].mean()),
            )
        )
    distance = sum(bin_.clips * abs(bin_.confidence - bin_.accuracy) for bin_ in bins)
    return Reliability(log_loss=loss, error=distance / len(hits), bins=tuple(bins))


def fit_temperature(
    scores: Float64s, labels: NDArray[np.int64], bounds: tuple[float, float] = BOUNDS
) -> float:
    """The temperature at which softmax(scores / temperature) has the least log-loss.

    Args:
      scores: `(clips, genres)`, e.g. logarithms of probabilities; -inf for a genre
        that is never predicted.
      labels: `(clips,)`; clips of such a genre are left out.
      bounds: of the temperature, which is 1 where no clip is left.
    """
    possible = np.isfinite(scores[np.arange(len(labels)), labels])
    scores, labels = scores[possible], labels[possible]
    if not len(labels):
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    minimum = minimize_scalar(loss, bounds=np.log(bounds), method="bounded")
    return float(np.exp(minimum.x))


def check_temperature(temperature: float) -> float:
    """Returns a temperature that probabilities can be computed with.

    Raises:
      ValueError: it is none.
    """
    low, high = USABLE
    if not low <= temperature <= high:
        raise ValueError(
            f"the temperature must be from {low:g} to {high:g}. Received: "
            f"{temperature:g}"
        )
    return temperature


def apply_temperature(probabilities: Float64s, temperature: float) -> Float64s:
    """Scales probabilities `(..., genres)`; their order stays."""
    scaled: Float64s = softmax(logarithms(probabilities) / temperature, axis=-1)
    return scaled


def logarithms(probabilities: Float64s) -> Float64s:
    """Natural logarithms; those of 0 are finite."""
    found: Float64s = np.log(np.maximum(probabilities, FLOOR))
    return found

"""Measures how well predictions match the labels, clip by clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np

from trainer.evaluation.bootstrap import Interval, group_clips, score_intervals
from trainer.evaluation.calibration import log_loss, measure_reliability
from trainer.evaluation.predictions import ClipPredictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenreScores:
    """Scores of one genre; a ratio without a single case counts as 0.

    Attributes:
      genre: its name.
      precision: share of the clips given this genre that have it.
      recall: share of the clips of this genre that were given it.
      f1: harmonic mean of the two.
      support: number of clips of this genre.
    """

    genre: str
    precision: float
    recall: float
    f1: float
    support: int

    @property
    def path(self) -> str:
        """Names from its root to itself: its own, as there is no tree."""
        return self.genre


class AnyEvaluation(Protocol):
    """What the scores of both tasks have: the one that models are ranked by."""

    SCORE: ClassVar[str]

    @property
    def score(self) -> float:
        """By clip, from 0 to 1."""

    @property
    def score_interval(self) -> Interval:
        """95 % bootstrap interval over artists, or over clips."""

    @property
    def chance(self) -> float:
        """What guessing reaches of it."""

    @property
    def others(self) -> dict[str, float]:
        """What else a line on a model says."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one split.

    Attributes:
      clips: number of clips evaluated.
      artists: number of different artists among them; 0 if none is known.
      accuracy: share of clips whose most probable genre is the true one.
      accuracy_interval: 95 % bootstrap interval over artists, or over clips where
        no artist is known.
      macro_f1: mean F1 of the genres that occur among labels or predictions.
      macro_f1_interval: likewise.
      top_3: share of clips whose genre is among the three most probable.
      log_loss: mean of -ln(probability of the true genre), in nats.
      calibration_error: see `trainer.evaluation.calibration.Reliability`.
      chance_accuracy: what guessing evenly reaches, 1 / genres.
      majority_accuracy: what naming these clips' most frequent genre reaches.
      genres: scores of each genre, in the dataset's order.
      confusion: number of clips, one row a true and one column a predicted genre.
    """

    clips: int
    artists: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    top_3: float
    log_loss: float
    calibration_error: float
    chance_accuracy: float
    majority_accuracy: float
    genres: tuple[GenreScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    SCORE: ClassVar[str] = "accuracy"

    @property
    def score(self) -> float:
        """The accuracy."""
        return self.accuracy

    @property
    def score_interval(self) -> Interval:
        """Of the accuracy."""
        return self.accuracy_interval

    @property
    def chance(self) -> float:
        """What guessing reaches of it."""
        return self.chance_accuracy

    @property
    def others(self) -> dict[str, float]:
        """What else a line on a model says."""
        return {"macro F1": self.macro_f1}


def evaluate(predictions: ClipPredictions, genres: Sequence[str]) -> Evaluation:
    """Computes all scores of a split.

    Args:
      predictions: at least one clip's.
      genres: names of the probabilities' columns.

    Raises:
      ValueError: there are no clips, or not as many genres as columns.
    """
    clips, columns = predictions.probabilities.shape
    if clips == 0:
        raise ValueError("Expected at least one clip to evaluate. Received: none")
    if len(genres) != columns:
        raise ValueError(
            f"Expected a name for each of {columns} genres. Received: {len(genres)}"
        )
    # Takes half a second, which commands that only predict are spared.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    pairs = predictions.labels, predictions.predicted
    every = np.arange(columns)
    confusion = confusion_matrix(*pairs, labels=every)
    by_genre = precision_recall_fscore_support(*pairs, labels=every, zero_division=0)
    scores = tuple(
        GenreScores(
            genre=genre,
            precision=float(precision),
            recall=float(recall),
            f1=float(f1),
            support=int(support),
        )
        for genre, precision, recall, f1, support in zip(genres, *by_genre, strict=True)
    )
    occurring = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    hits = int(np.trace(confusion))
    # A stable sort breaks ties as argmax does, so top-3 never misses a hit.
    order = np.argsort(-predictions.probabilities, axis=1, kind="stable")
    top_3 = np.any(order[:, :3] == predictions.labels[:, np.newaxis], axis=1)
    accuracy_interval, macro_f1_interval = score_intervals(
        *pairs,
        group_clips(predictions.artist_ids, predictions.track_ids),
        columns,
    )
    reliability = measure_reliability(predictions.probabilities, predictions.labels)
    return Evaluation(
        clips=clips,
        artists=len(set(predictions.artist_ids) - {""}),
        accuracy=hits / clips,
        accuracy_interval=accuracy_interval,
        macro_f1=float(np.mean([scores[genre].f1 for genre in occurring])),
        macro_f1_interval=macro_f1_interval,
        top_3=float(np.mean(top_3)),
        log_loss=log_loss(predictions.probabilities, predictions.labels),
        calibration_error=reliability.error,
        chance_accuracy=1 / columns,
        majority_accuracy=float(confusion.sum(axis=1).max() / clips),
        genres=scores,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )

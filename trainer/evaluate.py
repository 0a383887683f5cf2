"""Measures how well predictions match the labels, clip by clip. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: How often the clips are resampled for an interval.
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class ClipPredictions:
    """One prediction for each clip.

    Attributes:
      track_ids: the clips' ids, each once.
      labels: true genres as indices, int64 of shape `(clips,)`.
      probabilities: float64 of shape `(clips, genres)`.
    """

    track_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        clips = len(self.track_ids)
        if self.labels.shape != (clips,) or self.probabilities.ndim != 2:
            raise ValueError(
                "Expected labels of shape (clips,) and probabilities of shape (clips, "
                f"genres) for {clips} clips. Received: labels.shape="
                f"{self.labels.shape}, probabilities.shape={self.probabilities.shape}"
            )
        if len(self.probabilities) != clips:
            raise ValueError(
                f"Expected probabilities of {clips} clips. Received: "
                f"probabilities.shape={self.probabilities.shape}"
            )
        if not np.all(np.isfinite(self.probabilities)) or np.any(
            self.probabilities < 0
        ):
            raise ValueError("Probabilities must be finite and not negative.")
        genres = self.probabilities.shape[1]
        if np.any(self.labels < 0) or np.any(self.labels >= genres):
            raise ValueError(f"Labels must be indices of {genres} genres.")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable genre of each clip, int64 `(clips,)`."""
        best: NDArray[np.int64] = np.argmax(self.probabilities, axis=1).astype(np.int64)
        return best


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one split.

    Attributes:
      clips: number of clips evaluated.
      accuracy: share of clips whose most probable genre is the true one.
      accuracy_interval: 95 % bootstrap interval of the accuracy over clips.
      macro_f1: mean F1 of the genres that occur among labels or predictions.
      top_2: share of clips whose genre is among the two most probable.
      log_loss: mean of -ln(probability of the true genre), in nats.
      chance_accuracy: what guessing evenly reaches, 1 / genres.
      majority_accuracy: what naming these clips' most frequent genre reaches.
      genres: scores of each genre, in the dataset's order.
      confusion: number of clips, one row a true and one column a predicted genre.
    """

    clips: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_f1: float
    top_2: float
    log_loss: float
    chance_accuracy: float
    majority_accuracy: float
    genres: tuple[GenreScores, ...]
    confusion: tuple[tuple[int, ...], ...]


def mean_by_clip(
    track_ids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike
) -> ClipPredictions:
    """Averages the probabilities of each clip's records.

    Args:
      track_ids: the clip of each record, in any order.
      labels: true genre of each record, integers of shape `(records,)`.
      probabilities: floats of shape `(records, genres)`.

    Returns:
      One prediction for each clip, in order of first appearance.

    Raises:
      ValueError: the lengths differ, or records of a clip differ in their label.
    """
    record_labels = np.asarray(labels)
    record_probabilities = np.asarray(probabilities, dtype=np.float64)
    if not len(track_ids) == len(record_labels) == len(record_probabilities):
        raise ValueError(
            "Expected as many track ids as labels and probabilities. Received: "
            f"{len(track_ids)}, {len(record_labels)} and {len(record_probabilities)}"
        )
    position: dict[str, int] = {}
    clip_of_record = np.array(
        [position.setdefault(track_id, len(position)) for track_id in track_ids],
        dtype=np.intp,
    )
    clip_labels = np.zeros(len(position), dtype=np.int64)
    clip_labels[clip_of_record] = record_labels
    if np.any(clip_labels[clip_of_record] != record_labels):
        raise ValueError("All records of a clip must have the same label.")
    sums = np.zeros((len(position), record_probabilities.shape[1]))
    np.add.at(sums, clip_of_record, record_probabilities)
    counts = np.bincount(clip_of_record, minlength=len(position))
    return ClipPredictions(
        track_ids=tuple(position),
        labels=clip_labels,
        probabilities=sums / counts[:, np.newaxis],
    )


def evaluate(
    predictions: ClipPredictions, genres: Sequence[str], *, seed: int = 0
) -> Evaluation:
    """Computes all scores of a split.

    Args:
      predictions: at least one clip's.
      genres: names of the probabilities' columns.
      seed: of the bootstrap; the same seed gives the same interval.

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
    confusion = confusion_matrix(predictions.labels, predictions.predicted, columns)
    scores = genre_scores(confusion, genres)
    occurring = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    hits = int(np.trace(confusion))
    # A stable sort breaks ties as argmax does, so top-2 never misses a hit.
    best_two = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :2]
    true_probability = predictions.probabilities[np.arange(clips), predictions.labels]
    # As in scikit-learn: a probability of 0 must not make the mean infinite.
    floor = np.finfo(np.float64).eps
    return Evaluation(
        clips=clips,
        accuracy=hits / clips,
        accuracy_interval=accuracy_interval(hits, clips, seed=seed),
        macro_f1=float(np.mean([scores[genre].f1 for genre in occurring])),
        top_2=float(np.mean(np.any(best_two == predictions.labels[:, None], axis=1))),
        log_loss=float(-np.mean(np.log(np.clip(true_probability, floor, 1 - floor)))),
        chance_accuracy=1 / columns,
        majority_accuracy=float(confusion.sum(axis=1).max() / clips),
        genres=scores,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], genres: int
) -> NDArray[np.int64]:
    """Counts clips by true genre (rows) and predicted genre (columns)."""
    cells = np.bincount(labels * genres + predicted, minlength=genres * genres)
    return cells.reshape(genres, genres).astype(np.int64)


def genre_scores(
    confusion: NDArray[np.int64], genres: Sequence[str]
) -> tuple[GenreScores, ...]:
    """Derives precision, recall and F1 of each genre from the confusion matrix."""
    hits = np.diagonal(confusion)
    support = confusion.sum(axis=1)
    given = confusion.sum(axis=0)
    precision = hits / np.maximum(given, 1)
    recall = hits / np.maximum(support, 1)
    # F1 = 2 TP / (2 TP + FP + FN).
    f1 = 2 * hits / np.maximum(given + support, 1)
    return tuple(
        GenreScores(
            genre=genre,
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            support=int(support[index]),
        )
        for index, genre in enumerate(genres)
    )


def accuracy_interval(hits: int, clips: int, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `hits / clips`.

    Drawing `clips` clips with replacement hits Binomial(clips, hits / clips) of
    them, so that number is drawn directly.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993),
    chapter 13.
    """
    draws = np.random.default_rng(seed).binomial(clips, hits / clips, size=RESAMPLES)
    low, high = np.percentile(draws / clips, [2.5, 97.5])
    return float(low), float(high)

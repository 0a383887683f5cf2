"""Measures how well predictions match the labels, clip by clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.bootstrap import Interval, group_clips, score_intervals
from trainer.calibration import log_loss, measure_reliability


@dataclasses.dataclass(frozen=True, eq=False)
class ClipPredictions:
    """One prediction for each clip.

    Attributes:
      track_ids: the clips' ids, each once.
      labels: true genres as indices, int64 of shape `(clips,)`.
      probabilities: float64 of shape `(clips, genres)`.
      artist_ids: of each clip, empty where it is not known; () if none is.
    """

    track_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    artist_ids: tuple[str, ...] = ()

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
        if self.artist_ids and len(self.artist_ids) != clips:
            raise ValueError(
                f"Expected an artist for each of {clips} clips, or none at all. "
                f"Received: {len(self.artist_ids)}"
            )
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
      artists: number of different artists among them; 0 if none is known.
      accuracy: share of clips whose most probable genre is the true one.
      accuracy_interval: 95 % bootstrap interval over artists, or over clips where
        no artist is known.
      macro_f1: mean F1 of the genres that occur among labels or predictions.
      macro_f1_interval: likewise.
      top_3: share of clips whose genre is among the three most probable.
      log_loss: mean of -ln(probability of the true genre), in nats.
      calibration_error: see `trainer.calibration.Reliability`.
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
    # A stable sort breaks ties as argmax does, so top-3 never misses a hit.
    order = np.argsort(-predictions.probabilities, axis=1, kind="stable")
    top_3 = np.any(order[:, :3] == predictions.labels[:, np.newaxis], axis=1)
    accuracy_interval, macro_f1_interval = score_intervals(
        predictions.labels,
        predictions.predicted,
        group_clips(predictions.artist_ids, predictions.track_ids),
        columns,
        seed=seed,
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

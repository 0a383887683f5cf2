"""Predictions of a split, clip by clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]
#: One genre a clip, int64 `(clips,)`, or a value for each, uint8 `(clips, genres)`.
Labels = NDArray[Any]


def with_artists(
    predictions: ClipPredictions, artists: Mapping[str, str]
) -> ClipPredictions:
    """Predictions that say who made each clip; `artists` maps track to artist id."""
    ids = tuple(artists.get(track_id, "") for track_id in predictions.track_ids)
    return dataclasses.replace(predictions, artist_ids=ids if any(ids) else ())


@dataclasses.dataclass(frozen=True, eq=False)
class ClipPredictions:
    """One prediction for each clip.

    Attributes:
      track_ids: the clips' ids, each once.
      labels: true genres as indices, int64 of shape `(clips,)`; or, of several
        genres a clip, 1 for each and 0 for all others, uint8 `(clips, genres)`.
      probabilities: float64 of shape `(clips, genres)`.
      artist_ids: of each clip, empty where it is not known; () if none is.
    """

    track_ids: tuple[str, ...]
    labels: Labels
    probabilities: Float64s
    artist_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses arrays that do not belong together."""
        clips = len(self.track_ids)
        shapes = ((clips,), self.probabilities.shape)
        if self.labels.shape not in shapes or self.probabilities.ndim != 2:
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
        genres = 2 if self.labels.ndim == 2 else self.probabilities.shape[1]
        if np.any(self.labels < 0) or np.any(self.labels >= genres):
            raise ValueError(f"Labels must be indices of {genres} genres.")

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable genre of each clip, int64 `(clips,)`."""
        best: NDArray[np.int64] = np.argmax(self.probabilities, axis=1).astype(np.int64)
        return best


def concatenate(parts: Sequence[ClipPredictions]) -> ClipPredictions:
    """Predictions of different clips as one; at least one part."""
    return ClipPredictions(
        track_ids=tuple(track for part in parts for track in part.track_ids),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        artist_ids=tuple(artist for part in parts for artist in part.artist_ids),
    )


def mean_by_clip(
    track_ids: Sequence[str], labels: ArrayLike, probabilities: ArrayLike
) -> ClipPredictions:
    """Averages the probabilities of each clip's records.

    Args:
      track_ids: the clip of each record, in any order.
      labels: true genre of each record, integers of shape `(records,)`, or its
        genres, `(records, genres)`.
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
    kind = np.int64 if record_labels.ndim == 1 else np.uint8
    clip_labels = np.zeros((len(position), *record_labels.shape[1:]), kind)
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

"""What records are about: their tracks, artists and genres."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.schema import Field, UserError

#: Columns that say what a record is about, beside its label.
INDEX_COLUMNS = ("track_id", "artist_id", "index")
#: One label a clip, int64 `(n,)`, or a value for each genre, uint8 `(n, genres)`.
Labels = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """What the records of a split are about, one item each.

    Attributes:
      track_ids: clip of each record; windows of one clip share it.
      labels: int64 `(n,)`, indices into the manifest's genres; or uint8 `(n, genres)`,
        1 for each genre of the clip.
      artist_ids: artist of each record; empty where it is not known.
    """

    track_ids: tuple[str, ...]
    labels: Labels
    artist_ids: tuple[str, ...]


def find_bad_label(labels: Labels, genres: int) -> str:
    """Says which label no pipeline writes; empty where all are right.

    Args:
      labels: of records.
      genres: number of genres.
    """
    if labels.ndim == 1:
        wrong = labels[(labels < 0) | (labels >= genres)]
        if len(wrong):
            return f"the label {wrong[0]}, while the manifest names {genres} genres"
        return ""
    if np.any(labels > 1):
        return f"the label {labels.max()} of a genre, which must be 0 or 1"
    return "" if np.all(labels.any(axis=1)) else "no genre at all"


class IndexColumns:
    """Index columns of the batches read so far; refuses what no pipeline writes.

    Args:
      source: named in errors.
      label: the field that holds a clip's genre, or genres.
    """

    def __init__(self, source: str, label: Field) -> None:
        self.track_ids: list[str] = []
        self.artist_ids: list[str] = []
        self._labels: list[Labels] = []
        self._source = source
        self._label = label

    def __len__(self) -> int:
        """Number of records."""
        return len(self.track_ids)

    def add(self, batch: Mapping[str, npt.NDArray[Any]]) -> None:
        """Adds a batch of parsed records.

        Raises:
          UserError: an id is no text.
        """
        try:
            self.track_ids += [name.decode() for name in batch["track_id"]]
            self.artist_ids += [name.decode() for name in batch["artist_id"]]
        except UnicodeDecodeError as error:
            raise self._refusal(f"an id that is no UTF-8, {error.object!r:.80}") from (
                error
            )
        self._labels.append(batch[self._label.name])

    def check_finite(self, values: npt.NDArray[Any]) -> None:
        """Checks the values of the batch that was added last.

        Raises:
          UserError: a value is not finite.
        """
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            rows = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            track = self.track_ids[len(self.track_ids) - len(rows) + int(rows.argmin())]
            raise self._refusal(f"values of track {track!r:.80} that are not finite")

    def index(self, genres: int) -> Index:
        """What all batches are about.

        Args:
          genres: number of genres that a label may be of.

        Raises:
          UserError: a label is of none, or a track has two.
        """
        labels: Labels = np.zeros((0, *self._label.shape), self._label.dtype)
        if self._labels:
            labels = np.concatenate(self._labels)
        problem = find_bad_label(labels, genres)
        if problem:
            raise self._refusal(problem)
        of_track: dict[str, bytes] = {}
        for track, label in zip(self.track_ids, labels, strict=True):
            if of_track.setdefault(track, label.tobytes()) != label.tobytes():
                raise self._refusal(f"two genres for the track {track!r:.80}")
        return Index(tuple(self.track_ids), labels, tuple(self.artist_ids))

    def _refusal(self, content: str) -> UserError:
        return UserError(
            f"A record in {self._source} holds {content}; preprocess the dataset again."
        )

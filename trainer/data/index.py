"""What records are about: their tracks, artists and genres."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.schema import UserError

#: Columns that say what a record is about.
INDEX_COLUMNS = ("track_id", "artist_id", "label", "index")


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """What the records of a split are about, one item each.

    Attributes:
      track_ids: clip of each record; windows of one clip share it.
      labels: int64 `(n,)`, indices into the manifest's genres.
      artist_ids: artist of each record; empty where it is not known.
    """

    track_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    artist_ids: tuple[str, ...]


class IndexColumns:
    """Index columns of the batches read so far; refuses what no pipeline writes."""

    def __init__(self, source: str) -> None:
        self.track_ids: list[str] = []
        self.artist_ids: list[str] = []
        self.labels: list[int] = []
        self._source = source

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
        self.labels += batch["label"].tolist()

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
        labels = np.array(self.labels, np.int64)
        for label in labels[(labels < 0) | (labels >= genres)][:1]:
            raise self._refusal(
                f"the label {label}, while the manifest names {genres} genres"
            )
        by_track = dict(zip(self.track_ids, self.labels, strict=True))
        for track, label in zip(self.track_ids, self.labels, strict=True):
            if by_track[track] != label:
                raise self._refusal(f"two genres for the track {track!r:.80}")
        return Index(tuple(self.track_ids), labels, tuple(self.artist_ids))

    def _refusal(self, content: str) -> UserError:
        return UserError(
            f"A record in {self._source} holds {content}; preprocess the dataset again."
        )

"""The clips of the training set that sound most like a song, to the model's ears."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.inputs.archives import paths as archives
from pipeline.schema import SINGLE_LABEL, RepresentationSchema
from trainer.compare.html.clip_media import find_audio
from trainer.data.clip_list import read_clip_list
from trainer.data.torch_reader import RecordDataset
from trainer.predict.network import Embedder

#: Clips that are named.
MOST_SIMILAR = 6
#: Clips of the training set that are held, in the order of its records.
MOST_CLIPS = 20_000
#: Clips that the network hears at once, so that a song does not wait for many.
_BATCH_CLIPS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimilarClip:
    """A clip of the training set.

    Attributes:
      track_id: its name.
      genre: its own; several are joined by commas.
      similarity: cosine of the angle between both embeddings, about the mean of the
        training set's: 1 for the same.
      playable: whether its file is there.
    """

    track_id: str
    genre: str
    similarity: float
    playable: bool


class SimilarClips:
    """Embeddings of the training set, made in the background.

    Attributes:
      total: number of clips that will be held.

    Args:
      folder: of the dataset, on this machine.
      representation: that the network reads.
      embedder: records to embeddings.
      audio: folder of the dataset's files; empty: where the dataset says they were.

    Raises:
      UserError: there is no such dataset.
    """

    def __init__(
        self, folder: str, representation: str, embedder: Embedder, audio: str = ""
    ) -> None:
        self._records = RecordDataset(folder, representation, "training")
        self._name = representation
        self._embedder = embedder
        per_clip = self._records.layout.records_per_clip
        self.total = min(len(self._records) // per_clip, MOST_CLIPS)
        self._embeddings = np.zeros((self.total, embedder.width), np.float32)
        self._tracks: list[tuple[str, str]] = []
        self._stopped = threading.Event()
        self._paths = self._find_paths(folder, audio)

    @property
    def layout(self) -> RepresentationSchema:
        """What the dataset's records hold."""
        return self._records.layout

    @property
    def settings(self) -> Mapping[str, Any]:
        """How the dataset's clips became records."""
        return self._records.manifest.settings

    @property
    def held(self) -> int:
        """Number of clips that were heard so far."""
        return len(self._tracks)

    def hear(self) -> None:
        """Hears the training set; for a thread of its own."""
        per_clip = self._records.layout.records_per_clip
        for first in range(0, self.total, _BATCH_CLIPS):
            if self._stopped.is_set():
                return
            last = min(first + _BATCH_CLIPS, self.total)
            rows = [
                self._records[index]
                for index in range(first * per_clip, last * per_clip)
            ]
            values = np.stack([row.value for row in rows])
            shaped = values.reshape(last - first, per_clip, *values.shape[1:])
            self._embeddings[first:last] = self._embedder.embed({self._name: shaped})
            self._tracks += [
                (row.track_id, self._name_genres(row.label)) for row in rows[::per_clip]
            ]

    def stop(self) -> None:
        """Ends `hear` after the clips in work."""
        self._stopped.set()

    def find(self, embedding: NDArray[np.float32]) -> list[SimilarClip]:
        """The most similar clips of those that were heard, first the most similar.

        Args:
          embedding: of a song, `(width,)`.
        """
        tracks = self._tracks[:]
        if len(tracks) < 2:
            return []
        held = self._embeddings[: len(tracks)]
        centre = held.mean(axis=0)
        similarities = _cosines(held - centre, embedding - centre)
        order = np.argsort(-similarities, kind="stable")[:MOST_SIMILAR]
        return [
            SimilarClip(
                track_id=tracks[index][0],
                genre=tracks[index][1],
                similarity=float(similarities[index]),
                playable=tracks[index][0] in self._paths,
            )
            for index in order.tolist()
        ]

    def find_file(self, track_id: str) -> str | None:
        """The audio file of a clip; None where it is not there."""
        return self._paths.get(track_id)

    def _name_genres(self, label: int | NDArray[np.uint8]) -> str:
        genres = self._records.genres
        if self._records.manifest.task == SINGLE_LABEL:
            return genres[int(label)]
        return ", ".join(genres[index] for index in np.flatnonzero(label))

    def _find_paths(self, folder: str, audio: str) -> dict[str, str]:
        paths = dict(read_clip_list(folder, "path"))
        if not audio:
            return {track: path for track, path in paths.items() if _is_there(path)}
        moved = {track: _find_moved(path, audio) for track, path in paths.items()}
        found = {track: path for track, path in moved.items() if path}
        return find_audio([audio], paths.keys() - found.keys()) | found


def _is_there(path: str) -> bool:
    """Whether a file, or the ZIP that holds it, is there."""
    found = archives.split(path)
    return os.path.isfile(found[0] if found else path)


def _find_moved(path: str, folder: str) -> str:
    """A file of the longest same ending below another folder; empty without any."""
    parts = path.split("/")
    for first in range(len(parts)):
        there = os.path.join(folder, *parts[first:]) if parts[first] else ""
        if os.path.isfile(there):
            return there
    return ""


def _cosines(
    rows: NDArray[np.float32], vector: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cosine of the angle between each row and a vector; 0 where one is nothing."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(vector)
    cosines: NDArray[np.float32] = np.divide(
        rows @ vector, lengths, out=np.zeros(len(rows), np.float32), where=lengths > 0
    )
    return cosines

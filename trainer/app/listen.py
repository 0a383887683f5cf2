"""A song to what the page shows: genres over time, mel images, similar clips."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import EXCERPT_SECONDS
from pipeline.decoding.excerpts import Part
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.representations import compute_representations, mel
from pipeline.representations.spectrum import Workspace
from trainer.app.similar import SimilarClips
from trainer.compare.html.clip_media import mel_picture
from trainer.predict.audio import AudioPredictor
from trainer.predict.network import Embedder

#: Songs that are listened to or wait for it; more are asked to come again.
MOST_WAITING = 4


class BusyError(Exception):
    """Too many songs wait already."""


class Listener:
    """Listens to one song at a time.

    Attributes:
      audio: names the genres of clips.
      similar: clips to compare with; None for none.

    Args:
      decoder: decodes in a process of its own.
      embedder: makes of clips what `similar` holds.
    """

    def __init__(
        self,
        audio: AudioPredictor,
        decoder: IsolatedDecoder,
        *,
        embedder: Embedder | None = None,
        similar: SimilarClips | None = None,
    ) -> None:
        self.audio = audio
        self.similar = similar
        self._decoder = decoder
        self._embedder = embedder
        self._one = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        self._workspace = Workspace()

    def listen(self, file: BinaryIO) -> dict[str, Any]:
        """Names the genres of a song and of its parts.

        Returns:
          What the page reads, of JSON's types.

        Raises:
          AudioError: it cannot be used as audio.
          BusyError: too many songs wait.
        """
        with self._waiting():
            parts = self._decoder.load_parts(
                file, self.audio.config, self.audio.excerpts
            )
            records = self.audio.make_records(parts)
            probabilities = np.asarray(
                self.audio.predictor.predict(records), np.float64
            )
            images = self._draw(parts, records)
            answer: dict[str, Any] = {
                "seconds": parts[0].seconds,
                "genres": probabilities.mean(axis=0).tolist(),
                "excerpts": [
                    {
                        "start": part.start,
                        "end": min(part.start + EXCERPT_SECONDS, part.seconds),
                        "genres": row.tolist(),
                        "mel": image,
                    }
                    for part, row, image in zip(
                        parts, probabilities, images, strict=True
                    )
                ],
                "similar": [],
            }
            if self._embedder is not None and self.similar is not None:
                embedding = self._embedder.embed(records).mean(axis=0)
                answer["similar"] = [
                    dataclasses.asdict(clip) for clip in self.similar.find(embedding)
                ]
            return answer

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            with self._one:
                yield
        finally:
            self._places.release()

    def _draw(
        self,
        parts: Sequence[Part],
        records: Mapping[str, NDArray[Any]],
    ) -> list[str]:
        """The whole of each clip as an address of a mel image."""
        config = dataclasses.replace(self.audio.config, mel_images_per_clip=1)
        if config == self.audio.config and mel.NAME in records:
            images = list(records[mel.NAME][:, 0])
        else:
            images = [
                compute_representations(
                    part.samples, [mel.NAME], config, self._workspace
                )[mel.NAME][0]
                for part in parts
            ]
        return [mel_picture(image) for image in images]

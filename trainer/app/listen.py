"""A song to what the page shows: genres over time, mel images, similar clips."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import CLIP_SAMPLES, EXCERPT_SECONDS
from pipeline.decoding.excerpts import Part
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.representations import mel
from pipeline.representations.spectrum import Spectrum
from trainer.app.similar import SimilarClips
from trainer.compare.html.clip_media import mel_picture
from trainer.predict.audio import AudioPredictor, rank_given
from trainer.predict.network import Embedder

#: Songs that are listened to or wait for it; more are asked to come again.
MOST_WAITING = 4


#: Clips that are made ready at a time.
_THREADS = min(2, os.cpu_count() or 1)
#: Those of a song of four minutes.
_WARM_CLIPS = 8


class BusyError(Exception):
    """Too many songs wait already."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Clip:
    """Records by representation, a mel image's address, and where the clip lies."""

    records: Mapping[str, NDArray[Any]]
    mel: str
    start: float
    seconds: float


def _join(clips: Sequence[_Clip]) -> dict[str, NDArray[Any]]:
    return {
        name: np.concatenate([clip.records[name] for clip in clips])
        for name in clips[0].records
    }


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
        # While one clip is decoded in its process, others are made ready.
        self._executor = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self._of_thread = threading.local()

    def listen(self, file: BinaryIO) -> dict[str, Any]:
        """Names the genres of a song and of its parts.

        Returns:
          What the page reads, of JSON's types.

        Raises:
          AudioError: it cannot be used as audio.
          BusyError: too many songs wait.
        """
        with self._waiting():
            making = self._decoder.use_parts(
                file,
                self.audio.config,
                self.audio.excerpts,
                lambda part: self._executor.submit(self._make_clip, part),
            )
            clips = [future.result() for future in making]
            records = _join(clips)
            probabilities = np.asarray(
                self.audio.predictor.predict(records), np.float64
            )
            seconds = clips[0].seconds
            answer: dict[str, Any] = {
                "seconds": seconds,
                **self._name_genres(probabilities.mean(axis=0)),
                "excerpts": [
                    {
                        "start": clip.start,
                        "end": min(clip.start + EXCERPT_SECONDS, seconds),
                        **self._name_genres(row),
                        "mel": clip.mel,
                    }
                    for clip, row in zip(clips, probabilities, strict=True)
                ],
                "similar": [],
            }
            if self._embedder is not None and self.similar is not None:
                embedding = self._embedder.embed(records).mean(axis=0)
                answer["similar"] = [
                    dataclasses.asdict(clip) for clip in self.similar.find(embedding)
                ]
            return answer

    def _name_genres(self, probabilities: NDArray[np.float64]) -> dict[str, Any]:
        """Probabilities `(genres,)`; of several a clip, also which reach thresholds."""
        genres = {"genres": probabilities.tolist()}
        thresholds = self.audio.predictor.thresholds
        if thresholds is None:
            return genres
        return {**genres, "given": rank_given(probabilities, thresholds)}

    def warm_up(self) -> None:
        """Does once what every song needs, so that the first is answered at once."""
        noise = np.random.default_rng(0).normal(0, 0.1, CLIP_SAMPLES)
        part = Part(noise.astype(np.float32), CLIP_SAMPLES, 0.0, EXCERPT_SECONDS)
        count = min(self.audio.excerpts, _WARM_CLIPS)
        clips = list(self._executor.map(self._make_clip, [part] * count))
        records = _join(clips)
        self.audio.predictor.predict(records)
        if self._embedder is not None:
            self._embedder.embed(records)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise BusyError
        try:
            with self._one:
                yield
        finally:
            self._places.release()

    def _make_clip(self, part: Part) -> _Clip:
        """What the model reads of a clip, and its picture; from any thread."""
        if not hasattr(self._of_thread, "audio"):
            self._of_thread.audio = AudioPredictor(self.audio.predictor)
        whole = dataclasses.replace(self.audio.config, mel_images_per_clip=1)
        pictures: list[str] = []

        def draw(spectrum: Spectrum) -> None:
            pictures.append(mel_picture(mel.compute(spectrum, whole)[0]))

        records = self._of_thread.audio.make_records([part], look=draw)
        return _Clip(
            records=records, mel=pictures[0], start=part.start, seconds=part.seconds
        )

"""What everything that names genres has in common: networks, baselines, ensembles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.schema import Manifest


class Predictor(Protocol):
    """Names the genres of clips, given as records.

    Labelling, the app, comparison and export know this and no more: what decodes the
    audio and makes the records is `trainer.predict.audio.AudioPredictor`.
    """

    @property
    def sources(self) -> Mapping[str, Manifest]:
        """The representations that it reads, by name.

        Each with the manifest of a dataset that held its records: how a clip becomes
        one, and how many a clip has.
        """

    @property
    def genres(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""

    @property
    def temperature(self) -> float:
        """What `predict` has calibrated its probabilities with; 1 for nothing."""

    @property
    def thresholds(self) -> Sequence[float] | None:
        """Of several genres a clip, the probability from which each is given.

        None where a clip has one genre, or nothing was fitted.
        """

    @property
    def music_model(self) -> bytes | None:
        """Weights of the music model that makes `embeddings`, where it has them.

        Without them, the user's cache is asked (`trainer.predict.audio`).
        """

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of all that decides what `predict` returns."""

    def predict(self, records: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Calibrated probabilities of clips: float64 `(clips, genres)`.

        Args:
          records: by representation, at least those of `sources`, each in the dtype
            of its schema and of shape `(clips, records_per_clip, *value.shape)`. One
            clip or more.

        Raises:
          UserError: the model gives no numbers.
        """


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OneModel:
    """What predictors that read one representation have in common.

    Attributes:
      representation: name of what the model reads.
      manifest: the dataset's: genres, normalisation, and how audio becomes records.
      temperature: calibrates the probabilities (see `trainer.evaluation.calibration`).
      fingerprint: see `Predictor`.
      music_model: likewise.
      thresholds: likewise.
    """

    representation: str
    manifest: Manifest
    temperature: float = 1.0
    fingerprint: str = ""
    music_model: bytes | None = None
    thresholds: Sequence[float] | None = None

    @property
    def sources(self) -> Mapping[str, Manifest]:
        """See `Predictor`."""
        return {self.representation: self.manifest}

    @property
    def genres(self) -> tuple[str, ...]:
        """See `Predictor`."""
        return self.manifest.genres

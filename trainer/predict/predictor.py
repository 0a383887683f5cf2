"""A trained model that takes audio files: loading it, and asking it for genres."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from trainer.runtime import quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.schema import MANIFEST_FILE, Manifest, UserError
from trainer.config import EXCERPTS
from trainer.evaluation.calibration import apply_temperature
from trainer.evaluation.report import MODEL_FILE, REPORT_FILE


class Predictor:
    """A trained model and what it was trained on.

    Attributes:
      model: from records of its representation to probabilities.
      representation: name of that representation.
      manifest: the dataset's: genres, and how audio becomes records.
      temperature: calibrates the probabilities (see `trainer.evaluation.calibration`).
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        representation: str,
        manifest: Manifest,
        temperature: float = 1.0,
    ) -> None:
        self.model = model
        self.representation = representation
        self.manifest = manifest
        self.temperature = temperature

    @functools.cached_property
    def config(self) -> Any:
        """Clip parameters (`pipeline.common.clip_config.ClipConfig`).

        Raises:
          UserError: the dataset was made by another version of the pipeline.
        """
        from pipeline.common.clip_config import ClipConfig

        return ClipConfig.from_dict(self.manifest.settings)

    @functools.cached_property
    def _workspace(self) -> Any:
        from pipeline.representations.spectrum import Workspace

        return Workspace()

    @functools.cached_property
    def _compiled(self) -> Callable[[Any], Any]:
        value = self.manifest.representations[self.representation].value
        spec = tf.TensorSpec((None, *value.shape), tf.as_dtype(value.dtype))
        compiled: Callable[[Any], Any] = tf.function(
            lambda records: self.model(records, training=False), input_signature=[spec]
        )
        return compiled

    def predict_clips(
        self, clips: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities `(genres,)`: the mean over clips.

        Each becomes records exactly as the training clips did, whose probabilities
        are averaged.

        Args:
          clips: waveforms `(1321967,)`, at least one.
        """
        from pipeline.representations import compute_representations

        name = self.representation
        records = np.concatenate(
            [
                compute_representations(clip, [name], self.config, self._workspace)[
                    name
                ]
                for clip in clips
            ]
        )
        each = np.asarray(self._compiled(records), np.float64)
        by_clip = each.reshape(len(clips), -1, each.shape[1]).mean(axis=1)
        probabilities: NDArray[np.float64] = apply_temperature(
            by_clip, self.temperature
        ).mean(axis=0)
        return probabilities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The genres of one file.

    Attributes:
      genres: probability of each genre, highest first.
      excerpts: number of 30 s excerpts that they are the mean over.
    """

    genres: dict[str, float]
    excerpts: int


class Ensemble:
    """One or more predictors of the same genres, which are averaged.

    Attributes:
      predictors: at least one.
      excerpts: take no more than this many of a long file.
    """

    def __init__(
        self, predictors: Sequence[Predictor], *, excerpts: int = EXCERPTS
    ) -> None:
        self.predictors = tuple(predictors)
        self.excerpts = excerpts
        # Of the first; an unknown version of any is noticed here and not file by file.
        config, *_ = [predictor.config for predictor in predictors]
        # A damaged frame is a click in a file that somebody wants to know about.
        self._config = dataclasses.replace(config, ignore_checksums=True)

    @property
    def genres(self) -> tuple[str, ...]:
        """Names, in the manifests' order."""
        return self.predictors[0].manifest.genres

    def predict(self, path: str) -> Prediction:
        """Names the genres of one audio file.

        Raises:
          pipeline.common.rejects.AudioError: the file cannot be used as audio.
          OSError: it cannot be read.
        """
        from pipeline.decoding.excerpts import load_excerpts

        clips = load_excerpts(path, self._config, self.excerpts)
        each = [predictor.predict_clips(clips) for predictor in self.predictors]
        pairs = zip(self.genres, np.mean(each, axis=0).tolist(), strict=True)
        return Prediction(
            genres=dict(sorted(pairs, key=lambda pair: -pair[1])), excerpts=len(clips)
        )


def load_predictor(folder: str) -> Predictor:
    """Loads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder, or no Keras model in it.
    """
    folder = folder.rstrip("/") or folder
    if not tf.io.gfile.isdir(folder):
        raise UserError(f"There is no model folder {folder}; give --model another.")
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not tf.io.gfile.exists(f"{folder}/{name}"):
            raise UserError(
                f"{folder} holds no {name}; give --model the folder of a Keras model "
                "(windows, mel, features or statistics)."
            )
    path = f"{folder}/{MANIFEST_FILE}"
    with tf.io.gfile.GFile(path) as file:
        manifest = Manifest.from_json(file.read(), source=path)
    try:
        model = keras.models.load_model(f"{folder}/{MODEL_FILE}", compile=False)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{folder}/{MODEL_FILE} cannot be loaded ({error}); train it again."
        ) from error
    if model.name not in manifest.representations:
        raise UserError(
            f"{folder}/{MODEL_FILE} reads {model.name!r}, which its {MANIFEST_FILE} "
            "does not describe; train it again."
        )
    return Predictor(
        model=model,
        representation=model.name,
        manifest=manifest,
        temperature=read_temperature(f"{folder}/{REPORT_FILE}"),
    )


def read_temperature(path: str) -> float:
    """The temperature in a model's report; 1 where none was fitted.

    Raises:
      UserError: the file is no report.
    """
    if not tf.io.gfile.exists(path):
        return 1.0
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        calibration = json.loads(text)["calibration"]
        return 1.0 if calibration is None else float(calibration["temperature"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold a model's report ({error!r}); train the model again "
            "or remove this file."
        ) from error


def load_ensemble(folders: Sequence[str], *, excerpts: int = EXCERPTS) -> Ensemble:
    """Loads one or more model folders.

    Raises:
      UserError: one cannot be loaded, they do not name the same genres, or a dataset
        was made by another version of the pipeline.
    """
    predictors = [load_predictor(folder) for folder in folders]
    for folder, predictor in zip(folders, predictors, strict=True):
        if predictor.manifest.genres != predictors[0].manifest.genres:
            raise UserError(
                f"{folder} names other genres than {folders[0]} "
                f"({', '.join(predictor.manifest.genres)}); give --model folders that "
                "were trained on the same genres."
            )
    return Ensemble(predictors, excerpts=excerpts)

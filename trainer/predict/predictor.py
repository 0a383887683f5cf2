"""A trained model that takes audio files: loading it, and asking it for genres."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import tempfile
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
from trainer.evaluation.report import MODEL_FILE
from trainer.predict.model_folder import ModelContent, read_model_folder

#: What `pipeline.decoding.excerpts.load_excerpts` does.
LoadExcerpts = Callable[[str, Any, int], Sequence[Any]]
#: What Keras raises where a description or weights do not fit together.
_KERAS_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,  # with NotImplementedError and RecursionError
    TypeError,
    ValueError,
    tf.errors.OpError,
)


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
          UserError: this version of the pipeline does not make the records that the
            dataset had.
        """
        from pipeline.common.clip_config import ClipConfig
        from pipeline.representations import NAMES, make_schemas

        name = self.representation
        try:
            config = ClipConfig.from_dict(self.manifest.settings)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"The settings in {MANIFEST_FILE} of the {name} model are damaged "
                f"({error}); copy the model folder again, or train the model again."
            ) from error
        layout = self.manifest.representations[name]
        if name not in NAMES or make_schemas([name], config)[name] != layout:
            raise UserError(
                f"The {name!r:.40} records of {MANIFEST_FILE} are not those that this "
                "version of the pipeline makes; preprocess and train again, or use "
                "the version that made them."
            )
        return config

    @functools.cached_property
    def _workspace(self) -> Any:
        from pipeline.representations import embeddings
        from pipeline.representations.spectrum import Workspace
        from pipeline.representations.weights import open_network

        if self.representation != embeddings.NAME:
            return Workspace()
        return Workspace(open_network(self.config.music_model))

    def prepare(self) -> None:
        """Loads what audio needs to become records, before the first file.

        Raises:
          UserError: the music model's weights are not there.
        """
        _ = self._workspace

    @functools.cached_property
    def _compiled(self) -> Callable[[Any], Any]:
        value = self.manifest.representations[self.representation].value
        spec = tf.TensorSpec((None, *value.shape), tf.as_dtype(value.dtype))
        compiled: Callable[[Any], Any] = tf.function(
            lambda records: self.model(records, training=False), input_signature=[spec]
        )
        return compiled

    def predict_clips(self, clips: Sequence[Any]) -> NDArray[np.float64]:
        """Calibrated probabilities `(genres,)`: the mean over clips.

        Each becomes records exactly as the training clips did, whose probabilities
        are averaged.

        Args:
          clips: `pipeline.decoding.waveform.Waveform`s, at least one.

        Raises:
          UserError: the model gives no numbers.
        """
        from pipeline.representations import compute_representations

        name = self.representation
        records = np.concatenate(
            [
                compute_representations(
                    clip.samples,
                    [name],
                    self.config,
                    self._workspace,
                    length=clip.length,
                )[name]
                for clip in clips
            ]
        )
        outputs = np.asarray(self._compiled(records), np.float64)
        by_clip = outputs.reshape(len(clips), -1, outputs.shape[1]).mean(axis=1)
        probabilities: NDArray[np.float64] = apply_temperature(
            by_clip, self.temperature
        ).mean(axis=0)
        if not np.all(np.isfinite(probabilities)):
            raise UserError(
                f"The {name} model gives no numbers; its weights are damaged: train it "
                "again."
            )
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
      load: decodes a file's excerpts; `IsolatedDecoder.load_excerpts` does so in a
        process of its own. By default, they are decoded in this one.
      excerpts: take no more than this many of a long file.
    """

    def __init__(
        self,
        predictors: Sequence[Predictor],
        *,
        excerpts: int = EXCERPTS,
        load: LoadExcerpts | None = None,
    ) -> None:
        from pipeline.decoding.excerpts import load_excerpts

        self.predictors = tuple(predictors)
        self.excerpts = excerpts
        self._load = load or load_excerpts
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
        clips = self._load(path, self._config, self.excerpts)
        by_model = [predictor.predict_clips(clips) for predictor in self.predictors]
        pairs = zip(self.genres, np.mean(by_model, axis=0).tolist(), strict=True)
        return Prediction(
            genres=dict(sorted(pairs, key=lambda pair: -pair[1])), excerpts=len(clips)
        )


def load_predictor(folder: str) -> Predictor:
    """Loads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder, or what is in it is no whole model of ours.
    """
    content = read_model_folder(folder)
    return Predictor(
        model=load_model(content),
        representation=content.archive.name,
        manifest=content.manifest,
        temperature=content.temperature,
    )


def load_model(folder: ModelContent) -> keras.Model:
    """Makes the Keras model of a folder whose files were checked.

    Raises:
      UserError: Keras does not make a model of it, or one of other inputs and outputs
        than the manifest has.
    """
    try:
        # In a graph, variables have shapes and no memory.
        with tf.Graph().as_default():
            plan = keras.models.model_from_json(folder.archive.config)
        count = sum(math.prod(weight.shape) for weight in plan.weights)
        if count != folder.archive.weight_count:
            raise ValueError(
                f"its layers have {count:,} weights, the file "
                f"{folder.archive.weight_count:,}"
            )
        _check_shapes(plan, folder.archive.name, folder.manifest)
        # What was checked is loaded, not what may lie there in the meantime.
        with tempfile.TemporaryDirectory() as local:
            path = os.path.join(local, MODEL_FILE)
            _write_temporary(path, folder.content)
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except _KERAS_ERRORS as error:
        raise UserError(
            f"{folder.source} cannot be loaded ({_shorten(error)}); copy the model "
            "folder again, or train the model again."
        ) from error


def _write_temporary(path: str, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise UserError(
            f"The temporary folder does not take the model ({error.strerror}): "
            f"{path}; make room there, or set TMPDIR to another."
        ) from error


def _check_shapes(model: keras.Model, name: str, manifest: Manifest) -> None:
    """Compares inputs and outputs with the manifest.

    Raises:
      ValueError: they differ.
    """
    value = manifest.representations[name].value
    signature = [((None, *value.shape), value.dtype)]
    inputs = [(tensor.shape, tensor.dtype) for tensor in model.inputs]
    if inputs != signature:
        raise ValueError(f"it reads {inputs}, {MANIFEST_FILE} describes {signature}")
    outputs = [tensor.shape for tensor in model.outputs]
    if outputs != [(None, len(manifest.genres))]:
        raise ValueError(
            f"its output has the shape {outputs}, {MANIFEST_FILE} has "
            f"{len(manifest.genres)} genres"
        )


def _shorten(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def load_ensemble(
    folders: Sequence[str],
    *,
    excerpts: int = EXCERPTS,
    load: LoadExcerpts | None = None,
) -> Ensemble:
    """Loads one or more model folders.

    Args:
      folders: at least one.
      excerpts: see `Ensemble`.
      load: likewise.

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
        predictor.prepare()
    return Ensemble(predictors, excerpts=excerpts, load=load)

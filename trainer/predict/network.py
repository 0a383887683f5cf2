"""A trained Keras model: loading it, and asking it for genres."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from trainer.runtime import quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.schema import MANIFEST_FILE, Manifest, UserError
from trainer.evaluation.model_digests import describe_error
from trainer.evaluation.report import MODEL_FILE
from trainer.evaluation.tasks.task import find_task
from trainer.predict.model_folder import ADVICE, ModelContent, read_model_folder
from trainer.predict.protocol import OneModel, Predictor
from trainer.runtime.inference import Answer, freeze

#: Records that a network gets in one call. With more, what its layers make of mel
#: images leaves the caches: 8 take 7.6 ms each on one core, 80 take 8.5, and 0.4 GiB.
RECORDS_AT_ONCE = 8
#: What libraries raise of a model that they do not take: Keras where a description or
#: weights do not fit together, converters to other formats.
LIBRARY_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,  # with NotImplementedError and RecursionError
    TypeError,
    ValueError,
    tf.errors.OpError,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network(OneModel):
    """A trained Keras model and what it was trained on: a `Predictor`.

    Attributes:
      model: from records of its representation to probabilities.
    """

    model: keras.Model

    @functools.cached_property
    def _compiled(self) -> Answer:
        return freeze(self.model)

    def predict(self, records: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `Predictor`; the mean over a clip's records, then calibrated."""
        outputs = _ask(self._compiled, records[self.representation])
        by_clip = outputs.astype(np.float64).mean(axis=1)
        task = find_task(self.manifest)
        probabilities = task.scale(by_clip, self.temperature)
        if not np.all(np.isfinite(probabilities)):
            raise UserError(
                f"The {self.representation} model gives no numbers; its weights are "
                "damaged: train it again."
            )
        return probabilities


class Embedder:
    """Clips to what the last layer of a network reads.

    Attributes:
      width: number of values.

    Args:
      predictor: a network.

    Raises:
      UserError: it is none, or has no such layer.
    """

    def __init__(self, predictor: Predictor) -> None:
        if not isinstance(predictor, Network):
            raise UserError(
                "--embeddings takes one --model that is a network, whose penultimate "
                "layer they are; leave it out, or give such a model."
            )
        output = find_penultimate(predictor.model)
        self.width = int(output.shape[-1])
        self._name = predictor.representation
        self._network = keras.Model(predictor.model.inputs, output, name="penultimate")

    @functools.cached_property
    def _compiled(self) -> Answer:
        return freeze(self._network)

    def embed(self, records: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings of clips, float32 `(clips, width)`: the mean over their records.

        Args:
          records: as `Predictor.predict` takes them.
        """
        mean: NDArray[np.float32] = _ask(self._compiled, records[self._name]).mean(1)
        return mean


def _ask(network: Answer, values: NDArray[Any]) -> NDArray[np.float32]:
    """What a network makes of clips, float32 `(clips, records_per_clip, width)`."""
    clips, count = values.shape[:2]
    flat = values.reshape(clips * count, *values.shape[2:])
    outputs = [
        network(flat[first : first + RECORDS_AT_ONCE])
        for first in range(0, len(flat), RECORDS_AT_ONCE)
    ]
    return np.concatenate(outputs).reshape(clips, count, -1)


def find_network(predictor: Predictor) -> Network | None:
    """The first network of a predictor: itself, or a member; None without any."""
    members = getattr(predictor, "members", (predictor,))
    return next((one for one in members if isinstance(one, Network)), None)


def find_penultimate(model: keras.Model) -> keras.KerasTensor:
    """What the last layer reads, `(records, width)`; a model's layers are a chain.

    Raises:
      UserError: that is no vector.
    """
    *_, before, last = model.layers
    value = before.output
    if isinstance(last, keras.Model) and len(last.layers) > 2:
        # A head of several layers.
        inner = last.layers[-2].output
        value = keras.Model(last.inputs, inner, name="head_without_last")(value)
    if len(value.shape) != 2:
        raise UserError(
            f"The {model.name} model has no vector before its last layer; leave out "
            "--embeddings, or give another --model."
        )
    return value


def load_network(folder: str) -> Network:
    """Loads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder, or what is in it is no whole model of ours.
    """
    content = read_model_folder(folder)
    return Network(
        model=load_model(content),
        representation=content.archive.name,
        manifest=content.manifest,
        temperature=content.temperature,
        fingerprint=content.fingerprint,
        music_model=content.music_model,
        thresholds=content.thresholds,
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
    except LIBRARY_ERRORS as error:
        raise UserError(
            f"{folder.source} cannot be loaded ({describe_error(error)}); {ADVICE}"
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
    """Compares inputs and outputs with the manifest."""
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

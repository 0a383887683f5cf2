"""What a network makes of clips before it names genres: the penultimate layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.schema import UserError
from trainer.predict.network import Network
from trainer.predict.protocol import Predictor


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
        network = keras.Model(predictor.model.inputs, output, name="penultimate")
        value = predictor.manifest.representations[self._name].value
        spec = tf.TensorSpec((None, *value.shape), tf.as_dtype(value.dtype))
        self._compiled = tf.function(
            lambda records: network(records, training=False), input_signature=[spec]
        )

    def embed(self, records: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings of clips, float32 `(clips, width)`: the mean over their records.

        Args:
          records: as `Predictor.predict` takes them.
        """
        values = records[self._name]
        clips, count = values.shape[:2]
        flat = values.reshape(clips * count, *values.shape[2:])
        outputs = np.asarray(self._compiled(flat), np.float32)
        mean: NDArray[np.float32] = outputs.reshape(clips, count, -1).mean(axis=1)
        return mean


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

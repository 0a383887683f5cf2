"""What all networks share: their first and their last layer.

Every model takes raw records: normalisation with the training statistics of the
manifest is its first layer, so that what is saved is what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from pipeline.schema import Normalisation, RepresentationSchema
from trainer.data.normalisation import expand_normalisation

#: Name of the architecture for each representation.
ARCHITECTURES = {
    "windows": "1-D CNN",
    "mel": "MobileNetV2",
    "features": "Dense net",
    "statistics": "Dense net",
    "embeddings": "Dense net",
}


def build_normalisation(
    layout: RepresentationSchema, normalisation: Normalisation
) -> keras.Layer:
    """Layer that gives every segment mean 0 and variance 1.

    Keras' own layer: a saved model loads without this project.

    Args:
      layout: with the segments, whose lengths sum to the input's `(d,)`.
      normalisation: a mean and a variance for each segment.

    Returns:
      A built layer from `(n, d)` to float32 `(n, d)`.
    """
    mean, variance = expand_normalisation(layout, normalisation)
    layer = keras.layers.Normalization(dtype="float32", name="normalisation")
    layer.build((None, mean.size))
    layer.set_weights([mean, variance, np.zeros(())])
    layer.finalize_state()
    return layer


def add_output(
    x: keras.KerasTensor,
    genres: int,
    activation: str = "softmax",
    bias: Sequence[float] | None = None,
) -> keras.KerasTensor:
    """Adds the last layer: genre probabilities, float32 under mixed precision too.

    Args:
      x: what it reads, `(n, d)`.
      genres: number of outputs.
      activation: `softmax` for one genre a clip, `sigmoid` for several.
      bias: what the outputs' offsets begin with; None for zeros.
    """
    layer = keras.layers.Dense(
        genres, activation=activation, dtype="float32", name="genres"
    )
    outputs = layer(x)
    if bias is not None:
        # Of an initializer, the saved model would need this project's class.
        layer.bias.assign(np.asarray(bias, np.float32))
    return outputs


def has_replicas() -> bool:
    """Whether several devices share a batch, and so BatchNorm's statistics of it."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync) > 1

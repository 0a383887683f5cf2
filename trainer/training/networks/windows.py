"""The 1-D CNN on raw windows."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from pipeline.schema import Normalisation, RepresentationSchema
from trainer.training.networks.layers import (
    add_output,
    build_normalisation,
    has_replicas,
)


def build_windows_model(
    layout: RepresentationSchema,
    normalisation: Normalisation,
    genres: int,
    *,
    units: int = 64,
    dropout: float = 0.3,
    activation: str = "softmax",
    bias: Sequence[float] | None = None,
) -> keras.Model:
    """1-D CNN from windows `(n, samples)` to probabilities `(n, genres)`.

    `activation` and `bias` are the last layer's, see `add_output`.

    Average and maximum over time close it: where in the window a sound lies says
    nothing about the genre.
    """
    inputs = keras.Input(layout.value.shape, dtype="float32", name=layout.value.name)
    x = build_normalisation(layout, normalisation)(inputs)
    x = keras.layers.Reshape((layout.value.size, 1))(x)
    # At 44.1 kHz the first kernel spans 1.5 ms and moves by 0.2 ms; a step of the
    # last layer is 6 ms.
    x = _convolve(x, filters=32, kernel=64, stride=8, pool=8)
    x = _convolve(x, filters=64, kernel=8, stride=1, pool=4)
    x = _convolve(x, filters=128, kernel=4, stride=1, pool=1)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling1D()(x), keras.layers.GlobalMaxPooling1D()(x)]
    )
    x = keras.layers.Dropout(dropout)(x)
    if units:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(
        inputs, add_output(x, genres, activation, bias), name=layout.name
    )


def _convolve(
    x: keras.KerasTensor, *, filters: int, kernel: int, stride: int, pool: int
) -> keras.KerasTensor:
    x = keras.layers.Conv1D(
        filters, kernel, strides=stride, padding="same", use_bias=False
    )(x)
    # Keras' default of 0.99 is too slow for the few steps of a small dataset.
    x = keras.layers.BatchNormalization(momentum=0.9, synchronized=has_replicas())(x)
    x = keras.layers.ReLU()(x)
    return keras.layers.MaxPooling1D(pool, padding="same")(x) if pool > 1 else x

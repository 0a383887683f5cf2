"""The dense net on feature vectors."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from pipeline.schema import Normalisation, RepresentationSchema
from trainer.training.networks.layers import add_output, build_normalisation


def build_vector_model(
    layout: RepresentationSchema,
    normalisation: Normalisation,
    genres: int,
    *,
    units: int = 64,
    dropout: float = 0.5,
    activation: str = "softmax",
    bias: Sequence[float] | None = None,
) -> keras.Model:
    """Dense net from vectors `(n, d)` to probabilities `(n, genres)`.

    `activation` and `bias` are the last layer's, see `add_output`.

    With 85,210 values and a few thousand clips at most, dropout on the vector
    itself keeps the net from learning clips by heart. The values of a row move
    together, so their weighted sums are large; layer normalisation brings them
    back to 1.
    """
    inputs = keras.Input(layout.value.shape, dtype="float32", name=layout.value.name)
    x = build_normalisation(layout, normalisation)(inputs)
    x = keras.layers.Dropout(dropout)(x)
    for _ in range(2 if units else 0):
        x = keras.layers.Dense(units)(x)
        x = keras.layers.LayerNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(
        inputs, add_output(x, genres, activation, bias), name=layout.name
    )

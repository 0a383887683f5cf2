"""The networks for raw windows and for vectors, and what all models share.

Every model takes raw records: normalisation with the training statistics of the
manifest is its first layer, so that what is saved is what was trained.
"""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.schema import Normalisation, RepresentationSchema

#: Name of the architecture for each representation.
ARCHITECTURES = {
    "windows": "1-D CNN",
    "mel": "MobileNetV2",
    "features": "Dense net",
    "statistics": "Dense net",
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


def expand_normalisation(
    layout: RepresentationSchema, normalisation: Normalisation
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Repeats each segment's mean and variance over its values: two `(d,)`.

    A segment that is constant in the training split gets variance 1: it stays 0,
    and a record that differs does not become a huge number.
    """
    mean = np.array(normalisation.mean, np.float64)
    variance = np.array(normalisation.variance, np.float64)
    # The variance of a constant is not always 0 in floating point.
    constant = variance <= 1e-12 * np.maximum(mean**2, 1e-12)
    variance = np.where(constant, 1.0, variance)
    lengths = [segment.length for segment in layout.segments]
    return (
        np.repeat(mean, lengths).astype(np.float32),
        np.repeat(variance, lengths).astype(np.float32),
    )


def build_output(genres: int) -> keras.Layer:
    """The last layer: genre probabilities, float32 under mixed precision too."""
    return keras.layers.Dense(
        genres, activation="softmax", dtype="float32", name="genres"
    )


def build_windows_model(
    layout: RepresentationSchema,
    normalisation: Normalisation,
    genres: int,
    *,
    units: int = 64,
    dropout: float = 0.3,
) -> keras.Model:
    """1-D CNN from windows `(n, samples)` to probabilities `(n, genres)`.

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
        [
            keras.layers.GlobalAveragePooling1D()(x),
            keras.layers.GlobalMaxPooling1D()(x),
        ]
    )
    x = keras.layers.Dropout(dropout)(x)
    if units:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, build_output(genres)(x), name=layout.name)


def build_vector_model(
    layout: RepresentationSchema,
    normalisation: Normalisation,
    genres: int,
    *,
    units: int = 64,
    dropout: float = 0.5,
) -> keras.Model:
    """Dense net from vectors `(n, d)` to probabilities `(n, genres)`.

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
    return keras.Model(inputs, build_output(genres)(x), name=layout.name)


def has_replicas() -> bool:
    """Whether several devices share a batch, and so BatchNorm's statistics of it."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync) > 1


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

"""MobileNetV2 on mel images: where its weights come from, and its parts."""

from __future__ import annotations

import os
import pathlib
import tempfile
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.common.plain_text import is_failed_download
from pipeline.schema import RepresentationSchema, UserError
from trainer.training.networks.layers import add_output, has_replicas

#: Name under which Keras keeps the ImageNet weights it has downloaded.
IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def find_cached_weights() -> str | None:
    """Path of the ImageNet weights in Keras' cache directory, if they are there."""
    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    path = os.path.join(home, "models", IMAGENET_FILE)
    return path if os.path.isfile(path) else None


def check_weights(weights: str) -> None:
    """Checks the flag before anything is built.

    Raises:
      UserError: `weights` is neither a keyword nor an existing file.
    """
    if weights in ("imagenet", "none"):
        return
    if not tf.io.gfile.exists(weights) or tf.io.gfile.isdir(weights):
        raise UserError(
            f"--weights {weights}: there is no such file; give the path of "
            f"MobileNetV2 weights without top (such as {IMAGENET_FILE}), imagenet "
            "or none."
        )


def build_base(shape: Sequence[int], weights: str) -> keras.Model:
    """MobileNetV2 without its top, from `(n, *shape)` in -1 to 1.

    Raises:
      UserError: the weights cannot be downloaded or do not fit.
    """
    base = keras.applications.MobileNetV2(
        input_shape=tuple(shape), include_top=False, weights=None
    )
    if weights != "none":
        load_base_weights(base, weights)
    return base


def build_bottleneck(layout: RepresentationSchema, base: keras.Model) -> keras.Model:
    """From images `(n, rows, columns, 3)` uint8 to the base's outputs `(n, 1280)`."""
    inputs = keras.Input(layout.value.shape, dtype="uint8", name=layout.value.name)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(base(x))
    return keras.Model(inputs, x, name="bottleneck")


def build_head(
    width: int,
    genres: int,
    *,
    standardise: keras.Layer | None = None,
    dropout: float = 0.2,
    units: int = 0,
    activation: str = "softmax",
    bias: Sequence[float] | None = None,
) -> keras.Model:
    """From outputs of the base `(n, width)` to probabilities `(n, genres)`.

    Args:
      width: number of outputs of the base.
      genres: to tell apart.
      standardise: layer that comes first, if any.
      dropout: before each dense layer.
      units: of a hidden layer; 0 for none.
      activation: of the last layer, see `add_output`.
      bias: likewise.
    """
    inputs = keras.Input((width,), name="features")
    x = inputs if standardise is None else standardise(inputs)
    x = keras.layers.Dropout(dropout)(x)
    if units:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, add_output(x, genres, activation, bias), name="head")


def build_standardiser(
    mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64]
) -> keras.Layer:
    """Layer that brings outputs of the base `(n, d)` to mean 0 and variance 1.

    A random base hands on signals of about 1e-12, which no optimizer moves and
    which Keras' own Normalization takes for constants.

    Args:
      mean: of each output, `(d,)`.
      deviation: standard deviation of each, `(d,)`; one that is 0 gives 0.
    """
    scale = np.divide(1.0, deviation, out=np.zeros_like(mean), where=deviation > 0)
    return keras.layers.Rescaling(
        scale.tolist(), offset=(-mean * scale).tolist(), dtype="float32"
    )


def attach_head(bottleneck: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """From images to probabilities; shares the layers of both."""
    return keras.Model(bottleneck.input, head(bottleneck.output), name=name)


def load_base_weights(base: keras.Model, weights: str) -> None:
    """Loads ImageNet weights: Keras' own (`imagenet`) or those of a file.

    Raises:
      UserError: they cannot be downloaded, or do not fit.
    """
    if weights == "imagenet":
        weights = find_cached_weights() or _download_weights()
    advice = f"give {IMAGENET_FILE} as Keras publishes it."
    with tempfile.TemporaryDirectory() as folder:
        # HDF5 reads local files only.
        local = os.path.join(folder, pathlib.PurePosixPath(weights).name)
        tf.io.gfile.copy(weights, local)
        try:
            with warnings.catch_warnings():
                # What does not fit ends in an error; no line for each layer before.
                warnings.simplefilter("ignore")
                base.load_weights(local)
        except (ValueError, KeyError, OSError) as error:
            # Keras goes on with all values of the first layer.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"--weights {weights} does not hold the weights of MobileNetV2 without "
                f"top ({reason[:200]}); {advice}"
            ) from error
    if not all(np.isfinite(array).all() for array in base.get_weights()):
        raise UserError(
            f"--weights {weights} holds values that are not finite; {advice}"
        )


def _download_weights() -> str:
    url = (
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
        + IMAGENET_FILE
    )
    try:
        path: str = keras.utils.get_file(IMAGENET_FILE, url, cache_subdir="models")
    except Exception as error:
        # Keras raises nothing more specific for a failed download.
        if not is_failed_download(error):
            raise
        raise UserError(
            f"--weights imagenet: {error}; download that file elsewhere and give its "
            "path to --weights, or use --weights none."
        ) from error
    return path


def unfreeze_last_layers(base: keras.Model, layers: int, *, batch_norm: bool) -> None:
    """Makes the last layers trainable, and no others.

    Args:
      base: what `build_base` made.
      layers: how many; all, where there are fewer.
      batch_norm: whether BatchNorm is among them. Pretrained statistics must stay:
        a layer that is not trainable computes in inference mode, which calling the
        base with `training=False` does not ensure (`fit` overrides it in Keras 3).
    """
    base.trainable = True
    frozen = len(base.layers) - layers
    for number, layer in enumerate(base.layers):
        statistics_stay = (
            isinstance(layer, keras.layers.BatchNormalization) and not batch_norm
        )
        layer.trainable = number >= frozen and not statistics_stay


def quicken_statistics(base: keras.Model) -> None:
    """Lets BatchNorm's moving statistics converge within tens of steps.

    MobileNetV2's momentum of 0.999 is meant for hundreds of thousands; until then
    the network computes nonsense in inference mode.
    """
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
            layer.synchronized = has_replicas()

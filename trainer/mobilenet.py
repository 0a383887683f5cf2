"""MobileNetV2 on mel images: where its weights come from, and its parts."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile

import keras
import tensorflow as tf

from pipeline.schema import RepresentationSchema, UserError
from trainer.models import build_output

#: Name under which Keras keeps the ImageNet weights it has downloaded.
IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier and its two halves, which share their layers.

    Attributes:
      base: MobileNetV2 without its top, called in inference mode only if
        `frozen`.
      bottleneck: from images `(n, rows, columns, 3)` uint8 to `(n, 1280)`.
      head: from `(n, 1280)` to probabilities `(n, genres)`.
      model: both, from images to probabilities.
    """

    base: keras.Model
    bottleneck: keras.Model
    head: keras.Model
    model: keras.Model


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


def build_network(
    layout: RepresentationSchema,
    genres: int,
    *,
    weights: str,
    dropout: float = 0.2,
    alpha: float = 1.0,
) -> Network:
    """Builds MobileNetV2 with a new head.

    With weights, the base is frozen and computes in inference mode whatever `fit`
    says, so that BatchNorm keeps its statistics, also in fine-tuning. Without, it is
    an ordinary network to be trained from the start.

    Raises:
      UserError: the weights cannot be downloaded or do not fit.
    """
    inputs = keras.Input(layout.value.shape, dtype="uint8", name=layout.value.name)
    pretrained = weights != "none"
    base = keras.applications.MobileNetV2(
        input_shape=layout.value.shape, include_top=False, weights=None, alpha=alpha
    )
    if pretrained:
        load_base_weights(base, weights)
        base.trainable = False
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = base(x, training=False) if pretrained else base(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    bottleneck = keras.Model(inputs, x, name="bottleneck")
    features = keras.Input(x.shape[1:], name="features")
    head = keras.Model(
        features,
        build_output(genres)(keras.layers.Dropout(dropout)(features)),
        name="head",
    )
    model = keras.Model(inputs, head(x), name="mel")
    return Network(base=base, bottleneck=bottleneck, head=head, model=model)


def load_base_weights(base: keras.Model, weights: str) -> None:
    """Loads ImageNet weights: Keras' own (`imagenet`) or those of a file.

    Raises:
      UserError: they cannot be downloaded, or do not fit.
    """
    if weights == "imagenet":
        path = find_cached_weights() or _download_weights()
        base.load_weights(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        # HDF5 reads local files only.
        local = os.path.join(folder, pathlib.PurePosixPath(weights).name)
        tf.io.gfile.copy(weights, local)
        try:
            base.load_weights(local)
        except (ValueError, KeyError, OSError) as error:
            raise UserError(
                f"--weights {weights} does not hold the weights of MobileNetV2 without "
                f"top ({error}); give {IMAGENET_FILE} as Keras publishes it."
            ) from error


def _download_weights() -> str:
    url = (
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
        + IMAGENET_FILE
    )
    try:
        path: str = keras.utils.get_file(IMAGENET_FILE, url, cache_subdir="models")
    except Exception as error:
        # Keras raises nothing more specific for a failed download.
        if "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"--weights imagenet: {error}; download that file elsewhere and give its "
            "path to --weights, or use --weights none."
        ) from error
    return path


def unfreeze_last_layers(base: keras.Model, layers: int) -> None:
    """Makes the last layers trainable; BatchNorm keeps computing in inference mode."""
    base.trainable = True
    for layer in base.layers[:-layers]:
        layer.trainable = False

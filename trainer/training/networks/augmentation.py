"""Keras layers that alter raw records in training and nothing in inference.

They stand before a model and are no part of what is saved.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from pipeline.schema import Normalisation, RepresentationSchema
from trainer.data.normalisation import expand_normalisation


class _OnlyInTraining(keras.Layer):
    """Alters values in training, and nothing in inference; see `alter`."""

    def __init__(self, seed: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, values: Any, training: bool = False) -> Any:
        """From values `(n, ...)` to altered ones."""
        return self.alter(values) if training else values

    def alter(self, values: Any) -> Any:
        """From values `(n, ...)` to others of the same shape and dtype."""
        raise NotImplementedError

    def compute_output_shape(self, shape: Any) -> Any:
        """The input's."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config: dict[str, Any] = super().get_config()
        return config | {"seed": self.seed}


@keras.saving.register_keras_serializable(package="trainer")
class SpecAugment(_OnlyInTraining):
    """Masks bands of frequency and stretches of time of images.

    Each image gets masks of its own, of widths drawn from 0 to the largest. Shapes
    are static. Source: D. S. Park et al., SpecAugment (2019),
    https://arxiv.org/abs/1904.08779, without its time warping.
    """

    def __init__(
        self,
        *,
        frequency_width: float = 0.2,
        time_width: float = 0.2,
        masks: int = 2,
        fill: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """Sets the masks.

        Args:
          frequency_width: largest share of the rows under one mask.
          time_width: largest share of the columns under one mask.
          masks: number of masks in each direction.
          fill: value under a mask.
          seed: of the masks.
          **options: of `keras.Layer`.
        """
        super().__init__(seed, **options)
        for name, width in (
            ("frequency_width", frequency_width),
            ("time_width", time_width),
        ):
            if not 0 <= width <= 1:
                raise ValueError(f"Expected {name} from 0 to 1. Received: {width}")
        self.frequency_width = frequency_width
        self.time_width = time_width
        self.masks = masks
        self.fill = fill

    def alter(self, images: Any) -> Any:
        """From images `(n, rows, columns, channels)` to masked ones, same dtype."""
        rows, columns = images.shape[1:3]
        hidden = ops.logical_or(
            self._mask(images, rows, self.frequency_width)[:, :, None],
            self._mask(images, columns, self.time_width)[:, None, :],
        )
        fill = ops.cast(self.fill, images.dtype)
        return ops.where(hidden[..., None], fill, images)

    def _mask(self, images: Any, size: int, width: float) -> Any:
        """Which of `size` lines are hidden, `(n, size)`."""
        shape = (ops.shape(images)[0], self.masks, 1)
        drawn = keras.random.uniform(
            (2, *shape), dtype="float32", seed=self.seed_generator
        )
        length = drawn[0] * width * size
        start = drawn[1] * (size - length)
        line = ops.reshape(ops.cast(ops.arange(size), "float32"), (1, 1, size))
        inside = ops.logical_and(line >= start, line < start + length)
        return ops.any(inside, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "frequency_width": self.frequency_width,
            "time_width": self.time_width,
            "masks": self.masks,
            "fill": self.fill,
        }


@keras.saving.register_keras_serializable(package="trainer")
class Loudness(_OnlyInTraining):
    """Multiplies waveforms by a random gain and turns the sign of half of them."""

    def __init__(
        self, *, decibels: float = 6.0, seed: int | None = None, **options: Any
    ) -> None:
        """Sets the largest gain, up or down, in dB."""
        super().__init__(seed, **options)
        self.decibels = decibels

    def alter(self, waves: Any) -> Any:
        """From waveforms `(n, samples)` to louder or softer ones."""
        drawn = keras.random.uniform(
            (2, ops.shape(waves)[0], 1), -1, 1, seed=self.seed_generator
        )
        gain = 10 ** (drawn[0] * self.decibels / 20)
        return waves * ops.cast(gain * ops.sign(drawn[1]), waves.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"decibels": self.decibels}


@keras.saving.register_keras_serializable(package="trainer")
class Jitter(_OnlyInTraining):
    """Adds Gaussian noise, in units of each value's own standard deviation."""

    def __init__(
        self,
        *,
        deviations: Any,
        strength: float = 0.2,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """Sets the noise.

        Args:
          deviations: standard deviation of each value over the training split, `(d,)`.
          strength: standard deviation of the noise, relative to that.
          seed: of the noise.
          **options: of `keras.Layer`.
        """
        super().__init__(seed, **options)
        self.deviations = np.asarray(deviations, np.float32)
        self.strength = strength

    def alter(self, vectors: Any) -> Any:
        """From vectors `(n, d)` to noisy ones."""
        noise = keras.random.normal(
            ops.shape(vectors), stddev=self.strength, seed=self.seed_generator
        )
        return vectors + noise * ops.convert_to_tensor(self.deviations)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "deviations": self.deviations.tolist(),
            "strength": self.strength,
        }


def build_augmentation(
    layout: RepresentationSchema,
    normalisation: Normalisation | None,
    strength: float,
    seed: int,
) -> keras.Layer | None:
    """The layer that alters records of a representation in training.

    Args:
      layout: of the representation; images, windows or vectors.
      normalisation: its training statistics; None for images.
      strength: 0 for none to 1 for strong.
      seed: of all that is random.

    Returns:
      A layer from `(n, *shape)` to the same, or None for strength 0.
    """
    if not strength:
        return None
    if normalisation is None:
        return SpecAugment(
            frequency_width=0.4 * strength,
            time_width=0.4 * strength,
            seed=seed,
            dtype="float32",
        )
    if layout.name == "windows":
        return Loudness(decibels=12 * strength, seed=seed, dtype="float32")
    _, variance = expand_normalisation(layout, normalisation)
    # In float32: raw values come before the normalisation, in all sizes.
    return Jitter(
        deviations=np.sqrt(variance), strength=strength, seed=seed, dtype="float32"
    )

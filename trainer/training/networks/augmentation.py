"""Keras layers that alter raw records in training and nothing in inference.

They stand before a model and are no part of what is saved.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.schema import Normalisation, RepresentationSchema
from trainer.data.normalisation import expand_normalisation


class _OnlyInTraining(keras.Layer):
    """Alters values in training, and nothing in inference; see `alter`."""

    def __init__(self, seed: int) -> None:
        # Raw values come before the normalisation, in all sizes.
        super().__init__(dtype="float32")
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, values: Any, training: bool = False) -> Any:
        """From values `(n, ...)` to altered ones."""
        return self.alter(values) if training else values

    def alter(self, values: Any) -> Any:
        """From values `(n, ...)` to others of the same shape and dtype."""
        raise NotImplementedError


class SpecAugment(_OnlyInTraining):
    """Hides bands of frequency and stretches of time of images.

    Each image gets masks of its own, of widths drawn from 0 to the largest. Shapes
    are static. Source: D. S. Park et al., SpecAugment (2019),
    https://arxiv.org/abs/1904.08779, without its time warping.

    Args:
      width: largest share of the rows, or columns, under one mask.
      masks: number of masks in each direction.
      seed: of the masks.
    """

    def __init__(self, width: float, *, masks: int = 2, seed: int) -> None:
        super().__init__(seed)
        self.width = width
        self.masks = masks

    def alter(self, images: Any) -> Any:
        """From images `(n, rows, columns, channels)` to masked ones, same dtype."""
        rows, columns = images.shape[1:3]
        hidden = ops.logical_or(
            self._mask(images, rows)[:, :, None], self._mask(images, columns)[:, None]
        )
        return ops.where(hidden[..., None], ops.cast(0, images.dtype), images)

    def _mask(self, images: Any, size: int) -> Any:
        """Which of `size` lines are hidden, `(n, size)`."""
        shape = (ops.shape(images)[0], self.masks, 1)
        drawn = keras.random.uniform(
            (2, *shape), dtype="float32", seed=self.seed_generator
        )
        length = drawn[0] * self.width * size
        start = drawn[1] * (size - length)
        line = ops.reshape(ops.cast(ops.arange(size), "float32"), (1, 1, size))
        inside = ops.logical_and(line >= start, line < start + length)
        return ops.any(inside, axis=1)


class Loudness(_OnlyInTraining):
    """Multiplies waveforms by a random gain and turns the sign of half of them.

    Args:
      decibels: largest gain, up or down, in dB.
      seed: of the gains.
    """

    def __init__(self, decibels: float, *, seed: int) -> None:
        super().__init__(seed)
        self.decibels = decibels

    def alter(self, waves: Any) -> Any:
        """From waveforms `(n, samples)` to louder or softer ones."""
        drawn = keras.random.uniform(
            (2, ops.shape(waves)[0], 1), -1, 1, seed=self.seed_generator
        )
        gain = 10 ** (drawn[0] * self.decibels / 20)
        return waves * ops.cast(gain * ops.sign(drawn[1]), waves.dtype)


class Jitter(_OnlyInTraining):
    """Adds Gaussian noise.

    Args:
      deviations: standard deviation of the noise of each value, `(d,)`.
      seed: of the noise.
    """

    def __init__(self, deviations: NDArray[np.floating], *, seed: int) -> None:
        super().__init__(seed)
        self.deviations = np.asarray(deviations, np.float32)

    def alter(self, vectors: Any) -> Any:
        """From vectors `(n, d)` to noisy ones."""
        noise = keras.random.normal(ops.shape(vectors), seed=self.seed_generator)
        return vectors + noise * ops.convert_to_tensor(self.deviations)


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
        return SpecAugment(0.4 * strength, seed=seed)
    if layout.name == "windows":
        return Loudness(12 * strength, seed=seed)
    _, variance = expand_normalisation(layout, normalisation)
    return Jitter(strength * np.sqrt(variance), seed=seed)

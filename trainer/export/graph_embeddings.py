"""The pipeline's way from samples to embeddings, as TensorFlow operations.

The same arithmetic as in `pipeline.representations.log_mel` and `.embeddings`, equal
to it within rounding: tests hold both side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.representations.log_mel import (
    BANDS,
    COMPRESSION,
    HOP_LENGTH,
    N_FFT,
    PATCH_FRAMES,
    RATE,
    filters,
    patch_starts,
    window,
)
from pipeline.representations.music_model import build_network, identify, read_weights
from trainer.export.graph_audio import Clip, even_starts
from trainer.export.graph_resampling import convert

#: Samples that the frames of a patch lie over.
_PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_LENGTH + N_FFT
_BINS = 1 + N_FFT // 2


def find_embeddings(
    weights: bytes, source: str
) -> Callable[[Clip, ClipConfig], tf.Tensor]:
    """What makes `embeddings` of a clip with a music model.

    Args:
      weights: the music model's file of weights.
      source: its name, for errors.

    Returns:
      A function from a clip to float32 `(records, size)`.

    Raises:
      UserError: it is no such file.
    """
    arrays = read_weights(weights, source)
    network = build_network(identify(arrays, source), arrays)

    def embed(clip: Clip, config: ClipConfig) -> tf.Tensor:
        patches = make_patches(clip.samples[: clip.heard], config.embedding_patches)
        vectors = network(patches)
        if config.embedding_records == "patches":
            return vectors
        return tf.reduce_mean(vectors, axis=0, keepdims=True)

    return embed


def make_patches(samples: tf.Tensor, count: int) -> tf.Tensor:
    """`log_mel_patches` of `(n,)` at 44,100 Hz: float32 `(count, 187, 96)`."""
    resampled = _pad(convert(samples, SAMPLE_RATE, RATE))
    padded = tf.pad(resampled, [[N_FFT // 2, N_FFT // 2]])
    if resampled.shape[0] is None:
        frames = 1 + tf.size(resampled) // HOP_LENGTH
        starts = tf.unstack(even_starts(frames - PATCH_FRAMES, count) * HOP_LENGTH)
    else:
        starts = patch_starts(1 + resampled.shape[0] // HOP_LENGTH, count) * HOP_LENGTH
    patches = tf.stack([padded[start : start + _PATCH_SAMPLES] for start in starts])
    # A Fourier transform as convolution, which every format of a model has.
    spectrum = tf.nn.conv1d(patches[..., tf.newaxis], _fourier(), HOP_LENGTH, "VALID")
    squares = tf.square(spectrum)
    power = squares[..., :_BINS] + squares[..., _BINS:]
    mel = tf.reshape(power, (-1, _BINS)) @ filters()
    levels = tf.math.log(1 + COMPRESSION * mel) / math.log(10)
    return tf.reshape(levels, (count, PATCH_FRAMES, BANDS))


def _pad(resampled: tf.Tensor) -> tf.Tensor:
    """Samples, at least those of a patch: what is shorter gets silence after it."""
    shortest = (PATCH_FRAMES - 1) * HOP_LENGTH
    if resampled.shape[0] is not None and resampled.shape[0] >= shortest:
        return resampled
    return tf.pad(resampled, [[0, tf.maximum(shortest - tf.size(resampled), 0)]])


def _fourier() -> NDArray[np.float32]:
    """Windowed cosines and sines, (512, 1, 514): `rfft`'s real and imaginary parts."""
    angles = 2 * np.pi / N_FFT * np.outer(np.arange(N_FFT), np.arange(_BINS))
    waves = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)
    return (window()[:, None] * waves).astype(np.float32)[:, None]

"""The pipeline's way from samples to embeddings, as TensorFlow operations.

The same arithmetic as in `pipeline.representations.log_mel` and `.embeddings`, equal
to it within rounding: tests hold both side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.representations.log_mel import (
    BANDS,
    COMPRESSION,
    HOP_LENGTH,
    N_FFT,
    PATCH_FRAMES,
    RATE,
    filters,
    window,
)
from pipeline.representations.music_model import build_network, identify, read_weights
from trainer.export.graph_audio import Clip, even_starts
from trainer.export.graph_resampling import convert

#: Samples that the frames of a patch lie over.
_PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP_LENGTH + N_FFT


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
    resampled = convert(samples, SAMPLE_RATE, RATE)
    shortest = (PATCH_FRAMES - 1) * HOP_LENGTH
    # What is shorter than a patch is padded with silence to one.
    missing = tf.maximum(shortest - tf.size(resampled), 0)
    padded = tf.pad(resampled, [[N_FFT // 2, N_FFT // 2 + missing]])
    frames = 1 + (tf.size(resampled) + missing) // HOP_LENGTH
    starts = tf.unstack(even_starts(frames - PATCH_FRAMES, count) * HOP_LENGTH)
    patches = [padded[start : start + _PATCH_SAMPLES] for start in starts]
    framed = tf.signal.frame(tf.stack(patches), N_FFT, HOP_LENGTH)
    spectrum = tf.signal.rfft(framed * window())
    power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
    mel = tf.tensordot(power, filters(), 1)
    levels = tf.math.log(1 + COMPRESSION * mel) / math.log(10)
    return tf.ensure_shape(levels, (count, PATCH_FRAMES, BANDS))

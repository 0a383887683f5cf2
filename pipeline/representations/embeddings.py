"""Embeddings: what a network that was trained on much music makes of a clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.representations.log_mel import log_mel_patches
from pipeline.representations.music_model import MODELS
from pipeline.representations.spectrum import Spectrum
from pipeline.schema import RepresentationSchema, Segment

NAME = "embeddings"


def make_schema(config: ClipConfig) -> RepresentationSchema:
    """One vector a clip, the mean over its patches, or one a patch."""
    size = MODELS[config.music_model].size
    mean = config.embedding_records == "mean"
    segments = tuple(
        Segment(name=f"embedding_{number:03d}", length=1)
        for number in range(1, size + 1)
    )
    records = 1 if mean else config.embedding_patches
    return RepresentationSchema.of_vectors(NAME, "embedding", segments, records)


def compute(spectrum: Spectrum, config: ClipConfig) -> NDArray[np.float32]:
    """Computes the vectors: shape (records_per_clip, size), float32.

    Raises:
      ValueError: the workspace has no network.
    """
    network = spectrum.workspace.network
    if network is None:
        raise ValueError("Expected a workspace with the music model. Received: none")
    heard = spectrum.samples[: spectrum.length]
    patches = log_mel_patches(heard, SAMPLE_RATE, config.embedding_patches)
    vectors = network(patches)
    if config.embedding_records == "patches":
        return vectors
    mean: NDArray[np.float32] = vectors.mean(axis=0, keepdims=True)
    return mean

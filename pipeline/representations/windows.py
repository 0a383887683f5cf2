"""Raw windows: 10,000 consecutive samples, evenly spaced over the clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import CLIP_SAMPLES, WINDOW_SAMPLES, ClipConfig
from pipeline.representations.spectrum import Spectrum
from pipeline.schema import RepresentationSchema, Segment

NAME = "windows"


def make_schema(config: ClipConfig) -> RepresentationSchema:
    """One record a window, its `index` counting from the clip's start."""
    segments = (Segment(name="sample", length=WINDOW_SAMPLES),)
    return RepresentationSchema.of_vectors(
        NAME, "window", segments, config.windows_per_clip
    )


def compute(spectrum: Spectrum, config: ClipConfig) -> NDArray[np.float32]:
    """Cuts the windows: shape (windows_per_clip, 10000), samples in [-1, 1].

    The first starts with the clip and the last ends with it; a single one lies
    in the middle.
    """
    samples = spectrum.samples
    starts = window_starts(config.windows_per_clip, len(samples))
    return np.stack([samples[start : start + WINDOW_SAMPLES] for start in starts])


def window_starts(count: int, length: int = CLIP_SAMPLES) -> NDArray[np.int64]:
    """First samples of `count` evenly spaced windows, ascending."""
    last = length - WINDOW_SAMPLES
    if count == 1:
        return np.array([last // 2])
    return np.linspace(0, last, count).astype(np.int64)

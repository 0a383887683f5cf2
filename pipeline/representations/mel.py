"""Mel images: a clip as 224 x 224 x 3 pictures for image networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import ClipConfig
from pipeline.representations.spectrum import Spectrum
from pipeline.schema import Field, RepresentationSchema

NAME = "mel"
SIZE = 224
#: dB between the loudest mel cell (255) and black (0).
DEPTH_DB = 80.0
#: Frames of one of several images: 3 s.
IMAGE_FRAMES = 258


def make_schema(config: ClipConfig) -> RepresentationSchema:
    """One uint8 image a record; not normalised, networks rescale it."""
    return RepresentationSchema(
        name=NAME,
        value=Field(
            name="image", dtype="uint8", shape=(SIZE, SIZE, 3), encoding="raw_bytes"
        ),
        records_per_clip=config.mel_images_per_clip,
        segments=(),
    )


def compute(spectrum: Spectrum, config: ClipConfig) -> NDArray[np.uint8]:
    """Draws the images: shape (mel_images_per_clip, 224, 224, 3), uint8.

    A single image shows the whole clip, a short one repeated to 30 s. Several show 3 s
    each, evenly spaced over the audio's own length, with nothing repeated; audio under
    3 s is padded with silence, and the images are alike.

    Axes are mel band (row 0 the lowest), time, channel. The frames under a pixel,
    11 or 12 of them in the image of a whole clip, one or two in one of 3 s, are
    reduced in power: by mean, maximum and minimum for the three channels, or by mean
    alone, repeated. Then dB relative to the clip's loudest mel cell, -80..0 mapped to
    0..255.
    """
    count = config.mel_images_per_clip
    heard = spectrum.frames if count == 1 else spectrum.heard_frames
    mel = spectrum.mel(SIZE) if count == 1 else spectrum.heard_mel(SIZE, IMAGE_FRAMES)
    loudest = mel[:heard].max()
    spans = image_spans(count, spectrum.frames, heard)
    return np.stack([_draw(mel[span], loudest, config.mel_channels) for span in spans])


def image_spans(count: int, frames: int, heard_frames: int) -> Sequence[slice]:
    """Frames of each image, ascending.

    Args:
      count: number of images.
      frames: of the whole spectrogram.
      heard_frames: those over the audio's own samples.
    """
    if count == 1:
        return [slice(0, frames)]
    last = max(0, heard_frames - IMAGE_FRAMES)
    starts = [number * last // (count - 1) for number in range(count)]
    return [slice(start, start + IMAGE_FRAMES) for start in starts]


def _draw(mel: NDArray[Any], loudest: np.float32, channels: str) -> NDArray[np.uint8]:
    """Mel power (frames, 224) to an image (224, 224, 3)."""
    edges = pixel_edges(len(mel))
    widths = np.diff(edges)[:, None].astype(np.float32)
    mean = np.add.reduceat(mel, edges[:-1], axis=0) / widths
    if channels == "repeat":
        return np.repeat(_to_levels(mean, loudest)[:, :, None], 3, axis=2)
    maximum, minimum = _find_extremes(mel, edges)
    levels = [_to_levels(power, loudest) for power in (mean, maximum, minimum)]
    return np.stack(levels, axis=2)


def _find_extremes(
    mel: NDArray[Any], edges: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Maximum and minimum of each pixel's frames, (224, bands) each.

    By the first frames of all pixels, then the second ones, and so on: half the
    time of `reduceat`.
    """
    maximum = mel[edges[:-1]]
    minimum = maximum.copy()
    for step in range(1, int(np.diff(edges).max())):
        frames = mel[np.minimum(edges[:-1] + step, edges[1:] - 1)]
        np.maximum(maximum, frames, out=maximum)
        np.minimum(minimum, frames, out=minimum)
    return maximum, minimum


def pixel_edges(frames: int) -> NDArray[np.int64]:
    """Frame at which each of the 224 pixel columns begins, and the end.

    Returns:
      Shape (225,), int64: `i * frames / 224`, rounded half up.
    """
    return (np.arange(SIZE + 1) * frames + SIZE // 2) // SIZE


def _to_levels(power: NDArray[Any], loudest: np.float32) -> NDArray[np.uint8]:
    """Power (time, bands) to grey levels (bands, time)."""
    floor = np.float32(1e-10)
    decibels = np.log10(np.maximum(power, floor))
    decibels -= np.log10(max(loudest, floor))
    decibels *= np.float32(10 * 255 / DEPTH_DB)
    decibels += np.float32(255.5)
    levels: NDArray[np.uint8] = np.maximum(decibels, 0).astype(np.uint8)
    return levels.T

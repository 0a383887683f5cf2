"""Draws what a dataset holds of a few clips, as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.common import ownership
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import PICTURE, PNG_METADATA
from pipeline.inspect import reading
from pipeline.schema import (
    SPLITS,
    Manifest,
    RepresentationSchema,
    UserError,
    shard_file,
)

WIDTH, ROW_HEIGHT = 3.6, 2.2


class DrawnClip(NamedTuple):
    """A clip to draw: what it is, and its values by representation.

    Values have the shape (records_per_clip, *value.shape).
    """

    title: str
    values: Mapping[str, NDArray[Any]]


def draw_dataset(folder: str, manifest: Manifest, count: int) -> Figure:
    """Draws a few clips' representations, a clip a row.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      count: clips, of as many genres as can be.

    Raises:
      UserError: there is no clip.
    """
    clips = choose_clips(folder, manifest, count)
    if not clips:
        raise UserError(f"There is no clip to draw. Received: {folder}")
    names = sorted(manifest.representations)
    figure = Figure(
        figsize=(WIDTH * len(names), ROW_HEIGHT * len(clips)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(clips), len(names), squeeze=False)
    for row, clip in zip(grid, clips, strict=True):
        for axes, name in zip(row, names, strict=True):
            schema = manifest.representations[name]
            _draw_values(axes, schema, clip.values[name], manifest)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_title(clip.title, loc="left", fontsize=9)
    for axes, name in zip(grid[-1], names, strict=True):
        axes.set_xlabel(name, fontsize=9)
    return figure


def write_picture(figure: Figure, path: str, *, flag: str) -> None:
    """Writes a figure as PNG, over nothing but a picture of ours.

    Raises:
      UserError: something else lies there, or the path cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata=PNG_METADATA)
    data = buffer.getvalue()
    ownership.replace_file(beam_files(path), path, data, PICTURE, flag=flag)


def choose_clips(folder: str, manifest: Manifest, count: int) -> list[DrawnClip]:
    """Reads the first clip of each genre, then the second of each, and so on."""
    names = sorted(manifest.representations)
    by_label: dict[int, list[DrawnClip]] = {}
    per_label = -(-count // max(len(manifest.genres), 1))
    for split in SPLITS:
        for shard in range(manifest.num_shards):
            known = sum(len(clips) for clips in by_label.values())
            enough = [c for c in by_label.values() if len(c) >= per_label]
            if known >= count and len(enough) == min(count, len(manifest.genres)):
                return _interleave(by_label, count)
            for label, clip in _read_clips(folder, manifest, names, split, shard):
                clips = by_label.setdefault(label, [])
                if len(clips) < count:
                    clips.append(clip)
    return _interleave(by_label, count)


def _interleave(
    by_label: Mapping[int, Sequence[DrawnClip]], count: int
) -> list[DrawnClip]:
    rounds = max(map(len, by_label.values()), default=0)
    ordered = [
        by_label[label][number]
        for number in range(rounds)
        for label in sorted(by_label)
        if number < len(by_label[label])
    ]
    return ordered[:count]


def _read_clips(
    folder: str, manifest: Manifest, names: Sequence[str], split: str, shard: int
) -> list[tuple[int, DrawnClip]]:
    """The first clip of each genre in a shard, with its label."""
    titles: dict[str, tuple[int, str]] = {}
    values: dict[str, dict[str, list[NDArray[Any]]]] = {}
    labels: set[int] = set()
    for name in names:
        schema = manifest.representations[name]
        path = join(folder, shard_file(name, split, shard, manifest.num_shards))
        try:
            for example in reading.read_examples(path, schema):
                track_id = str(example["track_id"])
                value = example[schema.value.name]
                if not isinstance(value, np.ndarray):
                    raise TypeError(f"Expected an array in {path}.")
                own = reading.read_labels(example, manifest)
                fresh = [label for label in own if label not in labels]
                if name == names[0] and fresh:
                    labels.add(fresh[0])
                    genres = ", ".join(manifest.genres[label] for label in own)
                    titles[track_id] = fresh[0], f"{genres}, clip {track_id}, {split}"
                if track_id in titles:
                    of_clip = values.setdefault(track_id, {})
                    of_clip.setdefault(name, []).append(value)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: {error} --verify lists all that is wrong."
            ) from error
    return [
        (label, DrawnClip(title, {n: np.stack(v) for n, v in values[track_id].items()}))
        for track_id, (label, title) in titles.items()
        if len(values[track_id]) == len(names)
    ]


def _draw_values(
    axes: Axes, schema: RepresentationSchema, values: NDArray[Any], manifest: Manifest
) -> None:
    if schema.value.dtype == "uint8":
        # Several images of a clip side by side, in the order of time.
        side_by_side = np.concatenate(list(values), axis=1)
        axes.imshow(side_by_side, origin="lower", aspect="auto")
        for number in range(1, len(values)):
            axes.axvline(number * values.shape[2] - 0.5, color="white", linewidth=0.8)
        return
    normalisation = manifest.normalisation.get(schema.name)
    lengths = [segment.length for segment in schema.segments]
    if len(lengths) == 1 or normalisation is None:
        # One kind of value: the records one after the other.
        line = values.ravel()
        axes.plot(line, color="#3b6ea5", linewidth=0.3)
        for start in range(0, len(line), values.shape[1]):
            axes.axvline(start, color="#cccccc", linewidth=0.6)
        return
    scaled = values[0] - np.repeat(normalisation.mean, lengths)
    scaled /= np.sqrt(np.repeat(normalisation.variance, lengths)) + 1e-9
    longest = max(lengths)
    if longest == 1:
        axes.bar(np.arange(len(scaled)), scaled.clip(-5, 5), width=1, color="#3b6ea5")
        return
    rows = np.split(scaled, np.cumsum(lengths)[:-1])
    axes.imshow(
        np.stack([row for row in rows if len(row) == longest]),
        aspect="auto",
        cmap="RdBu_r",
        vmin=-3,
        vmax=3,
        interpolation="nearest",
    )

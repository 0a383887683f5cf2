"""Draws what a dataset holds of a few clips, as one picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.common import ownership
from pipeline.common.files import beam_files
from pipeline.common.owned_kinds import PICTURE, PNG_METADATA
from pipeline.common.plain_text import one_line
from pipeline.common.quiet import missing_letters_drawn
from pipeline.inspect import reading
from pipeline.schema import Manifest, RepresentationSchema, UserError

WIDTH, ROW_HEIGHT = 3.6, 2.2


def draw_dataset(folder: str, manifest: Manifest, count: int) -> Figure:
    """Draws a few clips' representations, a clip a row.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      count: clips, of as many genres as can be.

    Raises:
      UserError: there is no clip, or a shard cannot be read or lacks one.
    """
    clips = reading.choose_clips(reading.read_clips(folder), count)
    if not clips:
        raise UserError(f"There is no clip to draw. Received: {folder}")
    names = sorted(manifest.representations)
    values = {
        name: reading.read_chosen(folder, manifest, name, clips) for name in names
    }
    figure = Figure(
        figsize=(WIDTH * len(names), ROW_HEIGHT * len(clips)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(clips), len(names), squeeze=False)
    for row, clip in zip(grid, clips, strict=True):
        track = str(clip["track_id"])
        for axes, name in zip(row, names, strict=True):
            if track not in values[name]:
                raise UserError(
                    f"The dataset has no {name} of clip {track}; ./launch.sh inspect "
                    f"--verify says what is wrong. Received: {folder}"
                )
            schema = manifest.representations[name]
            _draw_values(axes, schema, values[name][track], manifest)
            axes.set_xticks([])
            axes.set_yticks([])
        genres = ", ".join(reading.genres_of(clip))
        title = one_line(f"{genres}, clip {track}, {clip['split']}")
        row[0].set_title(title, loc="left", fontsize=9, parse_math=False)
    for axes, name in zip(grid[-1], names, strict=True):
        axes.set_xlabel(name, fontsize=9)
    return figure


def write_picture(figure: Figure, path: str, *, flag: str) -> None:
    """Writes a figure as PNG, over nothing but a picture of ours.

    Raises:
      UserError: something else lies there, or the path cannot be written.
    """
    buffer = io.BytesIO()
    with missing_letters_drawn():
        figure.savefig(buffer, format="png", dpi=100, metadata=PNG_METADATA)
    data = buffer.getvalue()
    ownership.replace_file(beam_files(path), path, data, PICTURE, flag=flag)


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

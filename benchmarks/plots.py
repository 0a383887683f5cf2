"""Pictures of the benchmark's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Colours of the stages, from dark to light by kind of work.
_COLOURS = [
    "#1b3a5c",
    "#2f5d8a",
    "#4a82b4",
    "#74a5cc",
    "#a5c8e1",
    "#d0672f",
    "#e38b52",
    "#f0ad7a",
    "#5a8f5a",
    "#86b386",
    "#b3d1b3",
]
_MODES = {
    "one process": "#8a8a8a",
    "1 worker": "#4a82b4",
    "2 workers": "#1b3a5c",
    "80 ms store": "#d0672f",
}


def draw(results: Mapping[str, Any], folder: Path) -> None:
    """Draws `ways.png`, `stages.png` and, after jobs, `jobs.png`."""
    _draw_ways(results["ways"], folder / "ways.png")
    _draw_stages(results, folder / "stages.png")
    if results["jobs"]:
        _draw_jobs(results["jobs"], folder / "jobs.png")


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _draw_ways(ways: Mapping[str, float], path: Path) -> None:
    figure = _new_figure(8, 4)
    axes = figure.subplots()
    names = sorted(ways, key=lambda name: -ways[name])
    values = [ways[name] for name in names]
    colours = [_COLOURS[2] if n.startswith("pipeline") else "#b8b8b8" for n in names]
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [f"{value:.0f}" for value in values], padding=3)
    axes.set_xlabel("CPU milliseconds a clip, decoding included")
    axes.set_xlim(0, max(values) * 1.1)
    _tidy(axes)
    figure.savefig(path, dpi=120)


def _draw_stages(results: Mapping[str, Any], path: Path) -> None:
    figure = _new_figure(8, 3.2)
    axes = figure.subplots()
    left = 0.0
    stages = dict(results["stages"])
    floor = stages.pop("floor")
    for (name, value), colour in zip(stages.items(), _COLOURS, strict=True):
        axes.barh(["pipeline"], [value], left=left, color=colour, label=name)
        left += value
    axes.axvline(floor, color="black", linestyle="--", linewidth=1)
    axes.annotate("floor: decode and one FFT pass", (floor, 0.55), ha="right")
    axes.set_ylim(-0.5, 0.75)
    axes.set_xlabel("CPU milliseconds a clip")
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    _tidy(axes)
    figure.savefig(path, dpi=120)


def _draw_jobs(jobs: Mapping[str, list[Mapping[str, Any]]], path: Path) -> None:
    figure = _new_figure(9, 3.8)
    lines, bars = figure.subplots(1, 2)
    milliseconds = []
    modes = {
        mode: colour for mode, colour in _MODES.items() if f"{mode}, small" in jobs
    }
    for mode, colour in modes.items():
        small, large = (jobs[f"{mode}, {size}"] for size in ("small", "large"))
        clips = [small[0]["clips"], large[0]["clips"]]
        walls = [sum(j["wall"] for j in sized) / len(sized) for sized in (small, large)]
        slope = (walls[1] - walls[0]) / (clips[1] - clips[0])
        milliseconds.append(slope * 1000)
        # Back to no clip at all: the start-up.
        start = walls[0] - clips[0] * slope
        lines.plot(clips, walls, marker=".", color=colour, label=mode)
        lines.plot([0, clips[0]], [start, walls[0]], ":", color=colour)
        for sized in (small, large):
            for job in sized:
                lines.plot(job["clips"], job["wall"], "_", color=colour)
    lines.set_xlabel("clips (dotted: back to the start-up)")
    lines.set_ylabel("wall seconds")
    lines.set_ylim(0)
    lines.set_xlim(0)
    lines.legend(frameon=False, loc="upper left")
    labels = [mode.replace("80", "2 workers,\n80") for mode in modes]
    drawn = bars.bar(labels, milliseconds, color=list(modes.values()))
    bars.bar_label(drawn, [f"{value:.0f}" for value in milliseconds])
    bars.axhline(milliseconds[0] / 2, color="#555555", linestyle="--", linewidth=1)
    bars.annotate(
        "half of\none process",
        (len(modes) - 0.45, milliseconds[0] / 2),
        va="center",
        fontsize=8,
    )
    bars.set_xlim(-0.6, len(modes) + 1.2)
    bars.set_ylabel("wall milliseconds a clip, start-up subtracted")
    bars.tick_params(axis="x", labelsize=8)
    for axes in (lines, bars):
        _tidy(axes)
    figure.savefig(path, dpi=120)

"""Charts of the report, as HTML and inline SVG whose colours the page sets.

Two series differ in colour, in dash and by a label at their end, so that no chart
needs colour vision. What a chart says also stands in text or in a table beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.compare.html.markup import Markup, element, join, percent
from trainer.evaluation.calibration import Calibration, Reliability

_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 78, 24, 34


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of `interval_chart`.

    Attributes:
      name: of the model.
      detail: smaller, after it.
      value: 0 to 1.
      interval: likewise.
      close: whether it stands out.
      link: id that the name leads to.
    """

    name: str
    detail: str
    value: float
    interval: tuple[float, float]
    close: bool
    link: str


def interval_chart(bars: Sequence[Bar], chance: float) -> Markup:
    """Values with intervals on a common axis from 0 to 100 %."""
    rows = []
    for bar in bars:
        low, high = bar.interval
        track = element(
            "span",
            element("span", class_="span"),
            element("span", class_="dot"),
            class_="track",
            aria_hidden="true",
            style=f"--chance:{chance:.2%};--low:{low:.2%};--high:{high:.2%};"
            f"--value:{bar.value:.2%}",
        )
        name = element(
            "span",
            element("a", bar.name, href=f"#{bar.link}"),
            " ",
            element("small", bar.detail),
            class_="name",
        )
        value = element("span", percent(bar.value), class_="value")
        rows.append(
            element(
                "div",
                name,
                track,
                value,
                class_="interval close" if bar.close else "interval",
            )
        )
    ticks = [
        element("span", f"{tick} %", style=f"left:{tick}%")
        for tick in (0, 25, 50, 75, 100)
    ]
    axis = element(
        "div", element("div", *ticks, class_="ticks"), class_="axis", aria_hidden="true"
    )
    return element("div", *rows, axis, class_="intervals")


def learning_chart(phases: Sequence[Mapping[str, Any]], metric: str) -> Markup | None:
    """Training and validation by epoch, with the gap between them.

    Args:
      phases: histories, one after the other (see `trainer.training.fit.PhaseHistory`).
      metric: `loss` or `accuracy`.

    Returns:
      None where no epoch was recorded.
    """
    training, validation, marks = _join_phases(phases, metric)
    if not training:
        return None
    values = [*training.values(), *validation.values()]
    top = 1.0 if metric == "accuracy" else max(values) * 1.05 or 1.0
    last = max(training)
    plot = _Plot(0.0 if last == 1 else 1.0, float(max(last, 1)), top)
    shared = sorted(training.keys() & validation.keys())
    parts = [plot.axes("epoch", whole=metric == "loss")]
    note = f"{metric} by epoch: training ends at {training[last]:.2f}"
    if shared:
        forth = [plot.point(epoch, training[epoch]) for epoch in shared]
        back = [plot.point(epoch, validation[epoch]) for epoch in reversed(shared)]
        parts.append(element("polygon", points=" ".join(forth + back), class_="gap"))
        note += f", validation at {validation[shared[-1]]:.2f}"
    for best in marks:
        x = plot.x(best)
        parts.append(
            element("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="guide")
        )
    ends = []
    for name, series in (("first", training), ("second", validation)):
        if not series:
            continue
        points = [plot.point(epoch, value) for epoch, value in series.items()]
        parts.append(element("polyline", points=" ".join(points), class_=name))
        if len(points) == 1:
            across, down = points[0].split(",")
            parts.append(element("circle", cx=across, cy=down, r=4, class_=name))
        label = "training" if name == "first" else "validation"
        ends.append((label, name, plot.y(series[max(series)])))
    parts += _label_ends(ends)
    if marks:
        best = marks[-1]
        gap = ""
        if best in training and best in validation:
            gap = f", gap {abs(training[best] - validation[best]):.2f}"
        parts.append(
            element(
                "text",
                f"kept: epoch {best}{gap}",
                x=max(plot.x(best) - 4, _LEFT + 4),
                y=_TOP - 11,
                text_anchor="end" if plot.x(best) > _WIDTH / 2 else "start",
            )
        )
    return _chart(parts, note)


def _join_phases(
    phases: Sequence[Mapping[str, Any]], metric: str
) -> tuple[dict[int, float], dict[int, float], list[int]]:
    """Values by epoch over all phases, and the epochs whose weights were kept."""
    training: dict[int, float] = {}
    validation: dict[int, float] = {}
    marks = []
    start = 0
    for phase in phases:
        epochs = [start + epoch for epoch in phase["epochs"]]
        metrics = phase["metrics"]
        for target, key in ((training, metric), (validation, f"validation_{metric}")):
            target.update(zip(epochs, metrics.get(key, ()), strict=False))
        if epochs:
            marks.append(start + phase["best_epoch"])
        start += max(phase["epochs"], default=0)
    return training, validation, marks


def calibration_chart(calibration: Calibration) -> Markup:
    """Accuracy by confidence, before and after temperature scaling."""
    plot = _Plot(0.0, 1.0, 1.0)
    corner, end = plot.point(0, 0), plot.point(1, 1)
    parts = [
        plot.axes("confidence", whole=False),
        element("polyline", points=f"{corner} {end}", class_="guide"),
    ]
    ends = []
    for name, label, reliability in (
        ("second", "before", calibration.before),
        ("first", "after", calibration.after),
    ):
        points = [plot.point(b.confidence, b.accuracy) for b in reliability.bins]
        parts.append(element("polyline", points=" ".join(points), class_=name))
        most = max(b.clips for b in reliability.bins)
        for bin_, point in zip(reliability.bins, points, strict=True):
            x, y = point.split(",")
            radius = 2.5 + 4.5 * (bin_.clips / most) ** 0.5
            parts.append(element("circle", cx=x, cy=y, r=f"{radius:.1f}", class_=name))
        ends.append((label, name, plot.y(reliability.bins[-1].accuracy)))
    parts += _label_ends(ends)
    return _chart(
        parts,
        f"accuracy by confidence: {_describe(calibration.before)} before, "
        f"{_describe(calibration.after)} after temperature scaling",
    )


def _describe(reliability: Reliability) -> str:
    return f"calibration error {reliability.error:.2f}"


def wave_picture(samples: NDArray[np.float32], label: str) -> Markup:
    """The envelope of a waveform `(n,)`."""
    columns, height = 240, 56
    edges = np.linspace(0, len(samples), columns + 1).astype(int)[:-1]
    top = np.maximum.reduceat(samples, edges)
    bottom = np.minimum.reduceat(samples, edges)
    loudest = max(float(np.abs(samples).max()), 1e-9)
    middle = height / 2

    def points(values: NDArray[np.float32]) -> list[str]:
        ys = middle - values / loudest * (middle - 1)
        return [f"{x},{y:.1f}" for x, y in enumerate(ys.tolist())]

    outline = points(top) + points(bottom)[::-1]
    return element(
        "svg",
        element("title", label),
        element("polygon", points=" ".join(outline), class_="wave"),
        viewBox=f"0 0 {columns} {height}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


@dataclasses.dataclass(frozen=True)
class _Plot:
    """Places data in the drawing."""

    low: float
    high: float
    top: float

    def x(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = min(max(value / self.top, 0), 1)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def point(self, x: float, y: float) -> str:
        return f"{self.x(x)},{self.y(y)}"

    def axes(self, label: str, *, whole: bool) -> Markup:
        """Horizontal lines with their values, and the ends of the other axis."""
        parts = []
        for share in (0, 0.25, 0.5, 0.75, 1):
            y = self.y(share * self.top)
            text = f"{share * self.top:.1f}" if whole else percent(share)
            parts.append(
                element(
                    "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid-line"
                )
            )
            parts.append(element("text", text, x=_LEFT - 6, y=y + 4, text_anchor="end"))
        if label == "confidence":
            low, high = percent(self.low), percent(self.high)
        else:
            low, high = f"{self.low:.0f}", f"{self.high:.0f}"
        base = _HEIGHT - _BOTTOM + 16
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        for x, text, anchor in (
            (_LEFT, low, "start"),
            (middle, label, "middle"),
            (_WIDTH - _RIGHT, high, "end"),
        ):
            parts.append(element("text", text, x=x, y=base, text_anchor=anchor))
        return join(parts)


def _label_ends(ends: Sequence[tuple[str, str, float]]) -> list[Markup]:
    """Names of the series at their ends, moved apart where they would touch."""
    placed: list[Markup] = []
    last = -100.0
    for label, name, y in sorted(ends, key=lambda end: end[2]):
        last = max(y, last + 15)
        placed.append(
            element("text", label, x=_WIDTH - _RIGHT + 8, y=last + 4, class_=name)
        )
    return placed


def _chart(parts: Sequence[Markup], label: str) -> Markup:
    return element(
        "svg",
        element("title", label),
        *parts,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="chart",
        role="img",
        aria_label=label,
    )

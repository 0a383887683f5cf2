"""How training went, as JSON and as a picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.evaluation import plots


def history_json(phases: Sequence[PhaseHistory]) -> str:
    """All phases, one after another."""
    content = {"phases": [dataclasses.asdict(phase) for phase in phases]}
    return json.dumps(content, indent=1) + "\n"


def history_png(phases: Sequence[PhaseHistory], title: str) -> bytes:
    """Loss and accuracy by epoch, training and validation; phases side by side."""
    figure = Figure(figsize=(9.0, 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, ("loss", "accuracy"), strict=True):
        start = 0
        for number, phase in enumerate(phases):
            epochs = [start + epoch for epoch in phase.epochs]
            for prefix, colour in (("", "#3b6ea5"), ("validation_", "#b03a2e")):
                values = phase.metrics.get(prefix + metric)
                if values:
                    label = "validation" if prefix else "training"
                    axes.plot(
                        epochs,
                        values,
                        color=colour,
                        label=None if number else label,
                        marker="." if len(values) < 3 else None,
                    )
            axes.axvline(
                start + phase.best_epoch,
                color="0.6",
                linestyle=":",
                label=None if number else "best epoch",
            )
            if start:
                axes.axvline(start + 0.5, color="black", linewidth=0.8)
            start += max(phase.epochs, default=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    return plots.figure_png(figure)


#: Of an epoch, in the order in which they are told.
METRICS = ("loss", "accuracy", "validation_loss", "validation_accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseHistory:
    """How a phase went.

    Attributes:
      name: the phase's.
      epochs: numbers of its epochs, from 1.
      metrics: loss, accuracy, validation_loss, validation_accuracy by epoch.
      seconds: wall time of each epoch, validation included.
      input_wait: share of each epoch's steps that was spent waiting for input.
      best_epoch: the epoch whose weights were kept.
    """

    name: str
    epochs: Sequence[int]
    metrics: Mapping[str, Sequence[float]]
    seconds: Sequence[float]
    best_epoch: int
    input_wait: Sequence[float] = ()

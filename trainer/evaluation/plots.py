"""Draws evaluations as PNG images. No pyplot: nothing global is left behind."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pipeline.common.owned_kinds import PNG_METADATA
from pipeline.common.plain_text import one_line
from pipeline.common.quiet import missing_letters_drawn
from trainer.evaluation.scores import AnyEvaluation, Evaluation

#: Characters of a label.
LABEL_LENGTH = 60
_DPI = 120
_BAR = "#3b6ea5"
_LINE = "#b03a2e"


def label(text: str) -> str:
    """Text of others as a label: one line, no formula of Matplotlib, not too long."""
    line = one_line(text)
    if len(line) > LABEL_LENGTH:
        line = line[: LABEL_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return line.replace("$", r"\$")


def figure_png(figure: Figure) -> bytes:
    """Renders a figure; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with missing_letters_drawn():
        # Else Matplotlib draws twice, the first time to no end but this.
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine(None)
        # Who made it, by which it may be replaced; Matplotlib would name its version.
        figure.savefig(buffer, format="png", metadata=PNG_METADATA)
    return buffer.getvalue()


def confusion_png(evaluation: Evaluation, title: str) -> bytes:
    """Draws one confusion matrix, each row normalised to its genre's clips."""
    genres = len(evaluation.genres)
    side = 3.0 + 0.62 * genres
    figure = Figure(figsize=(side, side * 0.9), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    image = _draw_confusion(axes, evaluation, counts=True)
    title = f"{label(title)}\naccuracy {evaluation.accuracy:.3f}"
    axes.set_title(title, fontsize=11)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true genre's clips")
    return figure_png(figure)


def confusions_png(evaluations: Sequence[Evaluation], titles: Sequence[str]) -> bytes:
    """Draws one sheet of confusion matrices, each row normalised."""
    columns = min(3, len(evaluations))
    rows = -(-len(evaluations) // columns)
    # Wide enough for the titles, however few the genres.
    side = max(4.4, 1.9 + 0.32 * len(evaluations[0].genres))
    figure = Figure(
        figsize=(side * columns, side * rows), dpi=_DPI, layout="constrained"
    )
    for index, (evaluation, title) in enumerate(zip(evaluations, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_confusion(axes, evaluation, counts=False)
        axes.set_title(f"{label(title)}: {evaluation.accuracy:.3f}", fontsize=9)
    figure.suptitle(
        "rows: true genre, columns: predicted genre, in % of the row's clips",
        fontsize=9,
    )
    return figure_png(figure)


def comparison_png(
    evaluations: Sequence[AnyEvaluation], names: Sequence[str], title: str
) -> bytes:
    """Draws scores as bars with their 95 % intervals and the chance line.

    Args:
      evaluations: from the topmost bar to the lowest; at least one.
      names: a label for each.
      title: drawn above.
    """
    values = np.array([evaluation.score for evaluation in evaluations])
    intervals = np.array([evaluation.score_interval for evaluation in evaluations])
    chance, score = evaluations[0].chance, evaluations[0].SCORE
    figure = Figure(
        figsize=(8.0, 1.6 + 0.42 * len(names)), dpi=_DPI, layout="constrained"
    )
    axes = figure.add_subplot()
    rows = np.arange(len(names))
    axes.barh(rows, values, color=_BAR, height=0.66)
    # A percentile interval may exclude the point itself when there are few clips.
    spread = np.maximum([values - intervals[:, 0], intervals[:, 1] - values], 0)
    axes.errorbar(values, rows, xerr=spread, fmt="none", ecolor="black", capsize=3)
    for row, evaluation in enumerate(evaluations):
        end = max(evaluation.score, evaluation.score_interval[1])
        text = f"{evaluation.score:.3f}"
        axes.text(end + 0.012, row, text, va="center", fontsize=9)
    axes.axvline(chance, color=_LINE, linestyle="--", linewidth=1.2)
    axes.text(
        chance,
        1.01,
        f"chance {chance:.3f}",
        color=_LINE,
        fontsize=9,
        ha="center",
        va="bottom",
        transform=axes.get_xaxis_transform(),
    )
    axes.set_yticks(rows, [label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.arange(0, 1.01, 0.1))
    axes.set_xlabel(f"test {score} by clip, with 95 % bootstrap interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(label(title), fontsize=11, pad=18)
    return figure_png(figure)


def average_precision_png(
    bars: Sequence[tuple[str, int, float]], clips: int, title: str
) -> bytes:
    """Draws each genre's average precision as a bar, its share of clips as a mark.

    Args:
      bars: of each genre, its path, number of test clips and average precision.
      clips: number of all test clips.
      title: drawn above.
    """
    scored = sorted(bars, key=lambda bar: (-bar[2], bar[0]))
    height = 1.6 + 0.22 * max(len(scored), 1)
    figure = Figure(figsize=(8.0, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(scored))
    axes.barh(rows, [score for _, _, score in scored], color=_BAR, height=0.7)
    shares = [support / clips for _, support, _ in scored]
    axes.plot(shares, rows, "|", color=_LINE, markersize=9, markeredgewidth=2)
    names = [f"{label(path)} ({support})" for path, support, _ in scored]
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_ylim(max(len(scored), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision on the test clips; red: share of clips (chance)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(label(title), fontsize=11)
    return figure_png(figure)


def _draw_confusion(axes: Axes, evaluation: Evaluation, *, counts: bool) -> AxesImage:
    matrix = np.array(evaluation.confusion)
    support = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(support, 1)
    names = [label(scores.genre) for scores in evaluation.genres]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 8 if counts else 6
    for (row, column), count in np.ndenumerate(matrix):
        if count == 0:
            continue
        share = shares[row, column]
        text = f"{share:.2f}\n({count})" if counts else f"{100 * share:.0f}"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, size=size)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.tick_params(labelsize=size + 1, length=0)
    if counts:
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
    return image

"""Picture and model card of a model of several genres a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pipeline.common.plain_text import code_span, markdown
from trainer.evaluation.card import format_training
from trainer.evaluation.plots import figure_png, label
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.tasks.several_scores import TagScores

AP_FILE = "average_precision.png"
#: Below this many test clips of a genre its scores are hints.
FEW_CLIPS = 20
_DPI = 120
_BAR, _LINE = "#3b6ea5", "#b03a2e"


def ap_png(report: MultiLabelReport) -> bytes:
    """Draws each genre's average precision as a bar, its prevalence as a mark."""
    test = report.test
    scored = [scores for scores in test.genres if scores.average_precision is not None]
    scored.sort(key=lambda scores: (-(scores.average_precision or 0), scores.path))
    height = 1.6 + 0.22 * max(len(scored), 1)
    figure = Figure(figsize=(8.0, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(scored))
    axes.barh(rows, [s.average_precision or 0 for s in scored], color=_BAR, height=0.7)
    shares = [scores.support / test.clips for scores in scored]
    axes.plot(shares, rows, "|", color=_LINE, markersize=9, markeredgewidth=2)
    names = [f"{label(scores.path)} ({scores.support})" for scores in scored]
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_ylim(max(len(scored), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision on the test clips; red: share of clips (chance)")
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{label(report.model)} on {label(report.representation)}"
    axes.set_title(f"{title}: macro AP {test.macro_ap:.3f}", fontsize=11)
    return figure_png(figure)


def format_card(report: MultiLabelReport) -> str:
    """Markdown: data, scores, limits of one model."""
    test = report.test
    low, high = test.macro_ap_interval
    groups = f"over {test.artists} artists" if test.artists else "over clips"
    first = []
    if report.synthetic:
        first = [
            "> **Trained on synthetic demo music.** The scores say that everything "
            "works, and nothing about real recordings.",
            "",
        ]
    lines = [
        *first,
        f"# {markdown(report.model)} on {markdown(report.representation)}",
        "",
        "## Use",
        "",
        f"Gives a music recording each of {len(test.genres)} genres whose probability "
        "reaches the genre's threshold; several, or none.",
        "",
        f"It reads the representation {code_span(report.representation)} of 30 s of "
        "audio.",
        "",
        "## Data",
        "",
        f"* {markdown(report.description) or 'The dataset carries no description.'}",
        "* Clips: "
        + ", ".join(f"{n} {markdown(split)}" for split, n in report.clips.items())
        + f"; a test clip has {test.labels_per_clip:.1f} genres on average.",
        f"* Split: {markdown(report.split_rule.rstrip('.')) or 'not recorded'}.",
        f"* Dataset fingerprint: {code_span(report.fingerprint)}",
        "",
        "## Scores on the test split",
        "",
        "| score | value |",
        "|---|---:|",
        f"| macro average precision | {test.macro_ap:.3f} |",
        f"| 95 % interval, bootstrap {groups} | {low:.3f} to {high:.3f} |",
        f"| chance: mean share of clips of a genre | {test.prevalence:.3f} |",
        f"| micro average precision | {test.micro_ap:.3f} |",
        f"| macro ROC-AUC | {test.macro_auc:.3f} |",
        f"| micro ROC-AUC | {test.micro_auc:.3f} |",
        f"| macro-F1 at the thresholds | {test.macro_f1:.3f} |",
        f"| micro-F1 at the thresholds | {test.micro_f1:.3f} |",
        f"| most probable genre is one of the clip's | {test.accuracy:.3f} |",
        f"| log-loss (nats, mean over genres) | {test.log_loss:.3f} |",
        f"| calibration error | {test.calibration_error:.3f} |",
        "",
        "| genre | AP | ROC-AUC | threshold | precision | recall | test clips |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *map(_format_row, test.genres),
        "",
        "## Limits",
        "",
        *(f"* {markdown(limit)}" for limit in find_limits(report)),
        "",
        *format_training(report),
    ]
    return "\n".join(lines)


def _format_row(scores: TagScores) -> str:
    numbers = [
        "-" if number is None else f"{number:.3f}"
        for number in (
            scores.average_precision,
            scores.roc_auc,
            scores.threshold,
            scores.precision,
            scores.recall,
        )
    ]
    return f"| {markdown(scores.path)} | {' | '.join(numbers)} | {scores.support} |"


def find_limits(report: MultiLabelReport) -> Sequence[str]:
    """Sentences on where the model must not be trusted, from the run's own facts."""
    test = report.test
    limits = []
    if report.synthetic:
        limits.append("It has never heard real music.")
    few = [scores.path for scores in test.genres if scores.support < FEW_CLIPS]
    if few:
        limits.append(
            f"Fewer than {FEW_CLIPS} test clips of {', '.join(few)}: the scores of "
            "these genres are hints."
        )
    unscored = [s.path for s in test.genres if s.average_precision is None]
    if unscored:
        limits.append(
            f"No test clip has {', '.join(unscored)}, or every one has: the means "
            "leave these genres out."
        )
    if not test.artists:
        limits.append(
            "Artists are not known: an artist's songs may be in training and test, "
            "which makes scores too high."
        )
    if test.macro_ap_interval[0] <= test.prevalence:
        limits.append("Its macro average precision cannot be told from chance.")
    limits.extend(report.notes)
    limits.append(
        "Genres are labels that artists chose for themselves, and not all that fit: a "
        "genre that a clip lacks may be right all the same."
    )
    return limits

"""The report's part on each model, and the clips that models get wrong."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from trainer.compare.comparison import Comparison
from trainer.compare.html.charts import (
    calibration_chart,
    confusion_table,
    learning_chart,
    percent,
)
from trainer.compare.html.markup import Markup, element, scrolling, section
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import Result
from trainer.evaluation.scores import Evaluation

#: Clips that are listed for each model, and shown in all.
WORST_CLIPS = 3
SHOWN_CLIPS = 24
MANY_GENRES = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardClip:
    """A test clip that models get very wrong.

    Attributes:
      track_id: its id.
      genre: the true one.
      wrong: name, predicted genre and its probability of the models that are
        surest of their mistake.
      wrong_count: number of models that are wrong about it.
      models: number of all models.
    """

    track_id: str
    genre: str
    wrong: tuple[tuple[str, str, float], ...]
    wrong_count: int
    models: int


def find_worst(predictions: ClipPredictions, count: int) -> list[int]:
    """Clips whose true genre got the least probability, of those predicted wrong."""
    rows = np.arange(len(predictions.labels))
    true = predictions.probabilities[rows, predictions.labels]
    wrong = rows[predictions.predicted != predictions.labels]
    worst: list[int] = wrong[np.argsort(true[wrong], kind="stable")][:count].tolist()
    return worst


def find_hard_clips(comparison: Comparison) -> list[HardClip]:
    """The worst clips of all models, those first that most models list."""
    listed: Counter[str] = Counter()
    wrong: dict[str, list[tuple[str, str, float]]] = {}
    genre_of: dict[str, str] = {}
    results = [
        (f"{title}, {result.report.representation}", result.predictions)
        for title, result in zip(comparison.titles, comparison.results, strict=True)
        if result.predictions is not None
    ]
    genres = [scores.genre for scores in comparison.reports[0].test.genres]
    for title, predictions in results:
        for row in find_worst(predictions, WORST_CLIPS):
            listed[predictions.track_ids[row]] += 1
        missed = np.flatnonzero(predictions.predicted != predictions.labels)
        for row in missed.tolist():
            track = predictions.track_ids[row]
            guess = int(predictions.predicted[row])
            share = float(predictions.probabilities[row, guess])
            wrong.setdefault(track, []).append((title, genres[guess], share))
            genre_of[track] = genres[predictions.labels[row]]
    chosen = sorted(listed, key=lambda track: (-listed[track], track))[:SHOWN_CLIPS]
    return [
        HardClip(
            track_id=track,
            genre=genre_of[track],
            wrong=tuple(sorted(wrong[track], key=lambda each: -each[2])[:5]),
            wrong_count=len(wrong[track]),
            models=len(results),
        )
        for track in chosen
    ]


def models_section(comparison: Comparison, hard_clips: Sequence[HardClip]) -> Markup:
    """A part for each model, the best one open."""
    shown = {clip.track_id for clip in hard_clips}
    parts = [
        _model(title, result, shown, is_open=number == 0)
        for number, (title, result) in enumerate(
            zip(comparison.titles, comparison.results, strict=True)
        )
    ]
    return section("models", "Each model", *parts)


def _model(title: str, result: Result, shown: set[str], *, is_open: bool) -> Markup:
    report = result.report
    low, high = report.test.accuracy_interval
    # Tables of many genres need the whole width.
    wide = "wide" if len(report.test.genres) > MANY_GENRES else None
    blocks = [
        element(
            "div",
            scrolling(
                f"Confusion matrix of {title} on {report.representation}",
                confusion_table(report.test),
            ),
            class_=wide,
        ),
        element(
            "div",
            element("h4", "By genre"),
            scrolling(
                f"Scores by genre of {title} on {report.representation}",
                genre_table(report.test),
            ),
            class_=wide,
        ),
        *_learning(result),
        *_calibration(report),
        *_worst(result, shown),
        element(
            "div", element("h4", "How it was trained"), _facts(report), class_="wide"
        ),
    ]
    return element(
        "details",
        element(
            "summary",
            element("h3", f"{title} on {report.representation}"),
            element(
                "span",
                f"{percent(report.test.accuracy)} right ({percent(low)} to "
                f"{percent(high)}), macro-F1 {report.test.macro_f1:.2f}",
                class_="muted",
            ),
        ),
        element("div", element("div", *blocks, class_="grid"), class_="inside"),
        id=model_link(report),
        open=is_open,
    )


def _learning(result: Result) -> list[Markup]:
    blocks = []
    for metric in ("accuracy", "loss"):
        chart = learning_chart(result.phases, metric)
        if chart is None:
            continue
        text = (
            "The shaded gap between training and validation is what was learned by "
            "heart. By record, not by clip; dropout lowers the training curve."
            if metric == "accuracy"
            else "The epoch with the lowest validation loss is kept (dotted line)."
        )
        blocks.append(
            element(
                "figure",
                element("h4", f"{metric.capitalize()} while training"),
                chart,
                element("figcaption", text),
            )
        )
    return blocks


def _calibration(report: Report) -> list[Markup]:
    found = report.calibration
    if found is None:
        return []
    verdict = "about right"
    if abs(found.temperature - 1) > 0.05:
        verdict = "overconfident" if found.temperature > 1 else "too modest"
    return [
        element(
            "figure",
            element("h4", "Is it right as often as it claims?"),
            calibration_chart(found),
            element(
                "figcaption",
                "On the dotted line it would be. Calibration error "
                f"{found.before.error:.3f} before and {found.after.error:.3f} after "
                f"temperature scaling ({found.temperature:.2f}: it was {verdict} on "
                f"{found.clips} validation clips); log-loss "
                f"{found.before.log_loss:.3f} and {found.after.log_loss:.3f}. Larger "
                "dots are more clips.",
            ),
        )
    ]


def _worst(result: Result, shown: set[str]) -> list[Markup]:
    predictions = result.predictions
    if predictions is None:
        return []
    genres = [scores.genre for scores in result.report.test.genres]
    items = []
    for row in find_worst(predictions, WORST_CLIPS):
        track = predictions.track_ids[row]
        guess = int(predictions.predicted[row])
        name = f"track {track}"
        items.append(
            element(
                "li",
                element("a", name, href=f"#{clip_link(track)}")
                if track in shown
                else name,
                f": {genres[predictions.labels[row]]}, taken for {genres[guess]} "
                f"({percent(float(predictions.probabilities[row, guess]))})",
            )
        )
    if not items:
        return [element("div", element("h4", "Most wrong"), element("p", "Nothing."))]
    return [
        element(
            "div", element("h4", "Most wrong"), element("ul", *items, class_="plain")
        )
    ]


def _facts(report: Report) -> Markup:
    clips = ", ".join(f"{count} {split}" for split, count in report.clips.items())
    pairs = {
        "Clips": clips,
        "Time": f"{report.train_seconds:.1f} s",
        **({"Weights": f"{report.weights:,}"} if report.weights else {}),
        "Parameters": ", ".join(
            f"{key.replace('_', ' ')} {_value(value)}"
            for key, value in report.parameters.items()
        ),
    }
    children = []
    for key, value in pairs.items():
        children += [element("dt", key), element("dd", value)]
    notes = [element("p", note, class_="note") for note in report.notes]
    command = [element("pre", element("code", report.command), tabindex="0")]
    return element(
        "div",
        element("dl", *children),
        *notes,
        *(command if report.command else []),
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    return str(value)


def genre_table(evaluation: Evaluation) -> Markup:
    """Precision, recall and F1 of each genre, sortable."""
    rows = [
        element(
            "tr",
            element("th", scores.genre, scope="row", data_value=scores.genre),
            cell(scores.support, form="d"),
            cell(scores.precision),
            cell(scores.recall),
            element(
                "td",
                f"{scores.f1:.3f}",
                element(
                    "span",
                    element("span", class_="bar", style=f"--share:{scores.f1:.3f}"),
                    class_="barbox",
                    aria_hidden="true",
                ),
                data_value=scores.f1,
            ),
        )
        for scores in evaluation.genres
    ]
    columns = [
        header("Genre", text=True),
        header("Clips"),
        header("Precision"),
        header("Recall"),
        header("F1"),
    ]
    return element(
        "table",
        element("thead", element("tr", *columns)),
        element("tbody", *rows),
        class_="sortable scores",
    )


def header(name: str, *, text: bool = False) -> Markup:
    """A column heading that sorts its table, numbers from the highest."""
    return element(
        "th",
        element("button", name, type="button"),
        scope="col",
        data_first="ascending" if text else None,
    )


def cell(value: float | None, *, form: str = ".3f", title: str | None = None) -> Markup:
    """A table cell with a number, which sorting reads unrounded."""
    if value is None:
        return element("td", "", data_value="")
    return element("td", format(value, form), data_value=value, title=title)


def model_link(report: Report) -> str:
    """Id of a model's part."""
    return f"model-{_identify(report.name)}"


def clip_link(track_id: str) -> str:
    """Id of a clip's card."""
    return f"clip-{_identify(track_id)}"


def _identify(name: str) -> str:
    return re.sub(r"[^\w.-]", lambda match: f"_{ord(match[0]):x}_", name)

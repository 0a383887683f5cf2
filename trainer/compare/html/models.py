"""The page's part on each model."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.compare.comparison import Comparison
from trainer.compare.html.charts import (
    calibration_chart,
    confusion_table,
    learning_chart,
    percent,
)
from trainer.compare.html.hard_clips import (
    WORST_CLIPS,
    HardClip,
    clip_link,
    find_worst,
)
from trainer.compare.html.markup import (
    Markup,
    cell,
    element,
    header,
    identify,
    scrolling,
    section,
)
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import Result
from trainer.evaluation.scores import Evaluation

MANY_GENRES = 9


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
    calibration = report.calibration
    if calibration is None:
        return []
    before, after = calibration.before, calibration.after
    temperature = calibration.temperature
    verdict = "about right"
    if abs(temperature - 1) > 0.05:
        verdict = "overconfident" if temperature > 1 else "too modest"
    return [
        element(
            "figure",
            element("h4", "Is it right as often as it claims?"),
            calibration_chart(calibration),
            element(
                "figcaption",
                "On the dotted line it would be. Calibration error "
                f"{before.error:.3f} before and {after.error:.3f} after temperature "
                f"scaling ({temperature:.2f}: it was {verdict} on {calibration.clips} "
                f"validation clips); log-loss {before.log_loss:.3f} and "
                f"{after.log_loss:.3f}. Larger dots are more clips.",
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
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
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


def model_link(report: Report) -> str:
    """Id of a model's part."""
    return f"model-{identify(report.name)}"

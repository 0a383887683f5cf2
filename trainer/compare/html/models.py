"""The page's part on each model."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.compare.comparison import Comparison, Entry
from trainer.compare.html.charts import calibration_chart, learning_chart
from trainer.compare.html.hard_clips import WORST_CLIPS, HardClip, clip_link
from trainer.compare.html.markup import Markup, element, identify, scrolling, section
from trainer.compare.view import View
from trainer.evaluation.report_folder import Result
from trainer.evaluation.tasks.task import AnyReport

MANY_GENRES = 9


def models_section(comparison: Comparison, hard_clips: Sequence[HardClip]) -> Markup:
    """A part for each model, the best one open."""
    shown = {clip.track_id for clip in hard_clips}
    parts = [
        _model(comparison.view, entry, shown, is_open=number == 0)
        for number, entry in enumerate(comparison.entries)
    ]
    return section("models", "Each model", *parts)


def _model(view: View, entry: Entry, shown: set[str], *, is_open: bool) -> Markup:
    result, report = entry.result, entry.report
    # Tables of many genres need the whole width.
    wide = "wide" if len(report.test.genres) > MANY_GENRES else None
    name = f"{entry.title} on {report.representation}"
    blocks = [
        *(
            element(
                "div",
                element("h4", heading),
                scrolling(f"{heading} of {name}", table),
                class_=wide,
            )
            for heading, table in view.blocks(report)
        ),
        *_learning(result),
        *_calibration(report, view.calibration_note),
        *_worst(view, result, shown),
        element(
            "div", element("h4", "How it was trained"), _facts(report), class_="wide"
        ),
    ]
    return element(
        "details",
        element(
            "summary",
            element("h3", name),
            element("span", view.summary(report), class_="muted"),
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


def _calibration(report: AnyReport, note: str) -> list[Markup]:
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
                f"{after.log_loss:.3f}. {note}",
            ),
        )
    ]


def _worst(view: View, result: Result, shown: set[str]) -> list[Markup]:
    if result.predictions is None:
        return []
    items = []
    for mistake in view.find_mistakes(result.report, result.predictions)[:WORST_CLIPS]:
        name = f"track {mistake.track_id}"
        items.append(
            element(
                "li",
                element("a", name, href=f"#{clip_link(mistake.track_id)}")
                if mistake.track_id in shown
                else name,
                f": {mistake.truth}, {view.said_as} {mistake.said}",
            )
        )
    list_ = element("ul", *items, class_="plain") if items else element("p", "Nothing.")
    return [element("div", element("h4", "Most wrong"), list_)]


def _facts(report: AnyReport) -> Markup:
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
        "div", element("dl", *children), *notes, *(command if report.command else [])
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return str(value)


def model_link(report: AnyReport) -> str:
    """Id of a model's part."""
    return f"model-{identify(report.name)}"

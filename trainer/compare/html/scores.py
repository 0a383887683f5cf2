"""The report's parts on all models together: scores, and recall by genre."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.compare.comparison import Comparison, describe_noise, describe_use
from trainer.compare.html.charts import Bar, interval_chart
from trainer.compare.html.markup import (
    Markup,
    cell,
    element,
    header,
    percent,
    scrolling,
    section,
    table,
)
from trainer.compare.html.models import model_link
from trainer.evaluation.card import FEW_CLIPS


def comparison_section(comparison: Comparison) -> Markup:
    """Scores as a chart, then all of them as a table."""
    reports, view = comparison.reports, comparison.view
    test = reports[0].test
    bars = [
        Bar(
            name=entry.title,
            detail=entry.report.representation,
            value=entry.report.test.score,
            interval=entry.report.test.score_interval,
            close=entry.close,
            link=model_link(entry.report),
        )
        for entry in comparison.entries
    ]
    return section(
        "comparison",
        "How good are the models?",
        element(
            "p",
            f"{view.score_note}, with 95 % intervals (bootstrap over "
            f"{comparison.groups}). Filled: the best, and what is within noise of it. "
            f"The dotted line is guessing, {percent(test.chance)}.",
            class_="muted",
        ),
        interval_chart(bars, test.chance),
        element("p", describe_noise(comparison), class_="note")
        if len(reports) > 1
        else "",
        element("p", describe_use(comparison), class_="note"),
        scrolling("Scores of all models", _score_table(comparison)),
        element("p", view.table_note, class_="note"),
        *(element("p", note, class_="note") for note in view.notes(reports)),
    )


def _score_table(comparison: Comparison) -> Markup:
    columns = comparison.view.columns
    names = [header("Model", text=True), header("Reads", text=True)]
    names += [header(column.name[:1].upper() + column.name[1:]) for column in columns]
    rows = []
    for entry in comparison.entries:
        report, kind = entry.report, entry.report.representation
        link = element("a", entry.title, href=f"#{model_link(report)}")
        cells = []
        for column in columns:
            value = column.value(report)
            first = value[0] if isinstance(value, tuple) else value
            text = column.show(report)
            cells.append(element("td", text, data_value="" if first is None else first))
        rows.append(
            element(
                "tr",
                element("th", link, scope="row", data_value=entry.title),
                element("td", kind, class_="text", data_value=kind),
                *cells,
                class_="close" if entry.close else None,
            )
        )
    for name, kind, score in comparison.view.guesses(comparison.reports):
        empty = [element("td") for _ in columns[1:]]
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                element("td", kind, class_="text"),
                cell(score),
                *empty,
                class_="base",
            )
        )
    caption = "Scores on the test split; press a heading to sort"
    return table(names, rows, caption=caption, class_="sortable scores")


def genres_section(comparison: Comparison) -> Markup:
    """How well each model finds each genre; those without a score come last."""
    genres = comparison.reports[0].test.genres
    rows = [comparison.view.heat(report) for report in comparison.reports]
    totals = [sum(value or 0 for value in values) for values in zip(*rows, strict=True)]
    unscored = [
        all(value is None for value in column) for column in zip(*rows, strict=True)
    ]
    order = sorted(range(len(genres)), key=lambda i: (unscored[i], -totals[i]))
    few = min(scores.support for scores in genres)
    hint = f" Some genres have only {few} test clips." if few < FEW_CLIPS else ""
    ranking = [genres[i].path for i in order if not unscored[i]]
    title, caption = comparison.view.describe_heat(ranking or [genres[0].path])
    caption = f"{caption}; in brackets, the number of test clips.{hint}"
    columns = [f"{genres[i].path} ({genres[i].support})" for i in order]
    lines = [
        (label, [values[i] for i in order])
        for label, values in zip(comparison.labels, rows, strict=True)
    ]
    return section(
        "genres",
        title,
        scrolling("Scores by model and genre", _heat_table(caption, columns, lines)),
    )


def _heat_table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[float | None]]],
) -> Markup:
    """Shares from 0 to 1 as shaded cells, a row for each model."""
    heads = [
        element("th", element("div", name, class_="upright"), scope="col")
        for name in columns
    ]
    corner = element("th", "Model", scope="col", class_="corner")
    lines = [
        element("tr", element("th", name, scope="row"), *map(_heat_cell, values))
        for name, values in rows
    ]
    return table([corner, *heads], lines, caption=caption, class_="heat")


def _heat_cell(share: float | None) -> Markup:
    if share is None:
        return element("td", "–", class_="none", style="--share:0")
    return element("td", f"{100 * share:.0f}", style=f"--share:{share:.3f}")

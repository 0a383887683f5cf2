"""The report page of models of several genres a clip."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.compare.html.charts import percent
from trainer.compare.html.markup import (
    Markup,
    cell,
    element,
    header,
    scrolling,
    section,
)
from trainer.compare.html.page import assemble_page
from trainer.compare.several import describe_test, genre_rows
from trainer.evaluation.tasks.several_report import MultiLabelReport

#: Test clips in all, below which the page warns.
FEW_TEST_CLIPS = 200


def format_several_page(
    reports: Sequence[MultiLabelReport], *, command: str = "", created: str = ""
) -> str:
    """Makes the whole page.

    Args:
      reports: the best first.
      command: what makes this page again.
      created: date.
    """
    best = reports[0]
    parts = {
        "Comparison": _models(reports),
        "Genres": _genres(reports),
        "Thresholds": _thresholds(best),
        "How it was made": _provenance(reports, command),
    }
    return assemble_page(_opening(reports), parts, created)


def _opening(reports: Sequence[MultiLabelReport]) -> list[Markup]:
    best = reports[0]
    test = best.test
    low, high = test.macro_ap_interval
    doubts = []
    if best.synthetic:
        doubts.append(
            "Synthetic demo music: the numbers say that everything works, and nothing "
            "about real recordings."
        )
    if best.shared_artists:
        named = ", ".join(best.shared_artists)
        doubts.append(f"Splits share artists ({named}): all scores are too high.")
    if test.clips < FEW_TEST_CLIPS:
        doubts.append(
            f"Only {test.clips} test clips: the intervals are wide, and most "
            "differences between models mean nothing."
        )
    return [
        element("h1", f"Macro average precision {test.macro_ap:.3f}"),
        element(
            "p",
            element("strong", f"{best.model} on {best.representation}"),
            f" is the best of {len(reports)} models (95 % interval {low:.3f} to "
            f"{high:.3f}); guessing reaches {test.prevalence:.3f}. Its most probable "
            f"genre is one of the clip's for {percent(test.accuracy)}. "
            + describe_test(reports),
            class_="lead",
        ),
        *(element("p", doubt, class_="warning") for doubt in doubts),
    ]


def _models(reports: Sequence[MultiLabelReport]) -> Markup:
    columns: tuple[str, ...] = (
        "macro AP",
        "from",
        "to",
        "micro AP",
        "macro ROC-AUC",
        "macro-F1",
    )
    columns += ("micro-F1", "log-loss", "calibration error", "training macro AP")
    rows = []
    for report in reports:
        test = report.test
        numbers = (
            test.macro_ap,
            *test.macro_ap_interval,
            test.micro_ap,
            test.macro_auc,
            test.macro_f1,
            test.micro_f1,
            test.log_loss,
            test.calibration_error,
            report.training_macro_ap,
        )
        rows.append(
            element(
                "tr",
                element("th", report.model, scope="row", data_value=report.model),
                element("td", report.representation),
                *map(cell, numbers),
            )
        )
    return section(
        "comparison",
        "Models compared",
        element(
            "p",
            "Macro average precision is the mean over genres, so that rare ones count "
            "as much as frequent ones; from and to are its 95 % bootstrap interval "
            "over artists. F1 is at the thresholds that the validation split chose.",
        ),
        _sortable("Scores of all models", ("model", "representation"), columns, rows),
    )


def _genres(reports: Sequence[MultiLabelReport]) -> Markup:
    columns = ("test clips", "chance")
    names = [f"{report.model}, {report.representation}" for report in reports]
    clips = reports[0].test.clips
    rows = [
        element(
            "tr",
            element("th", path, scope="row", data_value=path),
            cell(support, form="d"),
            cell(support / clips),
            *map(cell, found),
        )
        for path, support, found in genre_rows(reports)
    ]
    return section(
        "genres",
        "Average precision by genre",
        _sortable("Genres", ("genre",), (*columns, *names), rows),
    )


def _thresholds(best: MultiLabelReport) -> Markup:
    columns = ("threshold", "precision", "recall", "F1", "test clips")
    rows = [
        element(
            "tr",
            element("th", scores.path, scope="row", data_value=scores.path),
            *map(cell, (scores.threshold, scores.precision, scores.recall, scores.f1)),
            cell(scores.support, form="d"),
        )
        for scores in best.test.genres
    ]
    return section(
        "thresholds",
        f"Thresholds of {best.model} on {best.representation}",
        _sortable("Thresholds", ("genre",), columns, rows),
    )


def _sortable(
    label: str,
    texts: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Markup],
) -> Markup:
    names = [header(name, text=True) for name in texts] + [*map(header, columns)]
    table = element(
        "table",
        element("thead", element("tr", *names)),
        element("tbody", *rows),
        class_="sortable",
    )
    return scrolling(label, table)


def _provenance(reports: Sequence[MultiLabelReport], command: str) -> Markup:
    best = reports[0]
    lines = [
        f"Data: {best.description or 'not described'}. Split: {best.split_rule}.",
        f"Dataset fingerprint: {best.fingerprint}.",
        *([f"This page: {command}"] if command else []),
        *(f"{report.name}: {report.command}" for report in reports if report.command),
        *(f"{report.name}: {note}" for report in reports for note in report.notes),
    ]
    items = [element("li", line) for line in lines]
    return section("provenance", "How it was made", element("ul", *items))

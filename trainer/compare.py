"""Compares the trained models of one dataset: a table, and pictures.

    python -m trainer.compare --models MODELS --output REPORT_DIR

Writes comparison.md, comparison.json, comparison.png (accuracies) and
confusions.png (all models' confusion matrices).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import trainer.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.schema import UserError
from trainer import plots
from trainer.report import Report, read_reports, write_files

_HEADER = (
    "model",
    "representation",
    "test acc.",
    "95 % interval",
    "macro-F1",
    "top-2",
    "train acc.",
    "seconds",
)
#: Columns of text; the others hold numbers and are aligned to the right.
_TEXT_COLUMNS = 2


def rank(reports: Sequence[Report]) -> list[Report]:
    """Sorts by test accuracy, then macro-F1, the best first."""
    return sorted(
        reports,
        key=lambda report: (-report.test.accuracy, -report.test.macro_f1, report.name),
    )


def check_comparable(reports: Sequence[Report], folder: str) -> None:
    """Refuses reports that were not measured on the same clips.

    Raises:
      UserError: they come from several datasets; all are named.
    """
    models: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        genres = ", ".join(scores.genre for scores in report.test.genres)
        models[
            f"dataset {report.fingerprint[:12]} ({report.test.clips} test clips of "
            f"{genres})"
        ].append(report.name)
    if len(models) > 1:
        found = "; ".join(
            f"{dataset}: {', '.join(sorted(names))}"
            for dataset, names in sorted(models.items())
        )
        raise UserError(
            f"The models in {folder} were tested on different datasets, which one "
            f"table must not mix. Remove or move all but one group's folders: {found}."
        )


def titles(reports: Sequence[Report]) -> list[str]:
    """The models' titles, with the folder's name where two would look the same."""
    kinds = Counter((report.model, report.representation) for report in reports)
    return [
        report.model
        if kinds[report.model, report.representation] == 1
        else f"{report.model} ({report.name})"
        for report in reports
    ]


def table_rows(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """The table's cells, one row a model and then what needs no model."""
    rows: list[tuple[str, ...]] = [
        (
            model,
            report.representation,
            f"{report.test.accuracy:.3f}",
            "{:.3f}-{:.3f}".format(*report.test.accuracy_interval),
            f"{report.test.macro_f1:.3f}",
            f"{report.test.top_2:.3f}",
            _format(report.training_accuracy),
            f"{report.train_seconds:.1f}",
        )
        for model, report in zip(titles(reports), reports, strict=True)
    ]
    test = reports[0].test
    guesses = {"chance": test.chance_accuracy}
    if test.majority_accuracy > test.chance_accuracy:
        guesses["most frequent genre"] = test.majority_accuracy
    empty = ("",) * (len(_HEADER) - 3)
    rows += [(name, "", f"{share:.3f}", *empty) for name, share in guesses.items()]
    return rows


def _format(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def format_text(reports: Sequence[Report]) -> str:
    """The table with aligned columns, under a line that says what was tested."""
    table = [_HEADER, *table_rows(reports)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([describe_test(reports), "", *lines, ""])


def describe_test(reports: Sequence[Report]) -> str:
    """Says what the numbers of all reports were measured on."""
    first = reports[0]
    rules = [report.split_rule for report in reports if report.split_rule]
    rule = f" Splits: {rules[0].rstrip('.')}." if rules else ""
    return (
        f"{first.test.clips} test clips of {len(first.test.genres)} genres, dataset "
        f"{first.fingerprint[:12]}.{rule}"
    )


def format_markdown(reports: Sequence[Report]) -> str:
    """The same table, then F1 by genre and the reports' notes."""
    genres = [f"{score.genre} ({score.support})" for score in reports[0].test.genres]
    by_genre = [
        (
            model,
            report.representation,
            *(f"{score.f1:.3f}" for score in report.test.genres),
        )
        for model, report in zip(titles(reports), reports, strict=True)
    ]
    notes: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        for note in report.notes:
            notes[note].append(report.name)
    lines = [
        "# Comparison",
        "",
        describe_test(reports),
        "",
        *_markdown_table(_HEADER, table_rows(reports)),
        "",
        "The interval is a bootstrap over the test clips. A training accuracy far "
        "above the test accuracy is a sign of overfitting.",
        "",
        "![Test accuracies](comparison.png)",
        "",
        "## F1 by genre (test clips)",
        "",
        *_markdown_table((*_HEADER[:_TEXT_COLUMNS], *genres), by_genre),
        "",
        "![Confusion matrices](confusions.png)",
        "",
    ]
    if notes:
        lines += ["## Notes", ""]
        lines += [f"- {', '.join(names)}: {note}" for note, names in notes.items()]
        lines.append("")
    return "\n".join(lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    numbers = len(header) - _TEXT_COLUMNS
    rule = ["---"] * _TEXT_COLUMNS + ["---:"] * numbers
    table = [header, rule, *rows]
    return ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in table]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def comparison_json(reports: Sequence[Report]) -> str:
    """The table's numbers, unrounded, the most accurate model first."""
    first = reports[0]
    content: Mapping[str, Any] = {
        "fingerprint": first.fingerprint,
        "split_rule": next((r.split_rule for r in reports if r.split_rule), ""),
        "test_clips": first.test.clips,
        "genres": [scores.genre for scores in first.test.genres],
        "chance_accuracy": first.test.chance_accuracy,
        "majority_accuracy": first.test.majority_accuracy,
        "models": [
            {
                "name": report.name,
                "model": report.model,
                "representation": report.representation,
                "test_accuracy": report.test.accuracy,
                "test_accuracy_interval": report.test.accuracy_interval,
                "test_macro_f1": report.test.macro_f1,
                "test_top_2": report.test.top_2,
                "test_log_loss": report.test.log_loss,
                "validation_accuracy": (
                    report.validation.accuracy if report.validation else None
                ),
                "training_accuracy": report.training_accuracy,
                "train_seconds": report.train_seconds,
                "parameters": report.parameters,
            }
            for report in reports
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_comparison(folder: str, reports: Sequence[Report]) -> list[str]:
    """Writes the comparison's files; returns their paths."""
    evaluations = [report.test for report in reports]
    labels = [
        f"{model}, {report.representation}"
        for model, report in zip(titles(reports), reports, strict=True)
    ]
    title = f"{reports[0].test.clips} test clips, {len(reports[0].test.genres)} genres"
    contents = {
        "comparison.md": format_markdown(reports).encode(),
        "comparison.json": comparison_json(reports).encode(),
        "comparison.png": plots.comparison_png(evaluations, labels, title),
        "confusions.png": plots.confusions_png(evaluations, labels),
    }
    return write_files(folder, contents)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.compare",
        description="Compare the models trained on one dataset: a table and pictures.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--models",
        required=True,
        help="folder that holds a folder with report.json for each model",
    )
    parser.add_argument(
        "--output",
        metavar="REPORT_DIR",
        help="where to write the comparison (default: the folder above --models)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    args = parse_args(argv)
    folder = args.models.rstrip("/") or "/"
    output = args.output or os.path.dirname(folder) or "."
    try:
        reports = rank(read_reports(folder))
        check_comparable(reports, folder)
        print(format_text(reports))
        for path in write_comparison(output, reports):
            print(f"wrote {path}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The comparison as plain text and as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipeline.common.owned_kinds import MARKDOWN
from pipeline.common.plain_text import markdown, one_line
from trainer.compare.comparison import (
    ARTICLE_ACCURACY,
    Comparison,
    describe_article,
    describe_noise,
    describe_test,
    describe_use,
    use_command,
)

_HEADER = ("model", "input", "accuracy", "95 %", "F1", "top-3", "loss", "train", "s")
_FULL_HEADER = (
    "model",
    "representation",
    "accuracy",
    "95 % interval",
    "macro-F1",
    "95 % interval",
    "top-3",
    "log-loss",
    "calibration error",
    "calibrated",
    "training accuracy",
    "weights",
    "seconds",
)
#: What `describe_noise` says where a sentence names the models.
_MARK = "~ is within noise of the first (95 % bootstrap of the difference over {})."
#: Columns of text; the others hold numbers and are aligned to the right.
_TEXT_COLUMNS = 2


def format_text(comparison: Comparison) -> str:
    """A table of 100 columns at most, with what was tested and what is noise."""
    rows: list[tuple[str, ...]] = []
    below = []
    for number, (title, report) in enumerate(
        zip(comparison.titles, comparison.reports, strict=True)
    ):
        test = report.test
        parts = report.representation.split(" + ")
        if len(parts) > 1:
            below.append(f"{title}: {report.representation}.")
        close = number > 0 and comparison.within_noise(number)
        rows.append(
            (
                title,
                parts[0] if len(parts) == 1 else f"{len(parts)} models",
                f"{'~' * close}{test.accuracy:.3f}",
                _interval(test.accuracy_interval),
                f"{test.macro_f1:.3f}",
                f"{test.top_3:.3f}",
                f"{test.log_loss:.3f}",
                _share(report.training_accuracy),
                f"{report.train_seconds:.1f}",
            )
        )
    table = [
        tuple(map(one_line, row))
        for row in (_HEADER, *rows, *_guesses(comparison, len(_HEADER)))
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    marked = any(row[2].startswith("~") for row in rows)
    groups = "artists" if comparison.reports[0].test.artists else "clips"
    below.append(_MARK.format(groups) if marked else describe_noise(comparison))
    if not use_command(comparison.results[0]):
        below.append(describe_use(comparison))
    text = [describe_test(comparison.reports), *lines, *filter(None, below)]
    return "\n".join(map(one_line, text))


def format_markdown(comparison: Comparison) -> str:
    """All scores, then F1 by genre and the models' notes."""
    rows: list[tuple[str, ...]] = []
    for title, report in zip(comparison.titles, comparison.reports, strict=True):
        test, calibration = report.test, report.calibration
        rows.append(
            (
                title,
                report.representation,
                f"{test.accuracy:.3f}",
                _interval(test.accuracy_interval),
                f"{test.macro_f1:.3f}",
                _interval(test.macro_f1_interval),
                f"{test.top_3:.3f}",
                f"{test.log_loss:.3f}",
                f"{test.calibration_error:.3f}",
                "" if calibration is None else f"{calibration.after.error:.3f}",
                _share(report.training_accuracy),
                "" if report.weights is None else f"{report.weights:,}",
                f"{report.train_seconds:.1f}",
            )
        )
    rows += _guesses(comparison, len(_FULL_HEADER))
    reports = comparison.reports
    genres = [f"{scores.genre} ({scores.support})" for scores in reports[0].test.genres]
    by_genre = [
        (
            title,
            report.representation,
            *(f"{scores.f1:.3f}" for scores in report.test.genres),
        )
        for title, report in zip(comparison.titles, reports, strict=True)
    ]
    groups = "artists" if reports[0].test.artists else "clips"
    noise = describe_noise(comparison)
    lines = [
        "# Comparison",
        "",
        MARKDOWN.sign.decode(),
        "",
        *([markdown(reports[0].description), ""] if reports[0].description else []),
        markdown(describe_test(reports)),
        "",
        *_markdown_table(_FULL_HEADER, rows),
        "",
        *([markdown(noise), ""] if noise else []),
        markdown(describe_use(comparison)),
        "",
        f"Intervals are percentiles of a bootstrap over {groups}. A training accuracy "
        "far above the test's is a sign of overfitting. `calibrated` is the "
        "calibration error after temperature scaling, which is fitted to the "
        "validation split.",
        "",
        markdown(describe_article(comparison)),
        "",
        "![Test accuracies](comparison.png)",
        "",
        "## F1 by genre (test clips)",
        "",
        *_markdown_table((*_FULL_HEADER[:_TEXT_COLUMNS], *genres), by_genre),
        "",
        "![Confusion matrices](confusions.png)",
        "",
        *_notes(comparison),
    ]
    return "\n".join(lines)


def _guesses(comparison: Comparison, width: int) -> list[tuple[str, ...]]:
    """Rows of what needs no model, and of the article where it fits."""
    test = comparison.reports[0].test
    rows = [("chance", "", test.chance_accuracy)]
    if test.majority_accuracy > test.chance_accuracy:
        rows.append(("most frequent genre", "", test.majority_accuracy))
    if comparison.article_comparable:
        rows.append(("2020 article", "mel", ARTICLE_ACCURACY))
    empty = ("",) * (width - 3)
    return [(name, kind, f"{share:.3f}", *empty) for name, kind, share in rows]


def _notes(comparison: Comparison) -> list[str]:
    notes: dict[str, list[str]] = defaultdict(list)
    for report in comparison.reports:
        for note in report.notes:
            notes[note].append(report.name)
    if not notes:
        return []
    lines = [
        "- " + markdown(", ".join(names) + ": " + note) for note, names in notes.items()
    ]
    return ["## Notes", "", *lines, ""]


def _interval(interval: tuple[float, float]) -> str:
    return "{:.3f}-{:.3f}".format(*interval)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    numbers = len(header) - _TEXT_COLUMNS
    rule = ["---"] * _TEXT_COLUMNS + ["---:"] * numbers
    lines = [[markdown(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, rule)
    return ["| " + " | ".join(line) + " |" for line in lines]

"""The comparison as plain text and as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pipeline.common.owned_kinds import MARKDOWN
from pipeline.common.plain_text import columns_of, markdown, one_line, pad
from trainer.compare.comparison import (
    Comparison,
    describe_noise,
    describe_test,
    describe_use,
    use_command,
)
from trainer.compare.report_files import SCORES_FILE
from trainer.compare.view import Column

#: What `describe_noise` says where a sentence names the models.
_MARK = "~ is within noise of the first (95 % bootstrap of the difference over {})."
#: Columns of text; the others hold numbers and are aligned to the right.
_TEXT = ("model", "representation")


def format_text(comparison: Comparison) -> str:
    """A table of 100 columns at most, with what was tested and what is noise."""
    columns = [column for column in comparison.view.columns if column.brief]
    below = []
    rows = []
    for number, (title, kind, score, *others) in enumerate(
        _make_rows(comparison, columns)
    ):
        parts = kind.split(" + ")
        if len(parts) > 1:
            below.append(f"{title}: {kind}.")
            kind = f"{len(parts)} models"
        of_model = 0 < number < len(comparison.results)
        if of_model and comparison.within_noise(number):
            score = f"~{score}"
        rows.append((title, kind, score, *others))
    header = ("model", "input", *(column.brief or "" for column in columns))
    table = [tuple(map(one_line, row)) for row in (header, *rows)]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            pad(cell, width, right=column >= len(_TEXT))
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
    """All scores, then those by genre and the models' notes."""
    view, reports = comparison.view, comparison.reports
    columns = view.columns
    by_model = [view.genre_values(report) for report in reports]
    by_genre = [
        (
            scores.path,
            str(scores.support),
            *("" if n is None else f"{n:.3f}" for n in values),
        )
        for scores, *values in zip(reports[0].test.genres, *by_model, strict=True)
    ]
    notes = [line for note in view.notes(reports) for line in (markdown(note), "")]
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
        *_markdown_table(
            (*_TEXT, *(column.name for column in columns)),
            _make_rows(comparison, columns),
        ),
        "",
        *([markdown(noise), ""] if noise else []),
        markdown(describe_use(comparison)),
        "",
        f"Intervals are percentiles of a bootstrap over {groups}. {view.table_note}",
        "",
        *notes,
        f"![Test scores]({SCORES_FILE})",
        "",
        f"## {view.genre_score} by genre (test clips)",
        "",
        *_markdown_table(("genre", "test clips", *comparison.labels), sorted(by_genre)),
        "",
        *(
            line
            for name, caption in view.captions.items()
            for line in (f"![{caption}]({name})", "")
        ),
        *_notes(comparison),
    ]
    return "\n".join(lines)


def _make_rows(
    comparison: Comparison, columns: Sequence[Column]
) -> list[tuple[str, ...]]:
    """A row for each model, then for what needs none."""
    rows = [
        (title, report.representation, *(column.show(report) for column in columns))
        for title, report in zip(comparison.titles, comparison.reports, strict=True)
    ]
    empty = ("",) * (len(columns) - 1)
    return rows + [
        (name, kind, f"{score:.3f}", *empty)
        for name, kind, score in comparison.view.guesses(comparison.reports)
    ]


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


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---"] * len(_TEXT) + ["---:"] * (len(header) - len(_TEXT))
    lines = [[markdown(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, rule)
    return ["| " + " | ".join(line) + " |" for line in lines]

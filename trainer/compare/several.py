"""The comparison of models of several genres a clip: text, Markdown and numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from pipeline.common.owned_kinds import MARKDOWN
from pipeline.common.plain_text import align, markdown, one_line
from pipeline.schema import UserError
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.tasks.task import AnyReport

COMPARISON_VERSION = 1

HEADER = (
    "model",
    "representation",
    "macro AP",
    "95 % interval",
    "micro AP",
    "macro AUC",
    "macro-F1",
    "micro-F1",
    "log-loss",
    "seconds",
)
#: The same on a terminal of 100 columns: micro averages after the macro ones.
_NARROW = (
    *("model", "input", "AP", "95 %", "micro", "AUC"),
    *("F1", "micro", "loss", "s"),
)


def find_several(
    reports: Sequence[AnyReport], folder: str
) -> list[MultiLabelReport] | None:
    """The reports, best first, if they are of several genres a clip; else None.

    Raises:
      UserError: some are, or they were tested on other clips.
    """
    several = [report for report in reports if isinstance(report, MultiLabelReport)]
    if not several:
        return None
    first = several[0]
    for report in reports:
        same = report.fingerprint == first.fingerprint
        if not same or not isinstance(report, MultiLabelReport):
            raise UserError(
                f"The models in {folder} were not tested on the same clips and genres: "
                f"{report.name} on {report.fingerprint[:12]}, {first.name}, of several "
                f"genres a clip, on {first.fingerprint[:12]}. Give a folder of models "
                "of one dataset."
            )
    return sorted(several, key=lambda report: (-report.test.macro_ap, report.name))


def make_rows(reports: Sequence[MultiLabelReport]) -> list[tuple[str, ...]]:
    """A row of `HEADER` for each model, then chance."""
    rows: list[tuple[str, ...]] = []
    for report in reports:
        test = report.test
        numbers = (test.micro_ap, test.macro_auc, test.macro_f1, test.micro_f1)
        rows.append(
            (
                report.model,
                report.representation,
                f"{test.macro_ap:.3f}",
                "{:.3f}-{:.3f}".format(*test.macro_ap_interval),
                *(f"{number:.3f}" for number in (*numbers, test.log_loss)),
                f"{report.train_seconds:.1f}",
            )
        )
    chance = f"{reports[0].test.prevalence:.3f}"
    return [*rows, ("chance", "", chance, "", "", "0.500", "", "", "", "")]


def describe_test(reports: Sequence[MultiLabelReport]) -> str:
    """What was tested, in a sentence."""
    test = reports[0].test
    artists = f" by {test.artists} artists" if test.artists else ""
    unscored = [s.path for s in test.genres if s.average_precision is None]
    left_out = ""
    if unscored:
        named = ", ".join(unscored)
        left_out = f" No clip of {named}, or only such: the means leave them out."
    return (
        f"{test.clips} test clips{artists}, {len(test.genres)} genres, "
        f"{test.labels_per_clip:.1f} a clip on average.{left_out}"
    )


def format_text(reports: Sequence[MultiLabelReport]) -> str:
    """A table of the models, with what was tested."""
    table = align(_NARROW, make_rows(reports))
    above = f"{describe_test(reports)} AP, AUC and F1 are macro averages."
    return "\n".join([one_line(above), table])


def genre_rows(
    reports: Sequence[MultiLabelReport],
) -> list[tuple[str, int, list[float | None]]]:
    """Each genre's path, test clips and average precision by model, along the tree."""
    rows = []
    for of_genre in zip(*(report.test.genres for report in reports), strict=True):
        found = [scores.average_precision for scores in of_genre]
        rows.append((of_genre[0].path, of_genre[0].support, found))
    return sorted(rows, key=lambda row: row[0])


def format_markdown(reports: Sequence[MultiLabelReport]) -> str:
    """All scores, average precision by genre, and the models' notes."""
    names = [f"{report.model}, {report.representation}" for report in reports]
    rows = [
        [path, str(support), *("" if ap is None else f"{ap:.3f}" for ap in found)]
        for path, support, found in genre_rows(reports)
    ]
    notes = [f"- {r.name}: {note}" for r in reports for note in r.notes]
    return "\n".join(
        [
            MARKDOWN.sign.decode(),
            "# Genre classifiers compared",
            "",
            markdown(describe_test(reports)),
            "",
            *_table(HEADER, make_rows(reports)),
            "",
            "## Average precision by genre",
            "",
            *_table(("genre", "test clips", *names), rows),
            "",
            *map(markdown, notes),
            "",
        ]
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [[markdown(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return ["| " + " | ".join(line) + " |" for line in lines]


def comparison_json(reports: Sequence[MultiLabelReport]) -> str:
    """All numbers, unrounded, the best model first."""
    content = {
        "comparison_version": COMPARISON_VERSION,
        "task": reports[0].task,
        "fingerprint": reports[0].fingerprint,
        "models": [dataclasses.asdict(report) for report in reports],
    }
    return json.dumps(content, indent=1) + "\n"

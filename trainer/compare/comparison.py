"""Models of one dataset side by side: which is best, and what is noise."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.schema import MULTI_LABEL, UserError
from trainer.compare.multi_label import MultiLabelView
from trainer.compare.single_label import SingleLabelView
from trainer.compare.view import View
from trainer.evaluation.bootstrap import Interval, group_clips, percentile_interval
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import MODEL_FILE, REPORT_FILE
from trainer.evaluation.report_folder import Result, read_report
from trainer.evaluation.tasks.task import AnyReport, Task, task_of
from trainer.predict.baseline import DESCRIPTION_FILE
from trainer.predict.ensemble_folder import ENSEMBLE, ENSEMBLE_FILE

COMPARISON_VERSION = 1
#: A model folder that can predict holds one of them.
KEPT_FILES = (MODEL_FILE, DESCRIPTION_FILE, ENSEMBLE_FILE)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """A model among others.

    Attributes:
      title: no other's.
      result: what its folder tells.
      behind: 95 % interval of how much lower its score is than the best one's, paired
        draw by draw; None where its predictions were not kept.
      close: whether it cannot be told from the best one, which it may be itself.
    """

    title: str
    result: Result
    behind: Interval | None
    close: bool

    @property
    def report(self) -> AnyReport:
        """How it was trained and how well it does."""
        return self.result.report

    @property
    def label(self) -> str:
        """Title and representation."""
        return f"{self.title}, {self.report.representation}"

    @property
    def phrase(self) -> str:
        """The same, for a sentence."""
        return f"{self.title} ({self.report.representation})"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Models that were tested on the same clips.

    Attributes:
      entries: the models, the best first.
      view: what is shown of their task.
    """

    entries: tuple[Entry, ...]
    view: View

    @property
    def reports(self) -> tuple[AnyReport, ...]:
        """The models' reports."""
        return tuple(entry.report for entry in self.entries)

    @property
    def labels(self) -> tuple[str, ...]:
        """The models' labels."""
        return tuple(entry.label for entry in self.entries)

    @property
    def others(self) -> tuple[Entry, ...]:
        """All but the best that cannot be told from it."""
        return tuple(entry for entry in self.entries[1:] if entry.close)

    @property
    def groups(self) -> str:
        """What the draws of intervals are of."""
        return "artists" if self.reports[0].test.artists else "clips"


def use_command(result: Result) -> str:
    """What names the genres of files with a model; empty where it was not kept."""
    words = use_words(result)
    return shlex.join(["./launch.sh", *words]) if words else ""


def use_words(result: Result) -> list[str]:
    """Words of that command, without `./launch.sh`."""
    folder = result.folder
    if not folder or not any(
        tf.io.gfile.exists(os.path.join(folder, name)) for name in KEPT_FILES
    ):
        return []
    return ["predict", "--model", folder, "FILE"]


def find_use(comparison: Comparison) -> list[list[str]]:
    """Words of what uses the best model that was kept, if any was."""
    words = (use_words(entry.result) for entry in comparison.entries)
    return list(filter(None, words))[:1]


def describe_use(comparison: Comparison) -> str:
    """How to use the best model, and if that was not kept, the next one."""
    for number, entry in enumerate(comparison.entries):
        if command := use_command(entry.result):
            first = "" if number == 0 else " The models above it were not kept."
            return f"To use {entry.phrase}: {command}{first}"
    return "None of the models was kept: they are measured only."


def make_comparison(results: Sequence[Result], folder: str) -> Comparison:
    """Ranks models and tells differences from noise.

    Args:
      results: at least one.
      folder: named in errors.

    Raises:
      UserError: the models were tested on different datasets.
    """
    check_comparable([result.report for result in results], folder)
    ranking = sorted(
        results,
        key=lambda result: (
            -result.report.test.score,
            -result.report.test.macro_f1,
            result.report.name,
        ),
    )
    first = ranking[0]
    titles = make_titles([result.report for result in ranking])
    intervals = _find_behind(task_of(first.report), ranking)
    return Comparison(
        entries=tuple(
            Entry(
                title=title,
                result=result,
                behind=behind,
                close=result is first or (behind is not None and behind[0] <= 0),
            )
            for title, result, behind in zip(titles, ranking, intervals, strict=True)
        ),
        view=find_view(first.report),
    )


def find_view(report: AnyReport) -> View:
    """What a comparison shows of a model's task."""
    return MultiLabelView() if report.task == MULTI_LABEL else SingleLabelView()


def _find_behind(task: Task, ranking: Sequence[Result]) -> Iterator[Interval | None]:
    best = ranking[0].predictions
    if best is None:
        yield from [None] * len(ranking)
        return
    groups = group_clips(best.artist_ids, best.track_ids)
    drawn = task.draw_scores(best, groups)
    for result in ranking:
        other = align(result.predictions, best)
        if other is None:
            yield None
            continue
        differences = drawn - task.draw_scores(other, groups)
        found = differences[np.isfinite(differences)]
        yield percentile_interval(found) if len(found) else None


def align(
    predictions: ClipPredictions | None, others: ClipPredictions
) -> ClipPredictions | None:
    """Predictions in the order of others; None where they are of other clips."""
    if predictions is None or set(predictions.track_ids) != set(others.track_ids):
        return None
    place = {track: row for row, track in enumerate(predictions.track_ids)}
    order = np.array([place[track] for track in others.track_ids], np.intp)
    return ClipPredictions(
        track_ids=others.track_ids,
        labels=predictions.labels[order],
        probabilities=predictions.probabilities[order],
        artist_ids=others.artist_ids,
    )


def check_comparable(reports: Sequence[AnyReport], folder: str) -> None:
    """Refuses reports that were not measured on the same clips.

    Raises:
      UserError: they come from several datasets; all are named.
    """
    models: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        several = " (several each)" if report.task == MULTI_LABEL else ""
        models[
            f"dataset {report.fingerprint[:12]} ({report.test.clips} test clips of "
            f"{', '.join(report.genres)}{several})"
        ].append(report.name)
    if len(models) > 1:
        datasets = "; ".join(
            f"{dataset}: {', '.join(sorted(names))}"
            for dataset, names in sorted(models.items())
        )
        raise UserError(
            f"The models in {folder} were tested on different datasets, which one "
            "table must not mix. Remove or move all but one group's folders: "
            f"{datasets}."
        )


def check_others(folder: str, names: Collection[str], fingerprint: str) -> None:
    """Refuses models that could not be compared with those that are to be trained.

    Args:
      folder: of the models.
      names: of those to be trained, whose folders may hold older ones.
      fingerprint: of their dataset.

    Raises:
      UserError: the folder holds models of another dataset.
    """
    present = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    others = []
    for name in sorted(name.rstrip("/") for name in present):
        path = os.path.join(folder, name)
        if name in (*names, ENSEMBLE) or not tf.io.gfile.exists(
            os.path.join(path, REPORT_FILE)
        ):
            continue
        if read_report(path).fingerprint != fingerprint:
            others.append(name)
    if others:
        raise UserError(
            f"{folder} holds models of another dataset ({', '.join(others)}), which "
            "one table must not mix with those to train; move them, or give --output "
            "another folder."
        )


def make_titles(reports: Sequence[AnyReport]) -> list[str]:
    """The models' titles, with the folder's name where two would look the same."""
    kinds = Counter((report.model, report.representation) for report in reports)
    return [
        report.model
        if kinds[report.model, report.representation] == 1
        else f"{report.model} ({report.name})"
        for report in reports
    ]


def describe_test(reports: Sequence[AnyReport]) -> str:
    """Says what the numbers of all reports were measured on."""
    first = reports[0]
    artists = f" by {first.test.artists} artists" if first.test.artists else ""
    rules = [report.split_rule for report in reports if report.split_rule]
    rule = f" Splits: {rules[0].rstrip('.')}." if rules else ""
    more = find_view(first).describe_test(reports)
    return (
        f"{first.test.clips} test clips{artists}, {len(first.test.genres)} genres."
        f"{rule}{more}"
    )


def describe_noise(comparison: Comparison) -> str:
    """Says which models cannot be told from the best one."""
    if len(comparison.entries) == 1:
        return ""
    groups = comparison.groups
    if not comparison.others:
        return f"No other model is within noise of the first (95 %, over {groups})."
    return (
        "Within noise of the first (95 % bootstrap of the difference over "
        f"{groups}): {', '.join(entry.phrase for entry in comparison.others)}."
    )


def comparison_json(comparison: Comparison) -> str:
    """All numbers, unrounded, the best model first."""
    first = comparison.reports[0]
    content: Mapping[str, Any] = {
        "comparison_version": COMPARISON_VERSION,
        "task": first.task,
        "fingerprint": first.fingerprint,
        "description": first.description,
        "synthetic": first.synthetic,
        "split_rule": next(
            (r.split_rule for r in comparison.reports if r.split_rule), ""
        ),
        "shared_artists": first.shared_artists,
        "test_clips": first.test.clips,
        "test_artists": first.test.artists,
        "genres": first.genres,
        **comparison.view.json_facts(comparison.reports),
        "models": [
            {
                "title": entry.title,
                "behind_best_interval": entry.behind,
                "within_noise_of_best": entry.close,
                "use": use_command(entry.result),
                **_numbers(entry.result),
            }
            for entry in comparison.entries
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _numbers(result: Result) -> dict[str, Any]:
    values = dataclasses.asdict(result.report)
    # They are the same for all models, and stand above.
    for key in (
        "task",
        "fingerprint",
        "description",
        "synthetic",
        "split_rule",
        "shared_artists",
    ):
        values.pop(key, None)
    return values | {"phases": list(result.phases)}

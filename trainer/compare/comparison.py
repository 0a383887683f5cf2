"""Models of one dataset side by side: which is best, and what is noise."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.schema import UserError
from trainer.evaluation.bootstrap import Interval, difference_interval, group_clips
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import MODEL_FILE, Report
from trainer.evaluation.report_folder import Result
from trainer.predict.baseline import DESCRIPTION_FILE
from trainer.predict.ensemble_folder import ENSEMBLE_FILE

COMPARISON_VERSION = 1
#: A model folder that can predict holds one of them.
KEPT_FILES = (MODEL_FILE, DESCRIPTION_FILE, ENSEMBLE_FILE)

#: What the 2020 article's repository reports for transfer learning on mel images.
ARTICLE_ACCURACY = 0.40
#: The genres that it was measured with: those of fma_small.
ARTICLE_GENRES = frozenset(
    (
        "Electronic",
        "Experimental",
        "Folk",
        "Hip-Hop",
        "Instrumental",
        "International",
        "Pop",
        "Rock",
    )
)
ARTICLE_NOTE = (
    "The 2020 article (Hermez, Cheung, Gu) reports about 40 % for transfer learning on "
    "mel images of fma_small with a random 20 % as test set. There, an artist's tracks "
    "may be in training and test, which makes a test easier."
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Models that were tested on the same clips.

    Attributes:
      results: the most accurate first.
      titles: a name for each, no two alike.
      behind: of each model, the 95 % interval of how much less accurate than the
        first it is, paired draw by draw; None where its predictions were not kept.
    """

    results: tuple[Result, ...]
    titles: tuple[str, ...]
    behind: tuple[Interval | None, ...]

    @property
    def reports(self) -> tuple[Report, ...]:
        """The models' reports, in the same order."""
        return tuple(result.report for result in self.results)

    def within_noise(self, number: int) -> bool:
        """Whether a model cannot be told from the first one."""
        interval = self.behind[number]
        return number == 0 or (interval is not None and interval[0] <= 0)

    @property
    def article_comparable(self) -> bool:
        """Whether the article measured the same thing: these genres, real music."""
        first = self.reports[0]
        genres = {scores.genre for scores in first.test.genres}
        return (
            genres == ARTICLE_GENRES
            and not first.synthetic
            and any(report.representation == "mel" for report in self.reports)
        )


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
    """Words of what uses the most accurate model that was kept, if any was."""
    return list(filter(None, map(use_words, comparison.results)))[:1]


def describe_use(comparison: Comparison) -> str:
    """How to use the most accurate model, and if that was not kept, the next one."""
    commands = [use_command(result) for result in comparison.results]
    for number, command in enumerate(commands):
        if command:
            first = "" if number == 0 else " The models above it were not kept."
            title, report = comparison.titles[number], comparison.reports[number]
            return f"To use {title} ({report.representation}): {command}{first}"
    return "None of the models was kept: they are measured only."


def describe_article(comparison: Comparison) -> str:
    """What the article reports, and how that compares."""
    if not comparison.article_comparable:
        return f"{ARTICLE_NOTE} It did not measure the same thing as this report."
    mel = next(r for r in comparison.reports if r.representation == "mel")
    low, high = mel.test.accuracy_interval
    several = "artists" if mel.shared_artists else "no artist"
    return (
        f"{ARTICLE_NOTE} {mel.model} on mel images reaches "
        f"{mel.test.accuracy:.0%} here ({low:.0%} to {high:.0%}), with {several} in "
        "several splits."
    )


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
            -result.report.test.accuracy,
            -result.report.test.macro_f1,
            result.report.name,
        ),
    )
    best = ranking[0].predictions
    return Comparison(
        results=tuple(ranking),
        titles=tuple(make_titles([result.report for result in ranking])),
        behind=tuple(_behind(best, result.predictions) for result in ranking),
    )


def _behind(
    best: ClipPredictions | None, other: ClipPredictions | None
) -> Interval | None:
    if best is None or other is None or set(best.track_ids) != set(other.track_ids):
        return None
    position = {track: row for row, track in enumerate(other.track_ids)}
    order = np.array([position[track] for track in best.track_ids])
    return difference_interval(
        best.predicted == best.labels,
        (other.predicted == other.labels)[order],
        group_clips(best.artist_ids, best.track_ids),
        seed=0,
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
        datasets = "; ".join(
            f"{dataset}: {', '.join(sorted(names))}"
            for dataset, names in sorted(models.items())
        )
        raise UserError(
            f"The models in {folder} were tested on different datasets, which one "
            "table must not mix. Remove or move all but one group's folders: "
            f"{datasets}."
        )


def make_titles(reports: Sequence[Report]) -> list[str]:
    """The models' titles, with the folder's name where two would look the same."""
    kinds = Counter((report.model, report.representation) for report in reports)
    return [
        report.model
        if kinds[report.model, report.representation] == 1
        else f"{report.model} ({report.name})"
        for report in reports
    ]


def describe_test(reports: Sequence[Report]) -> str:
    """Says what the numbers of all reports were measured on."""
    first = reports[0]
    artists = f" by {first.test.artists} artists" if first.test.artists else ""
    rules = [report.split_rule for report in reports if report.split_rule]
    rule = f" Splits: {rules[0].rstrip('.')}." if rules else ""
    return (
        f"{first.test.clips} test clips{artists}, {len(first.test.genres)} genres."
        f"{rule}"
    )


def describe_noise(comparison: Comparison) -> str:
    """Says which models cannot be told from the best one."""
    if len(comparison.results) == 1:
        return ""
    groups = "artists" if comparison.reports[0].test.artists else "clips"
    close = [
        f"{title} ({report.representation})"
        for number, (title, report) in enumerate(
            zip(comparison.titles, comparison.reports, strict=True)
        )
        if number and comparison.within_noise(number)
    ]
    if not close:
        return f"No other model is within noise of the first (95 %, over {groups})."
    return (
        "Within noise of the first (95 % bootstrap of the difference over "
        f"{groups}): {', '.join(close)}."
    )


def comparison_json(comparison: Comparison) -> str:
    """All numbers, unrounded, the most accurate model first."""
    first = comparison.reports[0]
    content: Mapping[str, Any] = {
        "comparison_version": COMPARISON_VERSION,
        "fingerprint": first.fingerprint,
        "description": first.description,
        "synthetic": first.synthetic,
        "split_rule": next(
            (r.split_rule for r in comparison.reports if r.split_rule), ""
        ),
        "shared_artists": first.shared_artists,
        "test_clips": first.test.clips,
        "test_artists": first.test.artists,
        "genres": [scores.genre for scores in first.test.genres],
        "chance_accuracy": first.test.chance_accuracy,
        "majority_accuracy": first.test.majority_accuracy,
        "article": {
            "accuracy": ARTICLE_ACCURACY,
            "same_genres_and_representation": comparison.article_comparable,
            "note": ARTICLE_NOTE,
        },
        "models": [
            {
                "title": title,
                "behind_best_interval": behind,
                "within_noise_of_best": comparison.within_noise(number),
                "use": use_command(result),
                **_numbers(result),
            }
            for number, (title, behind, result) in enumerate(
                zip(
                    comparison.titles,
                    comparison.behind,
                    comparison.results,
                    strict=True,
                )
            )
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _numbers(result: Result) -> dict[str, Any]:
    values = dataclasses.asdict(result.report)
    # They are the same for all models, and stand above.
    for key in (
        "fingerprint",
        "description",
        "synthetic",
        "split_rule",
        "shared_artists",
    ):
        del values[key]
    return values | {"phases": list(result.phases)}

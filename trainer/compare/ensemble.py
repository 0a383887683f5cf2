"""The mean of the best few models: which, how good it is, and its folder.

Members are taken one after the other: first the model with the lowest loss, then
whichever lowers the mean's most: the log-loss, or of several genres a clip what the
macro average precision lacks of 1. What is looked at are validation clips, or, of a
cross-validation, clips that the models did not hear, of all folds but the one that is
tested: never a clip that the ensemble's own scores are about.

Source: R. Caruana et al., Ensemble Selection from Libraries of Models (2004),
https://doi.org/10.1145/1015330.1015432; here each model once, with equal weights.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.common import ownership
from pipeline.common.owned_kinds import MODEL
from trainer.compare.comparison import align, use_command
from trainer.evaluation.calibration import Fit
from trainer.evaluation.model_files import files_of
from trainer.evaluation.predictions import ClipPredictions, concatenate
from trainer.evaluation.report_folder import Result, read_result
from trainer.evaluation.tasks.task import Task, judge, scale_clips, task_of
from trainer.predict.ensemble_folder import (
    ENSEMBLE,
    ENSEMBLE_FILE,
    make_member,
    to_json,
)
from trainer.training.model_folder import write_report_folder

TITLE = "Ensemble"
#: Members at most, and at least.
MEMBERS = 3
MIN_MEMBERS = 2


def mean_of(
    candidates: Sequence[ClipPredictions], members: Sequence[int]
) -> ClipPredictions:
    """The mean of some candidates, whose clips are the same in the same order."""
    chosen = [candidates[member].probabilities for member in members]
    return dataclasses.replace(candidates[0], probabilities=np.mean(chosen, axis=0))


def choose_members(
    task: Task, candidates: Sequence[ClipPredictions], most: int = MEMBERS
) -> list[int]:
    """Members of the mean with the lowest loss, found one after the other.

    Args:
      task: says which loss.
      candidates: calibrated, of the same clips in the same order; at least two.
      most: take no more.

    Returns:
      Indices of two or more candidates, in the order that they were taken in.
    """
    members: list[int] = []
    lowest = np.inf
    while len(members) < min(most, len(candidates)):
        rest = [n for n in range(len(candidates)) if n not in members]
        means = [mean_of(candidates, [*members, n]) for n in rest]
        losses = [task.choice_loss(mean.labels, mean.probabilities) for mean in means]
        best = int(np.argmin(losses))
        if losses[best] >= lowest and len(members) >= MIN_MEMBERS:
            break
        lowest = losses[best]
        members.append(rest[best])
    return members


def score_ensemble(
    results: Sequence[Result], folder: str, most: int = MEMBERS
) -> Result | str:
    """Chooses an ensemble and scores it.

    Args:
      results: of all models in a folder.
      folder: of the models.
      most: members at most.

    Returns:
      The ensemble, as any other model; or a sentence that says why there is none.
    """
    usable = [result for result in results if use_command(result)]
    if len(usable) < MIN_MEMBERS:
        return (
            f"No ensemble: {len(usable)} of {len(results)} models can predict, and it "
            f"takes {MIN_MEMBERS}."
        )
    crossed = all("folds" in result.report.parameters for result in usable)
    score = _score_folds if crossed else _score_split
    return score(usable, folder, most)


def _score_split(results: Sequence[Result], folder: str, most: int) -> Result | str:
    candidates = [r for r in results if r.validation is not None and r.predictions]
    if len(candidates) < MIN_MEMBERS:
        return (
            "No ensemble: its members are chosen by predictions of validation clips, "
            f"which {len(candidates)} of {len(results)} models have; train with a "
            "validation split."
        )
    task = task_of(candidates[0].report)
    temperatures = [r.report.fit.temperature for r in candidates]
    heard = [r.validation for r in candidates if r.validation]
    unheard = [r.predictions for r in candidates if r.predictions]
    validation = _align(_scale(task, heard, temperatures))
    test = _align(_scale(task, unheard, temperatures))
    if validation is None or test is None:
        return "No ensemble: the models predict different clips."
    members = choose_members(task, validation, most)
    chosen, tested = mean_of(validation, members), mean_of(test, members)
    fit = task.fit(chosen, len(candidates[0].report.genres))
    return _make_result(
        [candidates[member] for member in members],
        folder,
        parts=[tested],
        fits=[fit],
        kept=fit,
        validation=chosen,
        note=f"Members are chosen by {len(chosen.labels)} validation clips.",
    )


def _score_folds(results: Sequence[Result], folder: str, most: int) -> Result | str:
    count = int(results[0].report.parameters["folds"])
    parts: dict[str, list[ClipPredictions]] = {}
    for result in results:
        paths = [f"{result.folder}/fold-{number}" for number in range(count)]
        present = [path for path in paths if tf.io.gfile.exists(f"{path}/report.json")]
        read = [read_result(path).predictions for path in present]
        found = [part for part in read if part is not None]
        if len(found) == count:
            parts[result.folder] = found
    candidates = [result for result in results if result.folder in parts]
    if len(candidates) < MIN_MEMBERS:
        return (
            f"No ensemble: {len(candidates)} of {len(results)} models have the "
            f"predictions of all {count} folds."
        )
    task = task_of(candidates[0].report)
    by_fold = []
    for number in range(count):
        clips = _align([parts[candidate.folder][number] for candidate in candidates])
        if clips is None:
            return "No ensemble: the models predict different clips."
        by_fold.append(clips)
    tested, fits = [], []
    for number in range(count):
        others = [clips for other, clips in enumerate(by_fold) if other != number]
        choice = _choose(task, others, most)
        tested.append(choice.mean(task, by_fold[number]))
        fits.append(choice.fit)
    choice = _choose(task, by_fold, most)
    return _make_result(
        [candidates[member] for member in choice.members],
        folder,
        parts=tested,
        fits=fits,
        kept=choice.fit,
        note=f"Cross-validated: for the clips of each of {count} folds, members, "
        "temperatures and thresholds are chosen by the other folds' clips; those named "
        "here are chosen by all.",
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Choice:
    """What was chosen by some folds.

    Attributes:
      members: indices of candidates.
      temperatures: of all candidates.
      fit: of the members' mean.
    """

    members: Sequence[int]
    temperatures: Sequence[float | None]
    fit: Fit

    def mean(
        self, task: Task, candidates: Sequence[ClipPredictions]
    ) -> ClipPredictions:
        """The members' mean of other clips."""
        return mean_of(_scale(task, candidates, self.temperatures), self.members)


def _choose(
    task: Task, folds: Sequence[Sequence[ClipPredictions]], most: int
) -> _Choice:
    raw = [concatenate(parts) for parts in zip(*folds, strict=True)]
    genres = raw[0].probabilities.shape[1]
    temperatures = [task.fit(one, genres).temperature for one in raw]
    scaled = _scale(task, raw, temperatures)
    members = choose_members(task, scaled, most)
    return _Choice(
        members=members,
        temperatures=temperatures,
        fit=task.fit(mean_of(scaled, members), genres),
    )


def _scale(
    task: Task,
    candidates: Sequence[ClipPredictions],
    temperatures: Sequence[float | None],
) -> list[ClipPredictions]:
    return [
        scale_clips(task, clips, temperature)
        for clips, temperature in zip(candidates, temperatures, strict=True)
    ]


def _align(predictions: Sequence[ClipPredictions]) -> list[ClipPredictions] | None:
    """Predictions in the order of the first; None where they are of other clips."""
    found = [align(one, predictions[0]) for one in predictions]
    same = [one for one in found if one is not None]
    return same if len(same) == len(found) else None


def _make_result(
    members: Sequence[Result],
    folder: str,
    *,
    parts: Sequence[ClipPredictions],
    fits: Sequence[Fit],
    kept: Fit,
    note: str,
    validation: ClipPredictions | None = None,
) -> Result:
    """Judges an ensemble; see `trainer.evaluation.tasks.task.judge`."""
    reports = [member.report for member in members]
    first = reports[0]
    task, paths = task_of(first), first.paths
    test, calibration = judge(task, parts, fits, kept, paths)
    names = [os.path.basename(member.folder) for member in members]
    weights = [report.weights for report in reports]
    folds: Mapping[str, object] = {
        key: value for key, value in first.parameters.items() if key == "folds"
    }
    changes: dict[str, Any] = {first.TRAINING_SCORE: None}
    if validation is not None:
        changes["validation"] = judge(task, [validation], [kept], kept, paths)[0]
    report = dataclasses.replace(
        first,
        name=ENSEMBLE,
        model=TITLE,
        representation=" + ".join(dict.fromkeys(r.representation for r in reports)),
        parameters={
            "members": names,
            "shares": [round(1 / len(names), 6)] * len(names),
            **folds,
        },
        weights=None if None in weights else sum(w for w in weights if w),
        test=test,
        calibration=calibration,
        train_seconds=sum(report.train_seconds for report in reports),
        command=f"./launch.sh compare --models {folder}",
        notes=(f"The mean of {', '.join(names)}. {note}",),
        music_model=next((r.music_model for r in reports if r.music_model), {}),
        **changes,
    )
    return Result(
        report=report,
        predictions=concatenate(parts),
        validation=validation,
        folder=os.path.join(folder, ENSEMBLE),
    )


def write_ensemble(result: Result, folder: str) -> None:
    """Writes `ensemble/` into the folder of the models.

    Raises:
      UserError: it is not ours, cannot be written, or a member has no digests.
    """
    names = result.report.parameters["members"]
    members = [make_member(folder, name, 1 / len(names)) for name in names]
    if result.predictions is None:
        raise ValueError("Expected an ensemble with predictions. Received: none")
    write_report_folder(
        result.folder,
        result.report,
        result.predictions,
        files={ENSEMBLE_FILE: to_json(members).encode()},
        validation=result.validation,
    )


def check_folder(folder: str) -> None:
    """Checks that the ensemble replaces nothing but an earlier one; writes nothing.

    Raises:
      UserError: `ensemble/` in it holds something that is not ours.
    """
    path = os.path.join(folder, ENSEMBLE)
    ownership.check_folder(files_of(path), path, MODEL, flag="--models")

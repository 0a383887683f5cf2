"""The mean of the best few models: which, how good it is, and its folder.

Members are taken one after the other: first the model with the lowest log-loss, then
whichever lowers the mean's most. What is looked at are validation clips, or, of a
cross-validation, clips that the models did not hear, of all folds but the one that is
tested: never a clip that the ensemble's own scores are about.

Source: R. Caruana et al., Ensemble Selection from Libraries of Models (2004),
https://doi.org/10.1145/1015330.1015432; here each model once, with equal weights.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.common import ownership
from pipeline.common.owned_kinds import MODEL
from trainer.compare.comparison import use_command
from trainer.evaluation.calibration import (
    MIN_CLIPS,
    Calibration,
    apply_temperature,
    calibrate,
    fit_temperature,
    log_loss,
    measure_reliability,
)
from trainer.evaluation.model_files import files_of
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report_folder import Result, read_result
from trainer.evaluation.scores import evaluate
from trainer.predict.ensemble_folder import (
    ENSEMBLE,
    ENSEMBLE_FILE,
    make_member,
    to_json,
)
from trainer.training.model_folder import write_report_folder

Float64s = NDArray[np.float64]

TITLE = "Ensemble"
#: Members at most, and at least.
MEMBERS = 3
MIN_MEMBERS = 2
_FLOOR = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """An ensemble and how good it is.

    Attributes:
      result: as of any other model.
      members: the models.
    """

    result: Result
    members: tuple[Result, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Clips:
    """What the candidates say of the same clips.

    Attributes:
      track_ids: of the clips.
      labels: `(clips,)`.
      artist_ids: of each, or ().
      probabilities: of each candidate, `(clips, genres)`.
    """

    track_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    artist_ids: tuple[str, ...]
    probabilities: Sequence[Float64s]

    def mean(self, members: Sequence[int]) -> ClipPredictions:
        """The members' mean."""
        return ClipPredictions(
            self.track_ids,
            self.labels,
            np.mean([self.probabilities[member] for member in members], axis=0),
            self.artist_ids,
        )


def choose_members(
    probabilities: Sequence[Float64s], labels: NDArray[np.int64], most: int = MEMBERS
) -> list[int]:
    """Members of the mean with the lowest log-loss, found one after the other.

    Args:
      probabilities: of each candidate, calibrated, `(clips, genres)`; at least two.
      labels: of the clips, `(clips,)`.
      most: take no more.

    Returns:
      Indices of two or more candidates, in the order that they were taken in.
    """
    members: list[int] = []
    total = np.zeros_like(probabilities[0])
    lowest = np.inf
    while len(members) < min(most, len(probabilities)):
        rest = [n for n in range(len(probabilities)) if n not in members]
        losses = [
            log_loss((total + probabilities[n]) / (len(members) + 1), labels)
            for n in rest
        ]
        best = int(np.argmin(losses))
        if losses[best] >= lowest and len(members) >= MIN_MEMBERS:
            break
        lowest = losses[best]
        members.append(rest[best])
        total = total + probabilities[rest[best]]
    return members


def score_ensemble(
    results: Sequence[Result], folder: str, most: int = MEMBERS
) -> Scored | str:
    """Chooses an ensemble and scores it.

    Args:
      results: of all models in a folder.
      folder: of the models.
      most: members at most.

    Returns:
      The ensemble; or a sentence that says why there is none.
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


def _score_split(results: Sequence[Result], folder: str, most: int) -> Scored | str:
    candidates = [r for r in results if r.validation is not None and r.predictions]
    if len(candidates) < MIN_MEMBERS:
        return (
            "No ensemble: its members are chosen by predictions of validation clips, "
            f"which {len(candidates)} of {len(results)} models have; train with a "
            "validation split."
        )
    validation = _align(candidates, lambda result: result.validation)
    test = _align(candidates, lambda result: result.predictions)
    if validation is None or test is None:
        return "No ensemble: the models predict different clips."
    members = choose_members(validation.probabilities, validation.labels, most)
    chosen, tested = validation.mean(members), test.mean(members)
    return _make_scored(
        [candidates[member] for member in members],
        tested,
        folder,
        calibration=calibrate(chosen, tested),
        validation=chosen,
        note=f"Members are chosen by the log-loss of {len(chosen.labels)} validation "
        "clips.",
    )


def _score_folds(results: Sequence[Result], folder: str, most: int) -> Scored | str:
    count = int(results[0].report.parameters["folds"])
    parts: dict[str, list[ClipPredictions]] = {}
    for result in results:
        paths = [f"{result.folder}/fold-{number}" for number in range(count)]
        read = [read_result(path).predictions for path in paths if _has_report(path)]
        found = [part for part in read if part is not None]
        if len(found) == count:
            parts[result.folder] = found
    candidates = [result for result in results if result.folder in parts]
    if len(candidates) < MIN_MEMBERS:
        return (
            f"No ensemble: {len(candidates)} of {len(results)} models have the "
            f"predictions of all {count} folds."
        )
    by_fold = []
    for number in range(count):
        tests = {folder: found[number] for folder, found in parts.items()}
        clips = _align(candidates, lambda r: tests[r.folder], raw=True)  # noqa: B023
        if clips is None:
            return "No ensemble: the models predict different clips."
        by_fold.append(clips)
    tested = []
    scaled = []
    for number in range(count):
        others = [clips for other, clips in enumerate(by_fold) if other != number]
        members, temperatures, temperature = _fit(others, most)
        mean = _calibrated(by_fold[number], temperatures).mean(members)
        tested.append(mean)
        scaled.append(apply_temperature(mean.probabilities, temperature))
    members, temperatures, temperature = _fit(by_fold, most)
    predictions = ClipPredictions(
        tuple(track for part in tested for track in part.track_ids),
        np.concatenate([part.labels for part in tested]),
        np.concatenate([part.probabilities for part in tested]),
        tuple(artist for part in tested for artist in part.artist_ids),
    )
    labels = predictions.labels
    return _make_scored(
        [candidates[member] for member in members],
        predictions,
        folder,
        calibration=Calibration(
            temperature=temperature,
            clips=len(labels),
            before=measure_reliability(predictions.probabilities, labels),
            after=measure_reliability(np.concatenate(scaled), labels),
        ),
        validation=None,
        note=f"Cross-validated: for the clips of each of {count} folds, members and "
        "temperatures are chosen by the other folds' clips; those named here are "
        "chosen by all.",
    )


def _fit(parts: Sequence[_Clips], most: int) -> tuple[list[int], list[float], float]:
    """Members, the candidates' temperatures and the mean's, from some folds."""
    labels = np.concatenate([part.labels for part in parts])
    raw = [
        np.concatenate(columns)
        for columns in zip(*(part.probabilities for part in parts), strict=True)
    ]
    temperatures = [_fit_temperature(one, labels) for one in raw]
    scaled = [
        apply_temperature(one, temperature)
        for one, temperature in zip(raw, temperatures, strict=True)
    ]
    members = choose_members(scaled, labels, most)
    mean = np.mean([scaled[member] for member in members], axis=0)
    return members, temperatures, _fit_temperature(mean, labels)


def _fit_temperature(probabilities: Float64s, labels: NDArray[np.int64]) -> float:
    if len(labels) < MIN_CLIPS:
        return 1.0
    return fit_temperature(np.log(np.maximum(probabilities, _FLOOR)), labels)


def _calibrated(clips: _Clips, temperatures: Sequence[float]) -> _Clips:
    scaled = [
        apply_temperature(one, temperature)
        for one, temperature in zip(clips.probabilities, temperatures, strict=True)
    ]
    return dataclasses.replace(clips, probabilities=scaled)


def _align(
    results: Sequence[Result],
    read: Callable[[Result], ClipPredictions | None],
    *,
    raw: bool = False,
) -> _Clips | None:
    """Brings several models' predictions into one order; None for other clips.

    Args:
      results: the models.
      read: takes the predictions of one.
      raw: whether to leave them as they are, and not to calibrate them.
    """
    found = [read(result) for result in results]
    first = found[0]
    rows: list[Float64s] = []
    for result, predictions in zip(results, found, strict=True):
        if first is None or predictions is None:
            return None
        if set(predictions.track_ids) != set(first.track_ids):
            return None
        place = {track: row for row, track in enumerate(predictions.track_ids)}
        order = np.array([place[track] for track in first.track_ids], np.intp)
        probabilities = predictions.probabilities[order]
        calibration = result.report.calibration
        if calibration is not None and not raw:
            probabilities = apply_temperature(probabilities, calibration.temperature)
        rows.append(probabilities)
    if first is None:
        return None
    return _Clips(
        track_ids=first.track_ids,
        labels=first.labels,
        artist_ids=first.artist_ids,
        probabilities=rows,
    )


def _has_report(path: str) -> bool:
    return bool(tf.io.gfile.exists(f"{path}/report.json"))


def _make_scored(
    members: Sequence[Result],
    predictions: ClipPredictions,
    folder: str,
    *,
    calibration: Calibration | None,
    validation: ClipPredictions | None,
    note: str,
) -> Scored:
    first = members[0].report
    reports = [member.report for member in members]
    genres = [scores.genre for scores in first.test.genres]
    names = [os.path.basename(member.folder) for member in members]
    weights = [report.weights for report in reports]
    folds: Mapping[str, object] = {
        key: value for key, value in first.parameters.items() if key == "folds"
    }
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
        test=evaluate(predictions, genres),
        validation=None if validation is None else evaluate(validation, genres),
        training_accuracy=None,
        calibration=calibration,
        train_seconds=sum(report.train_seconds for report in reports),
        command=f"./launch.sh compare --models {folder}",
        notes=(f"The mean of {', '.join(names)}. {note}",),
    )
    return Scored(
        result=Result(
            report=report,
            predictions=predictions,
            validation=validation,
            folder=os.path.join(folder, ENSEMBLE),
        ),
        members=tuple(members),
    )


def write_ensemble(scored: Scored, folder: str) -> None:
    """Writes `ensemble/` into the folder of the models.

    Raises:
      UserError: it is not ours, cannot be written, or a member has no digests.
    """
    result = scored.result
    names = [os.path.basename(member.folder) for member in scored.members]
    members = [make_member(folder, name, 1 / len(names)) for name in names]
    genres = [scores.genre for scores in result.report.test.genres]
    if result.predictions is None:
        raise ValueError("Expected an ensemble with predictions. Received: none")
    write_report_folder(
        result.folder,
        result.report,
        result.predictions,
        genres,
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

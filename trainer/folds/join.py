"""One report of a model's folds, over all clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.schema import fingerprint
from trainer.data.dataset import Dataset
from trainer.evaluation.predictions import ClipPredictions, concatenate, with_artists
from trainer.evaluation.report import find_versions
from trainer.evaluation.report_folder import Result
from trainer.evaluation.tasks.task import AnyReport, find_task, judge
from trainer.evaluation.tasks.thresholds import DEFAULT_NOTE
from trainer.folds.records import FoldedClips


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A model that was trained on the clips of all folds.

    Attributes:
      files: what predicts, by name; none of a model that is measured only.
      weights: how many numbers it consists of.
      notes: sentences for the report.
    """

    files: Mapping[str, bytes]
    weights: int | None
    notes: Sequence[str] = ()


def join_folds(
    name: str,
    results: Sequence[Result],
    clips: FoldedClips,
    dataset: Dataset,
    seed: int,
    *,
    command: str,
    kept: Kept,
) -> tuple[AnyReport, ClipPredictions]:
    """Makes one report of a model's folds, over all clips.

    Args:
      name: the model's folder.
      results: one a fold, with predictions.
      clips: the folds.
      dataset: what was cross-validated.
      seed: of the folds.
      command: what cross-validates the same again.
      kept: the model that was trained on all clips.

    Returns:
      The report, and the predictions that it is about.
    """
    artists = dict(zip(clips.track_ids, clips.artist_ids, strict=True))
    parts = [
        with_artists(result.predictions, artists)
        for result in results
        if result.predictions
    ]
    first = results[0].report
    task, paths = find_task(dataset.manifest), first.paths
    fits = []
    for part in parts:
        others = [other for other in parts if other is not part]
        fits.append(task.fit(concatenate(others), len(paths)))
    predictions = concatenate(parts)
    last = task.fit(predictions, len(paths))
    test, calibration = judge(task, parts, fits, last, paths)
    scores = [result.report.training_score for result in results]
    known = [score for score in scores if score is not None]
    folds = len(results)
    mean = float(np.mean(known)) if len(known) == folds else None
    training: dict[str, Any] = {first.TRAINING_SCORE: mean}
    report = dataclasses.replace(
        first,
        name=name,
        parameters={**first.parameters, "folds": folds},
        weights=kept.weights,
        clips={**first.clips, "test": len(clips.track_ids)},
        test=test,
        validation=None,
        calibration=calibration,
        train_seconds=sum(result.report.train_seconds for result in results),
        data=dataset.folder,
        description=dataset.manifest.description,
        synthetic=dataset.manifest.synthetic,
        fingerprint=fingerprint([dataset.manifest.fingerprint, folds, seed]),
        split_rule=clips.rule,
        shared_artists=(),
        command=command,
        versions=find_versions(),
        notes=(
            f"Cross-validated: {folds} models, each tested on the clips that it did "
            "not hear; parameters and counts of clips are the first fold's. The model "
            "that is kept is one more, trained on all clips; the scores are not its "
            "own.",
            *clips.notes,
            *kept.notes,
            *(note for note in first.notes if note != DEFAULT_NOTE),
        ),
        **training,
    )
    return report, predictions

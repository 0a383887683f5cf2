"""One report of a model's folds, over all clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.schema import fingerprint
from trainer.data.dataset import Dataset
from trainer.evaluation.calibration import calibrate_folds
from trainer.evaluation.predictions import ClipPredictions, with_artists
from trainer.evaluation.report import Report, find_versions
from trainer.evaluation.report_folder import Result
from trainer.evaluation.scores import evaluate
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
) -> tuple[Report, ClipPredictions]:
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
    parts = [result.predictions for result in results if result.predictions]
    artists = dict(zip(clips.track_ids, clips.artist_ids, strict=True))
    predictions = with_artists(_concatenate(parts), artists)
    genres = dataset.manifest.genres
    first = results[0].report
    accuracies = [
        result.report.training_accuracy
        for result in results
        if result.report.training_accuracy is not None
    ]
    folds = len(results)
    report = Report(
        name=name,
        model=first.model,
        representation=first.representation,
        parameters={**first.parameters, "folds": folds},
        weights=kept.weights,
        clips={**first.clips, "test": len(clips.track_ids)},
        test=evaluate(predictions, genres),
        validation=None,
        training_accuracy=(
            float(np.mean(accuracies)) if len(accuracies) == folds else None
        ),
        calibration=calibrate_folds(parts),
        train_seconds=sum(result.report.train_seconds for result in results),
        data=dataset.folder,
        description=dataset.manifest.description,
        synthetic=dataset.manifest.synthetic,
        fingerprint=folds_fingerprint(dataset, folds, seed),
        split_rule=clips.rule,
        command=command,
        versions=find_versions(),
        notes=(
            f"Cross-validated: {folds} models, each tested on the clips that it did "
            "not hear; parameters and counts of clips are the first fold's. The model "
            "that is kept is one more, trained on all clips; the scores are not its "
            "own.",
            *kept.notes,
            *first.notes,
        ),
    )
    return report, predictions


def folds_fingerprint(dataset: Dataset, folds: int, seed: int) -> str:
    """Of a dataset that is split into folds."""
    return fingerprint([dataset.manifest.fingerprint, folds, seed])


def _concatenate(parts: Sequence[ClipPredictions]) -> ClipPredictions:
    return ClipPredictions(
        track_ids=tuple(track for part in parts for track in part.track_ids),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )

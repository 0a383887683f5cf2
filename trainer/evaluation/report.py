"""Writes and reads what is known about a trained model: `report.json` and beside it.

A report folder holds

    report.json       how the model was trained and how well it does
    predictions.csv   each test clip's genre, prediction and probabilities
    confusion.png     the test split's confusion matrix
    model_card.md     the same for people
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.schema import SPLITS, Manifest, UserError
from trainer.evaluation.calibration import (
    Calibration,
    Reliability,
    ReliabilityBin,
    calibrate,
)
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.scores import Evaluation, GenreScores, evaluate

REPORT_VERSION = 2

#: Files of a model folder, as all that write and read one call them.
MODEL_FILE = "model.keras"
REPORT_FILE = "report.json"
HISTORY_FILE = "history.json"
PREDICTIONS_FILE = "predictions.csv"
CONFUSION_FILE = "confusion.png"
CARD_FILE = "model_card.md"

#: Libraries whose versions decide what a model becomes.
LIBRARIES = ("tensorflow", "keras", "numpy", "scikit-learn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """How a model was trained, and how well it does.

    Attributes:
      name: the model's folder, unique among the models compared.
      model: name for people, e.g. "RBF SVM".
      representation: what the model was trained on.
      parameters: how it was trained; JSON values only.
      weights: number of the model's weights, where it has any to count.
      clips: number of clips by split.
      test: scores of the test split.
      validation: scores of the validation split, where there is one.
      training_accuracy: accuracy on the training split; far above the test's,
        it shows overfitting.
      calibration: what temperature scaling does, where there are validation clips
        to fit it to.
      train_seconds: wall time of training, the choice of parameters included.
      data: the dataset's folder.
      description: the dataset's own words on where it comes from.
      fingerprint: the dataset's, see `pipeline.schema.Manifest`.
      split_rule: the dataset's sentence on how clips were assigned to splits.
      shared_artists: artists whose clips the splits share; a leak if not empty.
      command: what trains the same model.
      versions: of Python and the libraries.
      notes: sentences that a reader of the numbers has to know.
    """

    name: str
    model: str
    representation: str
    parameters: Mapping[str, Any]
    clips: Mapping[str, int]
    test: Evaluation
    validation: Evaluation | None
    training_accuracy: float | None
    train_seconds: float
    fingerprint: str
    weights: int | None = None
    calibration: Calibration | None = None
    data: str = ""
    description: str = ""
    split_rule: str = ""
    shared_artists: tuple[str, ...] = ()
    command: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialises with stable key order."""
        raw = {"report_version": REPORT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(raw, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Report:
        """Parses a report.

        Args:
          text: content of a `report.json`.
          source: path named in errors.

        Raises:
          UserError: the text is no report, or one of another version.
        """
        advice = "train the model again or remove its folder."
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{source} is not valid JSON ({error}); {advice}"
            ) from error
        version = raw.pop("report_version", None) if isinstance(raw, dict) else None
        if version != REPORT_VERSION:
            raise UserError(
                f"{source} has report version {version!r}, this version reads "
                f"{REPORT_VERSION}; {advice}"
            )
        try:
            test, validation = raw.pop("test"), raw.pop("validation")
            calibration = raw.pop("calibration")
            return cls(
                test=_evaluation_from_json(test),
                validation=None
                if validation is None
                else _evaluation_from_json(validation),
                calibration=None
                if calibration is None
                else _calibration_from_json(calibration),
                shared_artists=tuple(raw.pop("shared_artists")),
                notes=tuple(raw.pop("notes")),
                **raw,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{source} does not hold a report ({error!r}); {advice}"
            ) from error


def _evaluation_from_json(raw: Mapping[str, Any]) -> Evaluation:
    values = dict(raw)
    accuracy_low, accuracy_high = values.pop("accuracy_interval")
    f1_low, f1_high = values.pop("macro_f1_interval")
    return Evaluation(
        accuracy_interval=(accuracy_low, accuracy_high),
        macro_f1_interval=(f1_low, f1_high),
        genres=tuple(GenreScores(**scores) for scores in values.pop("genres")),
        confusion=tuple(tuple(row) for row in values.pop("confusion")),
        **values,
    )


def _calibration_from_json(raw: Mapping[str, Any]) -> Calibration:
    def reliability(values: Mapping[str, Any]) -> Reliability:
        bins = tuple(ReliabilityBin(**bin_) for bin_ in values["bins"])
        return Reliability(**{**values, "bins": bins})

    values = dict(raw)
    return Calibration(
        before=reliability(values.pop("before")),
        after=reliability(values.pop("after")),
        **values,
    )


def make_report(
    manifest: Manifest,
    predictions: Mapping[str, ClipPredictions],
    *,
    name: str,
    model: str,
    representation: str,
    parameters: Mapping[str, Any],
    train_seconds: float,
    weights: int | None = None,
    data: str = "",
    command: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """Evaluates a trained model on all splits that it has predictions of.

    Args:
      manifest: of the dataset.
      predictions: by split; those of the test split must not be empty.
      name: see `Report`, as all below.
      model: likewise.
      representation: likewise.
      parameters: likewise.
      train_seconds: likewise.
      weights: likewise.
      data: likewise.
      command: likewise.
      notes: likewise.
    """
    used = {split: found for split, found in predictions.items() if found.track_ids}
    genres = manifest.genres
    validation, training = used.get("validation"), used.get("training")
    shared = manifest.artists_in_several_splits
    if shared:
        leak = f"Splits share artists, {', '.join(shared)}: scores are too high."
        notes = [*notes, leak]
    return Report(
        name=name,
        model=model,
        representation=representation,
        parameters=parameters,
        weights=weights,
        clips={split: sum(manifest.clips[split].values()) for split in SPLITS},
        test=evaluate(used["test"], genres),
        validation=evaluate(validation, genres) if validation else None,
        training_accuracy=(
            float(np.mean(training.predicted == training.labels)) if training else None
        ),
        calibration=calibrate(validation, used["test"]),
        train_seconds=train_seconds,
        data=data,
        description=manifest.description,
        fingerprint=manifest.fingerprint,
        split_rule=manifest.split_rule,
        shared_artists=tuple(shared),
        command=command,
        versions=find_versions(),
        notes=tuple(notes),
    )


def find_versions() -> dict[str, str]:
    """Versions of Python and of `LIBRARIES`, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

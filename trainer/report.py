"""Writes and reads what is known about a trained model: `report.json` and beside it.

A report folder holds

    report.json       how the model was trained and how well it does
    predictions.csv   each test clip's genre, prediction and probabilities
    confusion.png     the test split's confusion matrix
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from pipeline.schema import UserError
from trainer import plots
from trainer.evaluate import ClipPredictions, Evaluation, GenreScores

REPORT_VERSION = 1

REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.csv"
CONFUSION_FILE = "confusion.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """How a model was trained, and how well it does.

    Attributes:
      name: the model's folder, unique among the models compared.
      model: name for people, e.g. "RBF SVM".
      representation: what the model was trained on.
      parameters: how it was trained; JSON values only.
      clips: number of clips by split.
      test: scores of the test split.
      validation: scores of the validation split, where there is one.
      training_accuracy: accuracy on the training split; far above the test's,
        it shows overfitting.
      train_seconds: wall time of training, the choice of parameters included.
      fingerprint: the dataset's, see `pipeline.schema.Manifest`.
      split_rule: the dataset's sentence on how clips were assigned to splits.
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
    split_rule: str = ""
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
            return cls(
                test=_evaluation_from_json(test),
                validation=None
                if validation is None
                else _evaluation_from_json(validation),
                notes=tuple(raw.pop("notes")),
                **raw,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{source} does not hold a report ({error!r}); {advice}"
            ) from error


def _evaluation_from_json(raw: Mapping[str, Any]) -> Evaluation:
    values = dict(raw)
    low, high = values.pop("accuracy_interval")
    return Evaluation(
        accuracy_interval=(low, high),
        genres=tuple(GenreScores(**scores) for scores in values.pop("genres")),
        confusion=tuple(tuple(row) for row in values.pop("confusion")),
        **values,
    )


def write_report(
    folder: str,
    report: Report,
    test_predictions: ClipPredictions,
    genres: Sequence[str],
) -> None:
    """Writes the three files of a report; `report.json` last.

    Args:
      folder: created where missing; local or of any scheme TensorFlow reads.
      report: what to write.
      test_predictions: what `report.test` was computed from.
      genres: names of the probabilities' columns.
    """
    title = f"{report.model} on {report.representation}"
    contents = {
        PREDICTIONS_FILE: predictions_csv(test_predictions, genres).encode(),
        CONFUSION_FILE: plots.confusion_png(report.test, title),
        REPORT_FILE: report.to_json().encode(),
    }
    write_files(folder, contents)


def read_report(folder: str) -> Report:
    """Reads the report of a folder.

    Raises:
      UserError: there is none, or it is damaged or of another version.
    """
    path = os.path.join(folder, REPORT_FILE)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            text = file.read().decode(errors="replace")
    except tf.errors.NotFoundError as error:
        raise UserError(
            f"There is no {REPORT_FILE} in {folder}; train a model into it first."
        ) from error
    return Report.from_json(text, source=path)


def read_reports(folder: str) -> list[Report]:
    """Reads the reports in a folder of model folders, by name.

    Raises:
      UserError: there is no such folder, no report in it, or a damaged one.
    """
    if not tf.io.gfile.isdir(folder):
        raise UserError(
            f"There is no folder {folder}; give --models the folder that the models "
            "were trained into."
        )
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    folders = [os.path.join(folder, name) for name in names]
    reports = [
        read_report(path)
        for path in folders
        if tf.io.gfile.exists(os.path.join(path, REPORT_FILE))
    ]
    if not reports:
        raise UserError(
            f"No folder in {folder} holds a {REPORT_FILE}; train a model into it first."
        )
    return reports


def predictions_csv(predictions: ClipPredictions, genres: Sequence[str]) -> str:
    """One line a clip: track id, true and predicted genre, all probabilities."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["track_id", "genre", "predicted", *(f"p_{g}" for g in genres)])
    for track_id, label, predicted, row in zip(
        predictions.track_ids,
        predictions.labels,
        predictions.predicted,
        predictions.probabilities,
        strict=True,
    ):
        numbers = [f"{probability:.6f}" for probability in row]
        writer.writerow([track_id, genres[label], genres[predicted], *numbers])
    return text.getvalue()


def write_files(folder: str, contents: Mapping[str, bytes]) -> list[str]:
    """Writes files by name, in order, into a folder; returns their paths.

    Raises:
      UserError: the folder cannot be written to.
    """
    paths = [os.path.join(folder, name) for name in contents]
    try:
        tf.io.gfile.makedirs(folder)
        for path, content in zip(paths, contents.values(), strict=True):
            with tf.io.gfile.GFile(path, "wb") as file:
                file.write(content)
    except tf.errors.OpError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.message}; choose another --output."
        ) from error
    return paths

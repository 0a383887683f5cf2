"""Reads what the folders of trained models hold, to compare them."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.common.plain_text import csv_cell, from_csv_cell
from pipeline.schema import UserError
from trainer.evaluation import plots
from trainer.evaluation.card import format_card
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.model_files import ModelFolder, files_of
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import (
    CARD_FILE,
    CONFUSION_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    VALIDATION_FILE,
    Report,
)
from trainer.evaluation.tasks.several_files import make_files
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.tasks.task import AnyReport, parse_report
from trainer.evaluation.typed_json import parse_json, to_dataclass


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """A trained model, as far as its folder tells.

    Attributes:
      report: how it was trained and how well it does.
      predictions: of the test clips, where they were kept.
      validation: of the validation clips, likewise.
      phases: history of each phase of training (see `PhaseHistory`); none
        for models without epochs.
      folder: path that it was read from.
    """

    report: Report
    predictions: ClipPredictions | None = None
    validation: ClipPredictions | None = None
    phases: Sequence[Mapping[str, Any]] = ()
    folder: str = ""


def read_results(folder: str) -> list[Result]:
    """Reads all models in a folder of model folders, by name.

    Raises:
      UserError: there is no such folder, no report in it, or a damaged file.
    """
    return [read_result(path) for path in _list_models(folder)]


def _list_models(folder: str) -> list[str]:
    """Paths of the folders that hold a report.

    Raises:
      UserError: there is no such folder, or no report in it.
    """
    if not tf.io.gfile.isdir(folder):
        raise UserError(
            f"There is no folder {folder}; give --models the folder that the models "
            "were trained into."
        )
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    folders = [os.path.join(folder, name) for name in names]
    paths = [
        path for path in folders if tf.io.gfile.exists(os.path.join(path, REPORT_FILE))
    ]
    if not paths:
        raise UserError(
            f"No folder in {folder} holds a {REPORT_FILE}; train a model into it first."
        )
    return paths


def read_reports(folder: str) -> list[AnyReport]:
    """Reads the reports of all models in a folder of model folders, by name.

    Raises:
      UserError: there is no such folder, no report in it, or a damaged one.
    """
    return [read_report(path) for path in _list_models(folder)]


def read_result(path: str) -> Result:
    """Reads one model folder.

    Raises:
      UserError: a file is damaged, or there is no report.
    """
    folder = ModelFolder(path)
    report = _read_report(folder)
    if isinstance(report, MultiLabelReport):
        raise UserError(
            f"{path} holds a model of several genres a clip, which this command does "
            "not read."
        )
    genres = [scores.genre for scores in report.test.genres]
    source = folder.join(PREDICTIONS_FILE)
    content = folder.read(PREDICTIONS_FILE)
    predictions = None
    if content is not None:
        text = content.decode(errors="replace")
        predictions = parse_predictions(text, genres, source)
        if len(predictions.labels) != report.test.clips:
            raise UserError(
                f"{source} has {len(predictions.labels)} clips, {REPORT_FILE} beside "
                f"it tells of {report.test.clips}; train the model again or remove "
                "this file."
            )
    content = folder.read(VALIDATION_FILE)
    validation = None
    if content is not None:
        text = content.decode(errors="replace")
        validation = parse_predictions(text, genres, folder.join(VALIDATION_FILE))
    content = folder.read(HISTORY_FILE)
    phases: Sequence[Mapping[str, Any]] = ()
    if content is not None:
        phases = _parse_history(content, folder.join(HISTORY_FILE))
    return Result(
        report=report,
        predictions=predictions,
        validation=validation,
        phases=phases,
        folder=folder.path,
    )


def read_report(path: str) -> AnyReport:
    """Reads the report of a model folder, of either task.

    Raises:
      UserError: there is none, or it is damaged or of another version.
    """
    return _read_report(ModelFolder(path))


def _read_report(folder: ModelFolder) -> AnyReport:
    content = folder.read(REPORT_FILE)
    if content is None:
        raise UserError(
            f"There is no {REPORT_FILE} in {folder.path}; train a model into it first."
        )
    return parse_report(content, source=folder.join(REPORT_FILE))


def _parse_history(content: bytes, source: str) -> list[Mapping[str, Any]]:
    try:
        phases: list[Mapping[str, Any]] = parse_json(content)["phases"]
        for phase in phases:
            to_dataclass(PhaseHistory, phase, "a phase")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source} does not hold a training's history ({error!r}); train the model "
            "again or remove this file."
        ) from error
    return phases


def parse_predictions(text: str, genres: Sequence[str], source: str) -> ClipPredictions:
    """Reads `predictions.csv`.

    Args:
      text: the file.
      genres: in the dataset's order.
      source: path named in errors.

    Raises:
      UserError: it is not what `trainer.evaluation.report` writes for these genres.
    """
    labels = {csv_cell(genre): label for label, genre in enumerate(genres)}
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        artists = tuple(from_csv_cell(row["artist_id"]) for row in rows)
        predictions = ClipPredictions(
            track_ids=tuple(from_csv_cell(row["track_id"]) for row in rows),
            labels=np.array([labels[row["genre"]] for row in rows], np.int64),
            probabilities=np.array(
                [[float(row[f"p_{genre}"]) for genre in genres] for row in rows]
            ).reshape(len(rows), len(genres)),
            artist_ids=artists if any(artists) else (),
        )
        if np.any(predictions.probabilities > 1):
            raise ValueError("Probabilities must be 1 or less.")
        if len(set(predictions.track_ids)) < len(rows):
            raise ValueError("Clips must be different ones.")
        return predictions
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        csv.Error,
    ) as error:
        raise UserError(
            f"{source} does not hold a model's predictions ({error!r}); train the "
            "model again or remove this file."
        ) from error


def write_report(
    folder: str,
    report: AnyReport,
    test_predictions: ClipPredictions,
    genres: Sequence[str],
    validation: ClipPredictions | None = None,
) -> None:
    """Writes the files of a report; `report.json` last.

    Args:
      folder: created where missing; local or of any scheme TensorFlow reads.
      report: what to write.
      test_predictions: what `report.test` was computed from.
      genres: names of the probabilities' columns.
      validation: the predictions that ensembles are chosen with.
    """
    if isinstance(report, MultiLabelReport):
        write_files(folder, make_files(report, test_predictions, genres))
        return
    title = f"{report.model} on {report.representation}"
    contents = {
        PREDICTIONS_FILE: predictions_csv(test_predictions, genres).encode(),
        **(
            {VALIDATION_FILE: predictions_csv(validation, genres).encode()}
            if validation is not None and validation.track_ids
            else {}
        ),
        CONFUSION_FILE: plots.confusion_png(report.test, title),
        CARD_FILE: format_card(report).encode(),
        REPORT_FILE: report.to_json().encode(),
    }
    write_files(folder, contents)


def predictions_csv(predictions: ClipPredictions, genres: Sequence[str]) -> str:
    """One line a clip: ids, true and predicted genre, all probabilities."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["track_id", "artist_id", "genre", "predicted"]
    writer.writerow([*header, *(f"p_{genre}" for genre in genres)])
    artists = predictions.artist_ids or ("",) * len(predictions.track_ids)
    for track_id, artist_id, label, predicted, row in zip(
        predictions.track_ids,
        artists,
        predictions.labels,
        predictions.predicted,
        predictions.probabilities,
        strict=True,
    ):
        numbers = [f"{probability:.6f}" for probability in row]
        names = [track_id, artist_id, genres[label], genres[predicted]]
        writer.writerow([*map(csv_cell, names), *numbers])
    return text.getvalue()


def write_files(folder: str, contents: Mapping[str, bytes]) -> list[str]:
    """Writes files by name, in order, into a folder; returns their paths.

    Each is whole or not there: what a full disk cuts off leaves nothing.

    Raises:
      UserError: the folder cannot be written to.
    """
    files = files_of(folder)
    paths = [os.path.join(folder, name) for name in contents]
    try:
        for path, content in zip(paths, contents.values(), strict=True):
            files.write(path, content)
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.strerror or error}; choose another "
            "--output."
        ) from error
    return paths

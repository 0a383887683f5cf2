"""Makes and reads what the folders of trained models hold, to compare them."""

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
from trainer.evaluation.card import format_card
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.model_files import ModelFolder
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import (
    CARD_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    VALIDATION_FILE,
)
from trainer.evaluation.tasks.task import AnyReport, decide, parse_report, task_of
from trainer.evaluation.typed_json import parse_json, to_dataclass


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """A trained model, as far as its folder tells.

    Attributes:
      report: how it was trained and how well it does.
      predictions: of the test clips, where they were kept; without the temperature.
      validation: of the validation clips, likewise.
      phases: history of each phase of training (see `PhaseHistory`); none
        for models without epochs.
      folder: path that it was read from.
    """

    report: AnyReport
    predictions: ClipPredictions | None = None
    validation: ClipPredictions | None = None
    phases: Sequence[Mapping[str, Any]] = ()
    folder: str = ""


def read_results(folder: str) -> list[Result]:
    """Reads all models in a folder of model folders, by name.

    Raises:
      UserError: there is no such folder, no report in it, or a damaged file.
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
    return [read_result(path) for path in paths]


def read_result(path: str) -> Result:
    """Reads one model folder.

    Raises:
      UserError: a file is damaged, or there is no report.
    """
    folder = ModelFolder(path)
    report = _read_report(folder)
    predictions = _read_predictions(folder, PREDICTIONS_FILE, report)
    if predictions is not None and len(predictions.labels) != report.test.clips:
        raise UserError(
            f"{folder.join(PREDICTIONS_FILE)} has {len(predictions.labels)} clips, "
            f"{REPORT_FILE} beside it tells of {report.test.clips}; train the model "
            "again or remove this file."
        )
    content = folder.read(HISTORY_FILE)
    phases: Sequence[Mapping[str, Any]] = ()
    if content is not None:
        phases = _parse_history(content, folder.join(HISTORY_FILE))
    return Result(
        report=report,
        predictions=predictions,
        validation=_read_predictions(folder, VALIDATION_FILE, report),
        phases=phases,
        folder=folder.path,
    )


def _read_predictions(
    folder: ModelFolder, name: str, report: AnyReport
) -> ClipPredictions | None:
    content = folder.read(name)
    if content is None:
        return None
    text = content.decode(errors="replace")
    return parse_predictions(text, report, folder.join(name))


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


def parse_predictions(text: str, report: AnyReport, source: str) -> ClipPredictions:
    """Reads `predictions.csv`.

    Args:
      text: the file.
      report: of the same model.
      source: path named in errors.

    Raises:
      UserError: it is not what `predictions_csv` writes for these genres.
    """
    task, genres = task_of(report), report.genres
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        artists = tuple(from_csv_cell(row["artist_id"]) for row in rows)
        cells = [from_csv_cell(row[task.label_column]) for row in rows]
        predictions = ClipPredictions(
            track_ids=tuple(from_csv_cell(row["track_id"]) for row in rows),
            labels=task.parse_cells(cells, genres),
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


def make_files(
    report: AnyReport,
    test: ClipPredictions,
    validation: ClipPredictions | None = None,
) -> dict[str, bytes]:
    """The files of a report by name; `report.json` last.

    Args:
      report: how a model was trained and how well it does.
      test: the predictions that `report.test` was computed from.
      validation: those that ensembles are chosen with.
    """
    task = task_of(report)
    held = validation if validation is not None and validation.track_ids else None
    return {
        PREDICTIONS_FILE: predictions_csv(test, report).encode(),
        **({VALIDATION_FILE: predictions_csv(held, report).encode()} if held else {}),
        **task.draw(report),
        CARD_FILE: format_card(report, task.make_card_parts(report)).encode(),
        REPORT_FILE: report.to_json().encode(),
    }


def predictions_csv(predictions: ClipPredictions, report: AnyReport) -> str:
    """One line a clip: ids, true genre or genres, those given, all probabilities.

    Probabilities are as the model gives them, before the temperature.
    """
    task, genres = task_of(report), report.genres
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["track_id", "artist_id", task.label_column, "predicted"]
    writer.writerow([*header, *(f"p_{genre}" for genre in genres)])
    given = decide(predictions, report)
    for *names, row in zip(
        predictions.track_ids,
        predictions.artist_ids or ("",) * len(predictions.track_ids),
        task.label_cells(predictions.labels, genres),
        task.label_cells(given, genres),
        predictions.probabilities,
        strict=True,
    ):
        numbers = [f"{probability:.6f}" for probability in row]
        writer.writerow([*map(csv_cell, names), *numbers])
    return text.getvalue()

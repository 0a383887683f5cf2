"""Reads what the folders of trained models hold, to compare them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.schema import UserError
from trainer.evaluation import plots
from trainer.evaluation.card import format_card
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import (
    CARD_FILE,
    CONFUSION_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    Report,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """A trained model, as far as its folder tells.

    Attributes:
      report: how it was trained and how well it does.
      predictions: of the test clips, where they were kept.
      phases: history of each phase of training (see `PhaseHistory`); none
        for models without epochs.
    """

    report: Report
    predictions: ClipPredictions | None = None
    phases: Sequence[Mapping[str, Any]] = ()


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
    results = [
        read_result(path)
        for path in folders
        if tf.io.gfile.exists(os.path.join(path, REPORT_FILE))
    ]
    if not results:
        raise UserError(
            f"No folder in {folder} holds a {REPORT_FILE}; train a model into it first."
        )
    return results


def read_result(folder: str) -> Result:
    """Reads one model folder.

    Raises:
      UserError: a file is damaged, or there is no report.
    """
    report = read_report(folder)
    genres = [scores.genre for scores in report.test.genres]
    path = os.path.join(folder, PREDICTIONS_FILE)
    text = _read_text(path)
    predictions = None if text is None else parse_predictions(text, genres, path)
    path = os.path.join(folder, HISTORY_FILE)
    text = _read_text(path)
    phases: Sequence[Mapping[str, Any]] = ()
    if text is not None:
        try:
            phases = json.loads(text)["phases"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} does not hold a training's history ({error!r}); train the "
                "model again or remove this file."
            ) from error
    return Result(report=report, predictions=predictions, phases=phases)


def parse_predictions(text: str, genres: Sequence[str], source: str) -> ClipPredictions:
    """Reads `predictions.csv`.

    Args:
      text: the file.
      genres: in the dataset's order.
      source: path named in errors.

    Raises:
      UserError: it is not what `trainer.evaluation.report` writes for these genres.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        artists = tuple(row["artist_id"] for row in rows)
        return ClipPredictions(
            track_ids=tuple(row["track_id"] for row in rows),
            labels=np.array([genres.index(row["genre"]) for row in rows], np.int64),
            probabilities=np.array(
                [[float(row[f"p_{genre}"]) for genre in genres] for row in rows]
            ).reshape(len(rows), len(genres)),
            artist_ids=artists if any(artists) else (),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{source} does not hold a model's predictions ({error!r}); train the "
            "model again or remove this file."
        ) from error


def _read_text(path: str) -> str | None:
    """A file's text, None if there is no such file."""
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        content: bytes = file.read()
    return content.decode(errors="replace")


def write_report(
    folder: str,
    report: Report,
    test_predictions: ClipPredictions,
    genres: Sequence[str],
) -> None:
    """Writes the files of a report; `report.json` last.

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
        CARD_FILE: format_card(report).encode(),
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
        writer.writerow([*names, *numbers])
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

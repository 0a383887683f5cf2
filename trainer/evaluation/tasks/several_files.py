"""The files beside `report.json` of a model of several genres a clip.

predictions.csv        each test clip's genres, those given, all probabilities
average_precision.png  each genre's average precision, over its prevalence
model_card.md          the same for people
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.common.plain_text import csv_cell, from_csv_cell
from pipeline.schema import UserError
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import CARD_FILE, PREDICTIONS_FILE, REPORT_FILE
from trainer.evaluation.tasks.several_card import AP_FILE, ap_png, format_card
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.tasks.thresholds import apply_temperature


def make_files(
    report: MultiLabelReport, predictions: ClipPredictions, genres: Sequence[str]
) -> dict[str, bytes]:
    """All files of a report, by name; `report.json` last.

    Args:
      report: what to write.
      predictions: of the test clips, as the model gives them.
      genres: names of the probabilities' columns.
    """
    return {
        PREDICTIONS_FILE: predictions_csv(report, predictions, genres).encode(),
        AP_FILE: ap_png(report),
        CARD_FILE: format_card(report).encode(),
        REPORT_FILE: report.to_json().encode(),
    }


_COLUMNS = ("track_id", "artist_id", "genres", "predicted")


def predictions_csv(
    report: MultiLabelReport, predictions: ClipPredictions, genres: Sequence[str]
) -> str:
    """One line a clip: ids, lists of true and given genres (JSON), probabilities.

    Probabilities are those that the thresholds are for: with the temperature.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"p_{genre}" for genre in genres)])
    probabilities = report_probabilities(report, predictions)
    given = probabilities >= np.array(report.thresholds)
    artists = predictions.artist_ids or ("",) * len(predictions.track_ids)
    for row, (track_id, artist_id) in enumerate(
        zip(predictions.track_ids, artists, strict=True)
    ):
        names = [
            json.dumps(
                [genres[g] for g in np.flatnonzero(flags).tolist()], ensure_ascii=False
            )
            for flags in (predictions.labels[row], given[row])
        ]
        numbers = [f"{probability:.6f}" for probability in probabilities[row]]
        writer.writerow([*map(csv_cell, (track_id, artist_id, *names)), *numbers])
    return text.getvalue()


def report_probabilities(
    report: MultiLabelReport, predictions: ClipPredictions
) -> NDArray[np.float64]:
    """Probabilities of clips with the report's temperature: `(clips, genres)`."""
    calibration = report.calibration
    temperature = 1.0 if calibration is None else calibration.temperature
    return apply_temperature(predictions.probabilities, temperature)


def parse_predictions(text: str, genres: Sequence[str], source: str) -> ClipPredictions:
    """Reads `predictions.csv`.

    Raises:
      UserError: it is not what `predictions_csv` writes for these genres.
    """
    labels = {genre: label for label, genre in enumerate(genres)}
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        truth = np.zeros((len(rows), len(genres)), np.uint8)
        for number, row in enumerate(rows):
            for genre in json.loads(from_csv_cell(row["genres"])):
                truth[number, labels[genre]] = 1
        artists = tuple(from_csv_cell(row["artist_id"]) for row in rows)
        return ClipPredictions(
            track_ids=tuple(from_csv_cell(row["track_id"]) for row in rows),
            labels=truth,
            probabilities=np.array(
                [[float(row[f"p_{genre}"]) for genre in genres] for row in rows]
            ).reshape(len(rows), len(genres)),
            artist_ids=artists if any(artists) else (),
        )
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{source} does not hold a model's predictions ({error!r}); train the "
            "model again or remove this file."
        ) from error

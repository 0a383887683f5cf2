import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from matplotlib import image as images

from pipeline.schema import UserError
from tests.support.model_reports import (
    GENRES,
    calibrate,
    make_model_report,
    make_predictions,
    write_report,
)
from tests.support.trainer_fixtures import write_dataset
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import read_report, read_result, read_results
from trainer.evaluation.scores import evaluate
from trainer.evaluation.tasks.task import make_report


@pytest.mark.parametrize("scheme", ["local", "ram"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"validation": None, "training_accuracy": None, "calibration": None}],
)
def test_report_read_equals_report_written(tmp_path, scheme, changes):
    folder = str(tmp_path / "a" / "b") if scheme == "local" else f"ram:/{tmp_path}"
    report = make_model_report(**changes)
    write_report(folder, report, make_predictions())
    loaded = read_report(folder)
    assert {**dataclasses.asdict(loaded), "parameters": None} == {
        **dataclasses.asdict(report),
        "parameters": None,
    }
    assert json.dumps(loaded.parameters) == json.dumps(report.parameters)


def test_predictions_hold_each_clip(tmp_path):
    predictions = make_predictions()
    write_report(str(tmp_path), make_model_report(), predictions)
    text = (tmp_path / "predictions.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12
    for index, row in enumerate(rows):
        assert row["track_id"] == f"{index:06d}"
        assert row["genre"] == GENRES[index % 3]
        shares = [float(row[f"p_{genre}"]) for genre in GENRES]
        np.testing.assert_allclose(shares, predictions.probabilities[index], atol=1e-6)
        assert row["predicted"] == GENRES[int(np.argmax(shares))]
        assert row["artist_id"] == f"artist {index // 2}"
    read = read_result(str(tmp_path)).predictions
    np.testing.assert_allclose(read.probabilities, predictions.probabilities, atol=1e-6)
    np.testing.assert_array_equal(read.labels, predictions.labels)
    assert (read.track_ids, read.artist_ids) == (
        predictions.track_ids,
        predictions.artist_ids,
    )


def test_equal_reports_give_equal_files(tmp_path):
    for name in ("first", "second"):
        write_report(str(tmp_path / name), make_model_report(), make_predictions())
    for file in (
        "report.json",
        "predictions.csv",
        "confusion.png",
        "model_card.md",
    ):
        first = (tmp_path / "first" / file).read_bytes()
        assert first == (tmp_path / "second" / file).read_bytes()
    assert images.imread(tmp_path / "first" / "confusion.png").ndim == 3


def test_missing_report_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no report\.json in .*nothing"):
        read_report(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: "{", "not valid JSON"),
        (lambda raw: "[]", "report version None"),
        (lambda raw: json.dumps({**raw, "report_version": 99}), "version 99"),
        (lambda raw: json.dumps({**raw, "colour": "red"}), "colour"),
        (lambda raw: json.dumps({k: raw[k] for k in raw if k != "test"}), "test"),
        (lambda raw: json.dumps({**raw, "test": {}}), "accuracy_interval"),
        (lambda raw: json.dumps({**raw, "test": 3}), "does not hold a report"),
    ],
)
def test_damaged_report_is_a_user_error_that_names_the_file(tmp_path, change, message):
    raw = json.loads(make_model_report().to_json())
    (tmp_path / "report.json").write_text(change(raw))
    with pytest.raises(UserError, match=message) as error:
        read_report(str(tmp_path))
    assert str(tmp_path / "report.json") in str(error.value)


def test_numbers_that_are_not_finite_are_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_model_report(train_seconds=float("nan")).to_json()


def test_reports_are_read_by_name_and_other_folders_left_alone(tmp_path):
    for name in ("b", "a"):
        write_report(
            str(tmp_path / name),
            make_model_report(name=name),
            make_predictions(),
        )
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    found = read_results(str(tmp_path))
    assert [result.report.name for result in found] == ["a", "b"]
    assert [result.phases for result in found] == [(), ()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("predictions.csv", "track_id,genre\n1,Folk\n"),
        ("predictions.csv", "track_id,artist_id,genre\n1,x,Polka\n"),
        ("history.json", "{"),
        ("history.json", "[]"),
    ],
)
def test_damaged_files_beside_a_report_are_user_errors(tmp_path, name, text):
    write_report(str(tmp_path), make_model_report(), make_predictions())
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="does not hold") as error:
        read_result(str(tmp_path))
    assert str(tmp_path / name) in str(error.value)


def test_a_report_is_made_from_the_predictions_of_all_splits(tmp_path):
    manifest = dataclasses.replace(
        write_dataset(tmp_path, representations=["statistics"], genres=GENRES),
        description="Synthetic demo music",
        artists_in_several_splits=("anna",),
    )
    predictions = {
        "training": make_predictions(24, seed=2),
        "validation": make_predictions(15, seed=3),
        "test": make_predictions(),
    }
    shared = {
        "name": "m",
        "model": "M",
        "representation": "statistics",
        "parameters": {"seed": 3},
        "train_seconds": 1.0,
    }
    report = make_report(
        manifest, predictions, command="python -m x", notes=["A note."], **shared
    )
    assert report.test == evaluate(predictions["test"], GENRES)
    assert report.validation == evaluate(predictions["validation"], GENRES)
    training = predictions["training"]
    hits = training.predicted == training.labels
    assert report.training_accuracy == pytest.approx(hits.mean())
    assert report.calibration == calibrate(
        predictions["validation"], predictions["test"]
    )
    assert report.clips == {"training": 12, "validation": 6, "test": 6}
    assert report.description == "Synthetic demo music"
    assert report.notes == (
        "A note.",
        "Splits share artists, anna: scores are too high.",
    )
    assert {"python", "tensorflow", "keras"} <= report.versions.keys()
    only = make_report(manifest, {"test": predictions["test"]}, **shared)
    assert (only.validation, only.calibration, only.training_accuracy) == (None,) * 3


def test_reports_without_the_field_say_by_their_description_what_is_synthetic():
    raw = json.loads(make_model_report().to_json())
    del raw["synthetic"]
    for description, expected in (("Synthetic demo", True), ("My records", False)):
        text = json.dumps({**raw, "description": description})
        assert Report.from_json(text, source="report.json").synthetic is expected


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("test", "accuracy"), 1.5),
        (("test", "accuracy_interval"), [-1, 1]),
        (("test", "confusion"), [[1]]),
        (("test", "clips"), 0),
        (("train_seconds",), -1),
        (("training_accuracy",), 2),
        (("calibration", "temperature"), 0),
    ],
)
def test_numbers_that_no_training_gives_are_refused(place, value):
    raw = json.loads(make_model_report().to_json())
    if place[0] == "calibration":
        empty = {"log_loss": 1, "error": 0, "bins": []}
        raw["calibration"] = {"clips": 10, "before": empty, "after": empty}
    *path, last = place
    target = raw
    for key in path:
        target = target[key]
    target[last] = value
    with pytest.raises(UserError, match="does not hold a report"):
        Report.from_json(json.dumps(raw), source="report.json")

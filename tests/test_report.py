import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from matplotlib import image as images

from pipeline.schema import UserError
from trainer.evaluate import ClipPredictions, evaluate
from trainer.report import Report, read_report, read_reports, write_report

GENRES = ("Folk", "Hip-Hop", 'Rock, "hard"')


def make_predictions(clips=12, seed=0):
    genres = len(GENRES)
    rng = np.random.default_rng(seed)
    return ClipPredictions(
        track_ids=tuple(f"{index:06d}" for index in range(clips)),
        labels=np.arange(clips) % genres,
        probabilities=rng.dirichlet(np.ones(genres), clips),
    )


def make_report(**changes):
    report = Report(
        name="knn-features",
        model="kNN",
        representation="features",
        parameters={"k": 5, "layers": [1, 2], "metric": "euclidean"},
        clips={"training": 24, "validation": 9, "test": 12},
        test=evaluate(make_predictions(), GENRES),
        validation=evaluate(make_predictions(9, seed=1), GENRES),
        training_accuracy=0.75,
        train_seconds=1.25,
        fingerprint="ab" * 32,
        split_rule="by hand",
        notes=("A note.",),
    )
    return dataclasses.replace(report, **changes)


@pytest.mark.parametrize("scheme", ["local", "ram"])
@pytest.mark.parametrize(
    "changes", [{}, {"validation": None, "training_accuracy": None, "notes": ()}]
)
def test_report_read_equals_report_written(tmp_path, scheme, changes):
    folder = str(tmp_path / "a" / "b") if scheme == "local" else f"ram:/{tmp_path}"
    report = make_report(**changes)
    write_report(folder, report, make_predictions(), GENRES)
    loaded = read_report(folder)
    assert {**dataclasses.asdict(loaded), "parameters": None} == {
        **dataclasses.asdict(report),
        "parameters": None,
    }
    assert json.dumps(loaded.parameters) == json.dumps(report.parameters)


def test_predictions_hold_each_clip(tmp_path):
    predictions = make_predictions()
    write_report(str(tmp_path), make_report(), predictions, GENRES)
    text = (tmp_path / "predictions.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 12
    for index, row in enumerate(rows):
        assert row["track_id"] == f"{index:06d}"
        assert row["genre"] == GENRES[index % 3]
        shares = [float(row[f"p_{genre}"]) for genre in GENRES]
        np.testing.assert_allclose(shares, predictions.probabilities[index], atol=1e-6)
        assert row["predicted"] == GENRES[int(np.argmax(shares))]


def test_equal_reports_give_equal_files(tmp_path):
    for name in ("first", "second"):
        write_report(str(tmp_path / name), make_report(), make_predictions(), GENRES)
    for file in ("report.json", "predictions.csv", "confusion.png"):
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
    raw = json.loads(make_report().to_json())
    (tmp_path / "report.json").write_text(change(raw))
    with pytest.raises(UserError, match=message) as error:
        read_report(str(tmp_path))
    assert str(tmp_path / "report.json") in str(error.value)


def test_numbers_that_are_not_finite_are_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_report(train_seconds=float("nan")).to_json()


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"Cannot write to .*file"):
        write_report(str(tmp_path / "file"), make_report(), make_predictions(), GENRES)


def test_reports_are_read_by_name_and_other_folders_left_alone(tmp_path):
    for name in ("b", "a"):
        write_report(
            str(tmp_path / name), make_report(name=name), make_predictions(), GENRES
        )
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("")
    assert [report.name for report in read_reports(str(tmp_path))] == ["a", "b"]

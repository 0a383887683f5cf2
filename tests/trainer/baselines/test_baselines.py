import csv
import dataclasses
import json
import random
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import schema
from tests.support import trainer_fixtures
from tests.support.mutations import mutate_bytes
from trainer.baselines import fitting, vectors
from trainer.baselines.__main__ import main
from trainer.baselines.fitting import BASELINES
from trainer.data.dataset import Arrays, load_arrays, open_dataset
from trainer.data.normalisation import normalise
from trainer.evaluation.calibration import apply_temperature
from trainer.evaluation.report_folder import read_report, read_result, read_results
from trainer.predict.loading import load_predictor

NAMES = [baseline.name for baseline in BASELINES]
CLIPS = {"training": 8, "validation": 4, "test": 4}


def read_reports(folder):
    return [result.report for result in read_results(folder)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(
        folder,
        representations=("windows", "mel", "features", "statistics"),
        clips_per_split_and_genre=CLIPS,
        noise=1.0,
    )
    return str(folder)


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("models"))
    assert main(["--data", data, "--output", folder]) == 0
    return folder


def error_of(capsys, *argv):
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def predictions_of(folder):
    """Rows of a report's predictions without the true genres."""
    with open(f"{folder}/predictions.csv") as file:
        rows = list(csv.reader(file))
    return [[track_id, *predicted] for track_id, _, _, *predicted in rows]


def test_every_baseline_of_every_vector_is_reported(models, data):
    reports = {report.name: report for report in read_reports(models)}
    assert set(reports) == {
        f"{name}-{representation}"
        for name in NAMES
        for representation in ("features", "statistics")
    }
    manifest = open_dataset(data).manifest
    for report in reports.values():
        assert report.fingerprint == manifest.fingerprint
        assert report.split_rule == manifest.split_rule
        assert report.clips == {"training": 24, "validation": 12, "test": 12}
        assert report.test.clips == 12
        assert report.validation.clips == 12
        assert report.test.accuracy > 0.6, report.name
        assert report.training_accuracy > 0.6
        assert report.train_seconds > 0
        assert report.parameters


def test_scores_are_those_of_the_predictions_file(models):
    report = read_report(f"{models}/rbf_svm-features")
    with open(f"{models}/rbf_svm-features/predictions.csv") as file:
        rows = [line.strip().split(",") for line in file][1:]
    hits = sum(genre == predicted for _, _, genre, predicted, *_ in rows)
    assert hits / len(rows) == report.test.accuracy


def test_kept_baselines_predict_what_was_reported(models, data):
    dataset = open_dataset(data)
    for representation in ("features", "statistics"):
        test = dataset.load(representation, "test")
        for name in NAMES:
            folder = f"{models}/{name}-{representation}"
            predictor = load_predictor(folder)
            assert predictor.genres == dataset.manifest.genres
            assert set(predictor.sources) == {representation}
            assert len(predictor.fingerprint) == 64
            found = predictor.predict({representation: test.values[:, np.newaxis]})
            result = read_result(folder)
            assert result.predictions.track_ids == tuple(test.track_ids)
            expected = result.predictions.probabilities
            assert predictor.temperature == result.report.calibration.temperature
            expected = apply_temperature(expected, predictor.temperature)
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=folder)
            assert result.validation.track_ids
            assert result.report.weights > 0


def test_a_large_baseline_is_measured_and_not_kept(data, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "MAX_KEPT_BYTES", 10_000)
    argv = ["--data", data, "--output", str(tmp_path), "--representation", "statistics"]
    assert main([*argv, "--models", "knn", "gaussian_nb"]) == 0
    report = read_report(f"{tmp_path}/knn-statistics")
    assert any("not kept: it holds 24 training clips" in note for note in report.notes)
    assert not (tmp_path / "knn-statistics" / "baseline.npz").exists()
    assert "was not kept" in (tmp_path / "knn-statistics/model_card.md").read_text()
    with pytest.raises(schema.UserError, match="measured only"):
        load_predictor(f"{tmp_path}/knn-statistics")
    assert load_predictor(f"{tmp_path}/gaussian_nb-statistics")


@pytest.mark.parametrize("name", ["baseline.npz", "baseline.json", "manifest.json"])
def test_damaged_baselines_are_refused(models, tmp_path, name):
    for keep_digests in (True, False):
        for seed in range(40):
            folder = tmp_path / f"{keep_digests}-{seed}"
            shutil.copytree(f"{models}/rbf_svm-statistics", folder)
            content = mutate_bytes((folder / name).read_bytes(), random.Random(seed))
            (folder / name).write_bytes(content)
            if keep_digests:
                with pytest.raises(schema.UserError, match="copy the model folder"):
                    load_predictor(str(folder))
                continue
            (folder / "model.json").unlink()
            try:
                predictor = load_predictor(str(folder))
                values = np.zeros((2, 1, 518), np.float32)
                found = predictor.predict({"statistics": values})
            except schema.UserError:
                continue
            np.testing.assert_allclose(found.sum(axis=1), 1)


def test_progress_is_a_line_a_model(data, tmp_path, capsys):
    argv = ["--data", data, "--output", str(tmp_path), "--representation", "features"]
    assert main([*argv, "--models", "knn", "gaussian_nb", "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "features: 24 training, 12 validation and 12 test clips of 664 values"
    )
    for name in ("knn", "gaussian_nb"):
        (line,) = [line for line in lines if line.startswith(f"{name}-features: ")]
        assert re.search(r"test accuracy [\d.]+ .* [\d.]+ s$", line)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gaussian_nb-features",
        "knn-features",
    ]


def test_test_labels_change_no_prediction(data, tmp_path, monkeypatch):
    def load_permuted(dataset, representation, split):
        arrays = load_arrays(dataset, representation, split)
        if split != "test":
            return arrays
        return dataclasses.replace(arrays, labels=np.roll(arrays.labels, 1))

    folders = [str(tmp_path / "true"), str(tmp_path / "permuted")]
    options = ["--data", data, "--representation", "statistics"]
    assert main([*options, "--output", folders[0]]) == 0
    monkeypatch.setattr(vectors, "load_arrays", load_permuted)
    assert main([*options, "--output", folders[1]]) == 0
    for name in NAMES:
        assert predictions_of(f"{folders[0]}/{name}-statistics") == predictions_of(
            f"{folders[1]}/{name}-statistics"
        )
        first, second = (
            read_report(f"{folder}/{name}-statistics") for folder in folders
        )
        assert first.parameters == second.parameters
        assert first.test != second.test


def test_a_second_run_gives_the_same_predictions(data, models, tmp_path):
    argv = ["--data", data, "--output", str(tmp_path), "--representation", "features"]
    assert main(argv) == 0
    for name in NAMES:
        file = f"{name}-features/predictions.csv"
        with open(f"{models}/{file}") as first, open(tmp_path / file) as second:
            assert first.read() == second.read()


def test_windows_are_averaged_by_clip(data, tmp_path):
    argv = ["--data", data, "--output", str(tmp_path), "--representation", "windows"]
    assert main([*argv, "--models", "gaussian_nb"]) == 0
    report = read_report(str(tmp_path / "gaussian_nb-windows"))
    assert report.clips == {"training": 24, "validation": 12, "test": 12}
    assert report.test.clips == 12


def test_values_are_normalised_with_the_training_statistics(data):
    dataset = open_dataset(data)
    layout = dataset.manifest.representations["features"]
    values = load_arrays(dataset, "features", "training").values
    before = values.copy()
    mean, variance = vectors.expand_normalisation(
        layout, dataset.manifest.normalisation["features"]
    )
    normalise(values, mean, variance)
    start = 0
    for segment in layout.segments:
        part = before[:, start : start + segment.length].astype(float)
        np.testing.assert_allclose(
            values[:, start : start + segment.length],
            (part - part.mean()) / part.std(),
            atol=1e-4,
        )
        start += segment.length


def test_missing_dataset_marker_and_representation(data, tmp_path, capsys):
    output = ["--output", str(tmp_path / "models")]
    message = error_of(capsys, "--data", str(tmp_path / "none"), *output)
    assert str(tmp_path / "none") in message

    unfinished = tmp_path / "unfinished"
    trainer_fixtures.write_dataset(unfinished, representations=("mel",))
    message = error_of(capsys, "--data", str(unfinished), *output)
    assert "neither features nor statistics nor embeddings, only mel" in message
    (unfinished / schema.COMPLETED_FILE).unlink()
    message = error_of(capsys, "--data", str(unfinished), *output)
    assert schema.COMPLETED_FILE in message

    message = error_of(capsys, "--data", data, *output, "--representation", "mel")
    assert "--representation mel has no training statistics" in message
    message = error_of(capsys, "--data", data, *output, "--representation", "pitch")
    assert "'pitch'" in message
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ({"training": 4, "validation": 2}, "test split in .* holds no clips.*sh folds"),
        ({"validation": 2, "test": 2}, "training split in .* fewer than two genres"),
    ],
)
def test_split_without_clips_is_a_user_error(tmp_path, capsys, clips, message):
    trainer_fixtures.write_dataset(
        tmp_path, representations=("statistics",), clips_per_split_and_genre=clips
    )
    error = error_of(capsys, "--data", str(tmp_path), "--output", str(tmp_path / "m"))
    assert re.search(message, error)


def test_without_validation_clips_the_report_says_so(tmp_path):
    trainer_fixtures.write_dataset(
        tmp_path,
        representations=("statistics",),
        clips_per_split_and_genre={"training": 6, "test": 2},
    )
    output = tmp_path / "models"
    assert main(["--data", str(tmp_path), "--output", str(output)]) == 0
    for report in read_reports(str(output)):
        assert report.validation is None
        assert "No validation clips: parameters are defaults." in report.notes


def test_artists_in_several_splits_are_noted(tmp_path):
    manifest = trainer_fixtures.write_dataset(tmp_path, representations=("statistics",))
    leaking = dataclasses.replace(manifest, artists_in_several_splits=("Zoë", "17"))
    (tmp_path / schema.MANIFEST_FILE).write_text(leaking.to_json())
    argv = ["--data", str(tmp_path), "--output", str(tmp_path / "models")]
    assert main([*argv, "--models", "knn"]) == 0
    (report,) = read_reports(str(tmp_path / "models"))
    assert "Splits share artists, Zoë, 17: scores are too high." in report.notes


def test_dataset_larger_than_memory_is_refused_before_it_is_read(
    data, tmp_path, capsys, monkeypatch
):
    dataset = open_dataset(data)
    needed = vectors.needed_bytes(dataset, "features")
    assert needed >= 48 * 664 * 4 + 3 * 48 * 24 * 8
    free = SimpleNamespace(available=needed)
    monkeypatch.setattr(vectors.psutil, "virtual_memory", lambda: free)
    vectors.check_memory(dataset, "features")
    free.available -= 1
    with pytest.raises(schema.UserError, match=r"need .* GB"):
        vectors.check_memory(dataset, "features")
    monkeypatch.setattr(vectors, "load_arrays", None)
    message = error_of(capsys, "--data", data, "--output", str(tmp_path))
    assert "another --representation" in message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    splits = {
        split: Arrays(
            ("7", "8"), np.array([0, 1]), ("", ""), np.zeros((2, 5), np.float32)
        )
        for split in schema.SPLITS
    }
    vectors.check_finite(splits, "OUT")
    splits["validation"].values[1, 3] = bad
    with pytest.raises(schema.UserError, match="Clip 8 of the validation split in OUT"):
        vectors.check_finite(splits, "OUT")


def test_one_training_genre_is_refused(tmp_path, capsys):
    trainer_fixtures.write_dataset(
        tmp_path, representations=("statistics",), genres=("Folk",)
    )
    error = error_of(capsys, "--data", str(tmp_path), "--output", str(tmp_path / "m"))
    assert "holds fewer than two genres" in error


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--data", "OUT", "--output", "M", "--models", "perceptron"],
        ["--data", "OUT", "--output", "M", "--speed", "9"],
        ["--data", "OUT", "--output", "M", "--rep", "features"],
    ],
)
def test_bad_flags_end_with_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code == 2
    assert "baselines --help)" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_a_user_error(data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    argv = ["--data", data, "--output", str(tmp_path / "file"), "--models", "knn"]
    error = error_of(capsys, *argv)
    assert "--output cannot be looked into: Not a directory" in error


def test_what_is_not_ours_is_refused_before_any_work(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        "trainer.baselines.__main__.train_baselines",
        lambda *_, **__: pytest.fail("begun"),
    )
    notes = tmp_path / "knn-features" / "notes.txt"
    notes.parent.mkdir()
    notes.touch()
    argv = ["--data", data, "--output", str(tmp_path), "--models", "knn"]
    assert "--output holds notes.txt, which is no part" in error_of(capsys, *argv)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [notes]


def test_parameters_are_json(models):
    for report in read_reports(models):
        assert json.loads(json.dumps(report.parameters)) == report.parameters

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.schema import UserError
from tests.support.trainer_fixtures import write_dataset
from trainer.baselines.__main__ import main as train_baselines
from trainer.compare import ensemble
from trainer.compare.__main__ import main as compare
from trainer.data.dataset import open_dataset
from trainer.evaluation.calibration import apply_temperature, log_loss
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report_folder import read_result, read_results
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.predict.ensemble import Ensemble
from trainer.predict.loading import load_predictor

pytestmark = pytest.mark.usefixtures("undrawn")
NAMES = ("logistic_regression", "gaussian_nb", "knn", "rbf_svm")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("data"))
    write_dataset(
        folder,
        representations=("statistics",),
        clips_per_split_and_genre={"training": 6, "validation": 8, "test": 5},
        statistics=40,
        noise=2.0,
    )
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """Four baselines and their comparison."""
    folder = tmp_path_factory.mktemp("run") / "models"
    argv = ["--data", data, "--output", str(folder), "--models", *NAMES]
    assert train_baselines(argv) == 0
    assert compare(["--models", str(folder)]) == 0
    return folder


@pytest.fixture
def models(trained, tmp_path) -> Path:
    """A copy, to be changed."""
    shutil.copytree(trained, tmp_path / "models")
    return tmp_path / "models"


def test_members_are_taken_while_the_mean_gets_better():
    labels = np.array([0, 0, 1, 1])
    good = np.array([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.4, 0.6]])
    other = np.array([[0.6, 0.4], [0.9, 0.1], [0.4, 0.6], [0.1, 0.9]])
    bad = 1 - good

    def choose(*candidates, most=3):
        tracks = tuple("abcd")
        clips = [ClipPredictions(tracks, labels, one) for one in candidates]
        return ensemble.choose_members(SingleLabel(), clips, most)

    assert sorted(choose(bad, good, other)) == [1, 2]
    # A mean is one of two or more.
    assert len(choose(bad, good)) == 2
    assert len(choose(*[good] * 5)) == 2


def test_an_ensemble_is_scored_kept_and_used(trained, data):
    content = json.loads((trained.parent / "report.json").read_text())
    (entry,) = [m for m in content["models"] if m["model"] == "Ensemble"]
    assert entry["name"] == "ensemble"
    members = entry["parameters"]["members"]
    assert 2 <= len(members) <= 3
    assert entry["use"] == f"./launch.sh predict --model {trained}/ensemble FILE"
    assert entry["calibration"]["clips"] == 24
    assert entry["test"]["top_3"] == 1
    result = read_result(str(trained / "ensemble"))
    files = {path.name for path in (trained / "ensemble").iterdir()}
    assert {"ensemble.json", "model.json", "validation.csv", "OWNER.json"} <= files

    predictors = [load_predictor(str(trained / name)) for name in members]
    test = open_dataset(data).load("statistics", "test")
    records = {"statistics": test.values[:, np.newaxis]}
    mean = np.mean([predictor.predict(records) for predictor in predictors], axis=0)
    np.testing.assert_allclose(result.predictions.probabilities, mean, atol=1e-4)
    expected = apply_temperature(mean, entry["calibration"]["temperature"])
    for folder in (trained, trained / "ensemble"):
        predictor = load_predictor(str(folder))
        assert isinstance(predictor, Ensemble)
        assert set(predictor.sources) == {"statistics"}
        np.testing.assert_allclose(predictor.predict(records), expected, atol=1e-6)
    assert load_predictor(str(trained)).fingerprint == predictor.fingerprint


def test_members_are_the_best_on_validation_clips(trained):
    results = [r for r in read_results(str(trained)) if r.report.model != "Ensemble"]
    first = read_result(str(trained / "ensemble")).report.parameters["members"][0]
    losses = {
        result.report.name: log_loss(
            apply_temperature(
                result.validation.probabilities, result.report.calibration.temperature
            ),
            result.validation.labels,
        )
        for result in results
    }
    assert first == min(losses, key=losses.get)


def test_the_test_split_chooses_nothing(models):
    before = read_result(str(models / "ensemble")).report
    for name in NAMES:
        folder = models / f"{name}-statistics"
        lines = (folder / "predictions.csv").read_text().splitlines()
        cells = [line.split(",") for line in lines[1:]]
        for row, other in zip(cells, [*cells[1:], cells[0]], strict=True):
            row[3:] = other[3:] if name == "knn" else ["Folk", "0.9", "0.05", "0.05"]
        lines[1:] = [",".join(row) for row in cells]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        (folder / "model.json").unlink()
    results = [r for r in read_results(str(models)) if r.report.model != "Ensemble"]
    scored = ensemble.score_ensemble(results, str(models))
    assert scored.report.parameters == before.parameters
    assert scored.report.validation == before.validation
    assert scored.report.test != before.test


def refuse(folder, message):
    with pytest.raises(UserError, match=message) as error:
        load_predictor(str(folder))
    assert "\n" not in str(error.value)


def test_other_members_than_those_that_were_scored_are_refused(models, data):
    content = json.loads((models / "ensemble" / "ensemble.json").read_text())
    name = content["members"][0]["folder"]
    kept = (models / name / "model.json").read_text()
    (models / name / "model.json").write_text(kept + " ")
    refuse(models, "is not the model that .* was made with")
    shutil.rmtree(models / name)
    refuse(models, "which is not there")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "../models"}, "is no folder beside it"),
        ({"folder": "ensemble"}, "is no member"),
        ({"weight": -1}, "weight"),
        ({"sha256": "x"}, "SHA-256"),
        ({"code": "x"}, "does not describe an ensemble"),
    ],
)
def test_a_strange_description_is_refused(models, changes, message):
    path = models / "ensemble" / "ensemble.json"
    (models / "ensemble" / "model.json").unlink()
    content = json.loads(path.read_text())
    content["members"][0].update(changes)
    path.write_text(json.dumps(content))
    refuse(models / "ensemble", message)


def test_a_folder_of_models_without_ensemble_names_them(models):
    shutil.rmtree(models / "ensemble")
    refuse(models, "folder of models without an ensemble; .*knn-statistics")


def test_compare_says_why_there_is_no_ensemble(models, capsys):
    for name in NAMES:
        (models / f"{name}-statistics" / "baseline.json").unlink()
    shutil.rmtree(models / "ensemble")
    assert compare(["--models", str(models)]) == 0
    out = capsys.readouterr().out
    assert "No ensemble: 0 of 4 models can predict" in out
    assert "None of the models was kept" in out
    assert not (models / "ensemble").exists()


def test_somebodys_ensemble_is_not_replaced(models, capsys):
    shutil.rmtree(models / "ensemble")
    (models / "ensemble").mkdir()
    (models / "ensemble" / "score.pdf").write_text("mine")
    assert compare(["--models", str(models)]) == 2
    assert "score.pdf" in capsys.readouterr().err
    assert compare(["--models", str(models), "--ensemble=0"]) == 0
    assert [path.name for path in (models / "ensemble").iterdir()] == ["score.pdf"]
    assert compare(["--models", str(models), "--ensemble=1"]) == 2

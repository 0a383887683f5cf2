import dataclasses
import json

import keras
import pytest

from pipeline.common.progress import Reporter
from pipeline.schema import UserError
from tests.support import trainer_fixtures
from trainer import task
from trainer.config import TrainConfig
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.report_folder import read_report
from trainer.runtime import hypertune
from trainer.training import tuning
from trainer.training.fit import DivergedError

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return TrainConfig(data="data", model="features", output=str(tmp_path / "out"))


def bowl(config: TrainConfig) -> float:
    """A loss with its minimum at a dropout of 0.3 and a learning rate of 1e-3."""
    assert config.learning_rate is not None
    return abs(config.dropout - 0.3) + abs(config.learning_rate - 1e-3) * 100


def test_the_search_comes_nearer(config):
    best = tuning.tune(config, 25, bowl)
    assert best.loss < 0.15
    trials = tuning.read_trials(f"{config.output}/trials", tuning.search_key(config))
    assert [found.number for found in trials] == list(range(25))
    assert best == min(trials, key=lambda found: found.loss)
    later = sorted(found.loss for found in trials[tuning.RANDOM_TRIALS :])
    early = sorted(found.loss for found in trials[: tuning.RANDOM_TRIALS])
    assert later[len(later) // 2] < early[len(early) // 2]


def test_a_search_that_was_cut_off_goes_on(config, tmp_path, capsys):
    whole = tuning.tune(config, 8, bowl)
    cut = dataclasses.replace(config, output=str(tmp_path / "cut"))
    judged = []

    def cut_off(config: TrainConfig) -> float:
        if len(judged) == 6:
            raise KeyboardInterrupt
        judged.append(config)
        return bowl(config)

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(cut, 8, cut_off)
    capsys.readouterr()
    again = []
    best = tuning.tune(
        cut, 8, lambda config: again.append(config) or bowl(config), Reporter()
    )
    assert "6 trials of this search are done" in capsys.readouterr().out
    assert len(again) == 2
    assert (best.values, best.loss) == (whole.values, whole.loss)
    # More of them later, wherever the dataset lies and whatever computes.
    cut = dataclasses.replace(cut, data="./data", strategy="single", cache_mb=0)
    tuning.tune(cut, 9, lambda config: again.append(config) or bowl(config))
    assert len(again) == 3


def test_what_a_flag_gives_is_not_searched(config):
    given = dataclasses.replace(config, dropout=0.25, units=7)
    seen = []
    tuning.tune(given, 3, lambda config: seen.append(config) or bowl(config))
    assert {(found.dropout, found.units) for found in seen} == {(0.25, 7)}
    assert len({found.learning_rate for found in seen}) == 3
    full = dataclasses.replace(given, learning_rate=1e-3, augmentation=0.0)
    with pytest.raises(UserError, match="--tune has nothing to search"):
        tuning.tune(full, 3, bowl)


def test_each_trial_has_logs_of_its_own(config):
    seen = []
    logged = dataclasses.replace(config, tensorboard_dir="logs/")
    tuning.tune(logged, 2, lambda trial: seen.append(trial) or bowl(trial))
    assert [one.tensorboard_dir for one in seen] == ["logs/trial-1", "logs/trial-2"]


def test_images_are_not_masked_in_a_search(tmp_path):
    mel = TrainConfig(data="data", model="mel", output=str(tmp_path))
    assert "augmentation" not in tuning.search_space(mel)
    assert "augmentation" in tuning.search_space(
        dataclasses.replace(mel, model="windows")
    )


def test_a_trial_that_diverges_is_none_to_follow(config, capsys):
    def judge(config: TrainConfig) -> float:
        if config.dropout > 0.4:
            raise DivergedError("training")
        return bowl(config)

    best = tuning.tune(config, 10, judge, Reporter())
    assert best.values["dropout"] <= 0.4
    assert "diverged with" in capsys.readouterr().out

    def always(config: TrainConfig) -> float:
        raise DivergedError("training")

    other = dataclasses.replace(config, output=f"{config.output}-2")
    with pytest.raises(UserError, match="None of 2 trials came to an end"):
        tuning.tune(other, 2, always)


def test_other_errors_end_the_search(config):
    def judge(config: TrainConfig) -> float:
        raise UserError("diverged is only the name of the dataset")

    with pytest.raises(UserError, match="only the name"):
        tuning.tune(config, 2, judge)


def test_trials_of_another_search_are_not_mixed(config, tmp_path):
    tuning.tune(config, 2, bowl)
    with pytest.raises(UserError, match="belongs to a search with other flags"):
        tuning.tune(dataclasses.replace(config, seed=1), 2, bowl)
    with pytest.raises(UserError, match="on other data"):
        tuning.tune(config, 2, bowl, data="preprocessed again")
    file = tmp_path / "out" / "trials" / "0000.json"
    text = file.read_text()
    file.write_text(text[:40])
    with pytest.raises(UserError, match=r"0000\.json is no trial"):
        tuning.tune(config, 2, bowl)
    file.unlink()
    with pytest.raises(UserError, match="Trials are missing"):
        tuning.tune(config, 2, bowl)


def test_a_search_ends_in_a_model(tmp_path, monkeypatch, capsys):
    data, output = tmp_path / "data", tmp_path / "model"
    trainer_fixtures.write_dataset(data, representations=("statistics",), statistics=20)
    flags = [f"--data={data}", "--model=statistics", "--epochs=2", f"--output={output}"]
    flags += ["--units=4", "--augmentation=0"]
    assert task.main([*flags, "--tune=2"]) == 0
    out = capsys.readouterr().out
    assert out.count(" of 2: validation loss") == 2
    report = read_report(str(output))
    trials = [
        json.loads((output / "trials" / f"000{number}.json").read_text())
        for number in range(2)
    ]
    best = min(trials, key=lambda found: found["loss"])
    assert report.parameters["dropout"] == best["values"]["dropout"]
    assert report.parameters["learning_rate"] == best["values"]["learning_rate"]
    assert any("best of 2 trials" in note for note in report.notes)
    history = json.loads((output / "history.json").read_text())["phases"][0]
    # The model that is kept is the one that was judged.
    assert min(history["metrics"]["validation_loss"]) == best["loss"]
    keras.models.load_model(output / "model.keras")

    monkeypatch.setenv("TF_CONFIG", "{}")
    assert task.main([*flags, "--tune=2", "--strategy=multiworker"]) == 2
    assert "--tune runs in one process" in capsys.readouterr().err


PHASE = PhaseHistory(
    name="training",
    epochs=(1, 2, 3),
    metrics={
        "validation_loss": [3.0, 1.0, 2.0],
        "validation_accuracy": [0.1, 0.5, 0.6],
    },
    seconds=(),
    best_epoch=2,
)


def test_vertex_is_told_how_a_trial_went(tmp_path):
    path = tmp_path / "folder" / "output.metrics"
    environment = {"CLOUD_ML_HP_METRIC_FILE": str(path), "CLOUD_ML_TRIAL_ID": "7"}
    hypertune.report_phase(PHASE, environment)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert line.pop("timestamp") > 1.7e9
    common = {"trial": "7", "global_step": "2", "checkpoint_path": ""}
    assert lines == [
        {"validation_loss": "1.0", **common},
        {"validation_accuracy": "0.5", **common},
    ]


def test_nobody_is_told_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hypertune.report_phase(PHASE, {})
    assert hypertune.metric_file({}) is None
    assert hypertune.metric_file({"CLOUD_ML_TRIAL_ID": "1"}) == hypertune.DEFAULT_FILE
    assert list(tmp_path.iterdir()) == []

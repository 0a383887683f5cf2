import importlib.util
import json
import sys

import pytest
import wandb

from tests.support.jobs import wait_for
from trainer import task
from trainer.evaluation.report_folder import read_report
from trainer.folds import __main__ as folds
from trainer.training.fit import PhaseFit

pytestmark = pytest.mark.usefixtures("undrawn")
EPOCHS = 2


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Where W&B writes to; it keeps its environment as long as the process lives."""
    folder = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
            patch.setenv(f"WANDB_{name}", str(folder))
        yield folder
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()


def read_runs(folder) -> list[tuple[dict, list[dict], dict, int]]:
    """Of each run's file: parameters, epochs, summary and exit code."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    def values(items) -> dict:
        return {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in items
            if not (item.key or item.nested_key[0]).startswith("_")
        }

    def read_run(path) -> tuple[dict, list[dict], dict, int | None]:
        store = DataStore()
        store.open_for_scan(str(path))
        config, epochs, summary, code = {}, [], {}, None
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                names = {"run name": record.run.display_name, "id": record.run.run_id}
                config |= names | {"group": record.run.run_group}
                config |= values(record.run.config.update)
            elif kind == "history":
                epochs.append(values(record.history.item))
                assert record.history.step.num == epochs[-1]["epoch"]
            elif kind == "summary":
                summary |= values(record.summary.update)
            elif kind == "exit":
                code = record.exit.exit_code
        return config, epochs, summary, code

    runs = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        # Its own process writes it, and the exit code last.
        wait_for(lambda path=path: read_run(path)[-1] is not None)
        runs.append(read_run(path))
        path.unlink()
    return runs


def train(data, output, *flags) -> int:
    return task.main(
        [f"--data={data}", f"--output={output}", f"--epochs={EPOCHS}", *flags]
    )


def test_a_run_is_told_from_parameters_to_scores(data, told, tmp_path):
    output = tmp_path / "models" / "statistics"
    flags = ("--model=statistics", "--track=wandb", "--quiet")
    assert train(data, output, *flags) == 0
    [(config, epochs, summary, code)] = read_runs(told)
    assert (config["run name"], code) == ("models-statistics", 0)
    assert (config["epochs"], config["model"]) == (EPOCHS, "statistics")
    history = json.loads((output / "history.json").read_text())
    [phase] = history["phases"]
    for name, values in phase["metrics"].items():
        found = [epoch[name] for epoch in epochs]
        assert found == pytest.approx(values, rel=1e-6), name
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    report = read_report(str(output))
    assert summary["test_accuracy"] == pytest.approx(report.test.accuracy)
    assert summary["test_macro_f1"] == pytest.approx(report.test.macro_f1)


def test_each_of_several_models_and_each_fold_has_a_run(data, told, tmp_path):
    flags = ("--track=wandb", "--quiet", "--model", "statistics", "baselines")
    assert train(data, tmp_path / "models", *flags) == 0
    assert [run[0]["run name"] for run in read_runs(told)] == ["models-statistics"]
    words = [f"--data={data}", f"--output={tmp_path}/folds", "--folds=2", "--quiet"]
    words += ["--models=statistics", "--epochs=1", "--track=wandb"]
    assert folds.main(words) == 0
    names = {run[0]["run name"] for run in read_runs(told)}
    assert {"statistics-fold-0", "statistics-fold-1"} < names


def test_a_run_that_fails_is_told_so(data, told, tmp_path, capsys):
    flags = ["--model=statistics", "--track=wandb", "--learning_rate=1e30"]
    flags += ["--epochs=5", "--units=64", "--dropout=0.5"]
    assert train(data, tmp_path / "model", *flags) == 2
    assert "diverged" in capsys.readouterr().err
    [(_, _, _, code)] = read_runs(told)
    assert code == 1


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_continued_training_is_the_same_run(data, told, tmp_path, monkeypatch, error):
    """Where it is stopped, its state is saved; where it is cut off, that of before."""

    def must_stop(fit) -> bool:
        if fit._progress.epoch == 2 and error:
            raise error
        return fit._progress.epoch == 2

    flags = ("--model=statistics", "--track=wandb", "--quiet", "--epochs=4")
    with monkeypatch.context() as patch:
        patch.setattr(PhaseFit, "_must_stop", must_stop)
        assert train(data, tmp_path / "a", *flags) == (130 if error else 75)
    assert train(data, tmp_path / "a", *flags) == 0
    first, second = sorted(read_runs(told), key=lambda run: -run[-1])
    assert [epoch["epoch"] for epoch in first[1]] == [1, 2]
    again = [1, 2, 3, 4] if error else [3, 4]
    assert [epoch["epoch"] for epoch in second[1]] == again
    for name in ("id", "group", "run name"):
        assert first[0][name] == second[0][name]
    assert (first[-1], second[-1]) == (1, 0)
    assert second[2]["test_accuracy"] >= 0
    # What is trained elsewhere, or again when that is over, is another run.
    assert train(data, tmp_path / "b", *flags) == 0
    [other] = read_runs(told)
    assert other[0]["group"] == first[0]["group"]
    assert other[0]["id"] != first[0]["id"]


def test_a_service_that_is_gone_costs_no_training(
    data, told, tmp_path, monkeypatch, capsys
):
    def fail(*_: object, **__: object) -> None:
        raise BrokenPipeError("the process that sends is gone")

    flags = ("--model=statistics", "--track=wandb", "--quiet")
    with monkeypatch.context() as patch:
        patch.setattr(wandb.Run, "log", fail)
        assert train(data, tmp_path / "model", *flags) == 0
    printed = capsys.readouterr().err
    assert printed.count("cannot be told about the run (the process that sends") == 1
    assert (tmp_path / "model" / "model.keras").exists()
    wandb.finish()
    read_runs(told)


def test_without_the_flag_nothing_of_it_is_imported(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # An import would raise.
    assert train(data, tmp_path / "model", "--model=statistics", "--quiet") == 0


def test_without_the_package_a_sentence_says_what_installs_it(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    flags = ("--model=statistics", "--track=wandb")
    assert train(data, tmp_path / "model", *flags) == 2
    printed = capsys.readouterr().err
    assert "./launch.sh train --track wandb ... installs it" in printed
    assert "pip install 'fma-genre-classifiers[wandb]'" in printed
    assert not (tmp_path / "model").exists()


def test_an_account_that_is_missing_is_a_sentence(data, tmp_path, monkeypatch, capsys):
    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    flags = ("--model=statistics", "--track=wandb")
    assert train(data, tmp_path / "model", *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "(No API key configured.)" in error
    assert "set WANDB_MODE=offline" in error

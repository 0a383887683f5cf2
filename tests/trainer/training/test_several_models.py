"""One command trains all that the comparison needs."""

import hashlib
import importlib.metadata
import itertools
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import pytest

from pipeline.schema import UserError
from tests.support import trainer_fixtures
from trainer import task
from trainer.baselines import __main__ as task_baselines
from trainer.baselines import vectors
from trainer.baselines.fitting import BASELINES
from trainer.training import train

pytestmark = pytest.mark.usefixtures("undrawn")
CLIPS = {"training": 8, "validation": 4, "test": 4}
TRAINER = os.path.dirname(task.__file__)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("several") / "dataset"
    trainer_fixtures.write_dataset(
        folder,
        clips_per_split_and_genre=CLIPS,
        representations=("windows", "statistics"),
        statistics=20,
    )
    return str(folder)


def run(data, output, *flags):
    return task.main(
        [f"--data={data}", f"--output={output}", "--epochs=2", "--units=4", *flags]
    )


def read_weights(folder):
    weights = keras.models.load_model(folder / "model.keras").get_weights()
    return hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """A model that was trained by a command of its own."""
    output = tmp_path_factory.mktemp("alone") / "model"
    assert run(data, output, "--model", "statistics") == 0
    return output


def test_without_names_all_that_the_dataset_allows_is_trained_and_compared(
    data, tmp_path, capsys, alone
):
    output = tmp_path / "models"
    assert run(data, output) == 0
    names = {"windows", "statistics", *(f"{b.name}-statistics" for b in BASELINES)}
    everything = {*names, "ensemble"}
    assert {path.name for path in output.iterdir()} == everything
    report = json.loads((tmp_path / "report.json").read_text())
    assert {model["name"] for model in report["models"]} == everything
    printed = capsys.readouterr()
    assert "error" not in printed.err
    lines = printed.out.splitlines()
    for name in ("windows", "statistics"):
        assert len([line for line in lines if line.startswith(f"{name}: ")]) == 1, name
    assert lines[-3:-1] == [
        f"Report: file://{tmp_path}/report.html",
        f"Next: ./launch.sh report {tmp_path}",
    ]
    assert lines[-1].startswith(f"      ./launch.sh predict --model {output}/")
    # What came before in the process changes nothing.
    assert read_weights(output / "statistics") == read_weights(alone)


class KilledError(BaseException):
    """As a signal that is not handled: nothing is cleaned up."""


def times(output):
    """When each model was written, the ensemble's, which is chosen anew, aside."""
    paths = output.glob("*/model.json")
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in paths
        if path.parent.name != "ensemble"
    }


def test_what_is_finished_stays_when_the_command_is_given_again(
    data, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "models"
    flags = ["--model", "windows", "statistics", "baselines"]
    write = task_baselines.write_report_folder

    def die(path, *arguments, **details):
        if path.endswith("gaussian_nb-statistics"):
            raise KilledError
        write(path, *arguments, **details)

    monkeypatch.setattr(task_baselines, "write_report_folder", die)
    with pytest.raises(KilledError):
        run(data, output, *flags)
    monkeypatch.undo()
    done = times(output)
    kept = {"windows", "statistics", "logistic_regression-statistics"}
    assert kept < set(done) < {*done, "gaussian_nb-statistics"}
    capsys.readouterr()

    assert run(data, output, *flags) == 0
    printed = capsys.readouterr().out
    count = len(done) - 2
    assert (
        "Kept, as trained before with the same settings: windows, statistics, "
        f"{count} baselines on statistics; to train one anew, remove its folder in "
        f"{output}.\n" in printed
    )
    assert "Report: " in printed
    assert times(output).items() > done.items()

    # Where and how things are kept is no other setting.
    everything = times(output)
    assert run(data, output, *flags, "--cache_mb=9", "--checkpoint_seconds=3") == 0
    assert times(output) == everything
    assert f"{len(BASELINES)} baselines on statistics; to" in capsys.readouterr().out


def interrupt_after(calls, sent):
    """A profiler that sends one signal, at a call of a function of the trainer."""
    left = iter(range(calls))

    def look(frame, event, _):
        ours = event == "call" and TRAINER in frame.f_code.co_filename
        if ours and next(left, None) is None and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return look


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_stops_whenever_it_comes_and_the_same_command_goes_on(
    data, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "models"
    flags = ["--model", "windows", "statistics", "baselines"]
    begin, sent, begun = keras.backend.clear_session, [], []

    def note_beginning():
        begun.extend(sent)
        begin()

    monkeypatch.setattr(keras.backend, "clear_session", note_beginning)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    codes, code = [], None
    try:
        # Functions of the trainer that are called before: while flags are read, in a
        # step, while a model is written, in baselines, in the report.
        for calls in itertools.accumulate(itertools.repeat(450), lambda n, _: 3 * n):
            sent.clear()
            sys.setprofile(interrupt_after(calls, sent))
            try:
                code = run(data, output, *flags)
            finally:
                sys.setprofile(None)
            codes.append(code)
            assert code in ((75, 130) if sent else (0,)), codes
            assert not begun, codes
            if code == 0:
                break
            assert "stopped: " in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(codes) > 3
    assert len(times(output)) == 2 + len(BASELINES)


def test_other_settings_and_damage_are_trained_anew(data, tmp_path, capsys):
    output = tmp_path / "models"
    flags = ["--model", "windows", "statistics"]
    assert run(data, output, *flags) == 0
    before = times(output)
    (output / "statistics" / "model.keras").write_bytes(b"cut")
    assert run(data, output, *flags) == 0
    after = times(output)
    assert after["statistics"] > before["statistics"]
    assert after["windows"] == before["windows"]
    capsys.readouterr()
    assert run(data, output, *flags, "--seed=1") == 0
    assert "Kept" not in capsys.readouterr().out
    again = times(output)
    assert all(again[name] > after[name] for name in after)


def test_a_model_of_other_versions_of_libraries_is_trained_anew_and_told(
    data, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "models"
    flags = ["--model", "statistics", "baselines"]
    assert run(data, output, *flags) == 0
    before = times(output)
    installed = importlib.metadata.version("keras")
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "99.1" if name == "keras" else version(name),
    )
    capsys.readouterr()
    assert run(data, output, *flags) == 0
    printed = capsys.readouterr().out
    change = f"it was made with keras {installed} where 99.1 is installed."
    for name in ("statistics", "logistic_regression-statistics"):
        assert f"{output}/{name} is trained anew: {change}\n" in printed
    assert "Kept" not in printed
    after = times(output)
    assert all(after[name] > before[name] for name in before)
    assert run(data, output, *flags) == 0
    assert times(output) == after


def test_baselines_that_do_not_fit_into_memory_are_left_out_by_default(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(vectors, "needed_bytes", lambda *_: 10**18)
    assert run(data, tmp_path / "models") == 0
    err = capsys.readouterr().err
    assert "baselines on statistics: left out. The baselines on statistics need" in err
    assert run(data, tmp_path / "models", "--model", "windows", "baselines") == 2
    assert "error: baselines on statistics: The baselines" in capsys.readouterr().err


def test_several_names_are_folders_each(data, tmp_path, capsys):
    output, report = tmp_path / "models", tmp_path / "report"
    flags = ["--model", "statistics", "windows", "--report", str(report)]
    # What is for mel alone keeps nobody else from being trained.
    assert run(data, output, *flags, "--fine_tune_layers=1") == 0
    made = {path.name for path in output.iterdir()}
    assert made == {"windows", "statistics", "ensemble"}
    assert (report / "report.html").exists()
    capsys.readouterr()


def test_a_model_that_fails_does_not_lose_the_others(
    data, tmp_path, capsys, monkeypatch
):
    fit = train.fit_small

    def fail(run):
        if run.config.model == "windows":
            raise UserError("the loss is not a finite number.")
        return fit(run)

    monkeypatch.setattr(train, "fit_small", fail)
    output = tmp_path / "models"
    assert run(data, output, "--model", "windows", "statistics", "baselines") == 2
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if "error: " in line]
    assert errors == [
        "error: windows: the loss is not a finite number.",
        "error: 1 of 3 could not be trained: windows; see above.",
    ]
    assert "Report: " in printed.out
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["models"]) == 1 + len(BASELINES) + 1  # The ensemble.


def test_nothing_is_compared_where_nothing_could_be_trained(
    data, tmp_path, capsys, monkeypatch
):
    def fail(run):
        raise UserError("no.")

    monkeypatch.setattr(train, "fit_small", fail)
    assert run(data, tmp_path / "models", "--model", "windows", "statistics") == 2
    assert "2 of 2 could not be trained" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dropout=2"], "--dropout must be 0 or more and under 1"),
        (["--tune=-1"], "--tune must be 0 or more"),
    ],
)
def test_wrong_flags_are_told_before_the_first_model(
    data, tmp_path, capsys, monkeypatch, flags, message
):
    assert run(data, tmp_path / "models", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_report_that_cannot_be_written_is_told_first(data, tmp_path, capsys):
    (tmp_path / "report.html").write_text("mine")
    assert run(data, tmp_path / "models") == 2
    assert "report.html" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"
    assert not list((tmp_path / "models").glob("*/model.keras"))


def test_models_of_another_dataset_in_the_folder_are_told_first(
    data, tmp_path, capsys, alone
):
    other = tmp_path / "models" / "mel"
    shutil.copytree(alone, other)
    report = json.loads((other / "report.json").read_text())
    report["fingerprint"] = "0" * 64
    (other / "report.json").write_text(json.dumps(report))
    (other / "model.json").unlink()
    assert run(data, tmp_path / "models") == 2
    assert "holds models of another dataset (mel)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["mel"]


def test_without_test_clips_networks_are_trained_all_the_same(tmp_path, capsys):
    trainer_fixtures.write_dataset(
        tmp_path / "data",
        clips_per_split_and_genre={"training": 3, "validation": 2},
        representations=("statistics",),
        statistics=20,
    )
    assert run(tmp_path / "data", tmp_path / "models") == 0
    printed = capsys.readouterr()
    assert "nothing is measured or compared" in printed.out
    assert "(./launch.sh folds)" in printed.out
    assert "error" not in printed.err
    assert (tmp_path / "models" / "statistics" / "model.keras").exists()


def test_several_processes_train_one_model(data, tmp_path, capsys, monkeypatch):
    cluster = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert run(data, tmp_path / "models") == 2
    assert "choose one with --model" in capsys.readouterr().err


def test_one_name_is_the_folder_itself(alone):
    assert (alone / "model.keras").exists()
    assert np.isfinite(json.loads((alone / "report.json").read_text())["train_seconds"])

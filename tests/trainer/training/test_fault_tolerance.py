"""Runs that are killed at any moment end as if they had not been."""

import dataclasses
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.common.progress import Reporter
from pipeline.schema import UserError
from tests.support import trainer_fixtures
from tests.support.training_run import make_clusters
from trainer.config import Schedule, TrainConfig
from trainer.data.dataset import open_dataset
from trainer.data.split import open_splits
from trainer.evaluation.history import PhaseHistory
from trainer.runtime.checkpoint import SUFFIX, Checkpoint, CheckpointFolder
from trainer.runtime.devices import find_devices
from trainer.training.fit import Phase, fit
from trainer.training.networks.augmentation import Loudness
from trainer.training.run import Run
from trainer.training.step import Learner

ROOT = Path(__file__).resolve().parents[3]
#: Dropout and batch normalisation are in the network.
EVERYTHING_RANDOM = [
    "--model=windows",
    "--epochs=9",
    "--batch_size=16",
    "--patience=3",
    "--learning_rate=0.02",
    "--learning_rate_decay=cosine",
    "--augmentation=0.5",
    "--label_smoothing=0.1",
    "--weight_decay=0.01",
]
#: Of an epoch: 24 clips of 4 windows.
STEPS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(
        folder,
        representations=("windows",),
        clips_per_split_and_genre={"training": 8, "validation": 4, "test": 4},
        noise=2.0,
    )
    return str(folder)


def start(
    data: str,
    output: Path,
    *flags: str,
    devices: int = 1,
    last_step: int = 0,
    number: int = signal.SIGKILL,
    **env,
) -> subprocess.Popen:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.support.training_run"),
            *(str(devices), str(last_step), str(int(number))),
            *(f"--data={data}", f"--output={output}", *flags),
        ],
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int) -> str:
    text, _ = process.communicate(timeout=600)
    assert process.returncode == code, text
    return text


def result_of(output: Path) -> tuple[dict, list[np.ndarray]]:
    """The history without its times, and the weights."""
    (phase,) = json.loads((output / "history.json").read_text())["phases"]
    del phase["seconds"], phase["input_wait"]
    model = keras.models.load_model(output / "model.keras")
    return phase, model.get_weights()


def assert_same(output: Path, expected: Path) -> None:
    history, weights = result_of(output)
    expected_history, expected_weights = result_of(expected)
    assert history == expected_history
    for weight, value in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert {path.name for path in output.iterdir()} == {
        path.name for path in expected.iterdir()
    }


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "model"
    # In a process of its own, as those that are killed: on another number of threads,
    # which a test may have set in this one, sums are rounded otherwise.
    finish(start(data, output, *EVERYTHING_RANDOM), 0)
    history, _ = result_of(output)
    # Early stopping had something to do.
    assert 1 <= history["best_epoch"] < len(history["epochs"])
    return output


def test_sigterm_and_sigkill_change_nothing(data, undisturbed, tmp_path):
    output = tmp_path / "model"
    saved_at_its_end = [*EVERYTHING_RANDOM, "--checkpoint_seconds=1000"]
    stopped = {"last_step": STEPS + 2, "number": signal.SIGTERM}
    text = finish(start(data, output, *saved_at_its_end, **stopped), 75)
    assert "training stopped by SIGTERM after 1 epochs and 3 steps" in text
    assert "the same command goes on from there" in text
    saved_by_epochs = [*EVERYTHING_RANDOM, "--checkpoint_seconds=0"]
    process = start(data, output, *saved_by_epochs, last_step=STEPS + 3)
    resumes = "training resumes after epoch 1 and 3 steps"
    assert resumes in finish(process, -signal.SIGKILL)
    assert not (output / "model.keras").exists()
    text = finish(start(data, output, *saved_by_epochs), 0)
    assert re.search(r"training resumes after epoch [2-9]\n", text)
    assert_same(output, undisturbed)


class PowerCutError(Exception):
    pass


@pytest.fixture
def cut(monkeypatch):
    """Lets runs in this process end before their n-th step, counted from 0."""

    def arrange(last_step: int) -> None:
        steps = itertools.count()

        def step(self, batch, stop, real=Learner.step):
            if next(steps) == last_step:
                raise PowerCutError
            return real(self, batch, stop)

        monkeypatch.setattr(Learner, "step", step)

    return arrange


@pytest.fixture(scope="module")
def fit_once(data):
    """Fits a small network with all that is random; returns history and weights."""
    dataset = open_dataset(data)
    layout = dataset.representation("windows")
    devices = find_devices("single")

    def run(
        folder: Path | None, seconds: float = 0.0, cache_bytes: int = 2**30
    ) -> tuple[PhaseHistory, list[np.ndarray]]:
        splits = open_splits(dataset, "windows", cache_bytes=cache_bytes)
        keras.utils.set_random_seed(4)
        model = keras.Sequential(
            [
                keras.Input(layout.value.shape),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        schedule = Schedule(
            epochs=9,
            batch_size=16,
            learning_rate=0.1,
            patience=3,
            learning_rate_decay="cosine",
            label_smoothing=0.1,
            weight_decay=0.01,
        )
        phase = Phase(
            name="training",
            schedule=schedule,
            seed=4,
            augmentation=Loudness(6, seed=4),
            checkpoints=folder and CheckpointFolder(path=str(folder)),
            checkpoint_seconds=seconds,
            reporter=Reporter(),
        )
        history = fit(model, splits["training"], splits["validation"], phase, devices)
        timeless = dataclasses.replace(history, seconds=(), input_wait=())
        return timeless, model.get_weights()

    return run


@pytest.fixture(scope="module")
def expected(fit_once):
    history, weights = fit_once(None)
    assert 1 <= history.best_epoch < len(history.epochs)
    return history, weights


def assert_equal(found, expected) -> None:
    assert found[0] == expected[0]
    for weight, value in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(weight, value)


# Within an epoch, at its last step, at its end, and in the one that stops early.
@pytest.mark.parametrize("last_step", [1, 5, STEPS, 2 * STEPS + 2])
def test_a_cut_costs_no_step(
    fit_once, expected, tmp_path, capsys, cut, monkeypatch, last_step
):
    cut(last_step)
    with pytest.raises(PowerCutError):
        # A checkpoint after each step.
        fit_once(tmp_path, seconds=1e-9)
    monkeypatch.undo()
    assert_equal(fit_once(tmp_path), expected)
    epochs, steps = divmod(last_step, STEPS)
    resumed = f"training resumes after epoch {epochs}"
    resumed += f" and {steps} steps" if steps else "\n"
    assert resumed in capsys.readouterr().out


def test_a_phase_that_is_over_stays_so(fit_once, expected, tmp_path, capsys):
    assert_equal(fit_once(tmp_path), expected)
    assert_equal(fit_once(tmp_path), expected)
    out = capsys.readouterr().out
    epochs = len(expected[0].epochs)
    assert f"training was finished before, after epoch {epochs}" in out


def test_a_truncated_checkpoint_costs_an_epoch(
    fit_once, expected, tmp_path, capsys, cut, monkeypatch
):
    cut(3 * STEPS + 1)
    with pytest.raises(PowerCutError):
        fit_once(tmp_path)
    monkeypatch.undo()
    older, newest = sorted(tmp_path.glob(f"*{SUFFIX}"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert older.name < newest.name
    assert_equal(fit_once(tmp_path), expected)
    captured = capsys.readouterr()
    assert f"{newest} is damaged" in captured.err
    assert "training resumes after epoch 2\n" in captured.out


def test_streamed_records_are_resumed_too(fit_once, tmp_path, cut, monkeypatch):
    calm = fit_once(None, cache_bytes=0)
    cut(STEPS + 2)
    with pytest.raises(PowerCutError):
        fit_once(tmp_path, seconds=1e-9, cache_bytes=0)
    monkeypatch.undo()
    assert_equal(fit_once(tmp_path, cache_bytes=0), calm)


def test_only_the_same_run_goes_on_from_a_checkpoint(data, tmp_path):
    def folder(**flags) -> str:
        config = TrainConfig(
            data=data,
            model="windows",
            check=False,
            **({"output": "o", "checkpoint_dir": "gs://b/c/"} | flags),
        )
        checkpoints = Run(config, open_dataset(data)).checkpoints("training")
        assert checkpoints is not None
        return checkpoints.path

    assert folder().startswith("gs://b/c/windows-")
    assert folder() == folder(output="elsewhere", checkpoint_seconds=9.0)
    for flags in ({"seed": 1}, {"dropout": 0.1}, {"cache_mb": 0}):
        assert folder() != folder(**flags)


def test_the_end_of_a_run_removes_its_checkpoints_alone(tmp_path):
    mine, theirs = (
        CheckpointFolder(
            path=f"{tmp_path}/{name}/head", run_folder=f"{tmp_path}/{name}"
        )
        for name in ("mine", "theirs")
    )
    for folder in (mine, theirs):
        folder.save(Checkpoint(step=1, state={}, arrays={}))
    (tmp_path / "mine" / "head" / "notes.txt").touch()
    mine.remove()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert files == {
        "mine/OWNER.json",
        "mine/head/notes.txt",
        "theirs/OWNER.json",
        f"theirs/head/{1:012d}.checkpoint",
    }
    with pytest.raises(UserError, match=r"--checkpoint_dir holds head/notes\.txt"):
        mine.check()


def test_without_a_folder_nothing_is_saved(fit_once, tmp_path, cut, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cut(2 * STEPS)
    with pytest.raises(PowerCutError):
        fit_once(None)
    assert list(tmp_path.iterdir()) == []


def start_both(
    data, output, *flags, last_steps=(0, 0), number=signal.SIGKILL
) -> list[subprocess.Popen]:
    return [
        start(
            data, output, *flags, last_step=last_step, number=number, TF_CONFIG=cluster
        )
        for cluster, last_step in zip(make_clusters(), last_steps, strict=True)
    ]


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(data, tmp_path):
    flags = [*EVERYTHING_RANDOM, "--epochs=3", "--checkpoint_seconds=0"]
    expected, output = tmp_path / "expected", tmp_path / "model"
    for process in start_both(data, expected, *flags):
        finish(process, 0)
    chief, worker = start_both(data, output, *flags, last_steps=(0, STEPS + 2))
    finish(worker, -signal.SIGKILL)
    text = finish(chief, 1)
    assert "error: Another process of this run is gone" in text
    for process in start_both(data, output, *flags):
        finish(process, 0)
    assert_same(output, expected)


@pytest.mark.slow
def test_sigterm_stops_all_workers_at_the_same_step(data, tmp_path):
    flags = [*EVERYTHING_RANDOM, "--epochs=30", "--patience=30"]
    expected, output = tmp_path / "expected", tmp_path / "model"
    for process in start_both(data, expected, *flags):
        finish(process, 0)
    last_steps = (0, STEPS + 2)
    both = start_both(
        data, output, *flags, last_steps=last_steps, number=signal.SIGTERM
    )
    texts = [finish(process, 75) for process in both]
    said = {line for text in texts for line in text.splitlines() if "SIGTERM" in line}
    assert len(said) == 1
    for process in start_both(data, output, *flags):
        finish(process, 0)
    assert_same(output, expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("devices", [1, 2])
def test_twenty_kills_change_nothing(data, tmp_path, devices):
    """At random moments, start-up, evaluation and writing of files included."""
    flags = [*EVERYTHING_RANDOM, "--epochs=40", "--patience=40"]
    flags += ["--checkpoint_seconds=0.02"]
    if devices > 1:
        flags.append("--strategy=mirrored")
    expected, output = tmp_path / "expected", tmp_path / "model"
    started = time.monotonic()
    finish(start(data, expected, *flags, devices=devices), 0)
    seconds = time.monotonic() - started
    rng = random.Random(devices)
    for _ in range(20):
        process = start(data, output, *flags, devices=devices)
        try:
            process.communicate(timeout=rng.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if process.returncode == 0:
            assert_same(output, expected)
            shutil.rmtree(output)
    finish(start(data, output, *flags, devices=devices), 0)
    assert_same(output, expected)

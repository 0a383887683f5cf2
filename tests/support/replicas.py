"""Two replicas on logical CPUs against one device, in a process of its own.

    python -m tests.support.replicas DATASET FOLDER

The number of logical CPUs cannot be changed once TensorFlow has started.
"""

from __future__ import annotations

import dataclasses
import sys

import trainer.runtime.quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import UserError
from trainer.config import Schedule, TrainConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.runtime.checkpoint import CheckpointFolder
from trainer.training.fit import Phase, fit
from trainer.training.networks.augmentation import Loudness
from trainer.training.networks.windows import build_windows_model
from trainer.training.run import Run
from trainer.training.step import Forward, Learner

SCHEDULE = Schedule(epochs=3, batch_size=6, learning_rate=1e-4, patience=9)


def open_run(dataset: Dataset, **flags) -> Run:
    return Run(
        TrainConfig(data=dataset.folder, model="windows", output="o", **flags), dataset
    )


def build(run: Run, dropout: float, more_genres: int = 0) -> keras.Model:
    keras.utils.set_random_seed(1)
    with run.strategy.scope():
        return build_windows_model(
            run.layout,
            run.dataset.manifest.normalisation["windows"],
            len(run.genres) + more_genres,
            dropout=dropout,
        )


def difference(weights: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Length of the difference, relative to the length of all weights.

    Adam makes steps of the same size where gradients are nothing but rounding errors,
    so single weights may well differ by some of them.
    """
    both = [np.concatenate([w.ravel() for w in part]) for part in (weights, expected)]
    return float(np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[1]))


def check_equality(dataset: Dataset, folder: str) -> None:
    """The same global batches give the same weights, metrics and predictions."""
    results = []
    for strategy, cache_mb in (("single", 0), ("mirrored", 0), ("mirrored", 64)):
        run = open_run(dataset, strategy=strategy, cache_mb=cache_mb)
        assert run.devices.replicas == (1 if strategy == "single" else 2)
        model = build(run, dropout=0.0)
        # 9 clips of 4 windows to validate and test on: 36 records, in batches of 64.
        history = fit(
            model,
            run.splits["training"],
            run.validation,
            Phase(name="test", schedule=SCHEDULE, seed=1),
            run.devices,
        )
        clips = run.predict_clips(Forward(model, run.devices), run.splits["test"])
        assert len(clips.track_ids) == 9
        path = f"{folder}/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        results.append((history, model.get_weights(), clips))
        values = dataset.load("windows", "test").values[:5]
        np.testing.assert_allclose(
            loaded.predict(values, verbose=0), model(values, training=False), atol=1e-6
        )
    (history, weights, clips), (other, other_weights, other_clips), cached = results
    for name, expected in history.metrics.items():
        np.testing.assert_allclose(other.metrics[name], expected, rtol=1e-4)
    assert difference(other_weights, weights) < 2e-4
    np.testing.assert_allclose(
        other_clips.probabilities, clips.probabilities, atol=1e-4
    )
    assert cached[2].track_ids == clips.track_ids


def check_another_model(dataset: Dataset) -> None:
    """One of other shapes trains in the process that has trained one."""
    run = open_run(dataset, strategy="mirrored")
    model = build(run, dropout=0.0, more_genres=1)
    phase = Phase(name="test", schedule=dataclasses.replace(SCHEDULE, epochs=1), seed=1)
    fit(model, run.splits["training"], run.validation, phase, run.devices)


class PowerCutError(Exception):
    pass


def check_resume(dataset: Dataset, folder: str) -> None:
    """A run that is cut off ends bit-identically to one that is not."""
    run = open_run(dataset, strategy="mirrored")

    def fit_once(path: str | None) -> tuple:
        model = build(run, dropout=0.5)
        with run.strategy.scope():
            augmentation = Loudness(6, seed=3)
        phase = Phase(
            name="test",
            schedule=dataclasses.replace(SCHEDULE, learning_rate_decay="cosine"),
            seed=1,
            augmentation=augmentation,
            checkpoints=path and CheckpointFolder(path=path),
            checkpoint_seconds=1e-9,
        )
        history = fit(model, run.splits["training"], run.validation, phase, run.devices)
        return history.metrics, history.best_epoch, model.get_weights()

    metrics, best_epoch, weights = fit_once(None)
    real, made = Learner.step, 0

    def step(self, batch, stop):
        nonlocal made
        made += 1
        if made == 12:
            raise PowerCutError
        return real(self, batch, stop)

    Learner.step = step
    try:
        fit_once(f"{folder}/checkpoints")
    except PowerCutError:
        Learner.step = real
    assert made == 12
    again, again_best, again_weights = fit_once(f"{folder}/checkpoints")
    assert (again, again_best) == (metrics, best_epoch)
    for weight, expected in zip(again_weights, weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def check_refusals(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"2 replicas \(2 CPUs\)"):
        open_run(dataset, strategy="mirrored", batch_size=5)


def check_that_keras_is_broken() -> None:
    """`evaluate` fails on a first batch that the replicas cannot share evenly.

    If this one day succeeds, the reasons in `trainer.training.step` are to be thought
    over.
    """
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(optimizer="adam", loss="mse")

    def evaluate(count: int) -> None:
        ones = np.ones((count, 3), np.float32), np.ones((count, 1), np.float32)
        model.evaluate(tf.data.Dataset.from_tensor_slices(ones).batch(4), verbose=0)

    evaluate(4)
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluate(1)


if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    opened = open_dataset(sys.argv[1])
    check_refusals(opened)
    check_equality(opened, sys.argv[2])
    check_another_model(opened)
    check_resume(opened, sys.argv[2])
    check_that_keras_is_broken()
    print("two replicas train as one")

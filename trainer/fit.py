"""Fits a Keras model to a split, with one plain line of progress an epoch."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from pipeline import schema
from trainer import distribution
from trainer.batches import Split
from trainer.config import Schedule

#: Keras' names of what an epoch is logged with, and ours.
METRICS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "val_loss": "validation_loss",
    "val_accuracy": "validation_accuracy",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One call of `fit`.

    Attributes:
      name: for progress and history, e.g. "training" or "fine-tuning".
      schedule: how to fit; its batch size fits the split and the replicas.
      seed: of the order of records.
      checkpoint_dir: folder of this phase's checkpoint, or None.
      tensorboard_dir: folder of this phase's logs, or None.
    """

    name: str
    schedule: Schedule
    seed: int
    checkpoint_dir: str | None = None
    tensorboard_dir: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseHistory:
    """How a phase went.

    Attributes:
      name: the phase's.
      epochs: numbers of the epochs that ran, from 1; a resumed run lacks those
        before.
      metrics: loss, accuracy, validation_loss, validation_accuracy by epoch.
      seconds: wall time of each epoch, validation included.
      best_epoch: the epoch whose weights were kept.
    """

    name: str
    epochs: Sequence[int]
    metrics: Mapping[str, Sequence[float]]
    seconds: Sequence[float]
    best_epoch: int


class EpochLines(keras.callbacks.Callback):
    """Prints a line an epoch and keeps what it printed."""

    def __init__(self, name: str, epochs: int) -> None:
        super().__init__()
        self.epochs: list[int] = []
        self.seconds: list[float] = []
        self.metrics: dict[str, list[float]] = {}
        self._name = name
        self._last = epochs
        self._start = 0.0

    def on_epoch_begin(
        self,
        epoch: int,  # noqa: ARG002
        logs: Mapping[str, float] | None = None,  # noqa: ARG002
    ) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Prints and keeps the epoch's numbers."""
        seconds = time.perf_counter() - self._start
        values = {
            ours: float(logs[key])
            for key, ours in METRICS.items()
            if logs and key in logs
        }
        for name, value in values.items():
            self.metrics.setdefault(name, []).append(value)
        self.epochs.append(epoch + 1)
        self.seconds.append(seconds)
        print(
            format_epoch(self._name, epoch + 1, self._last, values, seconds), flush=True
        )


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes loss and accuracy for TensorBoard, whose package it does not need."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the epoch's numbers, where Keras' own callback would."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "scalars"
        logs = logs or {}
        for key in METRICS.keys() & logs.keys():
            run = "validation" if key.startswith("val_") else "train"
            if run not in self._writers:
                folder = f"{self._folder.rstrip('/')}/{run}"
                self._writers[run] = tf.summary.create_file_writer(folder)
            with self._writers[run].as_default():
                name = f"epoch_{key.removeprefix('val_')}"
                value = tf.constant(logs[key], tf.float32)
                tf.summary.write(name, value, step=epoch, metadata=metadata)
        for writer in self._writers.values():
            writer.flush()


def format_epoch(
    name: str, epoch: int, epochs: int, values: Mapping[str, float], seconds: float
) -> str:
    """One line on one epoch."""
    line = (
        f"{name}, epoch {epoch} of {epochs}: loss {values['loss']:.3f} "
        f"accuracy {values['accuracy']:.3f}"
    )
    if "validation_loss" in values:
        line += (
            f" | validation loss {values['validation_loss']:.3f} "
            f"accuracy {values['validation_accuracy']:.3f}"
        )
    return f"{line} ({seconds:.1f} s)"


def fit(
    model: keras.Model,
    training: Split,
    validation: Split | None,
    phase: Phase,
    strategy: tf.distribute.Strategy,
) -> PhaseHistory:
    """Compiles and fits a model; leaves it with the best epoch's weights.

    The best epoch is the one with the lowest validation loss; without a
    validation split, the last.

    With a checkpoint folder, a run that was cut off goes on after its last whole
    epoch, with the weights, the optimizer's state and the order of records it
    would have had. Dropout's random numbers and what early stopping remembers
    start anew, so the result is not identical to an uninterrupted run's.

    Raises:
      UserError: the loss is no longer a finite number.
    """
    schedule = phase.schedule
    steps = training.steps_per_epoch(schedule.batch_size)
    with strategy.scope():
        model.compile(
            optimizer=keras.optimizers.Adam(schedule.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )
    lines = EpochLines(phase.name, schedule.epochs)
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.TerminateOnNaN(),
        lines,
    ]
    early_stopping = None
    validation_batches = None
    if validation is not None:
        early_stopping = keras.callbacks.EarlyStopping(
            monitor="val_loss",
            mode="min",
            patience=schedule.patience,
            restore_best_weights=True,
        )
        callbacks.append(early_stopping)
        validation_batches = validation.evaluation_batches(
            distribution.evaluation_batch_size(
                schedule.batch_size, validation.records, strategy
            )
        )
    if phase.tensorboard_dir is not None:
        callbacks.append(TensorBoardScalars(phase.tensorboard_dir))
    start_epoch = 0
    if phase.checkpoint_dir is not None:
        start_epoch = read_start_epoch(phase.checkpoint_dir)
        if start_epoch:
            print(f"{phase.name} resumes after epoch {start_epoch}", flush=True)
        callbacks.append(
            keras.callbacks.BackupAndRestore(
                phase.checkpoint_dir, double_checkpoint=True
            )
        )
    batches = training.training_batches(
        schedule.batch_size, seed=phase.seed, start_epoch=start_epoch
    )
    model.fit(
        batches,
        epochs=schedule.epochs,
        steps_per_epoch=steps,
        validation_data=validation_batches,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    losses = lines.metrics.get("loss", [])
    if not all(math.isfinite(loss) for loss in losses):
        raise schema.UserError(
            f"{phase.name} diverged in epoch {lines.epochs[-1]}: the loss is not a "
            f"finite number; use a --learning_rate below {schedule.learning_rate:g}."
        )
    best_epoch = lines.epochs[-1] if lines.epochs else start_epoch
    if early_stopping is not None and lines.epochs:
        best_epoch = early_stopping.best_epoch + 1
    return PhaseHistory(
        name=phase.name,
        epochs=lines.epochs,
        metrics=lines.metrics,
        seconds=lines.seconds,
        best_epoch=best_epoch,
    )


def read_start_epoch(checkpoint_dir: str) -> int:
    """Number of epochs that a cut-off run had completed, 0 without a checkpoint."""
    path = f"{checkpoint_dir.rstrip('/')}/training_metadata.json"
    if not tf.io.gfile.exists(path):
        return 0
    with tf.io.gfile.GFile(path) as file:
        metadata: dict[str, Any] = json.loads(file.read())
    return int(metadata["epoch"])

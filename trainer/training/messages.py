"""What is told about training, to people and to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from trainer.data.split import Split
from trainer.evaluation.history import METRICS
from trainer.training.progress import Progress


def format_epoch(
    name: str,
    epoch: int,
    epochs: int,
    values: Mapping[str, float],
    seconds: float,
    wait: float,
) -> str:
    """One line on one epoch."""
    return (
        f"{name}, epoch {epoch} of {epochs}: {format_metrics(values)} "
        f"({seconds:.1f} s, input wait {wait:.0%})"
    )


def format_metrics(values: Mapping[str, float]) -> str:
    """Loss and accuracy, those of the validation split too where there is one."""
    text = f"loss {values['loss']:.3f} accuracy {values['accuracy']:.3f}"
    if "validation_loss" in values:
        text += (
            f" | validation loss {values['validation_loss']:.3f} "
            f"accuracy {values['validation_accuracy']:.3f}"
        )
    return text


def describe_wait(wait: float, training: Split) -> str:
    """What to do where the model waits for its input."""
    size = training.dataset.size(training.representation, training.name)
    advice = "bring the dataset nearer to the machine, or take a machine of more cores"
    if training.values is None:
        advice = (
            f"hold the dataset in memory with --cache_mb {-(-size // 2**20) + 1} or "
            f"more, {advice}"
        )
    return f"warning: {wait:.0%} of the epoch went into waiting for input; {advice}."


def describe_resume(name: str, progress: Progress) -> str:
    """Where a run goes on."""
    if progress.finished:
        return f"{name} was finished before, after epoch {progress.epoch}"
    step = f" and {progress.step} steps" if progress.step else ""
    return f"{name} resumes after epoch {progress.epoch}{step}"


class TensorBoardScalars:
    """Writes loss and accuracy for TensorBoard, whose package it does not need."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def write(self, values: Mapping[str, float], epoch: int) -> None:
        """Writes an epoch's numbers, where Keras' own callback would."""
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "scalars"
        for key in METRICS:
            if key not in values:
                continue
            run = "validation" if key.startswith("validation_") else "train"
            if run not in self._writers:
                folder = f"{self._folder.rstrip('/')}/{run}"
                self._writers[run] = tf.summary.create_file_writer(folder)
            with self._writers[run].as_default():
                name = f"epoch_{key.removeprefix('validation_')}"
                value = tf.constant(values[key], tf.float32)
                tf.summary.write(name, value, step=epoch, metadata=metadata)
        for writer in self._writers.values():
            writer.flush()

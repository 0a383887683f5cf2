"""Fits a model: epochs, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from pipeline.common.progress import SILENT, Reporter, Stage
from pipeline.schema import UserError
from trainer.config import Schedule
from trainer.data.split import Split
from trainer.data.streams import EpochPlan
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.task import Task
from trainer.runtime.checkpoint import Checkpoint, CheckpointFolder
from trainer.runtime.devices import Devices, fit_batch_size, gather_floats
from trainer.runtime.preemption import PreemptedError, Preemption
from trainer.training.messages import (
    TensorBoardScalars,
    describe_resume,
    describe_wait,
    format_epoch,
    format_metrics,
)
from trainer.training.progress import Progress
from trainer.training.step import Forward, Learner, predict_records, training_batches

#: Share of waiting for input above which the trainer warns, where it is more than
#: so many seconds of an epoch.
MAX_WAIT = 0.1
MIN_WAIT_SECONDS = 0.5

#: A result that is read within so many seconds was there already.
AT_ONCE = 2e-4

#: Within an epoch, a checkpoint is written this many times less often.
MID_EPOCH = 10

_WEIGHT, _BEST = "variable", "best"


class DivergedError(UserError):
    """The loss is not a finite number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One fit of one model.

    Attributes:
      name: for progress and history, e.g. "training" or "fine-tuning".
      schedule: how to fit; its batch size fits the split and the replicas.
      seed: of the order of records.
      augmentation: layer that alters the values of a batch in training.
      task: what a record's labels are.
      checkpoints: where to keep the state, or None.
      checkpoint_seconds: how often, see `trainer.config.TrainConfig`.
      tensorboard_dir: folder of this phase's logs, or None.
      preemption: whether to stop.
      on_epoch: called with the metrics of each epoch and its number in the run, from 1.
      epochs_before: epochs of the phases before.
      reporter: is told about each epoch.
      title: of the phase, for people.
    """

    name: str
    schedule: Schedule
    seed: int
    augmentation: keras.Layer | None = None
    task: Task = dataclasses.field(default_factory=SingleLabel)
    checkpoints: CheckpointFolder | None = None
    checkpoint_seconds: float = 0.0
    tensorboard_dir: str | None = None
    preemption: Preemption = dataclasses.field(default_factory=Preemption)
    on_epoch: Callable[[Mapping[str, float], int], None] | None = None
    epochs_before: int = 0
    reporter: Reporter = SILENT
    title: str = ""


class PhaseFit:
    """A phase under way."""

    def __init__(
        self,
        model: keras.Model,
        training: Split,
        validation: Split | None,
        phase: Phase,
        devices: Devices,
    ) -> None:
        self._model = model
        self._training = training
        self._validation = validation
        self._phase = phase
        self._devices = devices
        self._steps = training.steps_per_epoch(phase.schedule.batch_size)
        self._learner = Learner(
            model,
            phase.schedule,
            self._steps * phase.schedule.epochs,
            devices,
            phase.augmentation,
            phase.task,
        )
        self._forward = Forward(model, devices)
        self._progress = Progress()
        self._best: Sequence[npt.NDArray[Any]] | None = None
        self._saved = time.monotonic()
        self._begun = self._stopping = False
        self._scalars: TensorBoardScalars | None = None
        if phase.tensorboard_dir is not None and devices.chief:
            self._scalars = TensorBoardScalars(phase.tensorboard_dir)

    def run(self) -> PhaseHistory:
        """Fits; see `fit`."""
        self._restore()
        if not self._progress.finished:
            # Of several processes, one tells.
            phase, chief = self._phase, self._devices.chief
            with (phase.reporter if chief else SILENT).stage(
                phase.title or phase.name,
                phase.schedule.epochs,
                "epoch",
                done=self._progress.epoch,
            ) as stage:
                self._run_epochs(stage)
            if self._best is not None:
                self._model.set_weights(self._best)
                self._best = None
            self._progress.finished = True
            if self._must_stop():
                self._stop()
            # However short it took: what comes after must not cost it.
            self._save()
        return self._progress.history(self._phase.name)

    def _run_epochs(self, stage: Stage) -> None:
        progress, schedule = self._progress, self._phase.schedule
        batches = iter(self._batches())
        while progress.epoch < schedule.epochs:
            start = time.perf_counter() - progress.seconds
            self._run_epoch(batches, start)
            progress.seconds = time.perf_counter() - start
            improved = progress.end_epoch(
                self._steps * schedule.batch_size, self._validate()
            )
            progress.epoch_seconds.append(time.perf_counter() - start)
            progress.seconds = 0.0
            if improved:
                self._best = [weight.numpy() for weight in self._model.weights]
            self._tell(stage)
            if progress.bad_epochs >= schedule.patience:
                break
            if self._must_stop():
                self._stop()
            if self._is_due(1):
                self._save()

    def _batches(self) -> tf.data.Dataset:
        devices, progress = self._devices, self._progress
        plan = EpochPlan(
            batch_size=self._phase.schedule.batch_size // devices.replicas,
            batches=self._steps * devices.local_replicas,
            seed=self._phase.seed,
            start_epoch=progress.epoch,
            start_batch=progress.step * devices.local_replicas,
            worker=devices.worker,
            workers=devices.workers,
        )
        return training_batches(self._training, plan, devices)

    def _run_epoch(self, batches: Iterator[Any], start: float) -> None:
        """Makes the steps of an epoch that are left.

        While the device computes a step, the next batch is fetched; only then is the
        step's result read. Time to fetch is time waited where that result was there
        already, so that the device had nothing to do.
        """
        progress = self._progress
        pending: tf.Tensor | None = None
        for step in range(progress.step + 1, self._steps + 1):
            call = time.perf_counter()
            batch = next(batches)
            fetch = time.perf_counter() - call
            result = self._learner.step(batch, self._phase.preemption.requested)
            idle = True
            if pending is not None:
                call = time.perf_counter()
                self._add(pending)
                ready = time.perf_counter() - call < AT_ONCE
                idle = ready or self._devices.synchronous
            # The very first batch is the start of the pipeline, not its pace.
            if idle and self._begun:
                progress.waited += fetch
            self._begun = True
            pending = result
            # Asked for here only: every process sees the same results here.
            stop = self._must_stop()
            due = stop or self._is_due(MID_EPOCH)
            if due or step == self._steps:
                self._add(pending)
                pending = None
            if due and step < self._steps:
                progress.seconds = time.perf_counter() - start
                if stop:
                    self._stop()
                self._save()

    def _add(self, result: tf.Tensor) -> None:
        """Counts a step, and notes whether some process was asked to stop."""
        loss_sum, hits, stop = result.numpy().tolist()
        self._progress.add_step(loss_sum, hits)
        self._stopping = self._stopping or bool(stop)
        if not math.isfinite(loss_sum):
            raise DivergedError(
                f"{self._phase.name} diverged in epoch {self._progress.epoch + 1}: the "
                "loss is not a finite number; use a --learning_rate below "
                f"{self._phase.schedule.learning_rate:g}."
            )

    def _must_stop(self) -> bool:
        """Whether to stop: with several processes, at the same step in all of them."""
        if self._devices.workers > 1:
            return self._stopping
        return self._phase.preemption.requested

    def _validate(self) -> dict[str, float]:
        split, devices = self._validation, self._devices
        if split is None:
            return {}
        batch_size = evaluation_batch_size(
            self._phase.schedule.batch_size, split.records, devices
        )
        loss = hits = count = 0.0
        labels = split.index.labels
        if len(labels):
            probabilities = predict_records(self._forward, split, batch_size, devices)
            loss, hits = self._phase.task.measure(labels, probabilities)
            count = float(len(labels))
        everywhere = gather_floats(devices, [loss, hits, count])
        loss, hits, count = (sum(column) for column in zip(*everywhere, strict=True))
        split.dataset.check_count(split.representation, split.name, int(count))
        return {"validation_loss": loss / count, "validation_accuracy": hits / count}

    def _tell(self, stage: Stage) -> None:
        if not self._devices.chief:
            return
        progress, phase = self._progress, self._phase
        values = progress.last()
        wait = progress.input_wait[-1]
        seconds = progress.epoch_seconds[-1]
        stage.update(progress.epoch, format_metrics(values))
        phase.reporter.detail(
            format_epoch(
                phase.name, progress.epoch, phase.schedule.epochs, values, seconds, wait
            )
        )
        if wait > MAX_WAIT and wait * seconds > MIN_WAIT_SECONDS:
            phase.reporter.warn(describe_wait(wait, self._training))
        if self._scalars is not None:
            self._scalars.write(values, progress.epoch - 1)
        if phase.on_epoch is not None:
            phase.on_epoch(values, phase.epochs_before + progress.epoch)

    def _stop(self) -> None:
        progress, folder = self._progress, self._phase.checkpoints
        self._save()
        where = "nothing is saved: there is no --checkpoint_dir"
        if folder is not None:
            where = f"saved in {folder.path}; the same command goes on from there"
        raise PreemptedError(
            f"{self._phase.name} stopped by {self._phase.preemption.by} after "
            f"{progress.epoch} epochs and {progress.step} steps; {where}."
        )

    def _is_due(self, after: int) -> bool:
        folder = self._phase.checkpoints
        if folder is None or not folder.chief:
            return False
        age = time.monotonic() - self._saved
        seconds = self._phase.checkpoint_seconds
        return age >= after * seconds and (after == 1 or seconds > 0)

    def _save(self) -> None:
        folder = self._phase.checkpoints
        if folder is None or not folder.chief:
            return
        values = self._learner.read()
        arrays = {f"{_WEIGHT}_{number}": value for number, value in enumerate(values)}
        for number, value in enumerate(self._best or ()):
            arrays[f"{_BEST}_{number}"] = value
        progress = self._progress
        # A phase may be over before its last epoch; that is one step more.
        step = progress.epoch * self._steps + progress.step + progress.finished
        folder.save(
            Checkpoint(step=step, state=dataclasses.asdict(progress), arrays=arrays)
        )
        self._saved = time.monotonic()

    def _restore(self) -> None:
        folder = self._phase.checkpoints
        checkpoint = None if folder is None else folder.load()
        if self._devices.workers > 1:
            self._check_agreement(checkpoint)
        if checkpoint is None:
            return
        self._progress = Progress.from_state(checkpoint.state)
        arrays = checkpoint.arrays
        count = sum(name.startswith(_WEIGHT) for name in arrays)
        self._learner.write([arrays[f"{_WEIGHT}_{n}"] for n in range(count)])
        if count < len(arrays):
            best = len(arrays) - count
            self._best = [arrays[f"{_BEST}_{n}"] for n in range(best)]
        if self._devices.chief:
            self._phase.reporter.note(describe_resume(self._phase.name, self._progress))

    def _check_agreement(self, checkpoint: Checkpoint | None) -> None:
        step = -1.0 if checkpoint is None else float(checkpoint.step)
        steps = [row[0] for row in gather_floats(self._devices, [step])]
        if len(set(steps)) > 1:
            raise UserError(
                "The processes that train together see different checkpoints, of steps "
                f"{', '.join(f'{step:.0f}' for step in steps)} (-1 is none); give "
                "--checkpoint_dir a folder that all of them share."
            )


def fit(
    model: keras.Model,
    training: Split,
    validation: Split | None,
    phase: Phase,
    devices: Devices,
) -> PhaseHistory:
    """Fits a model; leaves it with the best epoch's weights.

    The best epoch is the one with the lowest validation loss; without a
    validation split, the last.

    With a checkpoint folder, a run that was cut off goes on from its last
    checkpoint, and ends with the weights and the metrics that it would have had: all
    that is random comes from variables that are saved with the weights, or from the
    numbers of epoch and step.

    Raises:
      DivergedError: the loss is no longer a finite number.
      UserError: files hold another number of records than the manifest says.
      PreemptedError: the phase was asked to stop; its state is saved.
    """
    return PhaseFit(model, training, validation, phase, devices).run()


def evaluation_batch_size(batch_size: int, records: int, devices: Devices) -> int:
    """Size of the batches, over all replicas, that a split is evaluated in."""
    return fit_batch_size(batch_size, max(records, devices.replicas), devices)

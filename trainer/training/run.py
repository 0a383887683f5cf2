"""What the steps of one training run share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import SPLITS, UserError, fingerprint
from trainer.config import SCHEDULES, Schedule, TrainConfig
from trainer.data import checksums
from trainer.data.dataset import Dataset
from trainer.data.split import Split, open_splits
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.predictions import ClipPredictions, mean_by_clip, with_artists
from trainer.evaluation.report import find_library_versions
from trainer.evaluation.tasks.task import find_task
from trainer.runtime import devices
from trainer.runtime.checkpoint import CheckpointFolder
from trainer.runtime.exchange import gather_clips
from trainer.runtime.preemption import PreemptedError, Preemption
from trainer.training.fit import Phase, evaluation_batch_size
from trainer.training.networks import augmentation
from trainer.training.step import Forward, predict_records


def describe_settings(config: TrainConfig, data: str) -> dict[str, Any]:
    """All that decides what a model becomes, but for the machine; JSON values only.

    Args:
      config: of the run.
      data: fingerprint of the dataset, wherever that lies.
    """
    content = config.computation()
    # What follows from them is what counts.
    del content["data"], content["strategy"], content["cache_mb"]
    return content | {"fingerprint": data}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FittedModel:
    """A fitted model and how it came about.

    Attributes:
      model: from raw records to probabilities.
      phases: histories, in order.
      parameters: for the report; JSON values only.
      notes: for the report.
      predictions: of each split that has records, clip by clip.
    """

    model: keras.Model
    phases: Sequence[PhaseHistory]
    parameters: Mapping[str, Any]
    notes: Sequence[str] = ()
    predictions: Mapping[str, ClipPredictions] = dataclasses.field(default_factory=dict)


class Run:
    """An opened dataset, devices, and how they are used.

    Attributes:
      config: the parameters.
      dataset: what to train on.
      layout: schema of the representation that the model reads.
      genres: names of the classes.
      task: whether a clip has one of them, or several.
      devices: where to compute.
      splits: training, validation and test.
      reporter: is told how far the run is.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        *,
        preemption: Preemption | None = None,
        judged: bool = True,
        on_epoch: Callable[[Mapping[str, float], int], None] | None = None,
        on_model: Callable[[keras.Model], None] | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        """Opens splits and devices; refuses what cannot be trained.

        Args:
          config: the parameters.
          dataset: what to train on.
          preemption: whether to stop.
          judged: whether the model is to predict all splits in the end.
          on_epoch: called with the metrics of each epoch and its number, from 1
            through all phases.
          on_model: called with the model, or the most of it, before it is fitted.
          reporter: is told how far the run is.

        Raises:
          UserError: the dataset does not hold the representation or is damaged, the
            training split is empty, of one genre or smaller than a batch, the
            hardware asked for is not there, or its replicas cannot share a batch or
            the shards.
        """
        self.config = config
        self.dataset = dataset
        self.reporter = reporter
        self.layout = dataset.representation(config.model)
        self.genres = dataset.manifest.genres
        self.task = find_task(dataset.manifest)
        self._preemption = preemption or Preemption()
        self._on_epoch = on_epoch
        self._on_model = on_model
        self._judged = judged
        if dataset.count(config.model, "training") == 0:
            raise UserError(
                f"The training split of {config.model} in {dataset.folder} is empty; "
                "preprocess clips that the split rule assigns to it."
            )
        dataset.check_genres()
        self.devices = devices.find_devices(config.strategy, reporter)
        if config.batch_size is not None:
            devices.check_batch_size(config.batch_size, self.devices)
        worker, workers = self.devices.worker, self.devices.workers
        # Files come before batches: what is damaged must not be told as too small.
        if config.check and dataset.manifest.files:
            checksums.check_files(
                dataset, config.model, worker=worker, workers=workers, reporter=reporter
            )
        self.splits = open_splits(
            dataset,
            config.model,
            cache_bytes=config.cache_mb * 2**20,
            worker=worker,
            workers=workers,
        )
        self.schedule(SCHEDULES[config.model])
        self._preemption.arm()

    @property
    def strategy(self) -> Any:
        """TensorFlow's strategy."""
        return self.devices.strategy

    @property
    def head(self) -> dict[str, Any]:
        """What a network's last layers are built with."""
        return {
            "units": self.config.hidden_units,
            "dropout": self.config.dropout_rate,
            "activation": self.task.activation,
            "bias": self.task.bias,
        }

    def schedule(self, default: Schedule) -> Schedule:
        """The schedule to use: flags first, defaults cut to a small dataset."""
        schedule = self.config.adapt_schedule(default)
        training = self.splits["training"]
        if self.config.batch_size is None:
            size = devices.fit_batch_size(
                schedule.batch_size, training.records, self.devices
            )
            schedule = dataclasses.replace(schedule, batch_size=size)
        training.steps_per_epoch(schedule.batch_size)
        return schedule

    def phase(
        self,
        name: str,
        schedule: Schedule,
        *,
        augmented: bool = True,
        epochs_before: int = 0,
    ) -> Phase:
        """A phase with its own folders for checkpoints and logs."""
        logs = self.config.tensorboard_dir
        if logs is not None:
            logs = f"{logs.rstrip('/')}/{self.config.model}-{name}"
        layer = None
        if augmented:
            with self.strategy.scope():
                layer = augmentation.build_augmentation(
                    self.layout,
                    self.dataset.manifest.normalisation.get(self.config.model),
                    schedule.augmentation,
                    self.config.seed,
                )
        return Phase(
            name=name,
            schedule=schedule,
            seed=self.config.seed,
            augmentation=layer,
            task=self.task,
            checkpoints=self.checkpoints(name),
            checkpoint_seconds=self.config.checkpoint_seconds,
            tensorboard_dir=logs,
            preemption=self._preemption,
            on_epoch=self._on_epoch,
            epochs_before=epochs_before,
            reporter=self.reporter,
            title=f"{self.config.model}, {name}",
        )

    def checkpoints(self, name: str | None = None) -> CheckpointFolder | None:
        """Folder of a phase's checkpoints, or of all; None where none are wanted.

        Only the very same run goes on from a checkpoint, see `key`.
        """
        if self.config.checkpoint_dir is None:
            return None
        root = f"{self.config.checkpoint_dir.rstrip('/')}/{self.key}"
        path = root if name is None else f"{root}/{name}"
        return CheckpointFolder(path=path, run_folder=root, chief=self.devices.chief)

    @property
    def key(self) -> str:
        """Name of all that shapes the result of the run."""
        data = self.dataset.manifest.fingerprint
        content = describe_settings(self.config, data) | {
            "versions": find_library_versions(),
            "devices": [self.devices.name, self.devices.replicas],
            "in memory": [split.values is not None for split in self.splits.values()],
        }
        return f"{self.config.model}-{fingerprint(content)[:12]}"

    def announce(self, model: keras.Model) -> None:
        """Says what is to be fitted, before the time for it is spent."""
        if self._on_model is not None and self.devices.chief:
            self._on_model(model)

    def remove_checkpoints(self, run: str) -> None:
        """Removes the checkpoints of this run, if that is its key."""
        checkpoints = self.checkpoints()
        if checkpoints is not None and run == self.key:
            checkpoints.remove()

    def stop_if_asked(self) -> None:
        """Stops between two phases.

        Raises:
          PreemptedError: the run was asked to stop.
        """
        if self._preemption.requested and self.devices.workers == 1:
            raise PreemptedError(
                f"stopped by {self._preemption.by} between two phases; the same "
                "command goes on from the last checkpoint."
            )

    @property
    def validation(self) -> Split | None:
        """The validation split, where it has records."""
        split = self.splits["validation"]
        return split if split.records else None

    def predict_clips(self, forward: Forward, split: Split) -> ClipPredictions:
        """Probabilities of each clip, of all processes: the mean over its records.

        Raises:
          UserError: the files hold another number of records than the manifest says.
        """
        index = split.index
        probabilities = np.zeros((0, len(self.genres)), np.float32)
        if len(index.labels):
            # The same for all splits, so that the graph is made once.
            batch_size = evaluation_batch_size(
                SCHEDULES[self.config.model].batch_size,
                max(split.records for split in self.splits.values()),
                self.devices,
            )
            probabilities = predict_records(forward, split, batch_size, self.devices)
        index, probabilities = gather_clips(self.devices, index, probabilities)
        split.dataset.check_count(split.representation, split.name, len(index.labels))
        clips = mean_by_clip(index.track_ids, index.labels, probabilities)
        return with_artists(
            clips, dict(zip(index.track_ids, index.artist_ids, strict=True))
        )

    def predict_splits(
        self, model: keras.Model, splits: Mapping[str, Split]
    ) -> dict[str, ClipPredictions]:
        """Probabilities of the clips of each split that has any."""
        self.stop_if_asked()
        if not self._judged:
            return {}
        forward = Forward(model, self.devices)
        return {
            name: self.predict_clips(forward, split)
            for name, split in splits.items()
            if split.records
        }

    def describe(
        self, model: keras.Model, schedule: Schedule, phases: Sequence[PhaseHistory]
    ) -> dict[str, Any]:
        """The parameters that the report names."""
        return {
            "batch_size": schedule.batch_size,
            "best_epoch": phases[-1].best_epoch,
            "epochs": {phase.name: len(phase.epochs) for phase in phases},
            "learning_rate": schedule.learning_rate,
            "learning_rate_decay": schedule.learning_rate_decay,
            "weight_decay": schedule.weight_decay,
            "label_smoothing": schedule.label_smoothing,
            "augmentation": schedule.augmentation,
            "dropout": self.config.dropout_rate,
            "units": self.config.hidden_units,
            "seed": self.config.seed,
            "strategy": self.devices.name,
            "replicas": self.devices.replicas,
            "trainable_weights": sum(
                int(np.prod(weight.shape)) for weight in model.trainable_weights
            ),
        }

    def describe_memory(self) -> str:
        """Where the records are, for people."""
        in_memory = [name for name in SPLITS if self.splits[name].values is not None]
        size = sum(self.dataset.size(self.config.model, name) for name in SPLITS)
        total = f"{size / self.devices.workers / 2**20:.0f} MiB"
        budget = f"--cache_mb {self.config.cache_mb}"
        if "training" in in_memory:
            return f"records held in memory, {total} ({budget})"
        return f"records streamed from files, as {total} exceed {budget}"

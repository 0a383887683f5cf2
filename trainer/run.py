"""What the steps of one training run share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pipeline.schema import UserError, fingerprint
from trainer import distribution, evaluate
from trainer.batches import Split, open_splits
from trainer.config import SCHEDULES, Schedule, TrainConfig
from trainer.dataset import Dataset
from trainer.fit import Phase, PhaseHistory


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Trained:
    """A fitted model and how it came about.

    Attributes:
      model: from raw records to probabilities.
      phases: histories, in order.
      parameters: for the report; JSON values only.
      notes: for the report.
    """

    model: keras.Model
    phases: Sequence[PhaseHistory]
    parameters: Mapping[str, Any]
    notes: Sequence[str] = ()


class Run:
    """An opened dataset, a strategy, and how they are used.

    Attributes:
      config: the parameters.
      dataset: what to train on.
      layout: schema of the representation that the model reads.
      genres: names of the classes.
      strategy: where to compute.
      splits: training, validation and test.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset) -> None:
        """Opens splits and strategy; refuses what cannot be trained.

        Raises:
          UserError: the dataset does not hold the representation, the training
            split is empty or smaller than a batch, the hardware asked for is not
            there, or its replicas cannot share a batch.
        """
        self.config = config
        self.dataset = dataset
        self.layout = dataset.representation(config.model)
        self.genres = dataset.manifest.genres
        if dataset.count(config.model, "training") == 0:
            raise UserError(
                f"The training split of {config.model} in {dataset.folder} is empty; "
                "preprocess clips that the split rule assigns to it."
            )
        self.strategy = distribution.get_strategy(config.strategy)
        if config.batch_size is not None:
            distribution.check_batch_size(config.batch_size, self.strategy)
        self.splits = open_splits(
            dataset, config.model, cache_bytes=config.cache_mb * 2**20
        )
        schedule = self.schedule(SCHEDULES[config.model])
        for split in self.splits.values():
            if split.records:
                distribution.evaluation_batch_size(
                    schedule.batch_size, split.records, self.strategy
                )

    def schedule(self, default: Schedule) -> Schedule:
        """The schedule to use: flags first, defaults cut to a small dataset."""
        schedule = self.config.adapt_schedule(default)
        training = self.splits["training"]
        if self.config.batch_size is None:
            size = distribution.evaluation_batch_size(
                schedule.batch_size, training.records, self.strategy
            )
            schedule = dataclasses.replace(schedule, batch_size=size)
        training.steps_per_epoch(schedule.batch_size)
        return schedule

    def phase(self, name: str, schedule: Schedule) -> Phase:
        """A phase with its own folders for checkpoints and logs."""
        checkpoints, logs = self.config.checkpoint_dir, self.config.tensorboard_dir
        if checkpoints is not None:
            # Only the very same run may go on from a checkpoint.
            content = dataclasses.asdict(self.config)
            content |= {"fingerprint": self.dataset.manifest.fingerprint}
            key = f"{self.config.model}-{name}-{fingerprint(content)[:12]}"
            checkpoints = f"{checkpoints.rstrip('/')}/{key}"
        if logs is not None:
            logs = f"{logs.rstrip('/')}/{self.config.model}-{name}"
        return Phase(
            name=name,
            schedule=schedule,
            seed=self.config.seed,
            checkpoint_dir=checkpoints,
            tensorboard_dir=logs,
        )

    @property
    def validation(self) -> Split | None:
        """The validation split, where it has records."""
        split = self.splits["validation"]
        return split if split.records else None

    def predict_records(
        self, model: keras.Model, split: Split
    ) -> npt.NDArray[np.float32]:
        """Outputs of a model for each record, in order of evaluation: `(n, ...)`."""
        batch_size = distribution.evaluation_batch_size(
            SCHEDULES[self.config.model].batch_size, split.records, self.strategy
        )
        batches = split.evaluation_batches(batch_size).map(lambda value, _: value)
        outputs: npt.NDArray[np.float32] = model.predict(batches, verbose=0)
        return outputs

    def predict_clips(
        self, model: keras.Model, split: Split
    ) -> evaluate.ClipPredictions:
        """Probabilities of each clip: the mean over its records."""
        track_ids, labels = split.load_index()
        probabilities = self.predict_records(model, split)
        return evaluate.mean_by_clip(track_ids, labels, probabilities)

    def describe(
        self, model: keras.Model, schedule: Schedule, phases: Sequence[PhaseHistory]
    ) -> dict[str, Any]:
        """The parameters that the report names."""
        return {
            "batch_size": schedule.batch_size,
            "best_epoch": phases[-1].best_epoch,
            "epochs": {phase.name: len(phase.epochs) for phase in phases},
            "learning_rate": schedule.learning_rate,
            "seed": self.config.seed,
            "trainable_weights": sum(
                int(np.prod(weight.shape)) for weight in model.trainable_weights
            ),
        }

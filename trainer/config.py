"""Parameters of a training run. No TensorFlow here, so that flags parse at once."""

from __future__ import annotations

import dataclasses
import math

from pipeline.schema import UserError

MODELS = ("windows", "mel", "features", "statistics")
STRATEGIES = ("auto", "cpu", "gpu", "mirrored", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a network is fitted.

    Attributes:
      epochs: at most so many passes over the training split.
      batch_size: records of a batch, over all replicas.
      learning_rate: of Adam.
      patience: epochs without a lower validation loss before training stops.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int


#: What each model is fitted with where flags do not say otherwise.
SCHEDULES = {
    "windows": Schedule(epochs=40, batch_size=64, learning_rate=2e-3, patience=8),
    "mel": Schedule(epochs=100, batch_size=32, learning_rate=1e-3, patience=10),
    "features": Schedule(epochs=60, batch_size=32, learning_rate=3e-4, patience=10),
    "statistics": Schedule(epochs=100, batch_size=32, learning_rate=1e-3, patience=10),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how.

    Attributes:
      data: dataset folder.
      model: one of `MODELS`, the representation that it reads.
      output: model folder to write.
      epochs: overrides the schedule's; also `batch_size`, `learning_rate`,
        `patience`.
      weights: of MobileNetV2: a path, `imagenet` or `none`; None decides by
        what is there.
      fine_tune_layers: last layers of MobileNetV2 to train too.
      fine_tune_epochs: how long.
      fine_tune_learning_rate: of Adam in that phase; None for 1e-5 on ImageNet
        weights and 1e-3 on random ones.
      strategy: see `trainer.distribution`.
      seed: of initial weights, dropout and the order of records.
      cache_mb: MiB of records that may be held in memory.
      mixed_precision: compute in 16 bits where the hardware gains from it.
      checkpoint_dir: where to keep what a restarted run needs; None for nowhere.
      tensorboard_dir: where to write TensorBoard logs; None for nowhere.
    """

    data: str
    model: str
    output: str
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    weights: str | None = None
    fine_tune_layers: int = 0
    fine_tune_epochs: int = 10
    fine_tune_learning_rate: float | None = None
    strategy: str = "auto"
    seed: int = 0
    cache_mb: int = 1024
    mixed_precision: bool = False
    checkpoint_dir: str | None = None
    tensorboard_dir: str | None = None

    def __post_init__(self) -> None:
        """Refuses values that cannot be trained with."""
        if self.model not in MODELS:
            raise UserError(
                f"--model must be one of {', '.join(MODELS)}. Received: {self.model!r}"
            )
        for name in ("epochs", "batch_size", "patience", "fine_tune_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be 1 or more. Received: {value}")
        for name in ("fine_tune_layers", "seed", "cache_mb"):
            value = getattr(self, name)
            if value < 0:
                raise UserError(f"--{name} must be 0 or more. Received: {value}")
        for name in ("learning_rate", "fine_tune_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"--{name} must be over 0. Received: {value}")
        if self.model != "mel" and (self.weights or self.fine_tune_layers):
            raise UserError(
                "--weights and --fine_tune_layers are for --model mel. "
                f"Received: --model {self.model}"
            )

    def adapt_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule with what the flags override."""
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Schedule)
            if getattr(self, field.name) is not None
        }
        return dataclasses.replace(schedule, **given)

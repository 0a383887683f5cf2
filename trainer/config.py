"""Parameters of a training run. No TensorFlow here, so that flags parse at once."""

from __future__ import annotations

import dataclasses
import math
import shlex

from pipeline.schema import UserError

MODELS = ("windows", "mel", "features", "statistics")
STRATEGIES = ("auto", "single", "mirrored", "multiworker", "tpu")
DECAYS = ("none", "cosine")
#: Excerpts of a long file to name its genre by: five minutes.
EXCERPTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a network is fitted.

    Attributes:
      epochs: at most so many passes over the training split.
      batch_size: records of a batch, over all replicas.
      learning_rate: of Adam, at its highest.
      patience: epochs without a lower validation loss before training stops.
      learning_rate_decay: `none`, or `cosine`: along half a cosine to 0 over all
        epochs, after a rise over the first twentieth of the steps.
      weight_decay: a step takes this share of the kernels, times the learning rate
        (AdamW's way).
      label_smoothing: share of a label's weight that goes to all genres.
      augmentation: 0 for none to 1 for strong, see `trainer.networks.augmentation`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    learning_rate_decay: str = "none"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augmentation: float = 0.0


#: What each model is fitted with where flags do not say otherwise.
SCHEDULES = {
    "windows": Schedule(epochs=40, batch_size=64, learning_rate=2e-3, patience=8),
    "mel": Schedule(epochs=100, batch_size=32, learning_rate=1e-3, patience=10),
    "features": Schedule(epochs=60, batch_size=32, learning_rate=3e-4, patience=10),
    "statistics": Schedule(epochs=100, batch_size=32, learning_rate=1e-3, patience=10),
}

#: Dropout, and units of hidden layers, of each model; 0 units is no hidden layer.
DROPOUT = {"windows": 0.3, "mel": 0.2, "features": 0.5, "statistics": 0.5}
UNITS = {"windows": 64, "mel": 0, "features": 64, "statistics": 64}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how.

    Attributes:
      data: dataset folder.
      model: one of `MODELS`, the representation that it reads.
      output: model folder to write.
      epochs: overrides the schedule's; also `batch_size`, `learning_rate`,
        `patience`, `learning_rate_decay`, `weight_decay`, `label_smoothing`,
        `augmentation`.
      dropout: overrides that of `DROPOUT`.
      units: overrides that of `UNITS`.
      weights: of MobileNetV2: a path, `imagenet` or `none`; None decides by
        what is there.
      fine_tune_layers: last layers of MobileNetV2 to train too.
      fine_tune_epochs: how long.
      fine_tune_learning_rate: of Adam in that phase; None for 1e-5 on ImageNet
        weights and 1e-3 on random ones.
      feature_cache: folder to keep the features of a frozen MobileNetV2 in; None
        for the checkpoint folder.
      strategy: see `trainer.runtime.devices`.
      seed: of initial weights, dropout, augmentation and the order of records.
      cache_mb: MiB of records that may be held in memory.
      mixed_precision: compute in 16 bits where the hardware gains from it.
      deterministic: on GPUs, only operations whose results are always the same.
      check: read all files once before training, and refuse damaged ones.
      checkpoint_dir: where to keep what a restarted run needs; None for nowhere.
      checkpoint_seconds: a checkpoint is written after an epoch if the last one is
        as old as this, and within an epoch if it is ten times as old.
      tensorboard_dir: where to write TensorBoard logs; None for nowhere.
    """

    data: str
    model: str
    output: str
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    learning_rate_decay: str | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    augmentation: float | None = None
    dropout: float | None = None
    units: int | None = None
    weights: str | None = None
    fine_tune_layers: int = 0
    fine_tune_epochs: int = 10
    fine_tune_learning_rate: float | None = None
    feature_cache: str | None = None
    strategy: str = "auto"
    seed: int = 0
    cache_mb: int = 1024
    mixed_precision: bool = False
    deterministic: bool = False
    check: bool = True
    checkpoint_dir: str | None = None
    checkpoint_seconds: float = 60.0
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
        for name in ("fine_tune_layers", "seed", "cache_mb", "units"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"--{name} must be 0 or more. Received: {value}")
        for name in ("checkpoint_seconds", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"--{name} must be 0 or more. Received: {value}")
        for name in ("learning_rate", "fine_tune_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"--{name} must be over 0. Received: {value}")
        for name in ("dropout", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(
                    f"--{name} must be 0 or more and under 1. Received: {value}"
                )
        if self.augmentation is not None and not 0 <= self.augmentation <= 1:
            raise UserError(
                f"--augmentation must be from 0 to 1. Received: {self.augmentation}"
            )
        if self.learning_rate_decay not in (None, *DECAYS):
            raise UserError(
                f"--learning_rate_decay must be one of {', '.join(DECAYS)}. "
                f"Received: {self.learning_rate_decay!r}"
            )
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

    def command(self) -> str:
        """The command line that trains the same model."""
        words = ["python", "-m", "trainer.task"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "check":
                words += [] if value else ["--no_check"]
            elif value is True:
                words.append(f"--{field.name}")
            elif value != field.default:
                words += [f"--{field.name}", str(value)]
        return shlex.join(words)

    @property
    def dropout_rate(self) -> float:
        """The flag's dropout, or the model's default."""
        return DROPOUT[self.model] if self.dropout is None else self.dropout

    @property
    def hidden_units(self) -> int:
        """The flag's units, or the model's default."""
        return UNITS[self.model] if self.units is None else self.units

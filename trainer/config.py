"""Parameters of a training run: its flags. No TensorFlow here: they parse at once."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipeline.schema import UserError

#: Networks that read vectors.
VECTORS = ("features", "statistics", "embeddings")
MODELS = ("windows", "mel", *VECTORS)
STRATEGIES = ("auto", "single", "mirrored", "multiworker", "tpu")
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
      augmentation: 0 for none to 1 for strong, see
        `trainer.training.networks.augmentation`.
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
    "embeddings": Schedule(epochs=100, batch_size=32, learning_rate=1e-3, patience=10),
}

#: Dropout, and units of hidden layers, of each model; 0 units is no hidden layer.
DROPOUT = {"windows": 0.3, "mel": 0.2, **dict.fromkeys(VECTORS, 0.5)}
UNITS = {"windows": 64, "mel": 0, **dict.fromkeys(VECTORS, 64)}


@dataclasses.dataclass(frozen=True)
class Number:
    """Numbers that a flag takes.

    Attributes:
      kind: int or float.
      text: completes "--flag must be".
      holds: whether a number is one of them; false for NaN.
    """

    kind: Callable[[str], float]
    text: str
    holds: Callable[[float], bool]


COUNT = Number(int, "1 or more", lambda value: value >= 1)
SIZE = Number(int, "0 or more", lambda value: value >= 0)
AMOUNT = Number(float, "0 or more", lambda value: 0 <= value < math.inf)
RATE = Number(float, "over 0", lambda value: 0 < value < math.inf)
SHARE = Number(float, "0 or more and under 1", lambda value: 0 <= value < 1)
STRENGTH = Number(float, "from 0 to 1", lambda value: 0 <= value <= 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """How a field of `TrainConfig` is given on the command line.

    Attributes:
      help: what the field means; the default is named with %(default)s.
      group: heading that the flag stands under.
      kind: what the field takes: text, a switch, or numbers.
      choices: texts that are allowed, where not all are.
      metavar: stands for the value in the help.
      path: whether it names a file or folder.
      variable: environment variable that the default comes from.
      local: whether it says where and how things are kept, and not what is computed.
    """

    help: str
    group: str = ""
    kind: Number | type[str] | type[bool] = str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    path: bool = False
    variable: str | None = None
    local: bool = False


def _option(
    text: str,
    kind: Number | type[str] | type[bool] = str,
    default: Any = None,
    **details: Any,
) -> Any:
    option = Option(help=text, kind=kind, **details)
    return dataclasses.field(default=default, metadata={"option": option})


def _defaults(values: Mapping[str, Any], field: str | None = None) -> str:
    numbers = (
        f"{model} {value if field is None else getattr(value, field):g}"
        for model, value in values.items()
    )
    return f"(default: {', '.join(numbers)})"


_required = functools.partial(_option, default=dataclasses.MISSING, group="run")
_fitting = functools.partial(_option, group="fitting")
_regular = functools.partial(_option, group="against overfitting")
_mel = functools.partial(_option, group="MobileNetV2 (--model mel)")
_machine = functools.partial(_option, group="machine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how.

    Each field is a flag of `trainer.task`, and its text says what it means. None
    leaves it to the model's entry in `SCHEDULES`, `DROPOUT` or `UNITS`, or turns off
    what has no default.
    """

    data: str = _required("dataset folder (local or gs://)", path=True)
    model: str = _required("network, by what it reads", choices=MODELS)
    output: str = _required(
        "model folder to write (default: AIP_MODEL_DIR, else models/MODEL)",
        path=True,
        variable="AIP_MODEL_DIR",
        local=True,
    )
    epochs: int | None = _fitting(
        f"at most so many epochs {_defaults(SCHEDULES, 'epochs')}", COUNT
    )
    batch_size: int | None = _fitting(
        f"records of a batch, over all replicas {_defaults(SCHEDULES, 'batch_size')}",
        COUNT,
    )
    learning_rate: float | None = _fitting(
        f"of Adam {_defaults(SCHEDULES, 'learning_rate')}", RATE
    )
    patience: int | None = _fitting(
        "epochs without a lower validation loss before it stops "
        f"{_defaults(SCHEDULES, 'patience')}",
        COUNT,
    )
    learning_rate_decay: str | None = _fitting(
        "cosine: rise over the first 5 %% of the steps, then fall to 0 (default: none)",
        choices=("none", "cosine"),
    )
    seed: int = _fitting(
        "of initial weights, dropout, augmentation and the order of records (default: "
        "%(default)s)",
        SIZE,
        0,
    )
    dropout: float | None = _regular(_defaults(DROPOUT), SHARE)
    units: int | None = _regular(
        f"of hidden layers, 0 for none; for mel, of one in the head "
        f"{_defaults(UNITS)}; for vectors of fewer than 500 training clips 0, with "
        "--dropout 0.7",
        SIZE,
    )
    weight_decay: float | None = _regular(
        "share of weights off a step, times the learning rate (default: 0)", AMOUNT
    )
    label_smoothing: float | None = _regular(
        "share of a label that is spread over all genres (default: 0)", SHARE
    )
    augmentation: float | None = _regular(
        "0 to 1: masks on mel images (SpecAugment), gain and sign of windows, noise on "
        "vectors (default: 0)",
        STRENGTH,
        metavar="STRENGTH",
    )
    weights: str | None = _mel(
        "ImageNet weights without top: a path, imagenet (Keras' cache, or a download) "
        "or none (random weights); default: Keras' cache if they are there, else none",
        path=True,
    )
    fine_tune_layers: int = _mel(
        "train so many last layers too, after the head; with random weights, from the "
        "start (default: %(default)s)",
        SIZE,
        0,
    )
    fine_tune_epochs: int = _mel("how long (default: %(default)s)", COUNT, 10)
    fine_tune_learning_rate: float | None = _mel(
        "of Adam in that phase (default: on ImageNet weights 1e-5, else 1e-3)", RATE
    )
    feature_cache: str | None = _mel(
        "keep the frozen base's output here, for further runs (default: for this run "
        "only)",
        metavar="DIR",
        path=True,
        local=True,
    )
    strategy: str = _machine(
        "auto: the processes of TF_CONFIG, else a TPU, else all GPUs, else the CPU; "
        "what it takes is printed (default: auto)",
        default="auto",
        choices=STRATEGIES,
    )
    cache_mb: int = _machine(
        "hold the dataset in memory up to this size (default: %(default)s MiB)",
        SIZE,
        1024,
    )
    mixed_precision: bool = _machine(
        "compute in 16 bits: faster on GPUs and TPUs, not on CPUs", bool, False
    )
    deterministic: bool = _machine(
        "on GPUs, too, the same command gives the same weights; slower", bool, False
    )
    check: bool = _machine(
        "do not compare all files with the manifest's checksums first",
        bool,
        True,
        local=True,
    )
    checkpoint_dir: str | None = _machine(
        "keep checkpoints here, so that the same command goes on after it was cut off; "
        "none for no checkpoints (default: AIP_CHECKPOINT_DIR, else checkpoints/ in "
        "the model folder, removed in the end)",
        path=True,
        variable="AIP_CHECKPOINT_DIR",
        local=True,
    )
    checkpoint_seconds: float = _machine(
        "write a checkpoint after an epoch if the last one is as old as this, and "
        "within an epoch if it is ten times as old (default: %(default)s)",
        AMOUNT,
        60.0,
        metavar="S",
        local=True,
    )
    tensorboard_dir: str | None = _machine(
        "write TensorBoard logs here (default: AIP_TENSORBOARD_LOG_DIR)",
        path=True,
        variable="AIP_TENSORBOARD_LOG_DIR",
        local=True,
    )
    track: str | None = _machine(
        "wandb: tell Weights & Biases; vertex: Vertex AI Experiments; wandb,vertex: "
        "both (default: nobody)",
        choices=("wandb", "vertex", "wandb,vertex"),
        metavar="NAME",
        local=True,
    )

    def __post_init__(self) -> None:
        """Refuses values that cannot be trained with."""
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is None and DEFAULTS[name] is None:
                continue
            if option.choices and value not in option.choices:
                raise UserError(
                    f"--{name} must be one of {', '.join(option.choices)}. Received: "
                    f"{value!r}"
                )
            if isinstance(option.kind, Number) and not option.kind.holds(value):
                raise UserError(
                    f"--{name} must be {option.kind.text}. Received: {value}"
                )
        if self.model != "mel" and (self.weights or self.fine_tune_layers):
            raise UserError(
                "--weights and --fine_tune_layers are for --model mel. "
                f"Received: --model {self.model}"
            )

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> TrainConfig:
        """Makes a configuration of what `add_options` parsed.

        Raises:
          UserError: a value cannot be trained with.
        """
        values = dict(flags)
        values["output"] = values["output"] or f"models/{values['model']}"
        if values["checkpoint_dir"] is None:
            values["checkpoint_dir"] = f"{values['output'].rstrip('/')}/checkpoints"
        elif values["checkpoint_dir"] == "none":
            values["checkpoint_dir"] = None
        return cls(**values)

    def computation(self) -> dict[str, Any]:
        """The fields that say what is computed, not where things are kept."""
        return {
            name: getattr(self, name)
            for name, option in OPTIONS.items()
            if not option.local
        }

    def adapt_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule with what the flags override."""
        overrides = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(Schedule)
            if getattr(self, field.name) is not None
        }
        return dataclasses.replace(schedule, **overrides)

    def command(self) -> str:
        """The command line that trains the same model."""
        return shlex.join(["./launch.sh", "train", *list_flags(vars(self))])

    @property
    def dropout_rate(self) -> float:
        """The flag's dropout, or the model's default."""
        return DROPOUT[self.model] if self.dropout is None else self.dropout

    @property
    def hidden_units(self) -> int:
        """The flag's units, or the model's default."""
        return UNITS[self.model] if self.units is None else self.units


#: How each field is given on the command line.
OPTIONS: Mapping[str, Option] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(TrainConfig)
}
#: Values of the fields that no flag gives.
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
#: Flags that name files or folders.
PATHS = tuple(name for name, option in OPTIONS.items() if option.path)


def list_flags(values: Mapping[str, Any]) -> list[str]:
    """Words of a command line for values of `TrainConfig` that are no defaults."""
    words = []
    for name, value in values.items():
        if value is None or value == DEFAULTS[name]:
            continue
        if OPTIONS[name].kind is bool:
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words += [f"--{name}", str(value)]
    return words


def add_options(
    parser: argparse.ArgumentParser, *, without: Collection[str] = ()
) -> Mapping[str, Any]:
    """Adds a training run's flags under their headings, and returns the groups.

    Args:
      parser: to add to.
      without: fields that are given in another way.
    """
    groups: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        if name in without:
            continue
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        default = DEFAULTS[name]
        flag = f"--{name}"
        details: dict[str, Any] = {"help": option.help, "dest": name}
        if option.kind is bool:
            details["action"] = "store_false" if default else "store_true"
            flag = f"--no_{name}" if default else flag
        else:
            number = option.kind if isinstance(option.kind, Number) else None
            required = default is dataclasses.MISSING and option.variable is None
            if option.variable is not None:
                default = os.environ.get(option.variable)
            details |= {
                "type": str if number is None else number.kind,
                "metavar": option.metavar,
                "choices": option.choices or None,
                "required": required,
                "default": None if required else default,
            }
        groups[option.group].add_argument(flag, **details)
    return groups

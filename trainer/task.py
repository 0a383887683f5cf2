"""Trains one Keras model: `python -m trainer.task --data OUT --model mel`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.common.credentials import require_credentials
from pipeline.schema import UserError
from trainer.config import (
    DECAYS,
    DROPOUT,
    MODELS,
    SCHEDULES,
    STRATEGIES,
    UNITS,
    TrainConfig,
)
from trainer.runtime.preemption import EXIT_CODE, PreemptedError


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.task",
        allow_abbrev=False,
        description=(
            "Trains a genre classifier on a preprocessed dataset, evaluates it clip by "
            "clip on the test split and writes a model folder: model.keras, "
            "manifest.json, history.json and .png, report.json, predictions.csv, "
            "confusion.png."
        ),
    )
    parser.add_argument("--data", required=True, help="dataset folder (local or gs://)")
    parser.add_argument(
        "--model",
        required=True,
        choices=MODELS,
        help=(
            "windows: 1-D CNN on raw audio; mel: MobileNetV2 on mel images; features "
            "and statistics: dense net on vectors"
        ),
    )
    parser.add_argument(
        "--output",
        default=os.environ.get("AIP_MODEL_DIR"),
        help="model folder to write (default: AIP_MODEL_DIR, else models/MODEL)",
    )
    fitting = parser.add_argument_group("fitting")
    for flag, kind, text in (
        ("epochs", int, "at most so many epochs"),
        ("batch_size", int, "records of a batch, over all replicas"),
        ("learning_rate", float, "of Adam"),
        ("patience", int, "epochs without a lower validation loss before it stops"),
    ):
        fitting.add_argument(
            f"--{flag}",
            type=kind,
            help=f"{text} (default: {_defaults(SCHEDULES, flag)})",
        )
    fitting.add_argument(
        "--learning_rate_decay",
        choices=DECAYS,
        help="cosine: rise over the first 5 %% of the steps, then fall to 0 "
        "(default: none)",
    )
    fitting.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    fitting.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="search learning rate, dropout, augmentation and units in N trials first, "
        "by validation loss; what a flag gives is not searched",
    )
    against = parser.add_argument_group("against overfitting")
    against.add_argument("--dropout", type=float, help=f"default: {_defaults(DROPOUT)}")
    against.add_argument(
        "--units",
        type=int,
        help="of hidden layers, 0 for none; for mel, of one in the head "
        f"(default: {_defaults(UNITS)})",
    )
    against.add_argument(
        "--weight_decay",
        type=float,
        help="share of the weights taken off in a step, times the learning rate "
        "(default: 0)",
    )
    against.add_argument(
        "--label_smoothing",
        type=float,
        help="share of a label that is spread over all genres (default: 0)",
    )
    against.add_argument(
        "--augmentation",
        type=float,
        metavar="STRENGTH",
        help="0 to 1: masks on mel images (SpecAugment), gain and sign of windows, "
        "noise on vectors (default: 0)",
    )
    mel = parser.add_argument_group("MobileNetV2 (--model mel)")
    mel.add_argument(
        "--weights",
        help=(
            "ImageNet weights without top: a path, imagenet (Keras' cache, or a "
            "download) or none (random weights); default: Keras' cache if they are "
            "there, else none"
        ),
    )
    mel.add_argument(
        "--fine_tune_layers",
        type=int,
        default=0,
        help=(
            "train so many last layers too, after the head; with random weights, from "
            "the start (default: %(default)s)"
        ),
    )
    mel.add_argument(
        "--fine_tune_epochs", type=int, default=10, help="default: %(default)s"
    )
    mel.add_argument(
        "--fine_tune_learning_rate",
        type=float,
        help="default: 1e-5 on ImageNet weights, 1e-3 on random ones",
    )
    mel.add_argument(
        "--feature_cache",
        metavar="DIR",
        help="keep the frozen base's features here, for further runs (default: for "
        "this run only)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="auto: the processes of TF_CONFIG, else a TPU, else all GPUs, else the "
        "CPU; what it takes is printed",
    )
    machine.add_argument(
        "--cache_mb",
        type=int,
        default=1024,
        help="hold the dataset in memory up to this size (default: %(default)s MiB)",
    )
    machine.add_argument(
        "--mixed_precision",
        action="store_true",
        help="compute in 16 bits: faster on GPUs and TPUs, not on CPUs",
    )
    machine.add_argument(
        "--deterministic",
        action="store_true",
        help="on GPUs, too, the same command gives the same weights; slower",
    )
    machine.add_argument(
        "--no_check",
        dest="check",
        action="store_false",
        help="do not compare all files with the manifest's checksums first",
    )
    machine.add_argument(
        "--checkpoint_dir",
        default=os.environ.get("AIP_CHECKPOINT_DIR"),
        help=(
            "keep checkpoints here, so that the same command goes on after it was cut "
            "off; none for no checkpoints (default: AIP_CHECKPOINT_DIR, else "
            "checkpoints/ in the model folder, removed in the end)"
        ),
    )
    machine.add_argument(
        "--checkpoint_seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="write a checkpoint after an epoch if the last one is as old as this, and "
        "within an epoch if it is ten times as old (default: %(default)s)",
    )
    machine.add_argument(
        "--tensorboard_dir",
        default=os.environ.get("AIP_TENSORBOARD_LOG_DIR"),
        help="write TensorBoard logs here (default: AIP_TENSORBOARD_LOG_DIR)",
    )
    return parser


def _defaults(values: Mapping[str, Any], field: str | None = None) -> str:
    return ", ".join(
        f"{model} {value if field is None else getattr(value, field):g}"
        for model, value in values.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code.

    0 for a trained model, 2 for a wrong flag or an unusable dataset, 75 for a run
    that was stopped by SIGTERM and has saved its state, 1 where another process of
    the run is gone.
    """
    flags = vars(make_parser().parse_args(argv))
    flags["output"] = flags["output"] or f"models/{flags['model']}"
    if flags["checkpoint_dir"] is None:
        flags["checkpoint_dir"] = f"{flags['output'].rstrip('/')}/checkpoints"
    elif flags["checkpoint_dir"] == "none":
        flags["checkpoint_dir"] = None
    trials = flags.pop("tune")
    try:
        if trials < 0:
            raise UserError(f"--tune must be 0 or more. Received: {trials}")
        config = TrainConfig(**flags)
        require_credentials(
            flags[name]
            for name in (
                "data",
                "output",
                "weights",
                "checkpoint_dir",
                "tensorboard_dir",
                "feature_cache",
            )
        )
        # Imported here: wrong flags need not wait for TensorFlow.
        from trainer.runtime import quiet  # noqa: F401  isort: skip
        from trainer.training.train import LostWorkerError, train

        try:
            if trials:
                from trainer.training.tuning import train_best

                train_best(config, trials)
            else:
                train(config)
        except LostWorkerError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    except PreemptedError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return EXIT_CODE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

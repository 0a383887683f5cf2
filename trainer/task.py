"""Trains one Keras model: `python -m trainer.task --data OUT --model mel`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pipeline.schema import UserError
from trainer.config import MODELS, SCHEDULES, STRATEGIES, TrainConfig


def build_parser() -> argparse.ArgumentParser:
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
        defaults = ", ".join(
            f"{model} {getattr(schedule, flag):g}"
            for model, schedule in SCHEDULES.items()
        )
        fitting.add_argument(
            f"--{flag}", type=kind, help=f"{text} (default: {defaults})"
        )
    fitting.add_argument("--seed", type=int, default=0, help="default: %(default)s")
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
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="auto: a TPU, else all GPUs, else the CPU",
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
        "--checkpoint_dir",
        default=os.environ.get("AIP_CHECKPOINT_DIR"),
        help=(
            "keep checkpoints here, so that the same command goes on after it was cut "
            "off (default: AIP_CHECKPOINT_DIR, else none)"
        ),
    )
    machine.add_argument(
        "--tensorboard_dir",
        default=os.environ.get("AIP_TENSORBOARD_LOG_DIR"),
        help="write TensorBoard logs here (default: AIP_TENSORBOARD_LOG_DIR)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = vars(build_parser().parse_args(argv))
    flags["output"] = flags["output"] or f"models/{flags['model']}"
    try:
        config = TrainConfig(**flags)
        # Imported here: wrong flags need not wait for TensorFlow.
        from trainer import quiet  # noqa: F401
        from trainer.train import train

        train(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Trains one Keras model: `./launch.sh train --data OUT --model mel`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import print_error
from pipeline.schema import UserError
from trainer.config import PATHS, TrainConfig, add_options
from trainer.runtime.preemption import EXIT_CODE, PreemptedError


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh train",
        allow_abbrev=False,
        description=(
            "Trains a genre classifier on a preprocessed dataset, evaluates it clip by "
            "clip on the test split and writes a model folder: model.keras, "
            "manifest.json, history.json and .png, report.json, predictions.csv, "
            "confusion.png."
        ),
    )
    add_options(parser)
    parser.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="search learning rate, dropout, augmentation and units in N trials first, "
        "by validation loss; what a flag gives is not searched",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code.

    0 for a trained model, 2 for a wrong flag or an unusable dataset, 75 for a run
    that was stopped by SIGTERM and has saved its state, 1 where another process of
    the run is gone.
    """
    flags = vars(make_parser().parse_args(argv))
    trials = flags.pop("tune")
    try:
        if trials < 0:
            raise UserError(f"--tune must be 0 or more. Received: {trials}")
        config = TrainConfig.from_flags(flags)
        require_credentials(getattr(config, name) for name in PATHS)
        # Imported here: wrong flags need not wait for TensorFlow.
        from trainer.runtime import quiet  # noqa: F401  isort: skip
        from trainer.training.train import LostWorkerError, train

        try:
            if trials:
                from trainer.training.tuning import tune_and_train

                tune_and_train(config, trials)
            else:
                train(config)
        except LostWorkerError as error:
            print_error(error)
            return 1
    except PreemptedError as error:
        print_error(error, label="stopped")
        return EXIT_CODE
    except UserError as error:
        print_error(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

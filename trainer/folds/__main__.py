"""Cross-validation for corpora too small for one test set.

    ./launch.sh folds --data OUT --output MODELS --folds 5

Every clip is tested once, by a model that heard neither it nor its artist; then each
model is trained once more, on all clips, and kept. What is written is read by
`trainer.compare` and `trainer.predict`, like models trained in the ordinary way.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.common.plain_text import print_error
from pipeline.common.progress import add_progress_flags, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.schema import UserError
from trainer.baselines.__main__ import DEFAULT_REPRESENTATIONS
from trainer.config import DEFAULTS, MODELS, add_options, list_flags
from trainer.data.dataset import Dataset, open_dataset
from trainer.folds.cross_validation import (
    BASELINES,
    MEL,
    Plan,
    cross_validate,
    is_of_mel,
)
from trainer.folds.records import MIN_FOLDS
from trainer.runtime.cluster import read_cluster
from trainer.runtime.preemption import EXIT_CODE, PreemptedError, interrupting
from trainer.training.train import LostWorkerError


def choose_models(dataset: Dataset, names: Sequence[str] | None) -> list[str]:
    """The models to cross-validate: those asked for, or all that the data allow."""
    if names:
        return list(dict.fromkeys(names))
    representations: Mapping[str, object] = dataset.manifest.representations
    nets = [model for model in MODELS if model in representations]
    classical = set(DEFAULT_REPRESENTATIONS) & set(representations)
    return nets + ([BASELINES] if classical else [])


def check_flags(flags: Mapping[str, Any], models: Sequence[str]) -> None:
    """Refuses flags that no model of a run knows.

    Raises:
      UserError: names the first of them.
    """
    networks = [model for model in models if model != BASELINES]
    for name, value in flags.items():
        if value == DEFAULTS[name] or value is None:
            continue
        if MEL not in networks and is_of_mel(name):
            raise UserError(
                f"--{name} is for the model mel, which is not among those to train "
                f"({', '.join(models)}); add it to --models, or leave out --{name}."
            )


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "folds",
        description=(
            "Cross-validates models on a dataset too small for one test set. Clips of "
            "an artist stay together where artists are known, and genres are spread "
            "evenly. Compare the outcome with "
            "./launch.sh compare --models OUTPUT."
        ),
        examples=[
            "folds --data dataset --output models --folds 5",
            "folds --data dataset --output models --models statistics baselines",
        ],
    )
    chosen = parser.add_argument_group("run")
    chosen.add_argument("--data", required=True, help="dataset folder")
    chosen.add_argument(
        "--output", required=True, help="folder for a model folder each; local"
    )
    chosen.add_argument(
        "--folds",
        type=int,
        default=5,
        metavar="N",
        help="each model is trained so many times (default: %(default)s)",
    )
    chosen.add_argument(
        "--models",
        nargs="+",
        choices=(*MODELS, BASELINES),
        metavar="NAME",
        help=f"{', '.join(MODELS)} and {BASELINES} (default: all that the dataset "
        "allows)",
    )
    chosen.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    chosen.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="search in each fold, see trainer.task",
    )
    add_options(parser, without=("data", "model", "output", "seed"))
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    reporter = take_reporter(arguments)
    flags = vars(arguments)
    data, output, folds = (flags.pop(name) for name in ("data", "output", "folds"))
    models, seed, trials = (flags.pop(name) for name in ("models", "seed", "tune"))
    try:
        if folds < MIN_FOLDS:
            raise UserError(
                f"--folds must be {MIN_FOLDS} or more: one to test, the others to "
                f"train on. Received: {folds}"
            )
        if trials < 0:
            raise UserError(f"--tune must be 0 or more. Received: {trials}")
        if read_cluster(os.environ) is not None:
            raise UserError(
                "Folds are trained in one process, and TF_CONFIG names more; unset it."
            )
        dataset = open_dataset(data)
        output = output.rstrip("/") or output
        chosen = choose_models(dataset, models)
        check_flags(flags, chosen)
        plan = Plan(
            output=output,
            folds=folds,
            models=chosen,
            seed=seed,
            flags=flags,
            trials=trials,
            reporter=reporter,
            command=shlex.join(
                [
                    *("./launch.sh", "folds", "--data", data, "--output", output),
                    *("--folds", str(folds), "--seed", str(seed)),
                    *(["--models", *chosen] if models else []),
                    *(["--tune", str(trials)] if trials else []),
                    *list_flags(flags),
                ]
            ),
        )
        with interrupting():
            reports = cross_validate(dataset, plan)
    except PreemptedError as error:
        print_error(error, label="stopped")
        return EXIT_CODE
    except LostWorkerError as error:
        print_error(error)
        return 1
    except UserError as error:
        print_error(error)
        return 2
    for report in reports:
        test = report.test
        low, high = test.score_interval
        reporter.result(
            f"{report.name}: {test.SCORE} {test.score:.3f} over all {test.clips} clips "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )
    reporter.finish(f"Models: {output}", ["compare", "--models", output])
    return 0


if __name__ == "__main__":
    sys.exit(main())

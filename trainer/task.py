"""Trains models: `./launch.sh train --data OUT`, or one: `--model mel`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import allow_any_text, one_line, print_error
from pipeline.common.progress import Reporter, add_progress_flags, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.schema import UserError
from trainer.config import MODELS, PATHS, TrainConfig, add_options
from trainer.runtime.cluster import find_cluster, read_cluster
from trainer.runtime.preemption import (
    EXIT_CODE,
    PreemptedError,
    interrupting,
    stop_if_interrupted,
)

#: Stands for all of scikit-learn's classifiers.
BASELINES = "baselines"
#: Where models are written to if nobody says.
OUTPUT = "models"


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "train",
        description=(
            "Trains genre classifiers on a preprocessed dataset, evaluates them clip "
            "by clip on the test split and writes a model folder each: model.keras, "
            "manifest.json, history.json and .png, report.json, predictions.csv, "
            "confusion.png. Without --model, or with several, it ends with the report "
            "that compares them."
        ),
        examples=[
            "train --data dataset",
            "train --data dataset --model mel --output models/mel --weights imagenet",
            "train --data dataset --model features statistics --report report",
        ],
    )
    chosen = add_options(parser, without=("model",))["run"]
    chosen.add_argument(
        "--model",
        nargs="+",
        choices=(*MODELS, BASELINES),
        metavar="NAME",
        help="windows: 1-D CNN on raw audio; mel: MobileNetV2 on mel images; features, "
        "statistics and embeddings: dense net on vectors; baselines: scikit-learn's "
        "classifiers (default: all that the dataset allows)",
    )
    chosen.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="search learning rate, dropout, augmentation and units in N trials first, "
        "by validation loss; what a flag gives is not searched (default: no search)",
    )
    several = parser.add_argument_group(
        "report",
        "on several models; with one of these options, on a single one, too, whose "
        "folder is then in --output",
    )
    several.add_argument(
        "--report",
        metavar="DIR",
        help="where to write it (default: the folder above --output)",
    )
    several.add_argument(
        "--audio",
        metavar="DIR",
        help="folder of the audio files: the report plays parts of the clips that "
        "models get most wrong",
    )
    add_progress_flags(parser)
    return parser


def prepare() -> None:
    """Imports what several models need, which takes seconds."""
    from trainer.runtime import quiet  # noqa: F401  isort: skip
    import trainer.baselines.__main__
    import trainer.compare.__main__
    import trainer.folds.__main__
    import trainer.training.tuning  # noqa: F401


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code.

    0 for trained models, 2 for a wrong flag, an unusable dataset or a model of several
    that could not be trained, 75 for a run that was asked to stop and has saved its
    state, 1 where another process of the run is gone.
    """
    allow_any_text()
    arguments = make_parser().parse_args(argv)
    reporter = take_reporter(arguments)
    flags = vars(arguments)
    try:
        check(arguments)
        trials, names = flags.pop("tune"), flags.pop("model")
        report, audio = flags.pop("report"), flags.pop("audio")
        if _is_one(names, report, audio):
            config = TrainConfig.from_flags({**flags, "model": names[0]})
            require_credentials(getattr(config, name) for name in PATHS)
            return _train_one(config, trials, reporter)
        if read_cluster(os.environ) is not None:
            raise UserError(
                "Several models are trained in one process, and TF_CONFIG names more; "
                "choose one with --model, without --report and --audio."
            )
        paths = [flags["data"], flags["output"], flags["checkpoint_dir"], report]
        require_credentials(paths)
        with interrupting():
            return _train_several(flags, names, trials, report, audio, reporter)
    except PreemptedError as error:
        print_error(error, label="stopped")
        return EXIT_CODE
    except KeyboardInterrupt:
        print_error("interrupted; the same command goes on.", label="stopped")
        return 130
    except UserError as error:
        print_error(error)
        return 2


def check(arguments: argparse.Namespace) -> None:
    """Tells wrong flags before any work, and not after the first model.

    Args:
      arguments: of `make_parser`.

    Raises:
      UserError: a value cannot be trained with.
    """
    flags = dict(vars(arguments))
    for name in ("quiet", "verbose"):
        flags.pop(name, None)
    trials, names = flags.pop("tune"), flags.pop("model")
    alone = _is_one(names, flags.pop("report"), flags.pop("audio"))
    if trials < 0:
        raise UserError(f"--tune must be 0 or more. Received: {trials}")
    for name in names or MODELS:
        if alone:
            TrainConfig.from_flags({**flags, "model": name})
        elif name in MODELS:
            make_config(flags, name)


def _is_one(names: Sequence[str] | None, report: str | None, audio: str | None) -> bool:
    """Whether a network is trained by itself, and nothing is compared."""
    chosen = names is not None and len(names) == 1 and names[0] in MODELS
    return chosen and report is None and audio is None


def make_config(flags: dict[str, Any], model: str) -> TrainConfig:
    """The parameters of one of several models, in a folder of its own.

    Raises:
      UserError: a value cannot be trained with.
    """
    values = dict(flags)
    if model != "mel":
        values |= {"weights": None, "fine_tune_layers": 0}
    output = (flags["output"] or OUTPUT).rstrip("/")
    return TrainConfig.from_flags(
        {**values, "model": model, "output": f"{output}/{model}"}
    )


def _train_one(config: TrainConfig, trials: int, reporter: Reporter) -> int:
    # Imported here: wrong flags need not wait for TensorFlow.
    from trainer.runtime import quiet  # noqa: F401  isort: skip
    from trainer.training.train import LostWorkerError
    from trainer.training.tuning import tune_and_train

    try:
        # A run of its own saves what it has when it is asked to stop.
        with interrupting() if trials else contextlib.nullcontext():
            report = tune_and_train(config, trials, reporter)
    except LostWorkerError as error:
        print_error(error)
        return 1
    cluster = find_cluster(config.strategy, os.environ)
    if cluster is None or cluster.worker == 0:
        if report is None:
            reporter.result(
                f"{config.model}: the test split is empty, so no report is written"
            )
        reporter.finish(
            f"Model: {config.output}", ["predict", "--model", config.output, "FILE"]
        )
    return 0


def _train_several(
    flags: dict[str, Any],
    names: Sequence[str] | None,
    trials: int,
    report: str | None,
    audio: str | None,
    reporter: Reporter,
) -> int:
    """Trains models one after another and compares those that could be trained."""
    from trainer.runtime import quiet  # noqa: F401  isort: skip
    import keras
    import tensorflow as tf

    from trainer.baselines.__main__ import (
        choose_baselines,
        choose_representations,
        train_baselines,
    )
    from trainer.baselines.__main__ import name_settings as name_baseline_settings
    from trainer.baselines.fitting import Baseline
    from trainer.baselines.vectors import TooLargeError
    from trainer.compare import __main__ as comparison
    from trainer.compare.comparison import check_others
    from trainer.compare.report_files import check_output
    from trainer.data.dataset import open_dataset
    from trainer.folds.__main__ import choose_models
    from trainer.folds.cross_validation import folder_names
    from trainer.training.model_folder import is_trained, try_folders
    from trainer.training.train import LostWorkerError, name_settings
    from trainer.training.tuning import tune_and_train

    dataset = open_dataset(flags["data"])
    models = choose_models(dataset, names)
    measured = dataset.manifest.clip_totals["test"] > 0
    if not measured and names is None:
        models = [model for model in models if model != BASELINES]
    output = (flags["output"] or OUTPUT).rstrip("/")
    words = ["--models", output, "--data", flags["data"]]
    words += [] if report is None else ["--output", report]
    words += [] if audio is None else ["--audio", audio]
    compare = comparison.make_parser().parse_args(words)
    del compare.quiet, compare.verbose
    folders = folder_names(dataset, models)
    try_folders([f"{output}/{name}" for name in folders])
    if measured:
        check_others(output, folders, dataset.manifest.fingerprint)
    check_output(report or os.path.dirname(output) or ".")

    def train_network(config: TrainConfig) -> None:
        # Names of layers count from 1 again, as where one is trained alone.
        keras.backend.clear_session()
        tune_and_train(config, trials, reporter)

    def train_classifiers(representation: str, baselines: Sequence[Baseline]) -> None:
        reports = train_baselines(
            dataset, representation, baselines, output, reporter=reporter
        )
        # The table has a line for each.
        line = f"{len(reports)} baselines on {representation}"
        scores = [report.test.score for report in reports]
        if scores:
            name = reports[0].test.SCORE
            line += f": test {name} {min(scores):.3f} to {max(scores):.3f}"
        reporter.detail(line)

    parts: dict[str, Callable[[], None]] = {}
    kept = []
    for model in models:
        if model != BASELINES:
            config = make_config(flags, model)
            settings = name_settings(config, dataset, trials)
            if is_trained(config.output, settings, reporter):
                kept.append(model)
            else:
                parts[model] = functools.partial(train_network, config)
            continue
        # What does not fit into memory with one representation may with another.
        for representation in choose_representations(dataset, None):
            baselines = choose_baselines(dataset, None)
            missing = [
                baseline
                for baseline in baselines
                if not is_trained(
                    f"{output}/{baseline.name}-{representation}",
                    name_baseline_settings(dataset, representation, baseline),
                    reporter,
                )
            ]
            name = f"{BASELINES} on {representation}"
            if len(missing) < len(baselines):
                kept.append(f"{len(baselines) - len(missing)} {name}")
            if missing:
                parts[name] = functools.partial(
                    train_classifiers, representation, missing
                )
    if kept:
        reporter.note(
            f"Kept, as trained before with the same settings: {', '.join(kept)}; to "
            f"train one anew, remove its folder in {one_line(output)}."
        )
    failures = []
    for name, work in reporter.track(parts.items(), "Models", "model", len(parts)):
        stop_if_interrupted()
        try:
            work()
        except (UserError, LostWorkerError, MemoryError, tf.errors.OpError) as error:
            if names is None and isinstance(error, TooLargeError):
                reporter.warn(f"{name}: left out. {error}")
                continue
            failures.append(name)
            print_error(f"{name}: {error}")
    stop_if_interrupted()
    if not measured:
        reporter.note(
            f"The test split of {one_line(flags['data'])} is empty: networks are "
            "trained, nothing is measured or compared, and baselines are left out; "
            "cross-validation tests all clips (./launch.sh folds)."
        )
    elif kept or len(failures) < len(parts):
        comparison.compare(compare, reporter)
    if failures:
        print_error(
            f"{len(failures)} of {len(parts)} could not be trained: "
            f"{one_line(', '.join(failures))}; see above."
        )
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Trains the classical baselines on a preprocessed dataset and reports on them.

    ./launch.sh baselines --data OUT --output MODELS

Every model gets values normalised with the training statistics of the manifest,
as the neural networks do. All of them are deterministic, so there is no seed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import print_error
from pipeline.common.progress import SILENT, Reporter, add_progress_flags, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.schema import MULTI_LABEL, UserError, fingerprint
from trainer.baselines.fitting import BASELINES, BASELINES_OF, Baseline, fit_baselines
from trainer.baselines.vectors import check_clips
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.tasks.task import AnyReport, describe_report, make_report
from trainer.predict import classical
from trainer.training.model_folder import try_folders, write_report_folder

DEFAULT_REPRESENTATIONS = ("features", "statistics", "embeddings")


def choose_baselines(
    dataset: Dataset, names: Sequence[str] | None
) -> Sequence[Baseline]:
    """The baselines that suit the dataset's task.

    Raises:
      UserError: one that was asked for does not.
    """
    known = BASELINES_OF[dataset.manifest.task]
    suitable = {baseline.name: baseline for baseline in known}
    for name in names or ():
        if name not in suitable:
            raise UserError(
                f"--models {name} tells one genre from the others; the clips in "
                f"{dataset.folder} have several each, for which there are "
                f"{', '.join(suitable)}."
            )
    chosen = names or suitable
    return [baseline for name, baseline in suitable.items() if name in chosen]


def name_settings(dataset: Dataset, representation: str, baseline: Baseline) -> str:
    """Name of what a baseline is trained with and on; see `is_trained`."""
    return fingerprint([dataset.manifest.fingerprint, representation, baseline.name])


def train_baselines(
    dataset: Dataset,
    representation: str,
    baselines: Sequence[Baseline],
    output: str,
    *,
    refit: bool = False,
    keep: bool = True,
    reporter: Reporter = SILENT,
) -> list[AnyReport]:
    """Trains baselines on one representation and writes their model folders.

    Args:
      dataset: an open dataset.
      representation: one that the manifest has training statistics for.
      baselines: which to train, in this order.
      output: folder of the model folders `<baseline>-<representation>`.
      refit: see `trainer.baselines.fitting.fit_baselines`.
      keep: write what predicts, and not the report alone.
      reporter: is told about each model.

    Raises:
      UserError: the representation does not suit, or needs more memory than is
        free; the splits lack clips or genres.
    """
    check_clips(dataset)
    reports = []
    fits = fit_baselines(
        dataset, representation, baselines, refit=refit, reporter=reporter
    )
    name = f"Baselines on {representation}"
    for fitted in reporter.track(fits, name, "model", len(baselines)):
        predictions = fitted.predict()
        kept, notes = fitted.extract() if keep else (None, [])
        notes += fitted.classifier.notes
        if not fitted.chosen:
            notes.append("No validation clips: parameters are defaults.")
        report = make_report(
            dataset.manifest,
            predictions,
            name=fitted.name,
            model=fitted.baseline.title,
            representation=representation,
            parameters=fitted.classifier.parameters,
            train_seconds=fitted.seconds,
            weights=None if kept is None else classical.count_numbers(kept),
            data=dataset.folder,
            command=shlex.join(
                [
                    *("./launch.sh", "baselines", "--data", dataset.folder),
                    *("--output", output, "--representation", representation),
                    *("--models", fitted.baseline.name),
                ]
            ),
            notes=notes,
        )
        write_report_folder(
            f"{output.rstrip('/')}/{fitted.name}",
            report,
            predictions["test"],
            validation=predictions["validation"],
            files=fitted.make_files(kept),
            settings=name_settings(dataset, representation, fitted.baseline),
        )
        reports.append(report)
    return reports


def choose_representations(dataset: Dataset, names: Sequence[str] | None) -> list[str]:
    """The representations to train on.

    Raises:
      UserError: one is missing or is not normalised, or there is none.
    """
    held = dataset.manifest.representations
    if names is None:
        chosen = [name for name in DEFAULT_REPRESENTATIONS if name in held]
        if not chosen:
            raise UserError(
                f"The dataset in {dataset.folder} holds neither "
                f"{' nor '.join(DEFAULT_REPRESENTATIONS)}, only {', '.join(held)}; "
                "preprocess it with one of them."
            )
        return chosen
    for name in names:
        if dataset.representation(name).name not in dataset.manifest.normalisation:
            suitable = ", ".join(dataset.manifest.normalisation) or "none"
            raise UserError(
                f"--representation {name} has no training statistics to normalise "
                f"with; in {dataset.folder} these have: {suitable}."
            )
    return list(dict.fromkeys(names))


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "baselines",
        description="Train the classical baselines on a preprocessed dataset and write "
        "a report folder for each.",
        examples=[
            "baselines --data dataset --output models",
            "baselines --data dataset --output models --models knn rbf_svm",
        ],
    )
    models = parser.add_argument_group("run")
    models.add_argument(
        "--data", required=True, metavar="OUT", help="dataset folder, local or gs://"
    )
    models.add_argument(
        "--output",
        required=True,
        metavar="MODELS",
        help="folder of the report folders, one MODEL-REPRESENTATION each",
    )
    models.add_argument(
        "--representation",
        nargs="+",
        metavar="NAME",
        help="what to train on (default: those of "
        f"{' and '.join(DEFAULT_REPRESENTATIONS)} that the dataset holds)",
    )
    names = [baseline.name for baseline in BASELINES]
    models.add_argument(
        "--models",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"which to train: {', '.join(names)} (default: all; of several genres a "
        f"clip, {', '.join(baseline.name for baseline in BASELINES_OF[MULTI_LABEL])})",
    )
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    args = make_parser().parse_args(argv)
    reporter = take_reporter(args)
    try:
        require_credentials([args.data, args.output])
        dataset = open_dataset(args.data)
        baselines = choose_baselines(dataset, args.models)
        representations = choose_representations(dataset, args.representation)
        try_folders(
            f"{args.output.rstrip('/')}/{baseline.name}-{representation}"
            for baseline in baselines
            for representation in representations
        )
        for representation in representations:
            for report in train_baselines(
                dataset, representation, baselines, args.output, reporter=reporter
            ):
                reporter.result(f"{report.name}: {describe_report(report)}")
        reporter.finish(f"Models: {args.output}", ["compare", "--models", args.output])
    except UserError as error:
        print_error(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

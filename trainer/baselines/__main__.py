"""Trains the classical baselines on a preprocessed dataset and reports on them.

    ./launch.sh baselines --data OUT --output MODELS

Every model gets values normalised with the training statistics of the manifest,
as the neural networks do. All of them are deterministic, so there is no seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import print_error
from pipeline.schema import MANIFEST_FILE, SPLITS, UserError
from trainer.baselines import classifiers, several
from trainer.baselines.artist_folds import fold_by_artist
from trainer.baselines.choice import Classifier, Examples, Floats
from trainer.baselines.vectors import check_clips, check_memory, load_normalised
from trainer.data.dataset import Arrays, Dataset, open_dataset
from trainer.data.music_model import read_music_model
from trainer.evaluation.predictions import (
    ClipPredictions,
    mean_by_clip,
    with_artists,
)
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.task import AnyReport, describe_report, find_task
from trainer.predict import classical
from trainer.predict.baseline import make_files
from trainer.predict.distances import squared_distances
from trainer.training.model_folder import try_folders, write_report_folder

DEFAULT_REPRESENTATIONS = ("features", "statistics", "embeddings")

#: Below this size of the training split one thread computes: on a busy machine
#: several wait for each other, after each of very many short steps, for longer
#: than they compute.
ONE_THREAD_BYTES = 256 * 2**20

#: A model of more bytes is measured and not kept: kNN and the SVM on all values hold
#: training clips, of which 800 with 85,210 values take 273 MB.
MAX_KEPT_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """One kind of model.

    Attributes:
      name: for flags and folders.
      title: for people.
      fit: fits it and chooses its parameters.
      on_distances: whether it reads distances between clips instead of values.
    """

    name: str
    title: str
    fit: Callable[[Examples], Classifier]
    on_distances: bool = False


BASELINES = (
    Baseline(
        name="logistic_regression",
        title="Logistic regression",
        fit=classifiers.fit_logistic_regression,
    ),
    Baseline(name="knn", title="kNN", fit=classifiers.fit_knn, on_distances=True),
    Baseline(
        name="gaussian_nb",
        title="Gaussian naive Bayes",
        fit=classifiers.fit_gaussian_nb,
    ),
    Baseline(
        name="rbf_svm",
        title="RBF SVM",
        fit=classifiers.fit_rbf_svm,
        on_distances=True,
    ),
    Baseline(
        name="pca_logistic_regression",
        title="PCA and logistic regression",
        fit=classifiers.fit_on_components(classifiers.fit_logistic_regression),
        on_distances=True,
    ),
    Baseline(
        name="pca_rbf_svm",
        title="PCA and RBF SVM",
        fit=classifiers.fit_on_components(classifiers.fit_rbf_svm, on_distances=True),
        on_distances=True,
    ),
)


#: Of several genres a clip: what is fitted to each by itself, or counts shares.
SEVERAL = (
    Baseline(
        name="logistic_regression",
        title="Logistic regression",
        fit=several.fit_logistic_regressions,
    ),
    Baseline(
        name="knn",
        title="kNN",
        fit=several.fit_neighbour_shares,
        on_distances=True,
    ),
    Baseline(
        name="pca_logistic_regression",
        title="PCA and logistic regression",
        fit=classifiers.fit_on_components(several.fit_logistic_regressions),
        on_distances=True,
    ),
)


def choose_baselines(
    dataset: Dataset, names: Sequence[str] | None
) -> Sequence[Baseline]:
    """The baselines that suit the dataset's task.

    Raises:
      UserError: one that was asked for does not.
    """
    single = isinstance(find_task(dataset.manifest), SingleLabel)
    known = BASELINES if single else SEVERAL
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


def train_baselines(
    dataset: Dataset, representation: str, baselines: Sequence[Baseline], output: str
) -> list[AnyReport]:
    """Trains baselines on one representation and writes their report folders.

    Args:
      dataset: an open dataset.
      representation: one that the manifest has training statistics for.
      baselines: which to train, in this order.
      output: folder of the report folders `<baseline>-<representation>`.

    Raises:
      UserError: the representation does not suit, or needs more memory than is
        free; the splits lack clips or genres.
    """
    check_clips(dataset)
    check_memory(dataset, representation)
    started = time.monotonic()
    splits = load_normalised(dataset, representation)
    _print(
        f"{representation}: {_counts(splits)} of "
        f"{splits['training'].values.shape[1]:,} values, "
        f"loaded in {time.monotonic() - started:.1f} s"
    )

    threads = 1 if splits["training"].values.nbytes < ONE_THREAD_BYTES else None
    with threadpool_limits(threads, "blas"):
        return _train(dataset, representation, baselines, output, splits)


def _train(
    dataset: Dataset,
    representation: str,
    baselines: Sequence[Baseline],
    output: str,
    splits: Mapping[str, Arrays],
) -> list[AnyReport]:
    rows = {split: arrays.values for split, arrays in splits.items()}
    distances: Mapping[str, NDArray[np.float64]] = {}
    distance_seconds = 0.0
    if any(baseline.on_distances for baseline in baselines):
        started = time.monotonic()
        training = rows["training"]
        distances = {split: squared_distances(rows[split], training) for split in rows}
        distance_seconds = time.monotonic() - started
        _print(f"{representation}: distances between clips, {distance_seconds:.1f} s")

    validation = splits["validation"]
    folds = fold_by_artist(
        validation.artist_ids,
        validation.track_ids,
        known=set(splits["training"].artist_ids) - {""},
    )
    reports = []
    for baseline in baselines:
        inputs = distances if baseline.on_distances else rows
        started = time.monotonic()
        classifier = baseline.fit(
            Examples(
                training=inputs["training"],
                training_labels=splits["training"].labels,
                validation=inputs["validation"],
                validation_labels=splits["validation"].labels,
                genres=len(dataset.manifest.genres),
                folds=folds,
            )
        )
        seconds = time.monotonic() - started
        if baseline.on_distances:
            seconds += distance_seconds
        predictions = _predict(classifier, splits, inputs, dataset)
        kept, notes = _extract(classifier, rows["training"])
        notes += classifier.notes
        if not len(predictions["validation"].labels):
            notes.append("No validation clips: parameters are defaults.")
        files: dict[str, bytes] = {}
        if kept is not None:
            files = make_files(kept, classifier.classes, representation)
            files |= read_music_model(dataset.folder, representation)
            files[MANIFEST_FILE] = dataset.manifest.to_json().encode()
        name = f"{baseline.name}-{representation}"
        report = find_task(dataset.manifest).make_report(
            dataset.manifest,
            predictions,
            name=name,
            model=baseline.title,
            representation=representation,
            parameters=classifier.parameters,
            train_seconds=seconds,
            weights=None if kept is None else classical.count_numbers(kept),
            data=dataset.folder,
            command=shlex.join(
                [
                    *("./launch.sh", "baselines", "--data", dataset.folder),
                    *("--output", output, "--representation", representation),
                    *("--models", baseline.name),
                ]
            ),
            notes=notes,
        )
        write_report_folder(
            f"{output.rstrip('/')}/{name}",
            report,
            predictions["test"],
            dataset.manifest.genres,
            validation=predictions["validation"],
            files=files,
        )
        _print(f"{report.name}: {describe_report(report)}")
        reports.append(report)
    return reports


def _predict(
    classifier: Classifier,
    splits: Mapping[str, Arrays],
    inputs: Mapping[str, Floats],
    dataset: Dataset,
) -> dict[str, ClipPredictions]:
    """Probabilities of the clips of each split."""
    predictions = {}
    for split, arrays in splits.items():
        scores = np.empty((0, len(dataset.manifest.genres)))
        if len(arrays.labels):
            scores = classifier.predict(inputs[split])
        by_clip = mean_by_clip(arrays.track_ids, arrays.labels, scores)
        artists = dict(zip(arrays.track_ids, arrays.artist_ids, strict=True))
        predictions[split] = with_artists(by_clip, artists)
    return predictions


def _extract(
    classifier: Classifier, rows: Floats
) -> tuple[classical.Classifier | None, list[str]]:
    """What `predict` loads of a classifier; none, and a note, of a large one."""
    size = classifier.clips * rows.shape[1] * rows.itemsize
    if size <= MAX_KEPT_BYTES:
        return classifier.extract(rows), []
    return None, [
        f"Measured only, and not kept: it holds {classifier.clips:,} training clips, "
        f"{size / 1e6:,.0f} MB, which is over {MAX_KEPT_BYTES / 1e6:,.0f} MB; the SVM "
        "on principal components is kept."
    ]


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


def _counts(splits: Mapping[str, Arrays]) -> str:
    training, validation, test = (
        f"{len(set(splits[split].track_ids))} {split}" for split in SPLITS
    )
    return f"{training}, {validation} and {test} clips"


def _print(line: str) -> None:
    print(line, flush=True)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh baselines",
        description="Train the classical baselines on a preprocessed dataset and write "
        "a report folder for each.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", required=True, metavar="OUT", help="dataset folder, local or gs://"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="MODELS",
        help="folder of the report folders, one MODEL-REPRESENTATION each",
    )
    parser.add_argument(
        "--representation",
        nargs="+",
        metavar="NAME",
        help="what to train on (default: those of "
        f"{' and '.join(DEFAULT_REPRESENTATIONS)} that the dataset holds)",
    )
    names = [baseline.name for baseline in BASELINES]
    parser.add_argument(
        "--models",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"which to train: {', '.join(names)} (default: all; of several genres a "
        f"clip, {', '.join(baseline.name for baseline in SEVERAL)})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    args = make_parser().parse_args(argv)
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
            train_baselines(dataset, representation, baselines, args.output)
    except UserError as error:
        print_error(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cross-validation for corpora too small for one test set.

    ./launch.sh folds --data OUT --output MODELS --folds 5

Every clip is tested once, by a model that heard neither it nor its artist. What is
written is read by `trainer.compare`, like models trained in the ordinary way.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.common.plain_text import one_line, print_error
from pipeline.schema import MULTI_LABEL, UserError, fingerprint
from trainer.baselines.__main__ import BASELINES as ALL_BASELINES
from trainer.baselines.__main__ import (
    DEFAULT_REPRESENTATIONS,
    choose_representations,
    train_baselines,
)
from trainer.config import MODELS, TrainConfig, add_options
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.calibration import (
    Calibration,
    apply_temperature,
    measure_reliability,
)
from trainer.evaluation.predictions import ClipPredictions, with_artists
from trainer.evaluation.report import Report, find_versions
from trainer.evaluation.report_folder import Result, read_result
from trainer.evaluation.scores import evaluate
from trainer.folds.records import FoldedClips, assign_folds, link_fold, split_records
from trainer.runtime.preemption import EXIT_CODE, PreemptedError
from trainer.training.model_folder import ModelFolder, try_folders, write_report_folder
from trainer.training.train import LostWorkerError, train
from trainer.training.tuning import tune_and_train

BASELINES = "baselines"
MIN_FOLDS = 3


def cross_validate(
    dataset: Dataset,
    output: str,
    *,
    folds: int,
    models: Sequence[str],
    seed: int = 0,
    flags: Mapping[str, Any] | None = None,
    trials: int = 0,
) -> list[Report]:
    """Trains and tests each model as many times as there are folds.

    Args:
      dataset: all of its splits are used, and its own split is ignored.
      output: local folder; `NAME/report.json` and `NAME/fold-N/` for each model.
      folds: at least 3: one to test, one to choose with, the others to train on.
      models: of `trainer.config.MODELS`, and `baselines`.
      seed: of the folds and of the networks.
      flags: more of `trainer.config.TrainConfig`, for the networks.
      trials: of a search for better parameters, in each fold; see
        `trainer.training.tuning`.

    Raises:
      UserError: there are too few artists or clips, or a training fails.
    """
    if dataset.manifest.task == MULTI_LABEL:
        raise UserError(
            f"The clips in {dataset.folder} have several genres each, which "
            "./launch.sh folds does not cross-validate; use ./launch.sh train and "
            "baselines, or preprocess with --labels top."
        )
    clips = assign_folds(dataset, folds, seed)
    folders = [f"{output}/{name}" for name in folder_names(dataset, models)]
    try_folders(folders)
    for folder in folders:
        ModelFolder.at(folder).claim()
    print(clips.describe(), flush=True)
    names: dict[str, None] = {}
    os.makedirs(output, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".folds-") as scratch:
        fold_files = split_records(dataset, clips, f"{scratch}/records")
        for fold in range(folds):
            print(f"\n== Fold {fold + 1} of {folds}", flush=True)
            data = f"{scratch}/fold-{fold}"
            link_fold(dataset, clips, fold_files, f"{scratch}/records", data, fold)
            for model in models:
                try:
                    if model == BASELINES:
                        source = f"{scratch}/baselines-{fold}"
                        names |= dict.fromkeys(
                            fit_baselines(data, source, output, fold)
                        )
                    else:
                        config = TrainConfig.from_flags(
                            {
                                **(flags or {}),
                                "data": data,
                                "model": model,
                                "output": f"{output}/{model}/fold-{fold}",
                                "seed": seed,
                            }
                        )
                        if trials:
                            tune_and_train(config, trials)
                        else:
                            train(config)
                        names[model] = None
                except UserError as error:
                    raise UserError(
                        f"Training {model} failed in fold {fold + 1}: {error}"
                    ) from error
    reports = []
    for name in names:
        results = [read_result(f"{output}/{name}/fold-{i}") for i in range(folds)]
        report, predictions = join_folds(name, results, clips, dataset, seed)
        write_report_folder(
            f"{output}/{name}", report, predictions, dataset.manifest.genres
        )
        reports.append(report)
    return reports


def join_folds(
    name: str,
    results: Sequence[Result],
    clips: FoldedClips,
    dataset: Dataset,
    seed: int,
) -> tuple[Report, ClipPredictions]:
    """Makes one report of a model's folds, over all clips.

    Args:
      name: the model's folder.
      results: one a fold, with predictions.
      clips: the folds.
      dataset: what was cross-validated.
      seed: of the folds.

    Returns:
      The report, and the predictions that it is about.
    """
    parts = [result.predictions for result in results if result.predictions]
    artists = dict(zip(clips.track_ids, clips.artist_ids, strict=True))
    predictions = with_artists(_concatenate(parts), artists)
    genres = dataset.manifest.genres
    calibrations = [
        result.report.calibration for result in results if result.report.calibration
    ]
    calibration = None
    if len(calibrations) == len(results):
        temperatures = [fitted.temperature for fitted in calibrations]
        scaled = np.concatenate(
            [
                apply_temperature(part.probabilities, temperature)
                for part, temperature in zip(parts, temperatures, strict=True)
            ]
        )
        calibration = Calibration(
            temperature=float(np.exp(np.mean(np.log(temperatures)))),
            clips=sum(fitted.clips for fitted in calibrations),
            before=measure_reliability(predictions.probabilities, predictions.labels),
            after=measure_reliability(scaled, predictions.labels),
        )
    first = results[0].report
    accuracies = [
        result.report.training_accuracy
        for result in results
        if result.report.training_accuracy is not None
    ]
    total, folds = len(clips.track_ids), len(results)
    report = Report(
        name=name,
        model=first.model,
        representation=first.representation,
        parameters={**first.parameters, "folds": folds},
        weights=first.weights,
        clips={
            "training": round(total * (folds - 2) / folds),
            "validation": round(total / folds),
            "test": total,
        },
        test=evaluate(predictions, genres),
        validation=None,
        training_accuracy=(
            float(np.mean(accuracies)) if len(accuracies) == folds else None
        ),
        calibration=calibration,
        train_seconds=sum(result.report.train_seconds for result in results),
        data=dataset.folder,
        description=dataset.manifest.description,
        synthetic=dataset.manifest.synthetic,
        fingerprint=folds_fingerprint(dataset, folds, seed),
        split_rule=clips.rule,
        command=f"./launch.sh folds --data {dataset.folder} --folds {folds} "
        f"--seed {seed}",
        versions=find_versions(),
        notes=(
            f"Cross-validated: {folds} models, each tested on the clips that it did "
            "not hear; parameters are the first fold's.",
            *first.notes,
        ),
    )
    return report, predictions


def folds_fingerprint(dataset: Dataset, folds: int, seed: int) -> str:
    """Of a dataset that is split into folds."""
    return fingerprint([dataset.manifest.fingerprint, folds, seed])


def _concatenate(parts: Sequence[ClipPredictions]) -> ClipPredictions:
    return ClipPredictions(
        track_ids=tuple(track for part in parts for track in part.track_ids),
        labels=np.concatenate([part.labels for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )


def _replace(source: str, target: str) -> None:
    """Moves a folder of files, over one that may be there."""
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(source):
        os.replace(f"{source}/{name}", f"{target}/{name}")


def folder_names(dataset: Dataset, models: Sequence[str]) -> list[str]:
    """Names of the model folders that come of some models."""
    names = [model for model in models if model != BASELINES]
    if len(names) < len(models):
        names += [
            f"{baseline.name}-{representation}"
            for representation in choose_representations(dataset, None)
            for baseline in ALL_BASELINES
        ]
    return names


def fit_baselines(data: str, scratch: str, output: str, fold: int) -> list[str]:
    """Trains all baselines that a dataset allows.

    Args:
      data: a fold's dataset folder.
      scratch: folder to write to first.
      output: folder of the models.
      fold: number of the fold.

    Returns:
      Their names, in order.

    Raises:
      UserError: see `trainer.baselines.__main__.train_baselines`.
    """
    dataset = open_dataset(data)
    for representation in choose_representations(dataset, None):
        train_baselines(dataset, representation, ALL_BASELINES, scratch)
    names = sorted(os.listdir(scratch))
    for name in names:
        _replace(f"{scratch}/{name}", f"{output}/{name}/fold-{fold}")
    return names


def choose_models(dataset: Dataset, names: Sequence[str] | None) -> list[str]:
    """The models to cross-validate: those asked for, or all that the data allow."""
    if names:
        return list(dict.fromkeys(names))
    representations: Mapping[str, object] = dataset.manifest.representations
    nets = [model for model in MODELS if model in representations]
    classical = set(DEFAULT_REPRESENTATIONS) & set(representations)
    return nets + ([BASELINES] if classical else [])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh folds",
        allow_abbrev=False,
        description=(
            "Cross-validates models on a dataset too small for one test set. Clips of "
            "an artist stay together where artists are known, and genres are spread "
            "evenly. Compare the outcome with "
            "./launch.sh compare --models OUTPUT."
        ),
    )
    parser.add_argument("--data", required=True, help="dataset folder")
    parser.add_argument(
        "--output", required=True, help="folder for a model folder each; local"
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        metavar="N",
        help="each model is trained so many times (default: %(default)s)",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*MODELS, BASELINES),
        metavar="NAME",
        help=f"{', '.join(MODELS)} and {BASELINES} (default: all that the dataset "
        "allows)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="search in each fold, see trainer.task",
    )
    add_options(parser, without=("data", "model", "output", "seed"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = vars(make_parser().parse_args(argv))
    data, output, folds = (flags.pop(name) for name in ("data", "output", "folds"))
    models, seed, trials = (flags.pop(name) for name in ("models", "seed", "tune"))
    try:
        if folds < MIN_FOLDS:
            raise UserError(
                f"--folds must be {MIN_FOLDS} or more: one to test, one to choose "
                f"with, the others to train on. Received: {folds}"
            )
        if trials < 0:
            raise UserError(f"--tune must be 0 or more. Received: {trials}")
        dataset = open_dataset(data)
        reports = cross_validate(
            dataset,
            output.rstrip("/") or output,
            folds=folds,
            models=choose_models(dataset, models),
            seed=seed,
            flags=flags,
            trials=trials,
        )
    except PreemptedError as error:
        print_error(error, label="stopped")
        return EXIT_CODE
    except LostWorkerError as error:
        print_error(error)
        return 1
    except UserError as error:
        print_error(error)
        return 2
    print()
    for report in reports:
        low, high = report.test.accuracy_interval
        print(
            f"{report.name}: accuracy {report.test.accuracy:.3f} over all "
            f"{report.test.clips} clips (95 % interval {low:.3f} to {high:.3f})"
        )
    print(f"compare them: ./launch.sh compare --models {one_line(output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

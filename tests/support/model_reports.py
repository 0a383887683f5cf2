"""Predictions by chance, and a report of them."""

import dataclasses

import numpy as np

from trainer.evaluation.model_files import files_of
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import make_files
from trainer.evaluation.scores import evaluate
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.task import AnyReport, judge

GENRES = ("Folk", "Hip-Hop", 'Rock, "hard"')


def make_predictions(clips=12, seed=0):
    genres = len(GENRES)
    rng = np.random.default_rng(seed)
    return ClipPredictions(
        track_ids=tuple(f"{index:06d}" for index in range(clips)),
        labels=np.arange(clips) % genres,
        probabilities=rng.dirichlet(np.ones(genres), clips),
        artist_ids=tuple(f"artist {index // 2}" for index in range(clips)),
    )


def calibrate(validation, test):
    """What a report of these predictions says."""
    task = SingleLabel()
    fit = task.fit(validation, len(GENRES))
    return judge(task, [test], [fit], fit, dict.fromkeys(GENRES, ""))[1]


def make_model_report(**changes):
    report = Report(
        name="knn-features",
        model="kNN",
        representation="features",
        parameters={"k": 5, "layers": [1, 2], "metric": "euclidean"},
        clips={"training": 24, "validation": 9, "test": 12},
        test=evaluate(make_predictions(), GENRES),
        validation=evaluate(make_predictions(9, seed=1), GENRES),
        training_accuracy=0.75,
        train_seconds=1.25,
        fingerprint="ab" * 32,
        calibration=calibrate(make_predictions(40, seed=1), make_predictions()),
        split_rule="by hand",
        notes=("A note.",),
    )
    return dataclasses.replace(report, **changes)


def write_report(
    folder: str,
    report: AnyReport,
    test: ClipPredictions,
    validation: ClipPredictions | None = None,
) -> None:
    """Writes the files of a report, without their digests."""
    for name, content in make_files(report, test, validation).items():
        files_of(folder).write(f"{folder}/{name}", content)

"""Searches for better parameters: `./launch.sh train --tune N`.

Optuna proposes, the training run disposes: each trial trains with the proposed
parameters and is judged by its lowest validation loss. The test split is not looked
at; the best parameters then train the model that is kept.

Every finished trial is a JSON file in the model folder's `trials/`, on any file
system. A search that was cut off reads them and goes on.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from pipeline.common import ownership
from pipeline.common.owned_kinds import CACHE
from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import UserError, fingerprint
from trainer.config import SCHEDULES, TrainConfig
from trainer.data.dataset import open_dataset
from trainer.evaluation.model_files import files_of
from trainer.evaluation.report import LIBRARIES, find_library_versions
from trainer.evaluation.tasks.task import AnyReport
from trainer.runtime.cluster import read_cluster
from trainer.training.fit import DivergedError
from trainer.training.model_folder import ModelFolder
from trainer.training.run import describe_settings
from trainer.training.train import measure_validation_loss, name_settings, train

if TYPE_CHECKING:
    import optuna

TRIALS = "trials"

#: Trials that are drawn at random before their results are used.
RANDOM_TRIALS = 5

Values = Mapping[str, Any]
Judge = Callable[[TrainConfig], float]
Distributions = Mapping[str, "optuna.distributions.BaseDistribution"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished trial.

    Attributes:
      number: from 0.
      values: of the parameters, as flags name them.
      loss: lowest validation loss; None where training diverged.
      seconds: wall time.
    """

    number: int
    values: Values
    loss: float | None
    seconds: float


def search_space(config: TrainConfig) -> dict[str, Any]:
    """What is searched; what the user gave a flag for stays as it is."""
    import optuna  # An extra, for searches alone.

    rate = SCHEDULES[config.model].learning_rate
    real, whole = (
        optuna.distributions.FloatDistribution,
        optuna.distributions.CategoricalDistribution,
    )
    space: dict[str, Any] = {
        "learning_rate": real(rate / 10, rate * 10, log=True),
        "dropout": real(0.0, 0.7),
        "augmentation": real(0.0, 1.0),
        "units": whole([0, 32, 64, 128, 256]),
    }
    if config.model == "mel":
        # Of masked images the base's outputs cannot be computed once, which makes a
        # trial a hundred times slower.
        del space["augmentation"]
    return {
        name: distribution
        for name, distribution in space.items()
        if getattr(config, name) is None
    }


def tune(
    config: TrainConfig,
    trials: int,
    judge: Judge,
    reporter: Reporter = SILENT,
    data: str = "",
) -> Trial:
    """Runs trials until there are so many, and returns the best.

    Args:
      config: of the run; parameters that it sets are not searched.
      trials: how many there shall be, those of a search that was cut off included.
      judge: trains with a config and returns its lowest validation loss.
      reporter: is told about each trial.
      data: fingerprint of the dataset.

    Raises:
      UserError: all is set already, trials of another search are in the way, or no
        trial came to an end.
    """
    space = search_space(config)
    if not space:
        raise UserError(
            "--tune has nothing to search: --learning_rate, --dropout, --augmentation "
            "and --units are all given; leave out one or more."
        )
    folder = f"{config.output.rstrip('/')}/{TRIALS}"
    key = search_key(config, data)
    results = read_trials(folder, key)
    if results:
        reporter.note(f"{len(results)} trials of this search are done")
    with reporter.stage("Trials", trials, "trial", done=len(results)) as stage:
        for number in range(len(results), trials):
            values = propose(space, results, config.seed)
            trained = dataclasses.replace(config, **values)
            if logs := config.tensorboard_dir:
                folder_of_logs = f"{logs.rstrip('/')}/trial-{number + 1}"
                trained = dataclasses.replace(trained, tensorboard_dir=folder_of_logs)
            start = time.perf_counter()
            loss: float | None
            try:
                loss = judge(trained)
            except DivergedError:
                loss = None
            trial = Trial(
                number=number,
                values=values,
                loss=loss,
                seconds=time.perf_counter() - start,
            )
            write_trial(folder, key, trial)
            results.append(trial)
            reporter.note(describe_trial(trial, trials))
            stage.update(len(results))
    candidates = [trial for trial in results if trial.loss is not None]
    if not candidates:
        raise UserError(
            f"None of {len(results)} trials came to an end; give a --learning_rate."
        )
    return min(candidates, key=lambda trial: trial.loss or 0.0)


def propose(
    space: Distributions, results: Sequence[Trial], seed: int
) -> dict[str, Any]:
    """Parameters of the next trial; the same for the same trials before.

    The first are drawn at random, later ones by a tree-structured Parzen estimator.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=seed * 1_000_003 + len(results), n_startup_trials=RANDOM_TRIALS
    )
    study = optuna.create_study(sampler=sampler)
    for trial in results:
        state = optuna.trial.TrialState.COMPLETE
        if trial.loss is None:
            state = optuna.trial.TrialState.FAIL
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial.values),
                distributions=dict(space),
                value=trial.loss,
                state=state,
            )
        )
    return dict(study.ask(dict(space)).params)


def search_key(config: TrainConfig, data: str = "") -> str:
    """Name of all that the trials of one search share."""
    versions = {"versions": find_library_versions()}
    return fingerprint(describe_settings(config, data) | versions)


def read_trials(folder: str, key: str) -> list[Trial]:
    """The finished trials of a search, in order; of none, where there is no folder.

    Raises:
      UserError: a file is no trial, or one of another search.
    """
    if not tf.io.gfile.isdir(folder):
        return []
    names = [name for name in tf.io.gfile.listdir(folder) if name.endswith(".json")]
    trials = []
    for name in sorted(names):
        path = f"{folder}/{name}"
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
        try:
            content = json.loads(text)
            search = content.pop("search")
            trial = Trial(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no trial ({error!r}); remove it, and it is run again."
            ) from error
        if search != key:
            raise UserError(
                f"{path} belongs to a search with other flags, on other data or with "
                f"other versions of {', '.join(LIBRARIES)}; give --output another "
                f"folder, or remove {folder}."
            )
        trials.append(trial)
    if [trial.number for trial in trials] != list(range(len(trials))):
        raise UserError(f"Trials are missing in {folder}; remove it to begin anew.")
    return trials


def write_trial(folder: str, key: str, trial: Trial) -> None:
    """Keeps a finished trial; the file appears when it is whole."""
    content = {"search": key, **dataclasses.asdict(trial)}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    try:
        files_of(folder).write(f"{folder}/{trial.number:04d}.json", text.encode())
    except OSError as error:
        raise UserError(
            f"The trial cannot be kept in {folder} ({error.strerror or error}); make "
            "room there, and give the same command again: it runs this trial again."
        ) from error


def describe_trial(trial: Trial, trials: int) -> str:
    """One line on one trial."""
    loss = "diverged" if trial.loss is None else f"validation loss {trial.loss:.4f}"
    values = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
    return (
        f"trial {trial.number + 1} of {trials}: {loss} with {values} "
        f"({trial.seconds:.1f} s)"
    )


def tune_and_train(
    config: TrainConfig, trials: int, reporter: Reporter = SILENT
) -> AnyReport | None:
    """Searches, then trains with what was found and writes the model folder.

    Without trials it only trains.

    Args:
      config: of the run; parameters that it sets are not searched.
      trials: how many.
      reporter: is told how far it is.

    Raises:
      UserError: see `tune` and `trainer.training.train.train`.
      PreemptedError: the run was asked to stop; the same command goes on.
    """
    if not trials:
        return train(config, reporter=reporter)
    if config.strategy == "multiworker" or read_cluster(os.environ) is not None:
        raise UserError(
            "--tune runs in one process; use a hyper-parameter job of Vertex AI, "
            "which starts trials by itself, or leave out --tune."
        )
    ModelFolder.at(config.output).claim()
    dataset = open_dataset(config.data)
    settings = name_settings(config, dataset, trials)
    folder = f"{config.output.rstrip('/')}/{TRIALS}"
    cache = f"{folder}/features"
    if config.model == "mel" and config.feature_cache is None:
        config = dataclasses.replace(config, feature_cache=cache)
    best = tune(
        config,
        trials,
        functools.partial(measure_validation_loss, reporter=reporter),
        reporter,
        dataset.manifest.fingerprint,
    )
    reporter.note(
        f"best of {trials} trials: {best.number + 1}, validation loss {best.loss:.4f}; "
        "training the model to keep with its parameters"
    )
    note = (
        f"Parameters are the best of {trials} trials by validation loss; the test "
        "split was looked at once, after that."
    )
    report = train(
        dataclasses.replace(config, **best.values),
        notes=(note,),
        settings=settings,
        reporter=reporter,
    )
    if config.feature_cache == cache:
        ownership.remove(files_of(cache), cache, CACHE)
    return report

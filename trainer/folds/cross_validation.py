"""Trains models on folds, and once more on all clips."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.common.owned_kinds import OWNER
from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import UserError
from trainer.baselines.__main__ import (
    choose_baselines,
    choose_representations,
    train_baselines,
)
from trainer.baselines.fitting import fit_baselines
from trainer.config import OPTIONS, VECTORS, TrainConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.report_folder import Result, read_result
from trainer.evaluation.tasks.task import AnyReport
from trainer.folds.join import Kept, join_folds
from trainer.folds.records import (
    MIN_GROUPS_TO_STOP,
    FoldedClips,
    FoldedRecords,
    assign_folds,
    split_records,
)
from trainer.predict import classical
from trainer.runtime.preemption import stop_if_interrupted
from trainer.training.model_folder import (
    ModelFolder,
    read_files,
    try_folders,
    write_report_folder,
)
from trainer.training.train import FEW_CLIPS, train
from trainer.training.tuning import tune_and_train

BASELINES = "baselines"
MEL = "mel"
#: Files of every folder, which are written anew with the report.
_NOT_ITS_OWN = ("OWNER.json", "model.json")
_SCRATCH, _LOCK = ".folds-", f"{OWNER}.lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is cross-validated.

    Attributes:
      output: local folder; `NAME/report.json`, the last model, and `NAME/fold-N/` for
        each model.
      folds: at least 2: one to test, the others to train on.
      models: of `trainer.config.MODELS`, and `baselines`.
      seed: of the folds and of the networks.
      flags: more of `trainer.config.TrainConfig`, for the networks that know them.
      trials: of a search for better parameters, in each fold; see
        `trainer.training.tuning`.
      command: what does the same again.
      reporter: is told how far it is.
    """

    output: str
    folds: int
    models: Sequence[str]
    seed: int = 0
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trials: int = 0
    command: str = ""
    reporter: Reporter = SILENT

    def config(self, model: str, data: str, output: str) -> TrainConfig:
        """Of a network, with the flags that it knows."""
        flags = {
            name: value
            for name, value in self.flags.items()
            if model == MEL or not is_of_mel(name)
        }
        if logs := flags.get("tensorboard_dir"):
            # One curve for each training.
            name = os.path.basename(output)
            flags["tensorboard_dir"] = f"{logs.rstrip('/')}/{name}"
        # The defaults of what only MobileNetV2 knows are those of the class.
        return TrainConfig.from_flags(
            {
                "checkpoint_dir": None,
                **flags,
                "data": data,
                "model": model,
                "output": output,
                "seed": self.seed,
            }
        )

    def stops_by_itself(self, model: str, clips: FoldedClips) -> bool:
        """Whether a network needs no clips to stop by: a linear head on few clips.

        Those clips are worth more in training.
        """
        linear = model in VECTORS or (
            model == MEL and not self.flags.get("fine_tune_layers")
        )
        return linear and len(clips.track_ids) < FEW_CLIPS and not self.trials


def is_of_mel(flag: str) -> bool:
    """Whether only MobileNetV2 knows a flag."""
    return "--model mel" in OPTIONS[flag].group


def cross_validate(dataset: Dataset, plan: Plan) -> list[AnyReport]:
    """Trains and tests each model as many times as there are folds, then on all.

    Args:
      dataset: all of its splits are used, and its own split is ignored.
      plan: what to train.

    Raises:
      UserError: there are too few artists or clips, or a training fails.
    """
    clips = assign_folds(dataset, plan.folds, plan.seed)
    if plan.trials and not clips.stopping.any():
        raise UserError(
            "--tune judges by clips that are kept back to stop by; of fewer than "
            f"{MIN_GROUPS_TO_STOP} artists a genre (clips, where none is known), on "
            "average, none are. Leave out --tune, or add artists."
        )
    output = plan.output
    folders = [f"{output}/{name}" for name in folder_names(dataset, plan.models)]
    try_folders(folders)
    for folder in folders:
        ModelFolder.at(folder).claim()
    reporter = plan.reporter
    reporter.note(clips.describe())
    names: dict[str, None] = {}
    os.makedirs(output, exist_ok=True)
    with scratch_folder(output) as scratch:
        records = split_records(dataset, clips, f"{scratch}/records")
        for fold in reporter.track(range(plan.folds), "Folds", "fold", plan.folds):
            reporter.detail(f"\n== Fold {fold + 1} of {plan.folds}")
            data, whole = f"{scratch}/fold-{fold}", f"{scratch}/fold-{fold}-whole"
            records.link(data, fold)
            records.link(whole, fold, stopping=False)
            for model in plan.models:
                stop_if_interrupted()
                with _naming(model, f"fold {fold + 1}"):
                    if model == BASELINES:
                        source = f"{scratch}/baselines-{fold}"
                        names |= dict.fromkeys(test_baselines(data, source, plan, fold))
                    else:
                        target = f"{output}/{model}/fold-{fold}"
                        source = whole if plan.stops_by_itself(model, clips) else data
                        config = plan.config(model, source, target)
                        tune_and_train(config, plan.trials, reporter)
                        names[model] = None
        stop_if_interrupted()
        reporter.detail("\n== All clips: the models that are kept")
        results = {
            name: [read_result(f"{output}/{name}/fold-{i}") for i in range(plan.folds)]
            for name in names
        }
        kept = fit_last(records, scratch, plan, results)
    reports = []
    for name in names:
        report, predictions = join_folds(
            name,
            results[name],
            clips,
            dataset,
            plan.seed,
            command=plan.command,
            kept=kept[name],
        )
        write_report_folder(
            f"{output}/{name}", report, predictions, files=kept[name].files
        )
        reports.append(report)
    return reports


@contextlib.contextmanager
def scratch_folder(output: str) -> Iterator[str]:
    """A folder for all records again, within another, until the end.

    Those of runs that were killed go: nobody holds their locks.
    """
    for left in glob.glob(f"{glob.escape(output)}/{_SCRATCH}*/{_LOCK}"):
        with contextlib.suppress(OSError), open(left, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(os.path.dirname(left))
    with (
        tempfile.TemporaryDirectory(dir=output, prefix=_SCRATCH) as scratch,
        open(f"{scratch}/{_LOCK}", "wb") as file,
    ):
        # Without locks there, the folder of a killed run stays.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch


def test_baselines(data: str, scratch: str, plan: Plan, fold: int) -> list[str]:
    """Trains and tests all baselines that a dataset allows.

    Args:
      data: a fold's dataset folder.
      scratch: folder to write to first.
      plan: says where they belong.
      fold: number of the fold.

    Returns:
      Their names, in order.

    Raises:
      UserError: see `trainer.baselines.__main__.train_baselines`.
    """
    dataset = open_dataset(data)
    for representation in choose_representations(dataset, None):
        train_baselines(
            dataset,
            representation,
            choose_baselines(dataset, None),
            scratch,
            refit=True,
            keep=False,
            reporter=plan.reporter,
        )
    names = sorted(os.listdir(scratch))
    for name in names:
        _replace(f"{scratch}/{name}", f"{plan.output}/{name}/fold-{fold}")
    return names


def fit_last(
    records: FoldedRecords,
    scratch: str,
    plan: Plan,
    results: Mapping[str, Sequence[Result]],
) -> dict[str, Kept]:
    """Trains each model once more, on the clips of all folds.

    Baselines choose their parameters by the clips to stop by, and are fitted to these
    too. Networks train as long as the folds' did, by the median; after a search for
    parameters, until the clips to stop by say so.

    Args:
      records: of all clips.
      scratch: folder to work in.
      plan: what to train.
      results: of the folds, by the model's name.

    Returns:
      What is kept, by the model's name.
    """
    kept: dict[str, Kept] = {}
    everything, held = f"{scratch}/all", f"{scratch}/all-but-stopping"
    records.link(everything, None, stopping=False)
    records.link(held, None)
    for model in plan.models:
        with _naming(model, "the fit on all clips"):
            if model == BASELINES:
                dataset = open_dataset(held)
                for representation in choose_representations(dataset, None):
                    suitable = choose_baselines(dataset, None)
                    for fitted in fit_baselines(
                        dataset, representation, suitable, refit=True
                    ):
                        extracted, notes = fitted.extract()
                        kept[fitted.name] = Kept(
                            files=fitted.make_files(extracted),
                            weights=None
                            if extracted is None
                            else classical.count_numbers(extracted),
                            notes=notes,
                        )
                continue
            target = f"{scratch}/last-{model}"
            if plan.trials:
                config = plan.config(model, held, target)
                tune_and_train(config, plan.trials, plan.reporter)
            else:
                config = plan.config(model, everything, target)
                epochs, fine_tuning = find_epochs(results[model])
                train(
                    dataclasses.replace(
                        config, epochs=epochs, fine_tune_epochs=fine_tuning
                    ),
                    reporter=plan.reporter,
                )
            kept[model] = Kept(
                files={
                    name: content
                    for name, content in read_files(target).items()
                    if name not in _NOT_ITS_OWN
                },
                weights=results[model][0].report.weights,
            )
    return kept


def find_epochs(results: Sequence[Result]) -> tuple[int, int]:
    """How long the folds' networks trained, by the median: first and last phase."""
    best = [[phase["best_epoch"] for phase in result.phases] for result in results]
    first = round(statistics.median(epochs[0] for epochs in best))
    last = round(statistics.median(epochs[-1] for epochs in best))
    return max(1, first), max(1, last)


def folder_names(dataset: Dataset, models: Sequence[str]) -> list[str]:
    """Names of the model folders that come of some models."""
    names = [model for model in models if model != BASELINES]
    if len(names) < len(models):
        names += [
            f"{baseline.name}-{representation}"
            for representation in choose_representations(dataset, None)
            for baseline in choose_baselines(dataset, None)
        ]
    return names


@contextlib.contextmanager
def _naming(model: str, what: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"Training {model} failed in {what}: {error}") from error


def _replace(source: str, target: str) -> None:
    """Moves a folder of files, over one that may be there."""
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(source):
        os.replace(f"{source}/{name}", f"{target}/{name}")

"""A training run, from dataset folder to model folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import SPLITS, UserError, fingerprint
from trainer.config import SCHEDULES, VECTORS, TrainConfig
from trainer.data import checksums
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.music_model import read_music_model
from trainer.evaluation.report import REPORT_FILE
from trainer.evaluation.report_folder import read_report
from trainer.evaluation.tasks.task import AnyReport, describe_report, make_report
from trainer.runtime import hypertune
from trainer.runtime.devices import gather_floats, wait_for_all
from trainer.runtime.preemption import (
    Preemption,
    stop_if_interrupted,
    watch_for_preemption,
)
from trainer.training.fit import fit
from trainer.training.model_folder import ModelFolder, make_contents, needed_bytes
from trainer.training.networks import layers, mobilenet
from trainer.training.networks.vectors import build_vector_model
from trainer.training.networks.windows import build_windows_model
from trainer.training.run import FittedModel, Run, describe_settings
from trainer.training.tracking import make_tracker
from trainer.training.transfer import fit_mobilenet

#: Below so many training clips a hidden layer learns clips by heart: a linear head
#: names more of the others right, with more dropout and more steps an epoch.
FEW_CLIPS = 500
_FOR_FEW: Mapping[str, Any] = {"units": 0, "dropout": 0.7}
#: Steps of an epoch at least, of few clips: too few steps in all leave it unfinished.
FEW_STEPS = 8


class LostWorkerError(Exception):
    """Another process of the run is gone; the run cannot go on without it."""


def train(
    config: TrainConfig,
    *,
    notes: Sequence[str] = (),
    settings: str | None = None,
    reporter: Reporter = SILENT,
) -> AnyReport | None:
    """Trains a model, evaluates it clip by clip and writes its folder.

    Args:
      config: what to train, on what, and how.
      notes: further sentences for the report.
      settings: see `name_settings`; None for those of `config`.
      reporter: is told how far it is, and the outcome.

    Returns:
      The report, or None where the test split is empty, or in a process that is not
      the chief.

    Raises:
      UserError: the dataset cannot be read or does not hold what the model needs,
        the output folder holds something else, or training diverges.
      PreemptedError: the run was asked to stop, and has saved its state.
      LostWorkerError: another process of the run is gone.
    """
    folder = ModelFolder.at(config.output)
    folder.check()

    music_model = read_music_model(config.data, config.model)

    def reserve(model: keras.Model) -> None:
        needed = needed_bytes(model, run.dataset.manifest)
        folder.reserve(needed + sum(map(len, music_model.values())))
        tracker.begin(run.key, run.checkpoints())

    with (
        make_tracker(config, reporter) as tracker,
        open_run(
            config, on_epoch=tracker.log_epoch, on_model=reserve, reporter=reporter
        ) as run,
    ):
        try:
            name = settings or name_settings(config, run.dataset)
            report = _train(run, folder, notes, music_model, name)
            if report is not None:
                tracker.summarise(report)
            return report
        finally:
            if run.devices.chief:
                folder.release()


def measure_validation_loss(config: TrainConfig, reporter: Reporter = SILENT) -> float:
    """Trains a model and returns its lowest validation loss; writes nothing.

    The test split is not looked at.

    Raises:
      UserError: see `train`; or there is no validation split.
      PreemptedError: likewise.
    """
    keras.backend.clear_session()
    with open_run(config, judged=False, reporter=reporter) as run:
        if run.validation is None:
            raise UserError(
                f"--tune judges by the validation split, which is empty in "
                f"{config.data}; preprocess with a split rule that gives one."
            )
        fitted = _fit(run)
        checkpoints = run.checkpoints()
        if checkpoints is not None:
            checkpoints.remove()
    return min(min(phase.metrics["validation_loss"]) for phase in fitted.phases)


def fit_to_size(config: TrainConfig, clips: int) -> TrainConfig:
    """Sets what a small training split asks for, where no flag says otherwise.

    Args:
      config: of the run.
      clips: of the training split.
    """
    if config.model not in VECTORS or clips >= FEW_CLIPS or config.units:
        return config
    changes = {
        name: value for name, value in _FOR_FEW.items() if getattr(config, name) is None
    }
    return dataclasses.replace(config, **changes)


def name_settings(config: TrainConfig, dataset: Dataset, trials: int = 0) -> str:
    """Name of all that a user decides of a model, and of its data.

    Args:
      config: as flags gave it.
      dataset: what it is trained on.
      trials: of a search for better parameters.
    """
    content: dict[str, Any] = {"trials": trials}
    if config.model == "mel" and config.weights is None:
        content["cached"] = mobilenet.find_cached_weights()
    data = dataset.manifest.fingerprint
    return fingerprint(describe_settings(config, data) | content)


@contextlib.contextmanager
def open_run(
    config: TrainConfig,
    *,
    judged: bool = True,
    on_epoch: Callable[[Mapping[str, float], int], None] | None = None,
    on_model: Callable[[keras.Model], None] | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Run]:
    """Opens all that a run needs; turns errors of its work into what to do.

    Raises:
      UserError: the dataset cannot be read, or does not fit, or the checkpoint folder
        holds something else.
      LostWorkerError: another process of the run is gone.
    """
    stop_if_interrupted()
    dataset = open_dataset(config.data)
    config = fit_to_size(config, sum(dataset.manifest.clips["training"].values()))
    if config.weights is not None:
        mobilenet.check_weights(config.weights)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    # Without a place to save to, SIGTERM ends the process as it always does.
    watch: contextlib.AbstractContextManager[Preemption]
    watch = contextlib.nullcontext(Preemption())
    if config.checkpoint_dir is not None:
        watch = watch_for_preemption()
    try:
        with dtype_policy(config.mixed_precision), watch as preemption:
            run = Run(
                config,
                dataset,
                preemption=preemption,
                judged=judged,
                on_epoch=on_epoch,
                on_model=on_model,
                reporter=reporter,
            )
            checkpoints = run.checkpoints()
            if checkpoints is not None:
                checkpoints.check()
            yield run
    except (
        tf.errors.DataLossError,
        tf.errors.InvalidArgumentError,
        tf.errors.FailedPreconditionError,
    ) as error:
        raise UserError(describe_damage(dataset, config.model, error)) from error
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        raise LostWorkerError(
            f"Another process of this run is gone ({error.message.splitlines()[0]}); "
            "start all of them again with the same commands: they go on from the last "
            "checkpoint."
        ) from error


def _fit(run: Run) -> FittedModel:
    return fit_mobilenet(run) if run.config.model == "mel" else fit_small(run)


def _train(
    run: Run,
    folder: ModelFolder,
    notes: Sequence[str],
    music_model: Mapping[str, bytes],
    settings: str,
) -> AnyReport | None:
    config, manifest, devices = run.config, run.dataset.manifest, run.devices
    if devices.chief:
        _announce(run)
        folder.claim()
    if _publish_earlier(run, folder):
        if not devices.chief:
            _leave(run, folder)
        path = f"{folder.path}/{REPORT_FILE}"
        return read_report(folder.path) if tf.io.gfile.exists(path) else None
    start = time.perf_counter()
    fitted = _fit(run)
    seconds = time.perf_counter() - start
    predictions = fitted.predictions
    result = None
    if devices.chief:
        if "test" in predictions:
            result = make_report(
                manifest,
                predictions,
                name=os.path.basename(config.output.rstrip("/")),
                model=layers.ARCHITECTURES[config.model],
                representation=config.model,
                parameters=fitted.parameters,
                train_seconds=seconds,
                weights=int(fitted.model.count_params()),
                data=config.data,
                command=config.command(),
                notes=(*fitted.notes, *notes),
            )
            run.reporter.result(f"{config.model}: {describe_report(result)}")
        folder.write(
            lambda: make_contents(fitted, manifest, result, music_model),
            representation=config.model,
            genres=len(manifest.genres),
            run=run.key,
            settings=settings,
        )
        hypertune.report_phase(fitted.phases[-1])
        folder.publish(run.remove_checkpoints)
        run.reporter.detail(f"model written to {config.output}")
    # No process leaves before the others are done.
    wait_for_all(devices)
    if not devices.chief:
        _leave(run, folder)
    return result


def _leave(run: Run, folder: ModelFolder) -> None:
    """Removes what a process that writes no model computed on a disk of its own."""
    run.remove_checkpoints(run.key)
    folder.remove_empty()


def _publish_earlier(run: Run, folder: ModelFolder) -> bool:
    """Completes a model whose writing was cut off; whether it is that of this run.

    A model of another run is completed too, before this one comes in its place.
    """
    finished = False
    if run.devices.chief:
        finished = folder.publish(run.remove_checkpoints) == run.key
        if finished:
            run.reporter.result(
                "training and evaluation were finished before; model written to "
                f"{run.config.output}"
            )
    everywhere = gather_floats(run.devices, [float(finished)])
    return any(row[0] for row in everywhere)


def _announce(run: Run) -> None:
    clips = run.dataset.manifest.clip_totals
    model = run.config.model
    run.reporter.detail(
        f"{layers.ARCHITECTURES[model]} on {model}: "
        + ", ".join(f"{clips[split]} {split}" for split in SPLITS)
        + f" clips of {len(run.genres)} genres; {run.describe_memory()}"
    )
    # The processor alone is what everybody expects.
    tell = run.reporter.detail if run.devices.name == "single" else run.reporter.note
    tell(
        f"strategy {run.devices.name}, as {run.devices.reason}: "
        f"{run.devices.describe()}"
    )


def fit_small(run: Run) -> FittedModel:
    """Trains the CNN on windows, or the dense net on vectors."""
    config = run.config
    build = build_vector_model
    if config.model == "windows":
        build = build_windows_model
    with run.strategy.scope():
        model = build(
            run.layout,
            run.dataset.manifest.normalisation[config.model],
            len(run.genres),
            **run.head,
        )
    run.announce(model)
    default = SCHEDULES[config.model]
    records = run.splits["training"].records
    if config.model in VECTORS and records < FEW_CLIPS:
        size = max(min(default.batch_size, records // FEW_STEPS), run.devices.replicas)
        default = dataclasses.replace(default, batch_size=size)
    schedule = run.schedule(default)
    phase = fit(
        model,
        run.splits["training"],
        run.validation,
        run.phase("training", schedule),
        run.devices,
    )
    return FittedModel(
        model=model,
        phases=[phase],
        parameters=run.describe(model, schedule, [phase]),
        predictions=run.predict_splits(model, run.splits),
    )


def describe_damage(
    dataset: Dataset, representation: str, error: tf.errors.OpError
) -> str:
    """Names the record that could not be read.

    Raises:
      tf.errors.OpError: `error`, where it is not about a record.
    """
    if "was expected to contain" in error.message:
        return (
            f"The files of {representation} in {dataset.folder} hold another number of "
            "records than the manifest says; copy the dataset again, or preprocess it "
            "again."
        )
    about_records = isinstance(error, tf.errors.DataLossError) or any(
        sign in error.message
        for sign in ("Could not parse", "Can't parse", "Key: ", "label value")
    )
    if not about_records:
        raise error
    return (
        f"{checksums.find_bad_record(dataset, representation)}; copy the dataset "
        "again, or preprocess it again."
    )


@contextlib.contextmanager
def dtype_policy(mixed_precision: bool) -> Iterator[None]:
    """Sets Keras' policy while a model is built and fitted."""
    if not mixed_precision:
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(choose_precision())
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def choose_precision() -> str:
    """bfloat16, which needs no scaling of the loss, except on GPUs that lack it."""
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if details.get("compute_capability", (8, 0)) < (8, 0):
            return "mixed_float16"
    return "mixed_bfloat16"

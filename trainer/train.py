"""A training run, from dataset folder to model folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import keras
import tensorflow as tf

from pipeline.schema import SPLITS, UserError
from trainer import distribution, evaluate, mobilenet, models, report
from trainer.config import SCHEDULES, TrainConfig
from trainer.dataset import open_dataset
from trainer.fit import fit
from trainer.output import check_output, write_model_folder
from trainer.run import Run, Trained
from trainer.transfer import train_mobilenet


def train(config: TrainConfig) -> report.Report | None:
    """Trains a model, evaluates it clip by clip and writes its folder.

    Returns:
      The report, or None where the test split is empty.

    Raises:
      UserError: the dataset cannot be read or does not hold what the model needs,
        the output folder holds something else, or training diverges.
    """
    dataset = open_dataset(config.data)
    check_output(config.output)
    if config.weights is not None:
        mobilenet.check_weights(config.weights)
    keras.utils.set_random_seed(config.seed)
    try:
        with _dtype_policy(config.mixed_precision):
            return _train(Run(config, dataset))
    except tf.errors.DataLossError as error:
        raise UserError(
            f"A record file in {config.data} is damaged ({error.message}); preprocess "
            "the dataset again."
        ) from error


def _train(run: Run) -> report.Report | None:
    config, manifest = run.config, run.dataset.manifest
    clips = {split: sum(manifest.clips[split].values()) for split in SPLITS}
    print(
        f"{models.ARCHITECTURES[config.model]} on {config.model}: "
        + ", ".join(f"{count} {split}" for split, count in clips.items())
        + f" clips of {len(run.genres)} genres, on "
        + distribution.describe_strategy(run.strategy),
        flush=True,
    )
    start = time.perf_counter()
    trained = train_mobilenet(run) if config.model == "mel" else train_small(run)
    seconds = time.perf_counter() - start
    predictions = {
        name: run.predict_clips(trained.model, split)
        for name, split in run.splits.items()
        if split.records
    }
    scores = {
        name: evaluate.evaluate(prediction, run.genres)
        for name, prediction in predictions.items()
    }
    result = None
    if "test" in scores:
        result = report.Report(
            name=os.path.basename(config.output.rstrip("/")),
            model=models.ARCHITECTURES[config.model],
            representation=config.model,
            parameters=trained.parameters,
            clips=clips,
            test=scores["test"],
            validation=scores.get("validation"),
            training_accuracy=scores["training"].accuracy,
            train_seconds=seconds,
            fingerprint=manifest.fingerprint,
            split_rule=manifest.split_rule,
            notes=tuple(trained.notes),
        )
        print(describe_result(result), flush=True)
    else:
        print("the test split is empty: no report is written", flush=True)
    write_model_folder(
        config.output, trained, manifest, result, predictions.get("test")
    )
    print(f"model written to {config.output}", flush=True)
    return result


def train_small(run: Run) -> Trained:
    """Trains the CNN on windows, or the dense net on vectors."""
    name = run.config.model
    normalisation = run.dataset.manifest.normalisation[name]
    with run.strategy.scope():
        if name == "windows":
            model = models.build_windows_model(
                run.layout, normalisation, len(run.genres)
            )
        else:
            model = models.build_vector_model(
                run.layout, normalisation, len(run.genres)
            )
    schedule = run.schedule(SCHEDULES[name])
    phase = fit(
        model,
        run.splits["training"],
        run.validation,
        run.phase("training", schedule),
        run.strategy,
    )
    parameters = run.describe(model, schedule, [phase])
    return Trained(model=model, phases=[phase], parameters=parameters)


def describe_result(result: report.Report) -> str:
    """One line on how good the model is."""
    low, high = result.test.accuracy_interval
    return (
        f"test accuracy {result.test.accuracy:.3f} by clip (95 % interval {low:.3f} to "
        f"{high:.3f}, chance {result.test.chance_accuracy:.3f}), macro F1 "
        f"{result.test.macro_f1:.3f}; trained in {result.train_seconds:.1f} s"
    )


@contextlib.contextmanager
def _dtype_policy(mixed_precision: bool) -> Iterator[None]:
    """Sets Keras' policy while a model is built and trained."""
    if not mixed_precision:
        yield
        return
    before = keras.config.dtype_policy()
    # GPUs compute fastest in float16 (Keras adds the loss scaling that it needs),
    # TPUs in bfloat16.
    gpu = bool(tf.config.list_physical_devices("GPU"))
    keras.config.set_dtype_policy("mixed_float16" if gpu else "mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

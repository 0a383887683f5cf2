"""Trains MobileNetV2: a head on a frozen base, layers of the base, or all of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from pipeline.common import ownership
from pipeline.common.owned_kinds import CACHE
from pipeline.schema import SPLITS, UserError
from trainer.config import SCHEDULES, Schedule
from trainer.data.split import Split, open_splits
from trainer.evaluation.history import PhaseHistory
from trainer.evaluation.model_files import files_of
from trainer.runtime.devices import gather_floats
from trainer.training.bottleneck import NAME, describe_outputs, make_key, write_outputs
from trainer.training.fit import evaluation_batch_size, fit
from trainer.training.networks import mobilenet
from trainer.training.run import FittedModel, Run

IMAGENET_RATE = 1e-5
RANDOM_RATE = 1e-3

RANDOM_NOTE = (
    "No pretrained weights: the head reads the outputs of a random MobileNetV2."
)
SCRATCH_NOTE = "No pretrained weights: trained from random ones."
WORSE_NOTE = (
    "Fine-tuning did not lower the validation loss: the head phase's model is kept."
)


def fit_mobilenet(run: Run) -> FittedModel:
    """Trains MobileNetV2 as `--weights` and `--fine_tune_layers` ask.

    With ImageNet weights, a new head is trained on the frozen base, and then, if
    asked, the base's last layers with it; BatchNorm stays in inference mode.

    With random weights, the base stays a fixed random projection of the image, and
    a head on its standardised outputs is all that is trained: quick, and enough
    to rise far above chance on a few clips. If layers of the base are to be trained,
    that happens at once, as an ordinary training from scratch, which needs
    thousands of clips.

    Raises:
      UserError: the weights are not there or do not fit.
    """
    config = run.config
    weights = config.weights or mobilenet.find_cached_weights() or "none"
    if run.devices.chief:
        run.reporter.note(describe_weights(config.weights, weights))
    schedule = run.schedule(SCHEDULES["mel"])
    rate = config.fine_tune_learning_rate
    if rate is None:
        rate = RANDOM_RATE if weights == "none" else IMAGENET_RATE
    tuning = dataclasses.replace(
        schedule, epochs=config.fine_tune_epochs, learning_rate=rate
    )
    layers, shape = config.fine_tune_layers, run.layout.value.shape
    if weights == "none" and not layers and config.mixed_precision:
        raise UserError(
            "--mixed_precision cannot be used with random weights: the signals of a "
            "random base are too small for 16 bits; leave it out, or give --weights "
            "PATH."
        )
    with run.strategy.scope():
        base = mobilenet.build_base(shape, weights)
    notes = []
    outputs: Mapping[str, Split] = {}
    head = None
    with contextlib.ExitStack() as stack:
        if weights == "none" and layers:
            model = build_from_scratch(run, base, layers)
            run.announce(model)
            phases = [fit_images(run, model, "training", tuning)]
            notes.append(SCRATCH_NOTE)
        else:
            base.trainable = False
            with run.strategy.scope():
                bottleneck = mobilenet.build_bottleneck(run.layout, base)
            run.announce(bottleneck)
            splits = SPLITS[:2] if layers else SPLITS
            folder = stack.enter_context(outputs_folder(run, bottleneck))
            outputs = cache_outputs(run, bottleneck, folder, splits)
            head = build_head(run, outputs, standardise=weights == "none")
            with run.strategy.scope():
                model = mobilenet.attach_head(bottleneck, head, run.config.model)
            phases = [fit_head(run, model, head, outputs, schedule)]
            if layers:
                head = None
                history, better = fine_tune(run, model, base, layers, tuning, phases[0])
                phases.append(history)
                if not better:
                    notes.append(WORSE_NOTE)
            if weights == "none":
                notes.append(RANDOM_NOTE)
        parameters = run.describe(model, schedule, phases) | {
            "fine_tune_layers": layers,
            "weights": os.path.basename(weights),
        }
        if layers:
            parameters["fine_tune_learning_rate"] = rate
        fitted = FittedModel(
            model=model, phases=phases, parameters=parameters, notes=notes
        )
        # Read while the outputs are still there.
        source = (model, run.splits) if head is None else (head, outputs)
        return dataclasses.replace(fitted, predictions=run.predict_splits(*source))


def improves(before: PhaseHistory, after: PhaseHistory) -> bool:
    """Whether a phase lowered the validation loss; without one, it is taken to."""
    lowest = [
        min(phase.metrics.get("validation_loss", ()), default=None)
        for phase in (before, after)
    ]
    return lowest[0] is None or lowest[1] is None or lowest[1] < lowest[0]


def describe_weights(flag: str | None, weights: str) -> str:
    """Says what MobileNetV2 starts from."""
    if weights != "none":
        return f"MobileNetV2 starts from ImageNet weights: {weights}"
    if flag == "none":
        return "MobileNetV2 starts from random weights, as --weights none asks"
    return (
        "MobileNetV2 starts from random weights, as none are cached; --weights "
        "imagenet fetches ImageNet's"
    )


@contextlib.contextmanager
def outputs_folder(run: Run, bottleneck: keras.Model) -> Iterator[str]:
    """Where the outputs are kept: as asked, with the checkpoints, or for now."""
    key = make_key(run.dataset, bottleneck)
    checkpoints = run.checkpoints("features")
    cache = run.config.feature_cache
    if cache is not None:
        ownership.claim(files_of(cache), cache, CACHE, flag="--feature_cache")
        yield f"{cache.rstrip('/')}/{key}"
    elif checkpoints is not None:
        checkpoints.claim()
        yield f"{checkpoints.path}/{key}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield folder


def cache_outputs(
    run: Run, bottleneck: keras.Model, folder: str, splits: tuple[str, ...]
) -> dict[str, Split]:
    """Outputs of the frozen base, computed once: splits to take for the images'."""
    model = run.config.model
    target = describe_outputs(run.dataset, model, bottleneck.output_shape[-1], folder)
    batch_size = evaluation_batch_size(
        SCHEDULES[model].batch_size,
        sum(run.splits[name].records for name in splits),
        run.devices,
    )
    write_outputs(
        run.dataset,
        model,
        target,
        bottleneck,
        batch_size,
        run.devices,
        splits,
        run.reporter,
    )
    return open_splits(
        target,
        NAME,
        cache_bytes=run.config.cache_mb * 2**20,
        splits=splits,
        worker=run.devices.worker,
        workers=run.devices.workers,
    )


def build_head(
    run: Run, outputs: Mapping[str, Split], *, standardise: bool
) -> keras.Model:
    """A head on the outputs of the frozen base.

    Args:
      run: the run.
      outputs: of the frozen base.
      standardise: whether to bring them to mean 0 and variance 1 first, by their
        statistics over the training split.
    """
    width = outputs["training"].width
    statistics = measure_outputs(run, outputs["training"]) if standardise else None
    with run.strategy.scope():
        return mobilenet.build_head(
            width,
            len(run.genres),
            standardise=None
            if statistics is None
            else mobilenet.build_standardiser(*statistics),
            **run.head,
        )


def measure_outputs(run: Run, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each output over a split, of all processes."""
    sums = np.zeros((2, split.width))
    count = 0
    # Outputs of a random base are about 1e-12, whose squares float64 still holds.
    for values in split.evaluation_batches(1024):
        block = np.asarray(values, np.float64)
        sums += [block.sum(axis=0), np.square(block).sum(axis=0)]
        count += len(block)
    rows = np.array(gather_floats(run.devices, [count, *sums.ravel()])).sum(axis=0)
    first, second = rows[1:].reshape(2, -1) / rows[0]
    return first, np.sqrt(np.maximum(second - first**2, 0))


def fit_head(
    run: Run,
    model: keras.Model,
    head: keras.Model,
    outputs: Mapping[str, Split],
    schedule: Schedule,
) -> PhaseHistory:
    """Trains a head, on the outputs of the frozen base where that is the same.

    The result is that of training the whole network with its base frozen and in
    inference mode, at a fraction of the time. With augmentation the base's input
    differs each time, and the whole network is what is trained.
    """
    if schedule.augmentation:
        return fit_images(run, model, "head", schedule)
    phase = run.phase("head", schedule, augmented=False)
    validation = outputs["validation"]
    return fit(
        head,
        outputs["training"],
        validation if validation.records else None,
        phase,
        run.devices,
    )


def fine_tune(
    run: Run,
    model: keras.Model,
    base: keras.Model,
    layers: int,
    schedule: Schedule,
    before: PhaseHistory,
) -> tuple[PhaseHistory, bool]:
    """Trains the last layers of the base too; undone if that does not help.

    Returns:
      The phase's history, and whether its weights are kept.
    """
    mobilenet.unfreeze_last_layers(base, layers, batch_norm=False)
    weights = model.get_weights()
    after = fit_images(run, model, "fine-tuning", schedule)
    better = improves(before, after)
    if not better:
        model.set_weights(weights)
        if run.devices.chief:
            run.reporter.note(WORSE_NOTE)
    return after, better


def build_from_scratch(run: Run, base: keras.Model, layers: int) -> keras.Model:
    """The whole network, to be trained from random weights."""
    mobilenet.quicken_statistics(base)
    mobilenet.unfreeze_last_layers(base, layers, batch_norm=True)
    with run.strategy.scope():
        bottleneck = mobilenet.build_bottleneck(run.layout, base)
        width = bottleneck.output_shape[-1]
        head = mobilenet.build_head(width, len(run.genres), **run.head)
        return mobilenet.attach_head(bottleneck, head, run.config.model)


def fit_images(
    run: Run, model: keras.Model, name: str, schedule: Schedule
) -> PhaseHistory:
    """Trains from images all layers that are trainable."""
    phase = run.phase(name, schedule)
    return fit(model, run.splits["training"], run.validation, phase, run.devices)

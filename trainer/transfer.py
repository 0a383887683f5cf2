"""Trains MobileNetV2: a head on a frozen base, layers of the base, or all of it."""

from __future__ import annotations

import dataclasses
import os
import time

import keras
import numpy as np
import numpy.typing as npt

from pipeline.schema import UserError
from trainer import mobilenet
from trainer.batches import Split
from trainer.config import SCHEDULES, Schedule
from trainer.dataset import Arrays
from trainer.fit import PhaseHistory, fit
from trainer.run import Run, Trained

IMAGENET_RATE = 1e-5
RANDOM_RATE = 1e-3

RANDOM_NOTE = (
    "No pretrained weights: the head reads the features of a random MobileNetV2."
)
SCRATCH_NOTE = "No pretrained weights: trained from random ones."
WORSE_NOTE = (
    "Fine-tuning did not lower the validation loss: the head phase's model is kept."
)


def train_mobilenet(run: Run) -> Trained:
    """Trains MobileNetV2 as `--weights` and `--fine_tune_layers` ask.

    With ImageNet weights, a new head is trained on the frozen base, and then, if
    asked, the base's last layers with it; BatchNorm stays in inference mode.

    With random weights, the base stays a fixed random projection of the image, and
    a head on its standardised features is all that is trained: quick, and enough
    to rise far above chance on a few clips. If layers of the base are to be trained,
    that happens at once, as an ordinary training from scratch, which needs
    thousands of clips.

    Raises:
      UserError: the weights are not there or do not fit.
    """
    config = run.config
    weights = config.weights or mobilenet.find_cached_weights() or "none"
    print(describe_weights(config.weights, weights), flush=True)
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
    if weights == "none" and layers:
        model = build_from_scratch(run, base, layers)
        phases = [fit_images(run, model, "training", tuning)]
        notes.append(SCRATCH_NOTE)
    else:
        base.trainable = False
        model, phase = train_head(run, base, schedule, standardise=weights == "none")
        phases = [phase]
        if layers:
            mobilenet.unfreeze_last_layers(base, layers, batch_norm=False)
            kept = model.get_weights()
            phases.append(fit_images(run, model, "fine-tuning", tuning))
            if not improves(*phases):
                model.set_weights(kept)
                notes.append(WORSE_NOTE)
                print(WORSE_NOTE, flush=True)
        if weights == "none":
            notes.append(RANDOM_NOTE)
    parameters = run.describe(model, schedule, phases) | {
        "fine_tune_layers": layers,
        "weights": os.path.basename(weights),
    }
    if layers:
        parameters["fine_tune_learning_rate"] = rate
    return Trained(model=model, phases=phases, parameters=parameters, notes=notes)


def improves(before: PhaseHistory, after: PhaseHistory) -> bool:
    """Whether a phase lowered the validation loss; without one, it is taken to."""
    lowest = [
        min(phase.metrics.get("validation_loss", ()), default=None)
        for phase in (before, after)
    ]
    return lowest[0] is None or lowest[1] is None or lowest[1] < lowest[0]


def describe_weights(asked: str | None, weights: str) -> str:
    """Says what MobileNetV2 starts from."""
    if weights != "none":
        return f"MobileNetV2 starts from ImageNet weights: {weights}"
    if asked == "none":
        return "MobileNetV2 starts from random weights, as --weights none asks"
    return (
        "MobileNetV2 starts from random weights: no --weights given and no cached "
        "ImageNet weights in ~/.keras/models; give --weights PATH for transfer learning"
    )


def train_head(
    run: Run, base: keras.Model, schedule: Schedule, *, standardise: bool
) -> tuple[keras.Model, PhaseHistory]:
    """Trains a head on the features of a frozen base, which are computed once.

    The result is that of training the whole network with its base frozen and in
    inference mode, at a fraction of the time.

    Args:
      run: the run.
      base: not trainable.
      schedule: how to fit.
      standardise: whether to bring the features to mean 0 and variance 1 first,
        by their statistics over the training split.

    Returns:
      The whole network, from images to probabilities, and the head's history.
    """
    start = time.perf_counter()
    with run.strategy.scope():
        bottleneck = mobilenet.build_bottleneck(run.layout, base)
    features, training = compute_features(run, bottleneck, run.splits["training"])
    validation = run.validation
    if validation is not None:
        _, validation = compute_features(run, bottleneck, validation)
    seconds = time.perf_counter() - start
    print(f"features of the frozen base computed ({seconds:.1f} s)", flush=True)
    with run.strategy.scope():
        head = mobilenet.build_head(
            features.shape[1],
            len(run.genres),
            standardise=mobilenet.build_standardiser(features) if standardise else None,
        )
    phase = run.phase("head", schedule)
    history = fit(head, training, validation, phase, run.strategy)
    with run.strategy.scope():
        model = mobilenet.attach_head(bottleneck, head, run.config.model)
    return model, history


def compute_features(
    run: Run, bottleneck: keras.Model, split: Split
) -> tuple[npt.NDArray[np.float32], Split]:
    """Features `(n, channels)` of a split, and the split with them for images."""
    track_ids, labels = split.load_index()
    features = run.predict_records(bottleneck, split)
    arrays = Arrays(track_ids, labels, features)
    return features, dataclasses.replace(split, arrays=arrays)


def build_from_scratch(run: Run, base: keras.Model, layers: int) -> keras.Model:
    """The whole network, to be trained from random weights."""
    mobilenet.quicken_statistics(base)
    mobilenet.unfreeze_last_layers(base, layers, batch_norm=True)
    with run.strategy.scope():
        bottleneck = mobilenet.build_bottleneck(run.layout, base)
        head = mobilenet.build_head(bottleneck.output_shape[-1], len(run.genres))
        return mobilenet.attach_head(bottleneck, head, run.config.model)


def fit_images(
    run: Run, model: keras.Model, name: str, schedule: Schedule
) -> PhaseHistory:
    """Trains from images all layers that are trainable."""
    phase = run.phase(name, schedule)
    return fit(model, run.splits["training"], run.validation, phase, run.strategy)

"""Trains MobileNetV2: a head on ImageNet's features, or everything from scratch."""

from __future__ import annotations

import dataclasses
import os
import time

import keras

from pipeline.schema import UserError
from trainer import mobilenet
from trainer.batches import Split
from trainer.config import SCHEDULES, SCRATCH_SCHEDULE, Schedule
from trainer.dataset import Arrays
from trainer.fit import PhaseHistory, fit
from trainer.run import Run, Trained


def train_mobilenet(run: Run) -> Trained:
    """Trains MobileNetV2 as `--weights` and `--fine_tune_layers` ask.

    With ImageNet weights the base stays frozen and a new head is trained; then, if
    asked, the base's last layers with it. Without, the whole network is trained
    from random weights.

    Raises:
      UserError: the weights are not there or do not fit.
    """
    config = run.config
    weights = config.weights or mobilenet.find_cached_weights() or "none"
    if weights == "none" and config.fine_tune_layers:
        raise UserError("--fine_tune_layers needs pretrained weights: --weights PATH.")
    print(describe_weights(config.weights, weights), flush=True)
    with run.strategy.scope():
        network = mobilenet.build_network(run.layout, len(run.genres), weights=weights)
    notes = []
    if weights == "none":
        schedule = run.schedule(SCRATCH_SCHEDULE)
        phases = [fit_whole(run, network, "training", schedule)]
        notes.append("Trained from random weights, without transfer learning.")
    else:
        schedule = run.schedule(SCHEDULES["mel"])
        phases = [train_head(run, network, schedule)]
        if config.fine_tune_layers:
            with run.strategy.scope():
                mobilenet.unfreeze_last_layers(network.base, config.fine_tune_layers)
            low = dataclasses.replace(
                schedule,
                epochs=config.fine_tune_epochs,
                learning_rate=config.fine_tune_learning_rate,
            )
            phases.append(fit_whole(run, network, "fine-tuning", low))
    parameters = run.describe(network.model, schedule, phases) | {
        "fine_tune_layers": config.fine_tune_layers,
        "weights": os.path.basename(weights),
    }
    return Trained(
        model=network.model, phases=phases, parameters=parameters, notes=notes
    )


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
    run: Run, network: mobilenet.Network, schedule: Schedule
) -> PhaseHistory:
    """Trains the head on the frozen base's features, which are computed once.

    The result is that of training the whole network with its base frozen and in
    inference mode, at a fraction of the time.
    """
    start = time.perf_counter()
    training = compute_features(run, network.bottleneck, run.splits["training"])
    validation = run.validation
    if validation is not None:
        validation = compute_features(run, network.bottleneck, validation)
    seconds = time.perf_counter() - start
    print(f"features of the frozen base computed ({seconds:.1f} s)", flush=True)
    phase = run.phase("head", schedule)
    return fit(network.head, training, validation, phase, run.strategy)


def compute_features(run: Run, bottleneck: keras.Model, split: Split) -> Split:
    """Replaces a split's images by features `(n, channels)`, held in memory."""
    track_ids, labels = split.load_index()
    values = run.predict_records(bottleneck, split)
    return dataclasses.replace(split, arrays=Arrays(track_ids, labels, values))


def fit_whole(
    run: Run, network: mobilenet.Network, name: str, schedule: Schedule
) -> PhaseHistory:
    """Trains from images, with all layers that are trainable."""
    phase = run.phase(name, schedule)
    return fit(
        network.model, run.splits["training"], run.validation, phase, run.strategy
    )

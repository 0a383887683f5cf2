"""A music model of chance weights, which stands for the published one."""

import dataclasses

import numpy as np
import pytest

from pipeline.representations import music_model


def chance_weights() -> dict[str, np.ndarray]:
    """Arrays of the shapes of MSD_vgg."""
    rng = np.random.default_rng(0)
    arrays = {}
    for layer in range(6):
        width = 128 if layer else 1
        suffix = f"_{layer}" if layer else ""
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            values = rng.uniform(0.5, 1, width).astype(np.float32)
            arrays[f"batch_normalization{suffix}/{part}"] = values
        if layer:
            shape = (3, 3, 128 if layer > 1 else 1, 128)
            kernel = rng.normal(0, 0.03, shape).astype(np.float32)
            arrays[f"{layer}CNN/kernel"] = kernel
            arrays[f"{layer}CNN/bias"] = np.zeros(128, np.float32)
    return arrays


def publish_chance_weights(patch: pytest.MonkeyPatch) -> bytes:
    """Has chance weights taken for MSD_vgg's; returns their file."""
    arrays = chance_weights()
    model = dataclasses.replace(
        music_model.MODELS["MSD_vgg"], sha256=music_model.digest_weights(arrays)
    )
    patch.setitem(music_model.MODELS, "MSD_vgg", model)
    return music_model.write_weights(arrays)

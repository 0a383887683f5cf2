"""Untrained models of a few weights, in folders as training writes them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import soundfile

from pipeline import schema
from pipeline.common.clip_config import ClipConfig
from pipeline.representations import make_schemas
from trainer.training.networks.windows import build_windows_model

GENRES = ("Folk", "Jazz", "Pop", "Rock")
CONFIG = ClipConfig(windows_per_clip=2)


def make_manifest() -> schema.Manifest:
    return schema.Manifest(
        genres=GENRES,
        representations=make_schemas(("windows", "mel"), CONFIG),
        num_shards=1,
        clips={},
        records={},
        record_bytes={},
        normalisation={"windows": schema.Normalisation(mean=(0.0,), variance=(0.04,))},
        settings=CONFIG.to_dict(),
        split_rule="",
        artists_in_several_splits=(),
        inputs={},
        rejects={},
        versions={},
        fingerprint="fingerprint",
    )


def make_model(name: str, manifest: schema.Manifest) -> keras.Model:
    keras.utils.set_random_seed(0)
    layout = manifest.representations[name]
    if name == "windows":
        normalisation = manifest.normalisation[name]
        return build_windows_model(layout, normalisation, len(GENRES))
    inputs = keras.Input(layout.value.shape, dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(x))
    outputs = keras.layers.Dense(len(GENRES), activation="softmax")(x)
    return keras.Model(inputs, outputs, name=name)


def write_models(folder: Path) -> Path:
    """Model folders `windows` and `mel`."""
    manifest = make_manifest()
    for name in manifest.representations:
        (folder / name).mkdir(parents=True)
        make_model(name, manifest).save(folder / name / "model.keras")
        (folder / name / "manifest.json").write_text(manifest.to_json())
    return folder


def write_tones(folder: Path, count: int, seconds: float = 6.0) -> list[Path]:
    """Files of different tones with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    times = np.arange(round(seconds * 8_000)) / 8_000
    paths = []
    for index in range(count):
        tone = np.sin(2 * np.pi * (200 + 50 * index) * times)
        samples = 0.3 * tone + 0.05 * rng.standard_normal(len(times))
        path = folder / f"{index:03d}.wav"
        soundfile.write(path, samples.astype(np.float32), 8_000)
        paths.append(path)
    return paths

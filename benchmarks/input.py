"""Measures how fast records reach a model: `./launch.sh run benchmarks.input --help`.

Three ways, on the local disk and on a store where each read takes 5 ms:

  today    list_files, then py_function(librosa.load) and features
  serial   one TFRecord shard after another, record by record
  ours     what the trainer does, in order (evaluation) and shuffled (training)

against the limit, which is reading the same bytes in plain Python; and against the
rate at which this machine's model takes records.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trainer.runtime.quiet  # noqa: F401  isort: skip
import keras
import librosa
import numpy as np
import soundfile
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing
from tensorflow.python.data.ops import readers

from pipeline import schema
from pipeline.common.plain_text import align
from trainer.config import SCHEDULES
from trainer.data import streams
from trainer.data.dataset import Dataset
from trainer.data.split import Split
from trainer.runtime.devices import find_devices
from trainer.training.networks import mobilenet
from trainer.training.networks.vectors import build_vector_model
from trainer.training.networks.windows import build_windows_model
from trainer.training.step import Learner, training_batches

#: Latency of the simulated store: each read of a record waits so long.
LATENCY_MICROSECONDS = 5_000

BATCH_SIZE = 32
#: Passes over the records in one measurement.
EPOCHS = 2
#: Records that are read one after another from the slow store.
SLOWLY = 320
#: Part of fma_small's feature vectors that fits the shuffle buffer.
SHUFFLED_PART = streams.SHUFFLE_BYTES / (6_400 * 85_210 * 4)
SHARDS = 16
GENRES = tuple(f"genre {number}" for number in range(8))
CLIP_SECONDS = 30.0
RATE = 44_100

#: Values and records of each representation: about 400 MB of each, so that the
#: pipeline's start counts little.
SIZES: Mapping[str, tuple[str, tuple[int, ...], str, int]] = {
    "features": ("float32", (85_210,), "float_list", 1_280),
    "mel": ("uint8", (224, 224, 3), "raw_bytes", 2_560),
    "windows": ("float32", (10_000,), "float_list", 10_240),
}


def make_dataset(folder: Path) -> Dataset:
    """Writes random records of the real sizes; of training only."""
    rng = np.random.default_rng(0)
    representations = {}
    for name, (dtype, shape, encoding, count) in SIZES.items():
        field = schema.Field(name=name, dtype=dtype, shape=shape, encoding=encoding)
        representations[name] = schema.RepresentationSchema(
            name=name,
            value=field,
            records_per_clip=1,
            segments=()
            if name == "mel"
            else (schema.Segment(name="all", length=field.size),),
        )
        (folder / name).mkdir(parents=True)
        for shard in range(SHARDS):
            path = folder / schema.shard_file(name, "training", shard, SHARDS)
            with tf.io.TFRecordWriter(str(path)) as writer:
                for number in range(shard, count, SHARDS):
                    writer.write(_example(field, number, rng))
    counts = {name: {"training": size[3]} for name, size in SIZES.items()}
    ones = schema.Normalisation(mean=(0.0,), variance=(1.0,))
    manifest = schema.Manifest(
        genres=GENRES,
        representations=representations,
        num_shards=SHARDS,
        clips={split: dict.fromkeys(GENRES, 0) for split in schema.SPLITS},
        records=counts,
        record_bytes={},
        normalisation={"features": ones, "windows": ones},
        settings={},
        split_rule="random values",
        artists_in_several_splits=(),
        inputs={},
        rejects={},
        versions={},
        fingerprint="benchmark",
    )
    return Dataset(folder=str(folder), manifest=manifest)


def _example(field: schema.Field, number: int, rng: np.random.Generator) -> bytes:
    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    if field.dtype == "uint8":
        value = text(rng.integers(0, 256, field.shape, np.uint8).tobytes())
    else:
        array = rng.standard_normal(field.shape, np.float32)
        value = tf.train.Feature(float_list=tf.train.FloatList(value=array))
    features = {
        "track_id": text(b"%06d" % number),
        "artist_id": text(b"artist"),
        "decoder": text(b"none"),
        "label": integer(number % len(GENRES)),
        "index": integer(0),
        field.name: value,
    }
    example: bytes = tf.train.Example(
        features=tf.train.Features(feature=features)
    ).SerializeToString()
    return example


def make_clips(folder: Path, count: int) -> None:
    """Writes MP3s of 30 s: tones, their harmonics, and noise."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    times = np.arange(int(CLIP_SECONDS * RATE)) / RATE
    for number in range(count):
        tones = sum(
            np.sin(2 * np.pi * frequency * times) / (1 + order)
            for order, frequency in enumerate(rng.uniform(80, 8000, 12))
        )
        left = 0.1 * tones + 0.02 * rng.standard_normal(len(times))
        right = 0.1 * tones + 0.02 * rng.standard_normal(len(times))
        stereo = np.stack([left, right], axis=1).astype(np.float32)
        soundfile.write(folder / f"{number:06d}.mp3", stereo, RATE)


def librosa_features(path: bytes) -> Any:
    """The article's features of a clip, by librosa: float32 (85,210,)."""
    samples, rate = librosa.load(path.decode(), sr=None, mono=True)
    rows = np.concatenate(
        [
            librosa.feature.mfcc(y=samples, sr=rate),
            librosa.feature.chroma_stft(y=samples, sr=rate),
            librosa.feature.zero_crossing_rate(samples),
        ]
    ).ravel()
    centroid = librosa.feature.spectral_centroid(y=samples, sr=rate)
    rolloff = librosa.feature.spectral_rolloff(y=samples, sr=rate)
    scalars = [centroid.mean(), centroid.std(), rolloff.mean(), rolloff.std()]
    vector = np.zeros(85_210, np.float32)
    vector[: min(len(rows), 85_206)] = rows[:85_206]
    vector[-4:] = scalars
    return vector


def librosa_mel(path: bytes) -> Any:
    """A mel image of a clip, by librosa: uint8 (224, 224, 3)."""
    samples, rate = librosa.load(path.decode(), sr=None, mono=True)
    power = librosa.feature.melspectrogram(y=samples, sr=rate, n_mels=224)
    decibels = librosa.power_to_db(power, ref=np.max)
    columns = np.linspace(0, decibels.shape[1] - 1, 224).astype(int)
    image = ((decibels[:, columns] + 80) / 80 * 255).astype(np.uint8)
    return np.repeat(image[..., None], 3, axis=-1)


def librosa_windows(path: bytes) -> Any:
    """The middle of a clip, by librosa: float32 (10,000,)."""
    samples, _ = librosa.load(path.decode(), sr=None, mono=True)
    return samples[len(samples) // 2 :][:10_000]


TODAY = {
    "features": librosa_features,
    "mel": librosa_mel,
    "windows": librosa_windows,
}


def today(name: str, clips: Path) -> tf.data.Dataset:
    """Audio files, decoded while training."""
    field = SIZES[name]
    dtype = tf.as_dtype(field[0])

    def load(path: tf.Tensor) -> tf.Tensor:
        value = tf.py_function(lambda p: TODAY[name](p.numpy()), [path], dtype)
        return tf.ensure_shape(value, field[1])

    files = tf.data.Dataset.list_files(f"{clips}/*.mp3", shuffle=False)
    return files.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(1).prefetch(2)


def serial(dataset: Dataset, name: str, epochs: int) -> tf.data.Dataset:
    """One shard after another, record by record."""
    layout = dataset.representation(name)

    def parse(record: tf.Tensor) -> tf.Tensor:
        batch = streams.parse_batch(record[None], layout, [name])
        return batch[name][0]

    files = tf.data.Dataset.from_tensor_slices(dataset.files(name, "training"))
    records = files.flat_map(tf.data.TFRecordDataset).map(parse)
    return records.batch(BATCH_SIZE).repeat(epochs)


def in_order(dataset: Dataset, name: str, epochs: int) -> tf.data.Dataset:
    """The trainer's way of evaluation."""
    batches = dataset.evaluation_batches(name, "training", BATCH_SIZE)
    return batches.repeat(epochs)


def shuffled(dataset: Dataset, name: str, epochs: int) -> tf.data.Dataset:
    """The trainer's way of training."""
    steps = dataset.count(name, "training") // BATCH_SIZE
    plan = streams.EpochPlan(batch_size=BATCH_SIZE, batches=steps, seed=0)
    batches = dataset.training_batches(name, "training", plan)
    return batches.take(steps * epochs)


def read_bytes(dataset: Dataset, name: str) -> int:
    """The limit: the same bytes into memory, and once more from there."""
    for file in dataset.files(name, "training"):
        content = Path(file).read_bytes()
        np.frombuffer(content, np.uint8).copy()
    return dataset.count(name, "training")


def count_records(batches: tf.data.Dataset) -> int:
    """Goes through batches as a model would."""
    count = 0
    for batch in batches:
        values = batch[0] if isinstance(batch, tuple) else batch
        count += values.shape[0]
    return count


@contextlib.contextmanager
def slow_store() -> Iterator[None]:
    """Every record of every file takes its time."""
    create = readers._create_dataset_reader

    def create_slowly(read: Callable[..., Any], *arguments: Any, **names: Any) -> Any:
        def read_slowly(file: tf.Tensor) -> tf.data.Dataset:
            return read(file).apply(testing.sleep(LATENCY_MICROSECONDS))

        return create(read_slowly, *arguments, **names)

    readers._create_dataset_reader = create_slowly
    try:
        yield
    finally:
        readers._create_dataset_reader = create


def rate(read: Callable[[], int]) -> float:
    """Records a second."""
    started = time.perf_counter()
    count = read()
    return count / (time.perf_counter() - started)


def measure_rates(dataset: Dataset, clips: Path, rounds: int) -> dict[str, Any]:
    """Records a second of each way, by representation and store.

    The best of some rounds in which the ways alternate, since the speed of a shared
    machine changes from minute to minute.
    """
    results: dict[str, Any] = {}
    buffer = streams.SHUFFLE_BYTES
    for name in SIZES:
        # The part of the records that the buffer holds, as with fma_small.
        size = dataset.size(name, "training")
        streams.SHUFFLE_BYTES = round(size * SHUFFLED_PART)
        try:
            rates = {"limit": 0.0, "today": rate(lambda n=name: _read_today(n, clips))}  # type: ignore[misc]
            for _ in range(rounds):
                for way, value in _measure_once(dataset, name).items():
                    rates[way] = max(rates.get(way, 0.0), value)
        finally:
            streams.SHUFFLE_BYTES = buffer
        results[name] = rates
        print(
            f"{name}: " + json.dumps({k: round(v, 1) for k, v in rates.items()}),
            flush=True,
        )
    return results


def _read_today(name: str, clips: Path) -> int:
    return count_records(today(name, clips))


def _measure_once(dataset: Dataset, name: str) -> dict[str, float]:
    ways = {"serial": serial, "ours, in order": in_order, "ours, shuffled": shuffled}
    rates = {"limit": rate(lambda: read_bytes(dataset, name))}
    for way, make in ways.items():
        rates[way] = rate(lambda m=make: count_records(m(dataset, name, EPOCHS)))  # type: ignore[misc]
    with slow_store():
        for way, make in ways.items():
            batches = make(dataset, name, EPOCHS)
            if way == "serial":
                batches = batches.take(SLOWLY // BATCH_SIZE)
            rates[f"{way}, slow store"] = rate(lambda b=batches: count_records(b))  # type: ignore[misc]
    return rates


def measure_steps(dataset: Dataset, steps: int) -> dict[str, float]:
    """Records a second that each model takes on this machine, input not counted."""
    devices = find_devices("single")
    rates = {}
    for name in SIZES:
        layout = dataset.representation(name)
        if name == "mel":
            base = mobilenet.build_base(layout.value.shape, "none")
            bottleneck = mobilenet.build_bottleneck(layout, base)
            head = mobilenet.build_head(1280, len(GENRES))
            model = mobilenet.attach_head(bottleneck, head, name)
        else:
            build = build_vector_model
            if name == "windows":
                build = build_windows_model
            model = build(layout, dataset.manifest.normalisation[name], len(GENRES))
        learner = Learner(model, SCHEDULES[name], steps, devices)
        split = Split(
            dataset=dataset,
            representation=name,
            name="training",
            records=dataset.count(name, "training"),
        )
        plan = streams.EpochPlan(batch_size=BATCH_SIZE, batches=1, seed=0)
        batch = next(iter(training_batches(split, plan, devices)))
        learner.step(batch, False)
        started = time.perf_counter()
        for _ in range(steps):
            learner.step(batch, False).numpy()
        rates[name] = steps * BATCH_SIZE / (time.perf_counter() - started)
        keras.backend.clear_session()
    return rates


def make_tables(rates: Mapping[str, Any], taken: Mapping[str, float]) -> str:
    """The goals and what was reached, and all rates."""
    rows = []
    for name, by_way in rates.items():
        best = by_way["ours, shuffled"]
        slow = by_way["ours, shuffled, slow store"] / by_way["serial, slow store"]
        checks: list[tuple[str, float, float | None]] = [
            (
                "ours / today",
                best / by_way["today"],
                300 if name != "windows" else None,
            ),
            ("ours / one shard after another, slow store", slow, 10),
            ("ours in order / limit", by_way["ours, in order"] / by_way["limit"], 0.5),
        ]
        for text, value, goal in checks:
            reached = "" if goal is None else ("yes" if value >= goal else "NO")
            goal_text = "" if goal is None else f">= {goal:g}"
            rows.append([f"{name}: {text}", goal_text, f"{value:.2f}", reached])
    ways = list(next(iter(rates.values())))
    speeds = [
        [way, *(f"{by_way[way]:,.1f}" for by_way in rates.values())] for way in ways
    ]
    waits = [
        [
            name,
            f"{by_way['ours, shuffled']:,.0f}",
            f"{taken[name]:,.0f}",
            f"{max(0.0, 1 - by_way['ours, shuffled'] / taken[name]):.0%}",
        ]
        for name, by_way in rates.items()
    ]
    return "\n\n".join(
        [
            align(["ratio", "goal", "seen", "reached"], rows),
            align(["records a second", *rates], speeds),
            align(["model", "input", "step on this machine", "wait"], waits),
        ]
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh run benchmarks.input", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--output", metavar="FILE", help="write all numbers as JSON")
    parser.add_argument("--scratch", metavar="DIR", help="for the records (1.2 GB)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--clips", type=int, default=6, help="MP3s to decode")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="input-", dir=arguments.scratch))
    try:
        make_clips(scratch / "clips", arguments.clips)
        dataset = make_dataset(scratch / "dataset")
        rates = measure_rates(dataset, scratch / "clips", arguments.rounds)
        taken = measure_steps(dataset, 10)
    finally:
        shutil.rmtree(scratch)
    print(f"\n{make_tables(rates, taken)}")
    if arguments.output:
        content = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "records_per_second": rates,
            "steps_records_per_second": taken,
        }
        Path(arguments.output).write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

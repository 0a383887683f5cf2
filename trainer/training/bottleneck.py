"""Outputs of a frozen network, computed once and kept as TFRecords.

They are a dataset like the one that the images come from: as many records in as many
shards, in the same order, so that everything that reads one reads the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline import schema
from pipeline.common.progress import SILENT, Reporter
from pipeline.schema.example import Value, encode_example
from trainer.data.dataset import Dataset
from trainer.data.index import INDEX_COLUMNS, IndexColumns
from trainer.data.streams import READS, batches_ahead, parse_batch, untuned
from trainer.evaluation.report import find_library_versions
from trainer.runtime.devices import Devices
from trainer.runtime.whole_file import whole_file
from trainer.training.step import Forward

#: Name of the representation, and of its value.
NAME = "base-features"


def describe_outputs(
    dataset: Dataset, representation: str, width: int, folder: str
) -> Dataset:
    """The dataset that `write_outputs` makes: the same records, other values.

    Args:
      dataset: with the images.
      representation: the images.
      width: values of a record.
      folder: where it is, or will be.
    """
    images = dataset.representation(representation)
    manifest = dataset.manifest
    layout = schema.RepresentationSchema(
        name=NAME,
        value=schema.Field(
            name="features", dtype="float32", shape=(width,), encoding="float_list"
        ),
        records_per_clip=images.records_per_clip,
        segments=(),
    )
    return Dataset(
        folder=folder,
        manifest=dataclasses.replace(
            manifest,
            representations={NAME: layout},
            records={NAME: manifest.records[representation]},
            record_bytes={},
            normalisation={},
            files={},
        ),
    )


def make_key(dataset: Dataset, network: keras.Model) -> str:
    """Name of what decides the outputs: records, weights, precision, libraries."""
    precision = network.layers[-1].compute_dtype
    origin = [dataset.manifest.fingerprint, precision, find_library_versions()]
    digest = hashlib.sha256(json.dumps(origin).encode())
    for weight in network.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:12]


def write_outputs(
    dataset: Dataset,
    representation: str,
    target: Dataset,
    network: keras.Model,
    batch_size: int,
    devices: Devices,
    splits: Sequence[str],
    reporter: Reporter = SILENT,
) -> None:
    """Computes what is not there yet of this process' part of the outputs.

    A file appears under its name when it is whole.

    Args:
      dataset: with the images.
      representation: the images.
      target: what `describe_outputs` returned.
      network: the frozen base, from images to its outputs.
      batch_size: of all replicas.
      devices: what to compute on.
      splits: which to compute.
      reporter: is told how far it is.
    """
    shares = {"worker": devices.worker, "workers": devices.workers}
    sources: dict[str, str] = {}
    for split in splits:
        goals = target.files(NAME, split, **shares)
        files = dataset.files(representation, split, **shares)
        for goal, file in zip(goals, files, strict=True):
            if not tf.io.gfile.exists(goal):
                sources[file] = goal
    if not sources:
        return
    tf.io.gfile.makedirs(f"{target.folder}/{NAME}")
    layout = dataset.representation(representation)
    label, written = layout.label.name, target.representation(NAME)
    # Nothing asks what decoded the images.
    fields = tuple(field for field in written.fields if field.name != "decoder")
    share = batch_size // devices.workers
    forward = Forward(network, devices)
    count = sum(dataset.count(representation, split) for split in splits)
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(
            reporter.stage("Outputs of the frozen base", count, "record")
        )
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(part))
            for part in [stack.enter_context(whole_file(g)) for g in sources.values()]
        ]
        for numbers, batch in _read(list(sources), layout, share):
            outputs = forward([batch[layout.value.name]], share).astype(np.float32)
            columns = {name: batch[name].numpy() for name in (*INDEX_COLUMNS, label)}
            index = IndexColumns(f"the files of {dataset.folder}", layout.label)
            index.add(columns)
            labels = columns[label]
            for row, number in enumerate(numbers):
                content: dict[str, Value] = {
                    "track_id": index.track_ids[row],
                    "artist_id": index.artist_ids[row],
                    "index": int(columns["index"][row]),
                    label: labels[row] if labels.ndim > 1 else int(labels[row]),
                    written.value.name: outputs[row],
                }
                writers[number].write(encode_example(fields, content))
            stage.advance(len(numbers))


def _read(
    files: Sequence[str], layout: schema.RepresentationSchema, batch_size: int
) -> Iterator[tuple[npt.NDArray[np.int64], Mapping[str, tf.Tensor]]]:
    """Batches of the records of all files, and the number of each record's file."""
    columns = (*INDEX_COLUMNS, layout.label.name, layout.value.name)

    def numbered(number: tf.Tensor, file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file).map(lambda record: (number, record))

    records = (
        tf.data.Dataset.from_tensor_slices(list(files))
        .enumerate()
        .interleave(
            numbered, cycle_length=READS, num_parallel_calls=READS, deterministic=True
        )
        .batch(batch_size)
        .map(
            lambda numbers, batch: (numbers, parse_batch(batch, layout, columns)),
            num_parallel_calls=batches_ahead(layout.value, batch_size),
        )
        .prefetch(2)
    )
    for numbers, batch in untuned(records):
        yield numbers.numpy(), batch

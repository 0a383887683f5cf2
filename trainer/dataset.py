"""Reads a preprocessed dataset: manifest, then TFRecords as `tf.data`.

What a record looks like comes from the manifest alone. Folders may lie anywhere
`tf.io.gfile` reads from: a local path, `gs://...`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline import schema
from trainer.streams import (
    interleave_files,
    parse_batch,
    shuffle_buffer_size,
    stream_shuffled,
    with_cardinality,
)

#: Records that are parsed together where no batch size is given.
LOAD_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The records of a split in memory, one row each.

    Attributes:
      track_ids: clip of each record; windows of one clip share it.
      labels: int64 `(n,)`, indices into the manifest's genres.
      values: `(n, ...)`.
    """

    track_ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    values: npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A complete dataset folder and its manifest; see `open_dataset`."""

    folder: str
    manifest: schema.Manifest

    def representation(self, name: str) -> schema.RepresentationSchema:
        """Schema of one representation.

        Raises:
          UserError: the dataset does not hold it.
        """
        if name not in self.manifest.representations:
            raise schema.UserError(
                f"The dataset in {self.folder} does not hold {name!r}, only "
                f"{', '.join(self.manifest.representations)}; preprocess it with "
                f"{name!r}, or choose another model."
            )
        return self.manifest.representations[name]

    def files(
        self, representation: str, split: str, *, worker: int = 0, workers: int = 1
    ) -> list[str]:
        """Shard paths of a split, or the part of them that one worker reads.

        Raises:
          UserError: fewer shards than workers.
        """
        names = self.manifest.shard_files(representation, split)
        if len(names) < workers:
            raise schema.UserError(
                f"{workers} workers cannot share the {len(names)} shards of "
                f"{representation} in {self.folder}; preprocess it with --num_shards "
                f"{workers} or more."
            )
        return [_join(self.folder, name) for name in names[worker::workers]]

    def count(self, representation: str, split: str) -> int:
        """Number of records of a split, from the manifest."""
        return self.manifest.records[representation].get(split, 0)

    def size(self, representation: str, split: str) -> int:
        """Bytes that the values of a split take in memory."""
        value = self.representation(representation).value
        itemsize = np.dtype(value.dtype).itemsize
        return self.count(representation, split) * value.size * itemsize

    def records(
        self,
        representation: str,
        split: str,
        *,
        batch_size: int,
        training: bool,
        seed: int = 0,
        start_epoch: int = 0,
        worker: int = 0,
        workers: int = 1,
    ) -> tf.data.Dataset:
        """Streams batches of `(value, label)`.

        For training: endless; each epoch visits the records in an order of its
        own, which depends on `seed` and the epoch's number alone, so that a run
        that is resumed at `start_epoch` sees what it would have seen. An epoch's
        incomplete last batch is left out (shapes are static); give `fit` the
        `steps_per_epoch`. For evaluation: every record once, in a fixed order,
        the last batch may be smaller.

        Args:
          representation: name in the manifest.
          split: training, validation or test.
          batch_size: records of a batch, over all replicas of this worker.
          training: see above.
          seed: of the order.
          start_epoch: number of the first epoch, from 0.
          worker: index of this input pipeline.
          workers: number of input pipelines; each reads its own shards.

        Raises:
          UserError: the dataset does not hold the representation, or has fewer
            shards than there are workers.
        """
        layout = self.representation(representation)
        files = self.files(representation, split, worker=worker, workers=workers)
        columns = (layout.value.name, "label")
        count = self.count(representation, split)
        if training:
            if count < batch_size * workers:
                raise ValueError(
                    "Expected at least one batch in an epoch. Received: "
                    f"batch_size={batch_size}, {count} records, {workers} workers"
                )
            buffer = shuffle_buffer_size(layout.value, count)
            serialized = stream_shuffled(files, buffer, batch_size, seed, start_epoch)
        else:
            serialized = interleave_files(tf.data.Dataset.from_tensor_slices(files))
            serialized = serialized.batch(batch_size)

        def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            parsed = parse_batch(batch, layout, columns)
            return parsed[layout.value.name], parsed["label"]

        parsed = serialized.map(
            parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        # Keras counts a step too many in every epoch of unknown cardinality.
        if training:
            parsed = with_cardinality(parsed, tf.data.INFINITE_CARDINALITY)
        elif workers == 1:
            parsed = with_cardinality(parsed, -(-count // batch_size))
        # How records reach workers is decided here, by file.
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.OFF
        )
        return parsed.prefetch(tf.data.AUTOTUNE).with_options(options)

    def load(self, representation: str, split: str) -> Arrays:
        """Reads a whole split into memory, values in their own dtype and shape.

        Raises:
          UserError: the files hold another number of records than the manifest
            says.
        """
        layout = self.representation(representation)
        columns = ("track_id", "label", layout.value.name)
        count = self.count(representation, split)
        values = np.empty((count, *layout.value.shape), layout.value.dtype)
        track_ids, labels, start = [], np.empty(count, np.int64), 0
        for batch in self._columns(representation, split, columns):
            stop = start + len(batch["label"])
            if stop <= count:
                values[start:stop] = batch[layout.value.name]
                labels[start:stop] = batch["label"]
                track_ids += [name.decode() for name in batch["track_id"]]
            start = stop
        self._check_count(representation, split, start)
        return Arrays(tuple(track_ids), labels, values)

    def load_index(
        self, representation: str, split: str
    ) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Track ids and labels of a split, in the order of `records`.

        Raises:
          UserError: the files hold another number of records than the manifest
            says.
        """
        track_ids: list[str] = []
        labels: list[int] = []
        for batch in self._columns(representation, split, ("track_id", "label")):
            track_ids += [name.decode() for name in batch["track_id"]]
            labels += batch["label"].tolist()
        self._check_count(representation, split, len(labels))
        return tuple(track_ids), np.array(labels, np.int64)

    def _columns(
        self, representation: str, split: str, columns: Sequence[str]
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        layout = self.representation(representation)
        files = self.files(representation, split)
        serialized = interleave_files(tf.data.Dataset.from_tensor_slices(files))
        parsed = serialized.batch(LOAD_BATCH).map(
            lambda batch: parse_batch(batch, layout, columns),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        batches: Iterator[Mapping[str, npt.NDArray[Any]]]
        batches = parsed.prefetch(2).as_numpy_iterator()
        return batches

    def _check_count(self, representation: str, split: str, found: int) -> None:
        expected = self.count(representation, split)
        if found != expected:
            raise schema.UserError(
                f"The {split} files of {representation} in {self.folder} hold {found} "
                f"records, the manifest says {expected}; preprocess the dataset again."
            )


def open_dataset(folder: str) -> Dataset:
    """Opens a dataset folder, after checking that it is complete.

    Args:
      folder: local path or URL that `tf.io.gfile` reads.

    Raises:
      UserError: there is no such folder; the marker, the manifest or a shard is
        missing; marker and manifest disagree; the version is another one.
    """
    try:
        return _open_dataset(folder.rstrip("/") or folder)
    except tf.errors.OpError as error:
        raise schema.UserError(
            f"Cannot read the dataset in {folder}: {error.message}"
        ) from error


def _open_dataset(folder: str) -> Dataset:
    if not tf.io.gfile.isdir(folder):
        raise schema.UserError(
            f"There is no dataset folder {folder}; give --data the output folder of "
            "the preprocessing."
        )
    marker = _join(folder, schema.COMPLETED_FILE)
    path = _join(folder, schema.MANIFEST_FILE)
    for needed in (marker, path):
        if not tf.io.gfile.exists(needed):
            raise schema.UserError(
                f"{needed} is missing: preprocessing did not finish, or {folder} is "
                "no dataset; run the preprocessing (again)."
            )
    manifest = schema.Manifest.from_json(_read_text(path), source=path)
    if _read_text(marker).strip() != manifest.fingerprint:
        raise schema.UserError(
            f"{marker} and {schema.MANIFEST_FILE} come from different runs; "
            "preprocess the dataset again."
        )
    for name in manifest.representations:
        subfolder = _join(folder, name)
        found: set[str] = set()
        if tf.io.gfile.isdir(subfolder):
            found = set(tf.io.gfile.listdir(subfolder))
        for split in schema.SPLITS:
            for file in manifest.shard_files(name, split):
                if file.partition("/")[2] not in found:
                    raise schema.UserError(
                        f"{_join(folder, file)} is missing although the dataset is "
                        "marked complete; copy it completely or preprocess it again."
                    )
    return Dataset(folder=folder, manifest=manifest)


def load_arrays(dataset: Dataset, representation: str, split: str) -> Arrays:
    """Reads a split into memory as one float32 matrix `(n, d)`.

    Raises:
      UserError: the dataset does not hold the representation, or holds another
        number of records than its manifest says.
    """
    arrays = dataset.load(representation, split)
    width = dataset.manifest.representations[representation].value.size
    values = arrays.values.reshape(len(arrays.labels), width)
    return dataclasses.replace(arrays, values=values.astype(np.float32, copy=False))


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _read_text(path: str) -> str:
    with tf.io.gfile.GFile(path) as file:
        text: str = file.read()
    return text

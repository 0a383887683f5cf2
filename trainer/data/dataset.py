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
from pipeline.common.files import join
from pipeline.schema.checks import MOST_BYTES
from trainer.data.index import INDEX_COLUMNS, Index, IndexColumns
from trainer.data.streams import (
    EpochPlan,
    batches_ahead,
    finish,
    parse_batch,
    read_files,
    shuffle_buffer_size,
    stream_shuffled,
    untuned,
    with_cardinality,
)

#: Records that are parsed together where no batch size is given.
LOAD_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays(Index):
    """The records of a split in memory, one row each.

    Attributes:
      values: `(n, ...)`.
    """

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
        return [join(self.folder, name) for name in names[worker::workers]]

    def count(self, representation: str, split: str) -> int:
        """Number of records of a split, from the manifest."""
        return self.manifest.records[representation].get(split, 0)

    def size(self, representation: str, split: str) -> int:
        """Bytes that the values of a split take in memory."""
        value = self.representation(representation).value
        itemsize = np.dtype(value.dtype).itemsize
        return self.count(representation, split) * value.size * itemsize

    def training_batches(
        self, representation: str, split: str, plan: EpochPlan
    ) -> tf.data.Dataset:
        """Endless batches of `(value, label)`, `plan.batches` of them an epoch.

        Each epoch visits the records in an order of its own, which depends on the
        plan's seed and the epoch's number alone, so that a run that is resumed sees
        what it would have seen. All batches have the same static shape.

        Raises:
          UserError: the dataset does not hold the representation, or has fewer
            shards than there are workers.
          ValueError: an epoch would take more records than there are.
        """
        layout = self.representation(representation)
        files = self.files(
            representation, split, worker=plan.worker, workers=plan.workers
        )
        count = self.count(representation, split)
        if not 0 < plan.batch_size * plan.batches * plan.workers <= count:
            raise ValueError(
                f"Expected a batch or more an epoch, and at most {count} records. "
                f"Received: {plan}"
            )
        buffer = shuffle_buffer_size(layout.value, -(-count // plan.workers))
        known = count if plan.workers == 1 else None
        serialized = stream_shuffled(files, buffer, plan, known)
        # Keras and tf.distribute ask whether there is a next batch, with a
        # synchronisation of all workers, unless they know that there always is.
        ahead = batches_ahead(layout.value, plan.batch_size)
        batches = _parse(serialized, layout, ahead)
        return finish(with_cardinality(batches, tf.data.INFINITE_CARDINALITY), ahead)

    def evaluation_batches(
        self,
        representation: str,
        split: str,
        batch_size: int,
        *,
        worker: int = 0,
        workers: int = 1,
    ) -> tf.data.Dataset:
        """Batches of `(value, label)`: every record once, always in the same order.

        The last batch may be smaller.

        Raises:
          UserError: the dataset does not hold the representation, or has fewer
            shards than there are workers.
        """
        layout = self.representation(representation)
        files = self.files(representation, split, worker=worker, workers=workers)
        records = read_files(tf.data.Dataset.from_tensor_slices(files))
        ahead = batches_ahead(layout.value, batch_size)
        batches = _parse(records.batch(batch_size), layout, ahead)
        if workers == 1:
            count = self.count(representation, split)
            batches = with_cardinality(batches, -(-count // batch_size))
        return finish(batches, ahead)

    def load(
        self, representation: str, split: str, *, worker: int = 0, workers: int = 1
    ) -> Arrays:
        """Reads a split, or a worker's part of it, in the order of evaluation.

        Values keep their own dtype and shape.

        Raises:
          UserError: the files hold another number of records than the manifest
            says.
        """
        layout = self.representation(representation)
        name = layout.value.name
        count = self.count(representation, split)
        share = count if workers == 1 else 0
        values = np.empty((share, *layout.value.shape), layout.value.dtype)
        parts: list[npt.NDArray[Any]] = []
        columns = IndexColumns(self._describe(representation, split), layout.label)
        for batch in self._columns(
            representation,
            split,
            (*INDEX_COLUMNS, layout.label.name, name),
            worker,
            workers,
        ):
            start = len(columns)
            columns.add(batch)
            columns.check_finite(batch[name])
            if workers > 1:
                parts.append(batch[name])
            elif len(columns) <= count:
                values[start : len(columns)] = batch[name]
        if workers == 1:
            self.check_count(representation, split, len(columns))
        elif parts:
            values = np.concatenate(parts)
        index = columns.index(len(self.manifest.genres))
        return Arrays(index.track_ids, index.labels, index.artist_ids, values)

    def load_index(
        self, representation: str, split: str, *, worker: int = 0, workers: int = 1
    ) -> Index:
        """What a split, or a worker's part of it, is about, in order of evaluation.

        Raises:
          UserError: the files hold another number of records than the manifest
            says.
        """
        label = self.representation(representation).label
        columns = IndexColumns(self._describe(representation, split), label)
        for batch in self._columns(
            representation, split, (*INDEX_COLUMNS, label.name), worker, workers
        ):
            columns.add(batch)
        if workers == 1:
            self.check_count(representation, split, len(columns))
        return columns.index(len(self.manifest.genres))

    def _describe(self, representation: str, split: str) -> str:
        return f"the {split} files of {representation} in {self.folder}"

    def check_count(self, representation: str, split: str, records: int) -> None:
        """Compares the number of records that were read with the manifest.

        Raises:
          UserError: it is another one.
        """
        expected = self.count(representation, split)
        if records != expected:
            raise schema.UserError(
                f"The {split} files of {representation} in {self.folder} hold "
                f"{records} records, the manifest says {expected}; preprocess the "
                "dataset again."
            )

    def check_genres(self) -> None:
        """Checks that there is something to tell apart.

        Raises:
          UserError: fewer than two genres have training clips.
        """
        clips = self.manifest.clips["training"]
        genres = [genre for genre in self.manifest.genres if clips.get(genre, 0)]
        if len(genres) < 2:
            raise schema.UserError(
                f"The training split in {self.folder} holds fewer than two genres "
                f"({', '.join(map(repr, genres)) or 'none'}), between which a "
                "classifier could tell; preprocess clips of more genres."
            )

    def _columns(
        self,
        representation: str,
        split: str,
        columns: Sequence[str],
        worker: int,
        workers: int,
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        layout = self.representation(representation)
        files = self.files(representation, split, worker=worker, workers=workers)
        serialized = read_files(tf.data.Dataset.from_tensor_slices(files))
        parsed = serialized.batch(LOAD_BATCH).map(
            lambda batch: parse_batch(batch, layout, columns),
            num_parallel_calls=batches_ahead(layout.value, LOAD_BATCH),
            deterministic=True,
        )
        batches: Iterator[Mapping[str, npt.NDArray[Any]]]
        batches = untuned(parsed.prefetch(2)).as_numpy_iterator()
        return batches


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
    marker = join(folder, schema.COMPLETED_FILE)
    path = join(folder, schema.MANIFEST_FILE)
    for needed in (marker, path):
        if not tf.io.gfile.exists(needed):
            raise schema.UserError(
                f"{needed} is missing: preprocessing did not finish, or {folder} is "
                "no dataset; run the preprocessing (again)."
            )
    data = _read_bytes(path)
    manifest = schema.Manifest.from_json(data, source=path)
    completed = _read_bytes(marker).decode(errors="replace")
    schema.check_marker(completed, manifest, data, source=path)
    for name in manifest.representations:
        subfolder = join(folder, name)
        present: set[str] = set()
        if tf.io.gfile.isdir(subfolder):
            present = set(tf.io.gfile.listdir(subfolder))
        for split in schema.SPLITS:
            for file in manifest.shard_files(name, split):
                if file.partition("/")[2] not in present:
                    raise schema.UserError(
                        f"{join(folder, file)} is missing although the dataset is "
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


def _parse(
    serialized: tf.data.Dataset, layout: schema.RepresentationSchema, ahead: int
) -> tf.data.Dataset:
    columns = (layout.value.name, layout.label.name)

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = parse_batch(batch, layout, columns)
        return parsed[layout.value.name], parsed[layout.label.name]

    # What runs at a time is kept, too, until its turn comes.
    return serialized.map(parse, num_parallel_calls=ahead, deterministic=True)


def _read_bytes(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        data: bytes = file.read(MOST_BYTES + 1)
    return data

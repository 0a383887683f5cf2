"""Batches of a split, streamed from its files or taken from memory.

Both ways keep the same promises, see `trainer.data.dataset.Dataset`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pipeline.schema import SPLITS, UserError
from trainer.data.dataset import Dataset
from trainer.data.index import Index
from trainer.data.streams import (
    EpochPlan,
    batches_ahead,
    endless_batches,
    epoch_permutation,
    finish,
    with_cardinality,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """One split of one representation, or a worker's part of it.

    Attributes:
      dataset: where the files are.
      representation: name in the manifest.
      name: training, validation or test.
      records: number of records, over all workers.
      held: what this worker's records are about, where they are in memory.
      values: these records, a tensor `(n, ...)` in the memory of the host.
      worker: index of this process among those that train together.
      workers: their number.
    """

    dataset: Dataset
    representation: str
    name: str
    records: int
    held: Index | None = None
    values: tf.Tensor | None = None
    worker: int = 0
    workers: int = 1

    def training_batches(self, plan: EpochPlan) -> tf.data.Dataset:
        """Endless shuffled batches of `(value, label)`, as the plan says."""
        if self.values is None or self.held is None:
            return self.dataset.training_batches(self.representation, self.name, plan)
        values = self.values
        with tf.device("/cpu:0"):
            labels = tf.constant(self.held.labels)

        def epoch_rows(epoch: tf.Tensor) -> tf.data.Dataset:
            order = epoch_permutation(labels.shape[0], plan.seed, epoch)
            return tf.data.Dataset.from_tensor_slices(order)

        batches = endless_batches(epoch_rows, plan).map(
            lambda rows: (tf.gather(values, rows), tf.gather(labels, rows)),
            num_parallel_calls=2,
            deterministic=True,
        )
        value = self.dataset.representation(self.representation).value
        return finish(
            with_cardinality(batches, tf.data.INFINITE_CARDINALITY),
            batches_ahead(value, plan.batch_size),
        )

    def evaluation_batches(self, batch_size: int) -> Iterator[tf.Tensor]:
        """Values of this worker's records, once each, always in the same order."""
        if self.values is None:
            batches = self.dataset.evaluation_batches(
                self.representation,
                self.name,
                batch_size,
                worker=self.worker,
                workers=self.workers,
            )
            for values, _ in batches:
                yield values
        else:
            for start in range(0, self.values.shape[0], batch_size):
                yield self.values[start : start + batch_size]

    @functools.cached_property
    def index(self) -> Index:
        """What this worker's records are about, in the order of evaluation."""
        if self.held is not None:
            return self.held
        return self.dataset.load_index(
            self.representation, self.name, worker=self.worker, workers=self.workers
        )

    @property
    def width(self) -> int:
        """Number of values of a record."""
        return self.dataset.representation(self.representation).value.size

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch.

        Raises:
          UserError: not even one.
        """
        if self.records < batch_size:
            raise UserError(
                f"--batch_size {batch_size} is larger than the {self.name} split of "
                f"{self.representation}, which has {self.records} records; use "
                f"--batch_size {max(self.records, 1)} or less."
            )
        return self.records // batch_size


def open_splits(
    dataset: Dataset,
    representation: str,
    *,
    cache_bytes: int,
    splits: Sequence[str] = SPLITS,
    worker: int = 0,
    workers: int = 1,
) -> dict[str, Split]:
    """Opens splits of a representation.

    Args:
      dataset: what `trainer.data.dataset.open_dataset` returned.
      representation: name in the manifest.
      cache_bytes: memory for records. Training and validation split, which are read
        in every epoch, are held there if they fit, and are streamed otherwise; the
        test split too if there is room left.
      splits: which to open.
      worker: index of this process; it reads shards of its own.
      workers: number of processes that train together.

    Raises:
      UserError: fewer shards than workers, or files that disagree with the manifest.
    """
    opened = {}
    free = cache_bytes
    both = sum(dataset.size(representation, name) for name in SPLITS[:2])
    for name in splits:
        dataset.files(representation, name, worker=worker, workers=workers)
        needed = dataset.size(representation, name) // workers
        cached = needed <= free and (name == "test" or both // workers <= cache_bytes)
        held = values = None
        if cached:
            free -= needed
            arrays = dataset.load(representation, name, worker=worker, workers=workers)
            held = Index(arrays.track_ids, arrays.labels, arrays.artist_ids)
            with tf.device("/cpu:0"):
                values = tf.constant(arrays.values)
            del arrays
        opened[name] = Split(
            dataset=dataset,
            representation=representation,
            name=name,
            records=dataset.count(representation, name),
            held=held,
            values=values,
            worker=worker,
            workers=workers,
        )
    return opened

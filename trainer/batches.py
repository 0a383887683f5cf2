"""Batches of a split, streamed from its files or taken from memory.

Both ways keep the same promises, see `trainer.dataset.Dataset.records`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.schema import SPLITS, UserError
from trainer.dataset import Arrays, Dataset
from trainer.streams import endless_epochs, epoch_permutation, with_cardinality


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """One split of one representation.

    Attributes:
      dataset: where the files are.
      representation: name in the manifest.
      name: training, validation or test.
      records: number of records.
      arrays: the records, where they are held in memory.
    """

    dataset: Dataset
    representation: str
    name: str
    records: int
    arrays: Arrays | None

    def training_batches(
        self, batch_size: int, *, seed: int, start_epoch: int = 0
    ) -> tf.data.Dataset:
        """Endless shuffled batches; an epoch has `steps_per_epoch(batch_size)`."""
        self.steps_per_epoch(batch_size)
        if self.arrays is None:
            return self.dataset.records(
                self.representation,
                self.name,
                batch_size=batch_size,
                training=True,
                seed=seed,
                start_epoch=start_epoch,
            )
        values, labels = _to_tensors(self.arrays)

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = epoch_permutation(self.records, seed, epoch)
            rows = tf.data.Dataset.from_tensor_slices(order)
            return rows.batch(batch_size, drop_remainder=True)

        batches = endless_epochs(epoch_batches, start_epoch).map(
            lambda rows: (tf.gather(values, rows), tf.gather(labels, rows)),
            num_parallel_calls=2,
            deterministic=True,
        )
        endless = with_cardinality(batches, tf.data.INFINITE_CARDINALITY)
        return endless.prefetch(tf.data.AUTOTUNE)

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """Batches of `(value, label)`, each record once, always in the same order."""
        if self.arrays is None:
            return self.dataset.records(
                self.representation, self.name, batch_size=batch_size, training=False
            )
        pairs = tf.data.Dataset.from_tensor_slices(_to_tensors(self.arrays))
        return pairs.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def load_index(self) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
        """Track id and label of each record, in the order of evaluation."""
        if self.arrays is None:
            return self.dataset.load_index(self.representation, self.name)
        return self.arrays.track_ids, self.arrays.labels

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
    dataset: Dataset, representation: str, *, cache_bytes: int
) -> dict[str, Split]:
    """Opens all splits of a representation.

    Args:
      dataset: what `trainer.dataset.open_dataset` returned.
      representation: name in the manifest.
      cache_bytes: all splits are read into memory when together they take no more
        than this, and are streamed in every epoch otherwise.
    """
    cached = sum(dataset.size(representation, name) for name in SPLITS) <= cache_bytes
    return {
        name: Split(
            dataset=dataset,
            representation=representation,
            name=name,
            records=dataset.count(representation, name),
            arrays=dataset.load(representation, name) if cached else None,
        )
        for name in SPLITS
    }


def _to_tensors(arrays: Arrays) -> tuple[tf.Tensor, tf.Tensor]:
    # On a GPU, the whole split would take the model's memory.
    with tf.device("/cpu:0"):
        return tf.constant(arrays.values), tf.constant(arrays.labels)

"""The steps of a `tf.data` pipeline from TFRecord files to parsed batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from pipeline import schema

#: Files read at the same time. Given explicitly: AUTOTUNE follows the number of
#: cores, while what has to be hidden here is the latency of a remote store.
READS = 16

#: Batches that are ready before they are asked for: one for each accelerator of a host,
#: as far as they hold no more bytes than this; two of any size.
PREFETCHED = 8
PREFETCHED_BYTES = 256 * 2**20

#: Bytes of records that the shuffle buffer of a streamed split may hold.
SHUFFLE_BYTES = 256 * 2**20

_TYPES = {
    "int64_list": tf.int64,
    "float_list": tf.float32,
    "bytes_list": tf.string,
    "raw_bytes": tf.string,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """What one input pipeline yields in each epoch.

    Attributes:
      batch_size: records of a batch, those of one replica.
      batches: of an epoch; one for each step and each replica that is fed.
      seed: the order of an epoch depends on it and on the epoch's number alone.
      start_epoch: number of the first epoch, from 0.
      start_batch: batches of that epoch that are left out.
      worker: index of this input pipeline.
      workers: number of input pipelines; each reads shards of its own.
    """

    batch_size: int
    batches: int
    seed: int
    start_epoch: int = 0
    start_batch: int = 0
    worker: int = 0
    workers: int = 1


def parse_batch(
    serialized: tf.Tensor, layout: schema.RepresentationSchema, columns: Sequence[str]
) -> Mapping[str, tf.Tensor]:
    """Parses serialized Examples `(n,)` into arrays `(n, *shape)`, by column."""
    by_name = {field.name: field for field in layout.fields}
    fields = [by_name[column] for column in columns]
    parsed = tf.io.parse_example(
        serialized,
        {
            field.name: tf.io.FixedLenFeature(
                () if field.encoding == "raw_bytes" else field.shape,
                _TYPES[field.encoding],
            )
            for field in fields
        },
    )
    for field in fields:
        if field.encoding == "raw_bytes":
            flat = tf.io.decode_raw(parsed[field.name], tf.as_dtype(field.dtype))
            value = tf.reshape(flat, (-1, *field.shape))
            # The reshape forgets a static batch size, which TPUs need.
            parsed[field.name] = tf.ensure_shape(
                value, (serialized.shape[0], *field.shape)
            )
    return {field.name: parsed[field.name] for field in fields}


def with_cardinality(dataset: tf.data.Dataset, cardinality: int) -> tf.data.Dataset:
    """Tells `tf.data` how many elements there are; checked while reading."""
    return dataset.apply(tf.data.experimental.assert_cardinality(cardinality))


def stream_shuffled(
    files: Sequence[str], buffer: int, plan: EpochPlan, records: int | None
) -> tf.data.Dataset:
    """Batches of serialized records, epoch after epoch.

    Args:
      files: what this pipeline reads.
      buffer: records that are shuffled at a time.
      plan: how many batches of which size, and in which order.
      records: how many the files hold together, where that is known; holding
        fewer is an error when it shows.
    """

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes in the graph's seed, which is the global one if none is
        # set here (and fails where that is 0).
        tf.compat.v1.get_default_graph().seed = 1
        order = epoch_permutation(len(files), plan.seed, epoch)
        shuffled = read_files(
            tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant(files), order))
        )
        if records is not None:
            shuffled = with_cardinality(shuffled, records)
        return shuffled.shuffle(
            buffer, seed=plan.seed * 1_000_003 + epoch, reshuffle_each_iteration=False
        )

    return endless_batches(epoch_records, plan)


def endless_batches(
    epoch_records: Callable[[tf.Tensor], tf.data.Dataset], plan: EpochPlan
) -> tf.data.Dataset:
    """Concatenates the batches of `epoch_records(epoch)` for one epoch after another.

    A worker whose shards hold fewer records than its share begins again within the
    epoch, so that all workers make the same number of steps.
    """

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        records = epoch_records(epoch)
        if plan.workers > 1:
            records = records.repeat()
        batches = records.batch(plan.batch_size, drop_remainder=True)
        done = tf.where(epoch == plan.start_epoch, plan.start_batch, 0)
        return batches.take(plan.batches).skip(tf.cast(done, tf.int64))

    return tf.data.Dataset.range(plan.start_epoch, 2**40).flat_map(epoch_batches)


def epoch_permutation(count: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Permutation of `range(count)` that seed and epoch alone decide."""
    seeds = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.argsort(tf.random.stateless_uniform([count], seed=seeds))


def read_files(files: tf.data.Dataset) -> tf.data.Dataset:
    """Records of TFRecord files, `READS` files at a time, one of each in turn.

    The order is always the same. Of the ways to interleave it costs least: a tenth
    (features) to a quarter (mel) less CPU time than `Dataset.interleave`. It also
    opens the next files in advance.
    """
    return tf.data.TFRecordDataset(files, num_parallel_reads=READS)


def untuned(records: tf.data.Dataset) -> tf.data.Dataset:
    """Has `tf.data` tune nothing while it reads; for every pipeline that is iterated.

    Its tuner sleeps between looks, each time twice as long as before, up to a minute.
    It can miss that the iterator is to end, which waits for it: half a minute of
    training has ended with 20 s of nothing.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return records.with_options(options)


def batches_ahead(value: schema.Field, batch_size: int) -> int:
    """How many batches to make, and to keep, before they are asked for."""
    size = _record_bytes(value) * batch_size
    return max(2, min(PREFETCHED, PREFETCHED_BYTES // size))


def finish(batches: tf.data.Dataset, ahead: int) -> tf.data.Dataset:
    """Prefetches; leaves the division among workers as it was made, by file.

    Args:
      batches: what is asked for.
      ahead: see `batches_ahead`.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    return untuned(batches.prefetch(ahead)).with_options(options)


def shuffle_buffer_size(value: schema.Field, count: int) -> int:
    """How many of `count` records to shuffle at a time."""
    return max(1, min(count, SHUFFLE_BYTES // _record_bytes(value)))


def _record_bytes(value: schema.Field) -> int:
    return value.size * np.dtype(value.dtype).itemsize

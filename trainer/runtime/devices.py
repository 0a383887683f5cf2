"""Chooses where a model is trained: one device, several, several machines, a TPU.

Tested on CPUs alone: several devices as logical CPUs, several machines as processes
of one. What concerns GPUs and TPUs follows TensorFlow's documentation and has not
run on such hardware.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import struct

import numpy as np
import tensorflow as tf

from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import UserError
from trainer.config import STRATEGIES
from trainer.runtime.cluster import Cluster, find_cluster


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Devices:
    """What a run computes on.

    Attributes:
      strategy: TensorFlow's.
      name: one of `single`, `mirrored`, `multiworker`, `tpu`.
      reason: why this one, for people.
      worker: index of this process among those that train together; 0 is the
        chief, the only one that writes.
      workers: number of processes.
    """

    strategy: tf.distribute.Strategy
    name: str
    reason: str
    worker: int = 0
    workers: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Number of devices that share a batch, in all processes."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def local_replicas(self) -> int:
        """Those of this process."""
        return self.replicas // self.workers

    @property
    def synchronous(self) -> bool:
        """Whether a step is over when its call returns, as on CPUs."""
        return self.name != "tpu" and not tf.config.list_physical_devices("GPU")

    def describe(self) -> str:
        """What the run computes on, for people: "2 GPUs"."""
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        if self.name == "tpu":
            kind = "TPU core"
        text = f"{self.replicas} {kind}{'' if self.replicas == 1 else 's'}"
        if self.workers > 1:
            text += f" in {self.workers} processes"
        return text


def find_devices(name: str = "auto", reporter: Reporter = SILENT) -> Devices:
    """Builds the strategy of that name; call it before any other TensorFlow op.

    Args:
      name: `single` is one device, the first GPU if there is one. `mirrored` is all
        GPUs of this machine (without GPUs, all logical CPUs). `multiworker` is all
        processes that TF_CONFIG names. `tpu` is the TPU of this machine or the one
        that TPU_NAME names. `auto` is the first of `multiworker`, `tpu` and, for
        several GPUs, `mirrored` that there is, else `single`.
      reporter: is told what is waited for.

    Raises:
      UserError: the hardware asked for is not there, or TF_CONFIG is damaged.
    """
    if name not in STRATEGIES:
        raise ValueError(f"Expected one of {STRATEGIES}. Received: name={name!r}")
    flag = "--strategy asks for it"
    cluster = find_cluster(name, os.environ)
    if cluster is not None:
        reason = flag if name != "auto" else "TF_CONFIG names several processes"
        return _multi_worker(cluster, reason, reporter)
    if name == "multiworker":
        raise UserError(
            "--strategy multiworker: the environment variable TF_CONFIG does not name "
            "several processes; set it in each of them, or use --strategy auto."
        )
    tpu = _find_tpu() if name in ("auto", "tpu") else None
    if name == "tpu" or tpu is not None:
        reason = flag if name != "auto" else f"there is a TPU, {tpu!r}"
        return Devices(strategy=_tpu_strategy(tpu), name="tpu", reason=reason)
    gpus = tf.config.list_physical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return Devices(
            strategy=_mirrored_strategy(tuple(x.name for x in devices)),
            name="mirrored",
            reason=flag if name != "auto" else f"there are {len(gpus)} GPUs",
        )
    fallback = f"there is one {'GPU' if gpus else 'CPU device and no GPU'}"
    return Devices(
        strategy=tf.distribute.get_strategy(),
        name="single",
        reason=flag if name != "auto" else fallback,
    )


def check_batch_size(batch_size: int, devices: Devices) -> None:
    """Checks that every replica gets the same share of a batch.

    Raises:
      UserError: it does not.
    """
    replicas = devices.replicas
    if batch_size % replicas:
        raise UserError(
            f"--batch_size {batch_size} cannot be shared evenly by {replicas} "
            f"replicas ({devices.describe()}); use a multiple of {replicas}."
        )


def fit_batch_size(batch_size: int, records: int, devices: Devices) -> int:
    """Largest usable size of a training batch up to `batch_size`.

    Raises:
      UserError: fewer records than replicas.
    """
    if records < devices.replicas:
        raise UserError(
            f"{devices.replicas} replicas ({devices.describe()}) cannot share a split "
            f"of {records} records; use --strategy single or a larger dataset."
        )
    return min(batch_size, records) // devices.replicas * devices.replicas


def gather(devices: Devices, content: bytes) -> list[bytes]:
    """Exchanges bytes among all processes; every one gets those of all, in order.

    All processes have to call this at the same point.
    """
    if devices.workers == 1:
        return [content]
    lengths = _sum(devices, _row(devices, np.array([len(content)], np.int32)))[:, 0]
    words = -(-int(lengths.max()) // 4)
    padded = np.frombuffer(content.ljust(4 * words, b"\0"), np.int32)
    # One process' numbers and the others' zeros add up to its numbers.
    rows = _sum(devices, _row(devices, padded))
    return [row.tobytes()[:length] for row, length in zip(rows, lengths, strict=True)]


def gather_floats(devices: Devices, values: list[float]) -> list[tuple[float, ...]]:
    """Exchanges some numbers among all processes; see `gather`."""
    form = f"<{len(values)}d"
    packed = gather(devices, struct.pack(form, *values))
    return [struct.unpack(form, row) for row in packed]


def wait_for_all(devices: Devices) -> None:
    """Returns when all processes have come here."""
    gather(devices, b"here")


def _row(devices: Devices, row: np.ndarray) -> np.ndarray:
    rows = np.zeros((devices.workers, len(row)), np.int32)
    rows[devices.worker] = row
    return rows


def _sum(devices: Devices, rows: np.ndarray) -> np.ndarray:
    """Sums arrays of the same shape over processes; int32 wraps, and adds to 0."""
    first = devices.worker * devices.local_replicas

    def value(context: tf.distribute.ValueContext) -> tf.Tensor:
        mine = context.replica_id_in_sync_group == first
        return tf.constant(rows if mine else np.zeros_like(rows))

    values = devices.strategy.experimental_distribute_values_from_function(value)
    total = devices.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
    return np.asarray(total)


def _multi_worker(cluster: Cluster, reason: str, reporter: Reporter) -> Devices:
    reporter.note(
        f"waiting for the {cluster.workers} processes of TF_CONFIG: "
        + ", ".join(cluster.addresses)
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"Cannot join the processes of TF_CONFIG ({error}); start all of them, "
            "each with a port of its own that the others can reach."
        ) from error
    return Devices(
        strategy=strategy,
        name="multiworker",
        reason=reason,
        worker=cluster.worker,
        workers=cluster.workers,
    )


@functools.cache
def _mirrored_strategy(names: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for all models of a process.

    Each strategy numbers its collective operations from the same start, and TensorFlow
    refuses a number under which it has seen other shapes.
    """
    return tf.distribute.MirroredStrategy(names)


def _find_tpu() -> str | None:
    """Name of the TPU to use: the environment's, or this machine's own."""
    if os.environ.get("TPU_NAME"):
        return os.environ["TPU_NAME"]
    return "local" if tf.config.list_physical_devices("TPU") else None


@functools.cache
def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    """Connects to a TPU and initialises it, which empties it. Never tried on a TPU."""
    if tpu is None:
        raise UserError(
            "--strategy tpu: there is no TPU on this machine and TPU_NAME is not set; "
            "use --strategy auto, or set TPU_NAME to the TPU's name."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"Cannot use the TPU {tpu!r}: {error}; check TPU_NAME, or use "
            "--strategy single."
        ) from error
    return tf.distribute.TPUStrategy(resolver)

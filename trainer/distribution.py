"""Chooses where a model is trained: one device, several GPUs, a TPU.

Tested on CPUs alone, several GPUs through logical CPU devices. The branches for
GPUs and TPUs follow TensorFlow's documentation and have not run on such hardware.
"""

from __future__ import annotations

import os

import tensorflow as tf

from pipeline.schema import UserError
from trainer.config import STRATEGIES


def get_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Builds the strategy of that name; call it before any other TensorFlow op.

    Args:
      name: `auto` takes a TPU if there is one, all GPUs if there are several, else
        the one device there is. `cpu` and `gpu` take one device, `mirrored` all
        GPUs (without GPUs, all logical CPUs), `tpu` the TPU of this machine or the
        one that TPU_NAME names (never tried on a TPU).

    Raises:
      UserError: the hardware asked for is not there.
    """
    if name not in STRATEGIES:
        raise ValueError(f"Expected one of {STRATEGIES}. Received: name={name!r}")
    if name == "tpu" or (name == "auto" and _find_tpu()):
        return _tpu_strategy(_find_tpu())
    gpus = tf.config.list_physical_devices("GPU")
    if name == "cpu":
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    if name == "gpu":
        if not gpus:
            raise UserError(
                "--strategy gpu: TensorFlow finds no GPU on this machine; use "
                "--strategy cpu or auto, or install a driver that TensorFlow supports."
            )
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    if name == "mirrored" or len(gpus) > 1:
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def describe_strategy(strategy: tf.distribute.Strategy) -> str:
    """What the strategy computes on, for people: "2 GPUs"."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        kind = "TPU core"
    elif isinstance(strategy, tf.distribute.OneDeviceStrategy):
        kind = "GPU" if "gpu" in strategy.extended.worker_devices[0].lower() else "CPU"
    else:
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    count = strategy.num_replicas_in_sync
    return f"{count} {kind}{'' if count == 1 else 's'}"


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Checks that every replica gets the same share of a batch.

    Raises:
      UserError: it does not.
    """
    replicas: int = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(
            f"--batch_size {batch_size} cannot be shared evenly by {replicas} "
            f"replicas ({describe_strategy(strategy)}); use a multiple of {replicas}."
        )


def evaluation_batch_size(
    batch_size: int, records: int, strategy: tf.distribute.Strategy
) -> int:
    """Largest usable batch size up to `batch_size`.

    With several replicas, Keras fails on a first batch that they cannot share
    evenly; later ones may be smaller.

    Raises:
      UserError: fewer records than replicas.
    """
    replicas: int = strategy.num_replicas_in_sync
    if records < replicas:
        raise UserError(
            f"{replicas} replicas ({describe_strategy(strategy)}) cannot share a split "
            f"of {records} records; use --strategy cpu or a larger dataset."
        )
    return min(batch_size, records) // replicas * replicas


def _find_tpu() -> str | None:
    """Name of the TPU to use: the environment's, or this machine's own."""
    if os.environ.get("TPU_NAME"):
        return os.environ["TPU_NAME"]
    return "local" if tf.config.list_physical_devices("TPU") else None


def _tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    """Connects to a TPU and initialises it. Never tried on a TPU."""
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
            "--strategy cpu."
        ) from error
    return tf.distribute.TPUStrategy(resolver)

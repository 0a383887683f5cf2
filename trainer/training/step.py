"""One training step and one forward pass, the same code under every strategy.

`keras.Model.fit` is not used. In Keras 3.15 on TensorFlow 2.21 it does not run on
several machines, cannot be resumed exactly, within an epoch and with the random
numbers that it would have drawn, and cannot say how long it waited for input; tests
watch over each of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trainer.config import Schedule
from trainer.data.split import Split
from trainer.data.streams import EpochPlan
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.task import Task
from trainer.runtime.devices import Devices

#: Part of all steps in which a decaying learning rate rises first.
WARM_UP = 0.05


class Learner:
    """A model that is being fitted.

    Attributes:
      model: from values to probabilities.
      optimizer: its own state included in `variables`.
      variables: all that a step changes: weights, the optimizer's state, and the
        states of random numbers, in a fixed order.
    """

    def __init__(
        self,
        model: keras.Model,
        schedule: Schedule,
        steps: int,
        devices: Devices,
        augmentation: keras.Layer | None = None,
        task: Task | None = None,
    ) -> None:
        """Builds the optimizer.

        Args:
          model: built under the strategy's scope.
          schedule: of the fit.
          steps: of all epochs together, for the decay of the learning rate.
          devices: what to compute on.
          augmentation: layer that alters the values of a batch in training.
          task: what a record's labels are; one genre unless told otherwise.
        """
        self.model = model
        self._task = task or SingleLabel()
        self._augmentation = augmentation
        self._schedule = schedule
        self._strategy = devices.strategy
        with self._strategy.scope():
            self.optimizer = build_optimizer(schedule, steps)
            self.optimizer.build(model.trainable_variables)
        self.variables: Sequence[keras.Variable] = [
            *model.variables,
            *(augmentation.variables if augmentation is not None else ()),
            *self.optimizer.variables,
        ]
        self._step = tf.function(self._run_step, autograph=False)

    def step(self, batch: Any, stop: bool) -> tf.Tensor:
        """Makes one step.

        Args:
          batch: what the strategy's iterator gave.
          stop: whether this process was asked to stop.

        Returns:
          float32 `(3,)`: the sum of the losses and the number of hits over
          the batches of all replicas, and how many replicas were asked to stop.
        """
        result: tf.Tensor = self._step(batch, tf.constant(float(stop)))
        return result

    def _run_step(self, batch: Any, stop: tf.Tensor) -> tf.Tensor:
        values, labels = batch
        sums = self._strategy.run(self._compute, args=(values, labels, stop))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def _compute(
        self, values: tf.Tensor, labels: tf.Tensor, stop: tf.Tensor
    ) -> tf.Tensor:
        if self._augmentation is not None:
            values = self._augmentation(values, training=True)
        with tf.GradientTape() as tape:
            probabilities = self.model(values, training=True)
            losses = self._task.losses(labels, probabilities)
            objective = self._task.objectives(
                labels, probabilities, self._schedule.label_smoothing
            )
            # The optimizer adds the replicas' gradients up.
            loss = tf.reduce_sum(objective) / self._schedule.batch_size
            loss = self.optimizer.scale_loss(loss)
        weights = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        hits = self._task.hits(labels, probabilities)
        return tf.stack(
            [tf.reduce_sum(losses), tf.reduce_sum(tf.cast(hits, tf.float32)), stop]
        )

    def read(self) -> list[npt.NDArray[Any]]:
        """Copies of the values of `variables`."""
        return [variable.numpy() for variable in self.variables]

    def write(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Sets `variables`."""
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


class Forward:
    """Computes what a model makes of records, in inference mode."""

    def __init__(self, model: keras.Model, devices: Devices) -> None:
        self._devices = devices
        strategy = devices.strategy
        self._run = tf.function(
            lambda values: strategy.run(
                lambda share: model(share, training=False), args=(values,)
            ),
            autograph=False,
        )

    def __call__(
        self, batches: Iterable[tf.Tensor], batch_size: int
    ) -> npt.NDArray[np.float32]:
        """Outputs for this process' records, in order: `(n, ...)`.

        Every batch is filled up to the same static shape; what the filling gives is
        dropped. So each record counts once, however many replicas there are and
        however uneven the batches.

        Args:
          batches: values, at most `batch_size` records each, at least one batch.
          batch_size: a multiple of the replicas of this process.
        """
        outputs = []
        for values in batches:
            count = values.shape[0]
            full = tf.pad(
                values, [(0, batch_size - count), *[(0, 0)] * (len(values.shape) - 1)]
            )
            results = self._devices.strategy.experimental_local_results(
                self._run(self._share(full))
            )
            outputs.append(np.concatenate(results)[:count])
        return np.concatenate(outputs)

    def _share(self, values: tf.Tensor) -> Any:
        """One equal part for each replica of this process."""
        devices = self._devices
        if devices.replicas == 1:
            return values
        parts = tf.split(values, devices.local_replicas)
        first = devices.worker * devices.local_replicas
        return devices.strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group - first]
        )


def predict_records(
    forward: Forward, split: Split, batch_size: int, devices: Devices
) -> npt.NDArray[np.float32]:
    """Outputs for this process' records of a split, in the order of `split.index`.

    Args:
      forward: the model.
      split: with records, here or with another worker.
      batch_size: of all replicas; a multiple of their number.
      devices: what to compute on.
    """
    share = batch_size // devices.workers
    return forward(split.evaluation_batches(share), share)


def training_batches(
    split: Split, plan: EpochPlan, devices: Devices
) -> tf.data.Dataset:
    """Batches for `Learner.step`: one part for each replica, from its own worker."""
    distributed: tf.data.Dataset
    distributed = devices.strategy.distribute_datasets_from_function(
        lambda _: split.training_batches(plan)
    )
    return distributed


def build_optimizer(schedule: Schedule, steps: int) -> keras.optimizers.Optimizer:
    """Adam as the schedule says; with scaled losses where float16 needs them."""
    rate: float | keras.optimizers.schedules.LearningRateSchedule
    rate = schedule.learning_rate
    if schedule.learning_rate_decay == "cosine":
        warm_up = max(1, round(WARM_UP * steps))
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=rate / warm_up,
            decay_steps=max(1, steps - warm_up),
            warmup_target=rate,
            warmup_steps=warm_up,
        )
    optimizer = keras.optimizers.Adam(rate, weight_decay=schedule.weight_decay or None)
    # A decayed offset or scale of a normalisation is no simpler model.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if keras.config.dtype_policy().compute_dtype == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer

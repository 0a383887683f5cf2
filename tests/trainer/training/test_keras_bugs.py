"""Why training does not use `keras.Model.fit`: what is broken in it, and still is.

A test that fails here says that Keras was mended: the reason given in
`trainer.training.step` is then to be thought over. `tests.support.replicas` has one
more.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.support.training_run import make_clusters


def test_saved_weights_lack_the_state_of_random_numbers(tmp_path):
    """Hence checkpoints of our own."""

    def build() -> keras.Model:
        return keras.Sequential(
            [keras.Input((100,)), keras.layers.Dropout(0.5, seed=7)]
        )

    model, ones = build(), np.ones((1, 100), np.float32)
    for _ in range(3):
        model(ones, training=True)
    model.save_weights(tmp_path / "a.weights.h5")
    other = build()
    other.load_weights(tmp_path / "a.weights.h5")
    assert not np.array_equal(other(ones, training=True), model(ones, training=True))
    # What a checkpoint of ours reads and writes holds it.
    again = build()
    for variable, saved in zip(again.variables, model.variables, strict=True):
        variable.assign(saved)
    np.testing.assert_array_equal(
        again(ones, training=True), model(ones, training=True)
    )


@pytest.mark.slow
def test_fit_does_not_run_on_several_machines(tmp_path):
    code = """
import trainer.runtime.quiet
import keras, numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
data = tf.data.Dataset.from_tensor_slices(
    (np.ones((8, 3), "f4"), np.ones((8, 1), "f4"))
).batch(4)
model.fit(data, epochs=1, verbose=0)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).resolve().parents[3],
            env=os.environ | {"TF_CONFIG": cluster},
            stderr=subprocess.DEVNULL,
        )
        for cluster in make_clusters()
    ]
    assert all(process.wait(280) for process in processes)

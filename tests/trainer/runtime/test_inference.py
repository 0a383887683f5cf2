"""Frozen networks: the same answers, from weights that stay."""

from trainer.runtime import quiet  # noqa: F401  isort: skip
import concurrent.futures

import keras
import numpy as np
import pytest

from trainer.runtime.inference import freeze


@pytest.fixture
def network():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3), dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, use_bias=False),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(2)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def test_answers_are_the_models(network):
    images = np.random.default_rng(3).integers(0, 256, (7, 8, 8, 3), np.uint8)
    expected = np.asarray(network(images, training=False))
    answer = freeze(network)
    assert answer(images).dtype == np.float32
    np.testing.assert_allclose(answer(images), expected, atol=1e-6)
    # For any number of records.
    np.testing.assert_allclose(answer(images[:2]), expected[:2], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_answers_of_several_threads_in_half_precision(policy):
    keras.utils.set_random_seed(1)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        layers = [keras.layers.Input((6,)), keras.layers.Dense(8, activation="relu")]
        network = keras.Sequential([*layers, keras.layers.Dense(3)])
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    records = np.random.default_rng(2).normal(size=(7, 6)).astype(np.float32)
    expected = np.asarray(network(records, training=False), np.float32)
    answer = freeze(network)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for found in threads.map(answer, [records] * 20):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=0.02)


def test_weights_stay_what_they_were(network):
    images = np.full((1, 8, 8, 3), 100, np.uint8)
    answer = freeze(network)
    before = answer(images)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    assert not np.allclose(network(images, training=False), before)
    np.testing.assert_array_equal(answer(images), before)

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import trainer_fixtures
from trainer.config import Schedule
from trainer.data.dataset import open_dataset
from trainer.data.split import Split, open_splits
from trainer.data.streams import EpochPlan
from trainer.runtime.devices import Devices, find_devices
from trainer.training.fit import Phase, PhaseFit, fit
from trainer.training.progress import Progress
from trainer.training.step import Forward, Learner, build_optimizer, training_batches
from trainer.training.train import choose_precision, dtype_policy

SCHEDULE = Schedule(epochs=2, batch_size=6, learning_rate=0.01, patience=9)


@pytest.fixture(scope="module")
def devices() -> Devices:
    return find_devices("single")


@pytest.fixture(scope="module")
def splits(tmp_path_factory) -> dict[str, Split]:
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(
        folder, representations=("statistics",), statistics=20
    )
    return open_splits(open_dataset(str(folder)), "statistics", cache_bytes=2**30)


def build(dropout: float = 0.0, seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def batches_of(splits, devices) -> tf.data.Dataset:
    plan = EpochPlan(batch_size=6, batches=2, seed=1)
    return training_batches(splits["training"], plan, devices)


def test_a_step_is_that_of_keras(splits, devices):
    """Weights, optimizer, batch normalisation, dropout, metrics."""
    ours, theirs = build(0.5), build(0.5)
    learner = Learner(ours, SCHEDULE, 10, devices)
    theirs.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    for batch in batches_of(splits, devices).take(5):
        values, labels = batch
        loss, accuracy = theirs.train_on_batch(values.numpy(), labels.numpy())
        theirs.reset_metrics()
        loss_sum, hits, stop = learner.step(batch, stop=False).numpy()
        assert loss_sum / 6 == pytest.approx(loss, rel=1e-5)
        assert hits / 6 == pytest.approx(accuracy)
        assert stop == 0
    for weight, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)
    assert learner.optimizer.iterations == 5


def test_a_step_tells_who_was_asked_to_stop(splits, devices):
    learner = Learner(build(), SCHEDULE, 10, devices)
    (batch,) = batches_of(splits, devices).take(1)
    assert learner.step(batch, stop=True).numpy()[2] == 1


def test_what_is_written_is_what_was_read(splits, devices):
    learner = Learner(build(0.5), SCHEDULE, 10, devices)
    (batch,) = batches_of(splits, devices).take(1)
    learner.step(batch, stop=False)
    kept = learner.read()
    assert {value.dtype.name for value in kept} >= {"float32", "int64"}
    after = learner.step(batch, stop=False).numpy()
    learner.write(kept)
    # The same random numbers, too.
    np.testing.assert_array_equal(learner.step(batch, stop=False).numpy(), after)


def test_label_smoothing_changes_what_is_learnt_and_not_what_is_told(splits, devices):
    (batch,) = batches_of(splits, devices).take(1)
    told, weights = [], []
    for smoothing in (0.0, 0.3):
        model = build()
        schedule = Schedule(
            epochs=1,
            batch_size=6,
            learning_rate=0.01,
            patience=1,
            label_smoothing=smoothing,
        )
        told.append(Learner(model, schedule, 1, devices).step(batch, False).numpy())
        weights.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*told)
    assert np.abs(weights[0] - weights[1]).max() > 1e-4


def test_weight_decay_is_for_kernels(devices):
    schedule = Schedule(
        epochs=1, batch_size=6, learning_rate=0.1, patience=1, weight_decay=0.5
    )
    model = build()
    model.layers[-1].bias.assign([1.0, 1.0, 1.0])
    learner = Learner(model, schedule, 1, devices)
    kernel = model.layers[-1].kernel.numpy()
    weights = model.trainable_variables
    learner.optimizer.apply([tf.zeros(weight.shape) for weight in weights], weights)
    decayed = kernel * (1 - 0.5 * 0.1)
    np.testing.assert_allclose(model.layers[-1].kernel, decayed, rtol=1e-6)
    np.testing.assert_array_equal(model.layers[-1].bias, 1)
    np.testing.assert_array_equal(model.layers[0].gamma, 1)


def test_the_learning_rate_rises_and_falls():
    schedule = Schedule(
        epochs=1,
        batch_size=6,
        learning_rate=0.8,
        patience=1,
        learning_rate_decay="cosine",
    )
    optimizer = build_optimizer(schedule, 100)
    rates = []
    for step in range(101):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert np.argmax(rates) == 5
    assert max(rates) == pytest.approx(0.8)
    assert rates[0] < 0.2
    assert rates[52] == pytest.approx(0.4, abs=0.02)
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert float(build_optimizer(SCHEDULE, 100).learning_rate) == pytest.approx(0.01)


def test_float16_scales_the_loss_and_bfloat16_need_not(splits, devices):
    (batch,) = batches_of(splits, devices).take(1)
    before = keras.config.dtype_policy()
    for policy, kind in (
        ("mixed_float16", keras.optimizers.LossScaleOptimizer),
        ("mixed_bfloat16", keras.optimizers.Adam),
    ):
        keras.config.set_dtype_policy(policy)
        try:
            model = keras.Sequential(
                [
                    keras.Input((20,)),
                    keras.layers.Dense(4),
                    keras.layers.Dense(3, activation="softmax", dtype="float32"),
                ]
            )
            learner = Learner(model, SCHEDULE, 10, devices)
            start = model.get_weights()[0]
            # The scale of a loss begins too high and is halved until it fits.
            for _ in range(20):
                sums = learner.step(batch, False).numpy()
        finally:
            keras.config.set_dtype_policy(before)
        assert type(learner.optimizer) is kind
        assert np.all(np.isfinite(sums))
        assert np.all(np.isfinite(model.get_weights()[0]))
        assert np.abs(model.get_weights()[0] - start).max() > 0
        assert model.layers[-1].compute_dtype == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(9, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 0)], "mixed_float16"),
    ],
)
def test_the_precision_that_the_hardware_has(monkeypatch, capabilities, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: capabilities)
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {"compute_capability": gpu},
    )
    assert choose_precision() == expected
    with dtype_policy(True):
        assert keras.config.dtype_policy().name == expected
    assert keras.config.dtype_policy().name == "float32"


def test_filled_batches_give_every_record_once(splits, devices):
    model = build()
    values = splits["test"].values.numpy()
    expected = model.predict(values, verbose=0)
    forward = Forward(model, devices)
    for sizes in ([6], [4, 2], [1, 5], [2, 2, 2]):
        parts = np.split(values, np.cumsum(sizes)[:-1])
        outputs = forward([tf.constant(part) for part in parts], max(sizes))
        np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_batches_have_one_static_shape(splits, devices):
    """As TPUs need it, in training and in evaluation."""
    specs = []
    model = build()
    inner = model.call

    def call(inputs, *args, **options):
        specs.append(tuple(inputs.shape))
        return inner(inputs, *args, **options)

    model.call = call
    fit(
        model,
        splits["training"],
        splits["validation"],
        Phase(name="test", schedule=SCHEDULE, seed=0),
        devices,
    )
    assert set(specs) == {(6, 20)}


class Clock:
    """Takes the place of `time`: what takes time says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class SlowLearner:
    """Makes steps that take time after they were started, as on a GPU."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self.clock = clock
        self.over = 0.0

    def step(self, batch, stop):
        over = self.over = max(self.over, self.clock.now) + self.seconds

        def numpy():
            self.clock.now = max(self.clock.now, over)
            return np.array([1.0, 1.0, 0.0])

        return SimpleNamespace(numpy=numpy)


@pytest.mark.parametrize(
    ("step", "fetch", "waited"),
    [(0.02, 0.0, 0.0), (0.03, 0.005, 0.0), (0.0, 0.01, 0.19), (0.01, 0.03, 0.57)],
)
def test_waiting_for_input_is_measured(
    splits, devices, monkeypatch, step, fetch, waited
):
    """A fetch that a step covers is no waiting, nor is the very first."""
    clock = Clock()
    monkeypatch.setattr("trainer.training.fit.time", clock)
    monkeypatch.setattr(Devices, "synchronous", False)
    phase = Phase(name="test", schedule=SCHEDULE, seed=0)
    fitting = PhaseFit(build(), splits["training"], None, phase, devices)
    fitting._learner = SlowLearner(step, clock)
    fitting._steps = 20

    def batches():
        while True:
            clock.now += fetch
            yield None

    fitting._run_epoch(batches(), clock.now)
    assert fitting._progress.waited == pytest.approx(waited)
    # On a CPU a step is over when it returns: all fetches but the first count.
    monkeypatch.setattr(Devices, "synchronous", True)
    fitting._progress = Progress()
    fitting._run_epoch(batches(), clock.now)
    assert fitting._progress.waited == pytest.approx(20 * fetch)

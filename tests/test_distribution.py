import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
import trainer_fixtures

from pipeline.schema import UserError
from trainer import distribution


@pytest.fixture
def hardware(monkeypatch):
    """Pretends that TensorFlow finds so many GPUs and TPUs."""

    def pretend(*, gpus: int = 0, tpus: int = 0) -> None:
        counts = {"GPU": gpus, "TPU": tpus}

        def list_devices(kind: str) -> list[SimpleNamespace]:
            count = counts.get(kind, 1)
            return [SimpleNamespace(name=f"/{kind}:{i}".lower()) for i in range(count)]

        monkeypatch.setattr(tf.config, "list_physical_devices", list_devices)
        monkeypatch.setattr(tf.config, "list_logical_devices", list_devices)

    monkeypatch.delenv("TPU_NAME", raising=False)
    return pretend


def fake_strategy(replicas: int) -> SimpleNamespace:
    return SimpleNamespace(num_replicas_in_sync=replicas)


def test_one_cpu(hardware):
    hardware()
    strategy = distribution.get_strategy("auto")
    assert strategy is tf.distribute.get_strategy()
    assert distribution.describe_strategy(strategy) == "1 CPU"
    strategy = distribution.get_strategy("cpu")
    assert isinstance(strategy, tf.distribute.OneDeviceStrategy)
    assert distribution.describe_strategy(strategy) == "1 CPU"


def test_auto_takes_what_is_there(hardware, monkeypatch):
    taken = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", taken.append)
    monkeypatch.setattr(distribution, "_tpu_strategy", taken.append)
    hardware(gpus=1)
    assert distribution.get_strategy("auto") is tf.distribute.get_strategy()
    hardware(gpus=2)
    distribution.get_strategy("auto")
    assert taken.pop() == ["/gpu:0", "/gpu:1"]
    hardware(gpus=2, tpus=1)
    distribution.get_strategy("auto")
    assert taken.pop() == "local"
    monkeypatch.setenv("TPU_NAME", "my-tpu")
    hardware()
    distribution.get_strategy("auto")
    assert taken.pop() == "my-tpu"


def test_one_gpu(hardware):
    hardware(gpus=1)
    strategy = distribution.get_strategy("gpu")
    assert distribution.describe_strategy(strategy) == "1 GPU"


def test_cpu_hides_the_gpus(hardware, monkeypatch):
    hidden = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *a: hidden.append(a))
    hardware(gpus=1)
    distribution.get_strategy("cpu")
    assert hidden == [([], "GPU")]


def test_absent_hardware_is_refused(hardware):
    hardware()
    with pytest.raises(UserError, match="--strategy gpu: TensorFlow finds no GPU"):
        distribution.get_strategy("gpu")
    with pytest.raises(UserError, match="--strategy tpu: there is no TPU"):
        distribution.get_strategy("tpu")
    with pytest.raises(ValueError, match="Received: name='abacus'"):
        distribution.get_strategy("abacus")


def test_a_tpu_that_cannot_be_reached_is_refused(hardware, monkeypatch):
    hardware()
    monkeypatch.setenv("TPU_NAME", "my-tpu")

    def fail(tpu):
        raise ValueError(f"no {tpu}")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", fail)
    with pytest.raises(UserError, match="Cannot use the TPU 'my-tpu': no my-tpu"):
        distribution.get_strategy("tpu")


def test_a_tpu_is_connected_and_initialised(hardware, monkeypatch):
    calls = []
    resolver = object()
    monkeypatch.setattr(
        tf.distribute.cluster_resolver, "TPUClusterResolver", lambda tpu: resolver
    )
    for module, name in (
        (tf.config, "experimental_connect_to_cluster"),
        (tf.tpu.experimental, "initialize_tpu_system"),
        (tf.distribute, "TPUStrategy"),
    ):
        monkeypatch.setattr(
            module, name, lambda given, name=name: calls.append((name, given))
        )
    hardware(tpus=1)
    distribution.get_strategy("tpu")
    assert calls == [("initialize_tpu_system", resolver), ("TPUStrategy", resolver)]
    calls.clear()
    monkeypatch.setenv("TPU_NAME", "my-tpu")
    distribution.get_strategy("tpu")
    assert calls[0] == ("experimental_connect_to_cluster", resolver)


def test_a_batch_must_be_shared_evenly(hardware):
    hardware(gpus=2)
    distribution.check_batch_size(6, fake_strategy(2))
    with pytest.raises(UserError, match=r"--batch_size 7 .* 2 replicas \(2 GPUs\)"):
        distribution.check_batch_size(7, fake_strategy(2))


@pytest.mark.parametrize(
    ("batch_size", "records", "replicas", "expected"),
    [
        (32, 100, 1, 32),
        (32, 20, 1, 20),
        (32, 15, 2, 14),
        (32, 100, 5, 30),
        (4, 4, 4, 4),
    ],
)
def test_evaluation_batch_size(batch_size, records, replicas, expected):
    strategy = fake_strategy(replicas)
    size = distribution.evaluation_batch_size(batch_size, records, strategy)
    assert size == expected


def test_a_split_smaller_than_the_replicas_is_refused():
    with pytest.raises(UserError, match="cannot share a split of 3 records"):
        distribution.evaluation_batch_size(32, 3, fake_strategy(4))


MIRRORED = """
import sys
import trainer.quiet
import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from pipeline.schema import UserError
from trainer import distribution, models
from trainer.batches import open_splits
from trainer.config import Schedule, TrainConfig
from trainer.dataset import open_dataset
from trainer.fit import Phase, fit
from trainer.run import Run

folder, temporary = sys.argv[1:]
dataset = open_dataset(folder)


def config(**flags):
    return TrainConfig(data=folder, model="statistics", output=temporary, **flags)


try:
    Run(config(strategy="mirrored", batch_size=5), dataset)
except UserError as error:
    assert "2 replicas (2 CPUs)" in str(error), error
else:
    raise AssertionError("a batch of 5 was accepted")

weights, predictions = [], []
for strategy, cache_mb in (("cpu", 0), ("mirrored", 0), ("mirrored", 64)):
    keras.utils.set_random_seed(1)
    run = Run(config(strategy=strategy, cache_mb=cache_mb), dataset)
    replicas = run.strategy.num_replicas_in_sync
    assert replicas == (1 if strategy == "cpu" else 2)
    with run.strategy.scope():
        inputs = keras.Input(run.layout.value.shape)
        x = models.build_normalisation(
            run.layout, dataset.manifest.normalisation["statistics"]
        )(inputs)
        model = keras.Model(inputs, models.build_output(3)(x))
    schedule = Schedule(epochs=3, batch_size=6, learning_rate=1e-3, patience=9)
    # 9 validation records: one over, which must not come first.
    history = fit(
        model,
        run.splits["training"],
        run.validation,
        Phase(name="test", schedule=schedule, seed=1),
        run.strategy,
    )
    assert model.optimizer.iterations == 3 * (12 // 6), model.optimizer.iterations
    assert len(history.metrics["validation_loss"]) == 3
    weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    predictions.append(run.predict_clips(model, run.splits["test"]))
    model.save(f"{temporary}/model.keras")
    loaded = keras.models.load_model(f"{temporary}/model.keras")
    values = dataset.load("statistics", "test").values
    np.testing.assert_allclose(
        loaded.predict(values, verbose=0), predictions[-1].probabilities, atol=1e-6
    )
# Replicas add up in another order.
np.testing.assert_allclose(weights[1], weights[0], rtol=1e-3, atol=1e-4)
np.testing.assert_allclose(
    predictions[1].probabilities, predictions[0].probabilities, atol=1e-4
)
assert predictions[2].track_ids == predictions[0].track_ids
assert len(predictions[0].track_ids) == 9
print("mirrored as single")
"""


def test_two_replicas_train_as_one(tmp_path):
    folder = tmp_path / "dataset"
    trainer_fixtures.write_dataset(
        folder,
        representations=("statistics",),
        clips_per_split_and_genre={"training": 4, "validation": 3, "test": 3},
        statistics=20,
    )
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(folder), str(tmp_path)],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "mirrored as single" in done.stdout

import csv
import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import UserError
from tests.support import trainer_fixtures
from tests.support.replicas import difference
from tests.support.training_run import make_clusters
from trainer import task
from trainer.data.split import Split, open_splits
from trainer.data.streams import EpochPlan
from trainer.runtime import devices as devices_module
from trainer.runtime.devices import (
    Devices,
    check_batch_size,
    find_devices,
    fit_batch_size,
)
from trainer.training import fit


@pytest.fixture
def hardware(monkeypatch):
    """Pretends that TensorFlow finds so many GPUs and TPUs."""
    # A process keeps its strategies; the pretended ones end with the test.
    for name in ("_mirrored_strategy", "_tpu_strategy"):
        kept = functools.cache(getattr(devices_module, name).__wrapped__)
        monkeypatch.setattr(devices_module, name, kept)

    def pretend(*, gpus: int = 0, tpus: int = 0) -> None:
        counts = {"GPU": gpus, "TPU": tpus}

        def list_devices(kind: str) -> list[SimpleNamespace]:
            count = counts.get(kind, 1)
            return [SimpleNamespace(name=f"/{kind}:{i}".lower()) for i in range(count)]

        monkeypatch.setattr(tf.config, "list_physical_devices", list_devices)
        monkeypatch.setattr(tf.config, "list_logical_devices", list_devices)

    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return pretend


def fake_devices(replicas: int) -> Devices:
    return Devices(
        strategy=SimpleNamespace(num_replicas_in_sync=replicas),
        name="mirrored",
        reason="a test asks for it",
    )


def test_one_cpu(hardware):
    hardware()
    for name, reason in (("auto", "there is one CPU"), ("single", "--strategy asks")):
        devices = find_devices(name)
        assert devices.strategy is tf.distribute.get_strategy()
        assert (devices.name, devices.chief, devices.workers) == ("single", True, 1)
        assert devices.reason.startswith(reason)
        assert devices.describe() == "1 CPU"


def test_auto_takes_what_is_there(hardware, monkeypatch):
    taken = []
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", taken.append)
    monkeypatch.setattr("trainer.runtime.devices._tpu_strategy", taken.append)
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda: taken.append("all")
    )

    def find() -> tuple[str, str, object]:
        devices = find_devices("auto")
        return devices.name, devices.reason, taken.pop() if taken else None

    hardware(gpus=1)
    assert find() == ("single", "there is one GPU", None)
    hardware(gpus=2)
    assert find() == ("mirrored", "there are 2 GPUs", ("/gpu:0", "/gpu:1"))
    hardware(gpus=2, tpus=1)
    assert find() == ("tpu", "there is a TPU, 'local'", "local")
    monkeypatch.setenv("TPU_NAME", "my-tpu")
    hardware()
    assert find() == ("tpu", "there is a TPU, 'my-tpu'", "my-tpu")
    monkeypatch.setenv("TF_CONFIG", make_clusters()[1])
    assert find() == ("multiworker", "TF_CONFIG names several processes", "all")


def test_single_takes_one_of_several(hardware, monkeypatch):
    hardware(gpus=4, tpus=1)
    monkeypatch.setenv("TF_CONFIG", make_clusters()[0])
    devices = find_devices("single")
    assert devices.strategy is tf.distribute.get_strategy()


def test_the_chief_is_the_first(monkeypatch):
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda: SimpleNamespace(num_replicas_in_sync=8),
    )
    for worker, cluster in enumerate(make_clusters()):
        monkeypatch.setenv("TF_CONFIG", cluster)
        devices = find_devices("multiworker")
        assert (devices.worker, devices.workers) == (worker, 2)
        assert devices.chief == (worker == 0)
        assert (devices.replicas, devices.local_replicas) == (8, 4)


def test_absent_hardware_is_refused(hardware):
    hardware()
    with pytest.raises(UserError, match="--strategy tpu: there is no TPU"):
        find_devices("tpu")
    with pytest.raises(UserError, match="TF_CONFIG does not name several processes"):
        find_devices("multiworker")
    with pytest.raises(ValueError, match="Received: name='abacus'"):
        find_devices("abacus")


def test_a_tpu_that_cannot_be_reached_is_refused(hardware, monkeypatch):
    hardware()
    monkeypatch.setenv("TPU_NAME", "my-tpu")

    def fail(tpu):
        raise ValueError(f"no {tpu}")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", fail)
    with pytest.raises(UserError, match="Cannot use the TPU 'my-tpu': no my-tpu"):
        find_devices("tpu")


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
    find_devices("tpu")
    assert calls == [("initialize_tpu_system", resolver), ("TPUStrategy", resolver)]
    calls.clear()
    monkeypatch.setenv("TPU_NAME", "my-tpu")
    find_devices("tpu")
    assert calls[0] == ("experimental_connect_to_cluster", resolver)


def test_a_batch_must_be_shared_evenly(hardware):
    hardware(gpus=2)
    check_batch_size(6, fake_devices(2))
    with pytest.raises(UserError, match=r"--batch_size 7 .* 2 replicas \(2 GPUs\)"):
        check_batch_size(7, fake_devices(2))


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
def test_fit_batch_size(batch_size, records, replicas, expected):
    devices = fake_devices(replicas)
    assert fit_batch_size(batch_size, records, devices) == expected


def test_a_split_smaller_than_the_replicas_is_refused():
    with pytest.raises(UserError, match="cannot share a split of 3 records"):
        fit_batch_size(32, 3, fake_devices(4))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(
        folder,
        representations=("windows",),
        clips_per_split_and_genre={"training": 4, "validation": 3, "test": 3},
        num_shards=3,
        window_length=200,
    )
    return str(folder)


def run(*arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).resolve().parents[3],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    text, _ = process.communicate(timeout=280)
    assert process.returncode == 0, text
    return text


def test_two_replicas_train_as_one(data, tmp_path):
    text = finish(run("tests.support.replicas", data, str(tmp_path)))
    assert "two replicas train as one" in text


def merge_workers(split: Split, plan: EpochPlan, devices: Devices) -> tf.data.Dataset:
    """The global batches of two workers, for one process that has all shards."""
    parts = []
    for worker in range(2):
        own = open_splits(
            split.dataset,
            split.representation,
            cache_bytes=2**30,
            worker=worker,
            workers=2,
        )[split.name]
        share = dataclasses.replace(
            plan, batch_size=plan.batch_size // 2, worker=worker, workers=2
        )
        parts.append(own.training_batches(share))
    return tf.data.Dataset.zip(tuple(parts)).map(
        lambda one, other: tuple(
            tf.concat(both, axis=0) for both in zip(one, other, strict=True)
        )
    )


def read_predictions(folder: Path) -> dict[str, list[float]]:
    with open(folder / "predictions.csv") as file:
        return {
            row["track_id"]: [float(row[key]) for key in row if key.startswith("p_")]
            for row in csv.DictReader(file)
        }


def test_two_processes_train_as_one(data, tmp_path, monkeypatch):
    flags = [f"--data={data}", "--model=windows", "--epochs=3", "--batch_size=12"]
    flags += ["--dropout=0", "--weight_decay=0.01", "--learning_rate=1e-4"]
    outputs = [tmp_path / "chief", tmp_path / "worker"]
    processes = [
        run("trainer.task", *flags, f"--output={output}", TF_CONFIG=cluster)
        for output, cluster in zip(outputs, make_clusters(), strict=True)
    ]
    monkeypatch.setattr(fit, "training_batches", merge_workers)
    alone = tmp_path / "alone"
    assert task.main([*flags, f"--output={alone}", "--strategy=single"]) == 0
    texts = [finish(process) for process in processes]
    reason = "strategy multiworker, as TF_CONFIG names several processes: 2 CPUs in 2 "
    assert reason in texts[0]
    # The worker tells nothing and writes nothing.
    assert "epoch" not in texts[1]
    assert ("Model: " in texts[0], "Model: " in texts[1]) == (True, False)
    assert not outputs[1].exists()
    models = [keras.models.load_model(x / "model.keras") for x in (outputs[0], alone)]
    assert difference(*(model.get_weights() for model in models)) < 2e-4
    for one, other in zip(
        *(
            json.loads((folder / "history.json").read_text())["phases"]
            for folder in (outputs[0], alone)
        ),
        strict=True,
    ):
        assert one["best_epoch"] == other["best_epoch"]
        for name, values in one["metrics"].items():
            np.testing.assert_allclose(values, other["metrics"][name], rtol=1e-4)
    # 5 and 4 clips, or 3 shards for 2 processes: every clip is there, once.
    predictions, expected = read_predictions(outputs[0]), read_predictions(alone)
    assert sorted(predictions) == sorted(expected)
    for track_id, row in predictions.items():
        np.testing.assert_allclose(row, expected[track_id], atol=1e-5)

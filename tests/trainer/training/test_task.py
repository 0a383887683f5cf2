import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import schema
from tests.support import trainer_fixtures
from tests.support.training_run import MODEL_FILES
from trainer import task
from trainer.config import Schedule, TrainConfig
from trainer.data.dataset import open_dataset
from trainer.data.split import open_splits
from trainer.evaluation.history import METRICS, PhaseHistory
from trainer.evaluation.report_folder import read_report
from trainer.runtime.devices import find_devices
from trainer.training import step, train, transfer
from trainer.training.fit import Phase, fit
from trainer.training.networks import mobilenet
from trainer.training.networks.vectors import build_vector_model
from trainer.training.run import Run
from trainer.training.tracking import Tracker

CLIPS = {"training": 8, "validation": 4, "test": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(folder, clips_per_split_and_genre=CLIPS)
    return str(folder)


@pytest.fixture(autouse=True)
def no_cached_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))


@pytest.fixture
def small_base(monkeypatch):
    """Two convolutions in place of MobileNetV2's 52; built the same way."""

    def build(*, input_shape, include_top, weights) -> keras.Model:
        assert (include_top, weights) == (False, None)
        x = inputs = keras.Input(input_shape)
        for number, filters in enumerate((8, 16)):
            x = keras.layers.Conv2D(
                filters, 3, strides=2, use_bias=False, name=f"conv_{number}"
            )(x)
            x = keras.layers.BatchNormalization(name=f"bn_{number}")(x)
            x = keras.layers.ReLU(6.0)(x)
        return keras.Model(inputs, x, name="small")

    monkeypatch.setattr(keras.applications, "MobileNetV2", build)


def run_task(data: str, output: Path, model: str, *flags: str) -> int:
    given = [f"--data={data}", f"--output={output}", f"--model={model}", *flags]
    return task.main([*given, "--verbose"])


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("windows", ["--epochs=8", "--batch_size=16"]),
        ("features", ["--epochs=40", "--learning_rate=1e-3"]),
        ("mel", ["--epochs=60"]),
    ],
)
def test_a_model_learns_what_can_be_learnt(
    data, tmp_path, capsys, small_base, model, flags
):
    output = tmp_path / "models" / "mine"
    assert run_task(data, output, model, *flags) == 0
    assert {path.name for path in output.iterdir()} == MODEL_FILES
    report = read_report(str(output))
    assert (report.name, report.representation) == ("mine", model)
    assert report.test.accuracy >= 0.75
    assert report.training_accuracy is not None
    assert report.validation is not None
    assert report.clips == {"training": 24, "validation": 12, "test": 12}

    manifest = open_dataset(data).manifest
    copied = (output / "manifest.json").read_text()
    assert schema.Manifest.from_json(copied, source="copy") == manifest
    assert report.fingerprint == manifest.fingerprint

    # The file alone gives the report's numbers, from raw records.
    arrays = open_dataset(data).load(model, "test")
    loaded = keras.models.load_model(output / "model.keras")
    assert loaded.name == model
    assert not loaded.compiled
    probabilities = loaded.predict(arrays.values, verbose=0)
    tracks = dict.fromkeys(arrays.track_ids)
    right = 0
    for track in tracks:
        rows = [row for row, name in enumerate(arrays.track_ids) if name == track]
        best = probabilities[rows].mean(axis=0).argmax()
        right += best == arrays.labels[rows[0]]
    assert right / len(tracks) == pytest.approx(report.test.accuracy)

    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if " epoch " in line]
    phase = json.loads((output / "history.json").read_text())["phases"][0]
    assert len(epochs) == len(phase["epochs"]) == len(phase["seconds"])
    assert set(phase["metrics"]) == set(METRICS)
    losses = phase["metrics"]["validation_loss"]
    assert phase["best_epoch"] == 1 + int(np.argmin(losses))
    assert report.parameters["best_epoch"] == phase["best_epoch"]


def test_fine_tuning_follows_the_head(data, tmp_path, small_base, monkeypatch, capsys):
    base = mobilenet.build_base((32, 32, 3), "none")
    weights = tmp_path / "base.weights.h5"
    base.save_weights(weights)
    started = []
    real = mobilenet.build_base

    def build_base(*args):
        started.append(real(*args))
        return started[-1]

    monkeypatch.setattr(mobilenet, "build_base", build_base)
    epochs = []
    monkeypatch.setattr(Tracker, "log_epoch", lambda *words: epochs.append(words[-1]))
    output = tmp_path / "mel"
    flags = ["--epochs=2", "--fine_tune_layers=3", "--fine_tune_epochs=1"]
    flags.append(f"--weights={weights}")
    assert run_task(data, output, "mel", *flags) == 0
    assert epochs == [1, 2, 3]
    assert f"starts from ImageNet weights: {weights}" in capsys.readouterr().out
    phases = json.loads((output / "history.json").read_text())["phases"]
    assert [phase["name"] for phase in phases] == ["head", "fine-tuning"]
    # The last layers are conv_1, bn_1 and ReLU; BatchNorm keeps all of its weights.
    changed = [
        f"{layer.name}/{new.name}"
        for layer, original in zip(started[0].layers, base.layers, strict=True)
        for new, old in zip(layer.weights, original.weights, strict=True)
        if not np.array_equal(new, old)
    ]
    assert changed == ["conv_1/kernel"]
    report = read_report(str(output))
    assert report.parameters["fine_tune_learning_rate"] == 1e-5
    assert report.notes == ()

    # Where it only does harm, it is taken back.
    monkeypatch.setattr(transfer, "improves", lambda *_: False)
    assert run_task(data, output, "mel", *flags, "--fine_tune_learning_rate=1") == 0
    for new, old in zip(started[1].weights, base.weights, strict=True):
        np.testing.assert_array_equal(new, old)
    assert read_report(str(output)).notes == (transfer.WORSE_NOTE,)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [([2.0, 1.0], [1.5, 0.9], True), ([2.0, 1.0, 3.0], [1.0], False), ([], [], True)],
)
def test_fine_tuning_must_lower_the_validation_loss(before, after, expected):
    phases = [
        PhaseHistory(
            name="phase",
            epochs=range(1, 1 + len(losses)),
            metrics={"validation_loss": losses} if losses else {},
            seconds=[],
            best_epoch=1,
        )
        for losses in (before, after)
    ]
    assert transfer.improves(*phases) == expected


def test_training_from_random_weights(data, tmp_path, small_base, capsys):
    flags = ["--weights=none", "--fine_tune_layers=99", "--fine_tune_epochs=2"]
    assert run_task(data, tmp_path / "mel", "mel", *flags, "--batch_size=12") == 0
    report = read_report(str(tmp_path / "mel"))
    # Convolutions, scale and offset of their BatchNorm, head.
    expected = 27 * 8 + 2 * 8 + 72 * 16 + 2 * 16 + 16 * 3 + 3
    assert report.parameters["trainable_weights"] == expected
    assert report.parameters["fine_tune_learning_rate"] == 1e-3
    assert report.notes == (transfer.SCRATCH_NOTE,)
    out = capsys.readouterr().out
    assert "random weights, as --weights none asks" in out
    assert "training, epoch 2 of 2" in out


def test_the_cached_features_give_what_the_whole_network_would(
    data, small_base, tmp_path
):
    """Dropout included."""
    keras.utils.set_random_seed(3)
    run = Run(TrainConfig(data=data, model="mel", output="o"), open_dataset(data))
    base = mobilenet.build_base((32, 32, 3), "none")
    base.trainable = False
    bottleneck = mobilenet.build_bottleneck(run.layout, base)
    cached = transfer.cache_outputs(run, bottleneck, str(tmp_path), schema.SPLITS)
    keras.utils.set_random_seed(4)
    head = transfer.build_head(run, cached, standardise=True)
    model = mobilenet.attach_head(bottleneck, head, "mel")
    start = [variable.numpy() for variable in head.variables]
    before = head.get_weights()
    schedule = Schedule(epochs=2, batch_size=8, learning_rate=1e-3, patience=9)
    phase = Phase(name="head", schedule=schedule, seed=3)
    quick = fit(head, cached["training"], cached["validation"], phase, run.devices)
    weights = head.get_weights()
    for variable, value in zip(head.variables, start, strict=True):
        variable.assign(value)
    whole = fit(model, run.splits["training"], run.validation, phase, run.devices)
    assert whole.metrics["loss"] == pytest.approx(quick.metrics["loss"], rel=1e-5)
    for weight, old, expected in zip(head.get_weights(), before, weights, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)
        assert np.abs(weight - old).max() > 1e-3


def make_model(dataset) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_vector_model(
        dataset.representation("statistics"),
        dataset.manifest.normalisation["statistics"],
        3,
        dropout=0.0,
    )


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_the_optimizer_counts_the_steps_that_were_made(data, cache_bytes, monkeypatch):
    made = []
    build = step.Learner.__init__
    monkeypatch.setattr(
        step.Learner,
        "__init__",
        lambda self, *args: (build(self, *args), made.append(self))[0],
    )
    dataset = open_dataset(data)
    splits = open_splits(dataset, "statistics", cache_bytes=cache_bytes)
    model = make_model(dataset)
    schedule = Schedule(epochs=3, batch_size=5, learning_rate=1e-3, patience=9)
    fit(
        model,
        splits["training"],
        splits["validation"],
        Phase(name="test", schedule=schedule, seed=0),
        find_devices("single"),
    )
    assert made[-1].optimizer.iterations == 3 * (24 // 5)


def test_early_stopping_keeps_the_best_weights(data):
    dataset = open_dataset(data)
    splits = open_splits(dataset, "statistics", cache_bytes=2**30)
    model = make_model(dataset)
    # Far too high: the validation loss soon rises.
    schedule = Schedule(epochs=50, batch_size=8, learning_rate=0.5, patience=2)
    phase = Phase(name="test", schedule=schedule, seed=0)
    devices = find_devices("single")
    history = fit(model, splits["training"], splits["validation"], phase, devices)
    losses = history.metrics["validation_loss"]
    assert len(losses) == history.best_epoch + 2 < 50
    # Keras' own evaluation agrees.
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    values = splits["validation"].values.numpy()
    labels = splits["validation"].index.labels
    loss, accuracy = model.evaluate(values, labels, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)
    best = history.metrics["validation_accuracy"][history.best_epoch - 1]
    assert accuracy == pytest.approx(best)


def test_a_loss_that_is_no_number_is_refused(data, tmp_path, capsys):
    flags = ["--learning_rate=1e30", "--epochs=5", "--units=64", "--dropout=0.5"]
    assert run_task(data, tmp_path / "out", "statistics", *flags) == 2
    error = capsys.readouterr().err
    assert "diverged in epoch" in error
    assert "use a --learning_rate below 1e+30" in error
    assert not (tmp_path / "out").exists()


@pytest.fixture
def odd_data(tmp_path):
    """Writes a small dataset with something odd about it."""

    def write(**changes) -> str:
        arguments = {
            "representations": ("statistics",),
            "clips_per_split_and_genre": {"training": 2, "validation": 1, "test": 1},
            "statistics": 20,
        }
        folder = tmp_path / "odd"
        trainer_fixtures.write_dataset(folder, **(arguments | changes))
        return str(folder)

    return write


def test_splits_may_be_missing(odd_data, tmp_path, capsys):
    data = odd_data(clips_per_split_and_genre={"training": 2})
    output = tmp_path / "out"
    output.mkdir()
    # A model replaces a model, and an older report does not survive it.
    (output / "model.keras").write_text("old")
    (output / "report.json").write_text('{"report_version": 1}')
    assert run_task(data, output, "statistics", "--epochs=2") == 0
    out = capsys.readouterr().out
    assert "the test split is empty, so no report is written" in out
    assert "validation loss" not in out
    assert {path.name for path in output.iterdir()} == {
        "OWNER.json",
        "history.json",
        "history.png",
        "manifest.json",
        "model.json",
        "model.keras",
    }
    keras.models.load_model(output / "model.keras")


def test_refusals_come_before_the_first_step(odd_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        step, "training_batches", lambda *_: pytest.fail("training has begun")
    )
    data = odd_data()

    def refuse(message: str, *flags: str, model: str = "statistics") -> None:
        assert run_task(data, tmp_path / "out", model, *flags) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
        assert message in error

    refuse("does not hold 'mel', only statistics", model="mel")
    refuse("--batch_size 7 is larger than the training split", "--batch_size=7")
    refuse("--epochs must be 1 or more. Received: 0", "--epochs=0")
    refuse("--learning_rate must be over 0. Received: 0", "--learning_rate=0")
    refuse("--cache_mb must be 0 or more. Received: -1", "--cache_mb=-1")
    refuse("are for --model mel", "--weights=none")
    refuse("TF_CONFIG does not name several processes", "--strategy=multiworker")
    refuse("--dropout must be 0 or more and under 1. Received: 1.0", "--dropout=1")
    refuse("--augmentation must be from 0 to 1. Received: 2.0", "--augmentation=2")
    refuse("--tune must be 0 or more. Received: -1", "--tune=-1")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").touch()
    refuse("--output holds thesis.txt, which is no part", f"--output={full}")
    refuse("--output is a file", f"--output={full}/thesis.txt")
    (full / "thesis.txt").unlink()
    for folder in ("checkpoints", "trials", "_unpublished", "fold-0"):
        (full / folder).mkdir()
        (full / folder / "mine.json").touch()
        refuse(f"--output holds {folder}/mine.json", f"--output={full}")
        (full / folder / "mine.json").unlink()
    assert not (tmp_path / "out").exists()

    data = odd_data(clips_per_split_and_genre={"test": 1})
    refuse("The training split of statistics")
    (Path(data) / "COMPLETED").unlink()
    refuse("COMPLETED is missing")

    data = odd_data(representations=("mel",))
    refuse("there is no such file", f"--weights={tmp_path}/no.h5", model="mel")
    refuse("--mixed_precision cannot be used", "--mixed_precision", model="mel")


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_file_is_named_before_training(
    odd_data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        step, "training_batches", lambda *_: pytest.fail("training has begun")
    )
    data = odd_data()
    file = Path(data) / "statistics/validation-00000-of-00002.tfrecord"
    flip_a_bit(file)
    assert run_task(data, tmp_path / "out", "statistics") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file} has ")
    assert "it is damaged, or comes from another run" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("cache", [0, 1024])
def test_without_the_check_it_is_named_where_it_shows(
    odd_data, tmp_path, capsys, cache
):
    data = odd_data()
    file = Path(data) / "statistics/training-00001-of-00002.tfrecord"
    flip_a_bit(file)
    flags = ["--no_check", f"--cache_mb={cache}"]
    assert run_task(data, tmp_path / "out", "statistics", *flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"of {file} cannot be read" in error


def test_records_that_do_not_fit_the_manifest_are_named(odd_data, tmp_path, capsys):
    data = odd_data()
    path = Path(data) / "manifest.json"
    content = json.loads(path.read_text())
    content["representations"]["statistics"]["value"]["shape"] = [21]
    content["representations"]["statistics"]["segments"].append(
        {"name": "more", "length": 1}
    )
    for values in content["normalisation"]["statistics"].values():
        values.append(1.0)
    path.write_text(json.dumps(content))
    assert run_task(data, tmp_path / "out", "statistics") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "Record 0 of " in error
    assert "training-00000-of-00002.tfrecord cannot be read" in error


def test_a_smaller_dataset_than_the_manifest_says(odd_data, tmp_path, capsys):
    data = odd_data()
    path = Path(data) / "manifest.json"
    content = json.loads(path.read_text())
    content["records"]["statistics"]["training"] += 1
    content["files"]["statistics/training-00000-of-00002.tfrecord"]["records"] += 1
    path.write_text(json.dumps(content))
    for cache in (0, 1024):
        flags = [f"--cache_mb={cache}", "--batch_size=7"]
        assert run_task(data, tmp_path / "out", "statistics", *flags) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "the manifest says" in error


def test_vertex_folders_are_defaults(odd_data, monkeypatch):
    """And all of them may be remote."""
    data = odd_data()
    for name, folder in (
        ("AIP_MODEL_DIR", "model/"),
        ("AIP_CHECKPOINT_DIR", "checkpoints/"),
        ("AIP_TENSORBOARD_LOG_DIR", "logs/"),
    ):
        monkeypatch.setenv(name, f"ram://vertex/{folder}")
    flags = ["--model=statistics", "--epochs=1", "--mixed_precision"]
    assert task.main([f"--data={data}", *flags]) == 0
    assert keras.config.dtype_policy().name == "float32"
    assert set(tf.io.gfile.listdir("ram://vertex/model")) == MODEL_FILES
    logged = {}
    for path in tf.io.gfile.glob("ram://vertex/logs/*/*/events.out.*"):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                number = tf.make_ndarray(value.tensor).item()
                logged[path.split("/")[-2], value.tag, event.step] = number
    with tf.io.gfile.GFile("ram://vertex/model/history.json") as file:
        metrics = json.load(file)["phases"][0]["metrics"]
    assert logged == {
        (run, f"epoch_{name}", 0): pytest.approx(metrics[prefix + name][0])
        for run, prefix in (("train", ""), ("validation", "validation_"))
        for name in ("loss", "accuracy")
    }
    assert read_report("ram://vertex/model").name == "model"


ISOLATION = """
import sys
import trainer.runtime.quiet
import trainer.task, trainer.training.train, trainer.baselines.__main__
import trainer.compare.__main__
import trainer.predict.loading
names = {"apache_beam", "tensorflow_transform", "librosa", "pydub", "tf_keras"}
found = [name for name in sys.modules if name.partition(".")[0] in names]
found += [
    name
    for name in sys.modules
    if name.startswith("pipeline.")
    and not name.startswith(("pipeline.schema", "pipeline.common"))
    # Names of files, and ZIPs of audio that the report plays: standard library only.
    and not name.startswith("pipeline.inputs.archives")
    and name.removeprefix("pipeline.inputs") not in {
        "", ".audio_names", ".globs", ".names"
    }
]
print(found)
"""


def test_the_trainer_imports_of_the_pipeline_what_is_light():
    done = subprocess.run(
        [sys.executable, "-c", ISOLATION],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    # TensorFlow's start-up messages stay off the terminal.
    assert done.stderr == ""


def test_few_clips_get_a_linear_head():
    def fit(clips, **flags):
        config = train.fit_to_size(TrainConfig(data="d", output="o", **flags), clips)
        return config.units, config.dropout

    for model in ("features", "statistics", "embeddings"):
        assert fit(499, model=model) == (0, 0.7)
        assert fit(500, model=model) == (None, None)
        assert fit(20, model=model, units=32) == (32, None)
        assert fit(20, model=model, units=0, dropout=0.2) == (0, 0.2)
    assert fit(20, model="windows") == fit(20, model="mel") == (None, None)
    config = TrainConfig(data="d", output="o", model="statistics")
    words = train.fit_to_size(config, 20).command().split()
    assert words[words.index("--units") + 1] == "0"

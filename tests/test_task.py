import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import trainer_fixtures

from pipeline import schema
from trainer import fit as fit_module
from trainer import mobilenet, task, transfer
from trainer.batches import open_splits
from trainer.config import Schedule, TrainConfig
from trainer.dataset import open_dataset
from trainer.fit import EpochLines, Phase, fit
from trainer.models import build_vector_model
from trainer.report import read_report
from trainer.run import Run

CLIPS = {"training": 8, "validation": 4, "test": 4}
FILES = {
    "confusion.png",
    "history.json",
    "history.png",
    "manifest.json",
    "model.keras",
    "predictions.csv",
    "report.json",
}


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
    return task.main(
        [f"--data={data}", f"--output={output}", f"--model={model}", *flags]
    )


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
    assert {path.name for path in output.iterdir()} == FILES
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
    assert set(phase["metrics"]) == set(fit_module.METRICS.values())
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
    output = tmp_path / "mel"
    flags = ["--epochs=2", "--fine_tune_layers=3", "--fine_tune_epochs=1"]
    flags.append(f"--weights={weights}")
    assert run_task(data, output, "mel", *flags) == 0
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
        fit_module.PhaseHistory(
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


def test_the_bottleneck_gives_what_the_whole_network_would(data, small_base):
    keras.utils.set_random_seed(3)
    run = Run(TrainConfig(data=data, model="mel", output="o"), open_dataset(data))
    base = mobilenet.build_base((32, 32, 3), "none")
    base.trainable = False
    bottleneck = mobilenet.build_bottleneck(run.layout, base)
    features, training = transfer.compute_features(
        run, bottleneck, run.splits["training"]
    )
    standardise = mobilenet.build_standardiser(features)
    head = mobilenet.build_head(16, 3, standardise=standardise, dropout=0.0)
    model = mobilenet.attach_head(bottleneck, head, "mel")
    schedule = Schedule(epochs=2, batch_size=8, learning_rate=1e-3, patience=9)
    phase = Phase(name="head", schedule=schedule, seed=3)
    start = head.get_weights()
    fit(head, training, None, phase, run.strategy)
    quick = head.get_weights()
    head.set_weights(start)
    fit(model, run.splits["training"], None, phase, run.strategy)
    for weight, before, expected in zip(head.get_weights(), start, quick, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-5)
        assert np.abs(weight - before).max() > 1e-3


def make_model(dataset) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_vector_model(
        dataset.representation("statistics"),
        dataset.manifest.normalisation["statistics"],
        3,
        dropout=0.0,
    )


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_keras_counts_the_steps_that_were_made(data, cache_bytes):
    dataset = open_dataset(data)
    splits = open_splits(dataset, "statistics", cache_bytes=cache_bytes)
    model = make_model(dataset)
    schedule = Schedule(epochs=3, batch_size=5, learning_rate=1e-3, patience=9)
    fit(
        model,
        splits["training"],
        splits["validation"],
        Phase(name="test", schedule=schedule, seed=0),
        tf.distribute.get_strategy(),
    )
    assert model.optimizer.iterations == 3 * (24 // 5)


def test_early_stopping_keeps_the_best_weights(data):
    dataset = open_dataset(data)
    splits = open_splits(dataset, "statistics", cache_bytes=2**30)
    model = make_model(dataset)
    # Far too high: the validation loss soon rises.
    schedule = Schedule(epochs=50, batch_size=8, learning_rate=0.5, patience=2)
    strategy = tf.distribute.get_strategy()
    phase = Phase(name="test", schedule=schedule, seed=0)
    history = fit(model, splits["training"], splits["validation"], phase, strategy)
    losses = history.metrics["validation_loss"]
    assert len(losses) == history.best_epoch + 2 < 50
    validation = splits["validation"].arrays
    loss, _ = model.evaluate(validation.values, validation.labels, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_a_cut_off_run_goes_on(data, tmp_path, monkeypatch, capsys):
    dataset = open_dataset(data)
    splits = open_splits(dataset, "statistics", cache_bytes=0)
    strategy = tf.distribute.get_strategy()
    schedule = Schedule(epochs=4, batch_size=8, learning_rate=1e-3, patience=9)
    phase = Phase(
        name="test", schedule=schedule, seed=0, checkpoint_dir=str(tmp_path / "kept")
    )

    def fit_once(phase: Phase) -> tuple[list[np.ndarray], fit_module.PhaseHistory]:
        model = make_model(dataset)
        history = fit(model, splits["training"], None, phase, strategy)
        return model.get_weights(), history

    expected, _ = fit_once(dataclasses.replace(phase, checkpoint_dir=None))

    class KilledError(Exception):
        pass

    begin = EpochLines.on_epoch_begin

    def die(self, epoch, logs=None):
        if epoch == 2:
            raise KilledError
        begin(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLines, "on_epoch_begin", die)
        with pytest.raises(KilledError):
            fit_once(phase)
    assert fit_module.read_start_epoch(phase.checkpoint_dir) == 2
    weights, history = fit_once(phase)
    assert "test resumes after epoch 2" in capsys.readouterr().out
    assert history.epochs == [3, 4]
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(weight, value)
    # Nothing is left for another run to stumble over.
    assert fit_module.read_start_epoch(phase.checkpoint_dir) == 0


def test_only_the_same_run_goes_on_from_a_checkpoint(data, tmp_path):
    def folder(**flags) -> str:
        config = TrainConfig(
            data=data, model="mel", output="o", checkpoint_dir="gs://b/c/", **flags
        )
        run = Run(config, open_dataset(data))
        phase = run.phase("head", run.schedule(Schedule(**SCHEDULE)))
        assert phase.checkpoint_dir is not None
        return phase.checkpoint_dir

    SCHEDULE = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "patience": 1}
    assert folder() == folder()
    assert folder().startswith("gs://b/c/mel-head-")
    assert folder() != folder(seed=1)


def test_a_loss_that_is_no_number_is_refused(data, tmp_path, capsys):
    flags = ["--learning_rate=1e30", "--epochs=5"]
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
    for name in ("model.keras", "report.json"):
        (output / name).write_text("old")
    assert run_task(data, output, "statistics", "--epochs=2") == 0
    out = capsys.readouterr().out
    assert "the test split is empty: no report is written" in out
    assert "validation loss" not in out
    assert {path.name for path in output.iterdir()} == {
        "history.json",
        "history.png",
        "manifest.json",
        "model.keras",
    }
    keras.models.load_model(output / "model.keras")


def test_refusals_come_before_the_first_step(odd_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        keras.Model, "fit", lambda *_, **__: pytest.fail("training has begun")
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
    refuse("TensorFlow finds no GPU", "--strategy=gpu")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").touch()
    refuse("is not empty and holds no model", f"--output={full}")
    refuse("thesis.txt is a file", f"--output={full}/thesis.txt")

    data = odd_data(clips_per_split_and_genre={"test": 1})
    refuse("The training split of statistics")
    (Path(data) / "COMPLETED").unlink()
    refuse("COMPLETED is missing")

    data = odd_data(representations=("mel",))
    refuse("there is no such file", f"--weights={tmp_path}/no.h5", model="mel")
    refuse("--mixed_precision cannot be used", "--mixed_precision", model="mel")


def test_a_damaged_file_is_refused(odd_data, tmp_path, capsys):
    data = odd_data()
    file = Path(data) / "statistics/training-00000-of-00002.tfrecord"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run_task(data, tmp_path / "out", "statistics") == 2
    assert f"A record file in {data} is damaged" in capsys.readouterr().err


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
    assert set(tf.io.gfile.listdir("ram://vertex/model")) == FILES
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


def test_unknown_flags_are_errors(capsys):
    for argv in (["--data=x"], ["--data=x", "--model=mp3"], ["--dat=x", "--model=mel"]):
        with pytest.raises(SystemExit) as error:
            task.main(argv)
        assert error.value.code == 2


ISOLATION = """
import sys
import trainer.quiet
import trainer.task, trainer.train, trainer.baselines, trainer.compare, trainer.predict
names = {"apache_beam", "tensorflow_transform", "librosa", "pydub", "tf_keras"}
found = [name for name in sys.modules if name.partition(".")[0] in names]
found += [
    name
    for name in sys.modules
    if name.startswith("pipeline.") and name != "pipeline.schema"
]
print(found)
"""


def test_the_trainer_imports_nothing_of_the_pipeline_but_its_schema():
    done = subprocess.run(
        [sys.executable, "-c", ISOLATION],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    # TensorFlow's start-up messages stay off the terminal.
    assert done.stderr == ""

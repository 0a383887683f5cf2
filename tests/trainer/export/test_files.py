"""Files for LiteRT and ONNX, read back by their own libraries."""

import dataclasses
import errno
import functools
import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import schema
from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.files import LocalFiles
from pipeline.representations import compute_representations, make_schemas
from pipeline.representations.music_model import load_network as load_music_model
from pipeline.representations.spectrum import Workspace
from pipeline.schema import UserError
from tests.support.audio_files import make_music
from tests.support.music_models import publish_chance_weights
from tests.support.small_models import make_manifest
from tests.support.trainer_fixtures import write_dataset
from trainer.data.dataset import open_dataset
from trainer.export import __main__ as export
from trainer.export import files, litert, onnx_file
from trainer.export.serving import make_model
from trainer.predict.network import load_network
from trainer.training.networks.vectors import build_vector_model
from trainer.training.networks.windows import build_windows_model
from trainer.training.train import dtype_policy

FORMATS = ("litert", "onnx")
NAMES = ("windows", "mel", "statistics")
CONFIG = ClipConfig(windows_per_clip=2)
TEMPERATURE = 1.4

for module in ("ai_edge_litert", "tf2onnx", "onnx", "onnxruntime"):
    pytest.importorskip(module)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A dataset whose windows are the pipeline's own."""
    folder = tmp_path_factory.mktemp("data")
    manifest = write_dataset(
        folder, representations=NAMES, windows_per_clip=2, window_length=10_000
    )
    representations = dict(manifest.representations)
    representations |= make_schemas(["windows"], CONFIG)
    changed = dataclasses.replace(
        manifest, representations=representations, settings=CONFIG.to_dict()
    )
    text = changed.to_json()
    (folder / schema.MANIFEST_FILE).write_text(text)
    marker = schema.completion_marker(changed, text)
    (folder / schema.COMPLETED_FILE).write_text(marker)
    return folder


def build(name: str, manifest: schema.Manifest) -> keras.Model:
    layout, genres = manifest.representations[name], len(manifest.genres)
    if name == "windows":
        return build_windows_model(layout, manifest.normalisation[name], genres)
    if name == "statistics":
        return build_vector_model(layout, manifest.normalisation[name], genres)
    inputs = keras.Input(layout.value.shape, dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, 2, activation="relu")(x)
    x = keras.layers.BatchNormalization()(keras.layers.DepthwiseConv2D(3)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(genres, activation="softmax")(x)
    return keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def models(data, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    manifest = open_dataset(str(data)).manifest
    keras.utils.set_random_seed(0)
    for name in NAMES:
        (root / name).mkdir()
        build(name, manifest).save(root / name / "model.keras")
        (root / name / "manifest.json").write_text(manifest.to_json())
        report = {"calibration": {"temperature": TEMPERATURE}}
        (root / name / "report.json").write_text(json.dumps(report))
        (root / name / "model_card.md").write_text("# The card\n")
    return {name: root / name for name in NAMES}


def run(form: str, content: bytes, signature: str):
    if form == "litert":
        return litert.Runner(content, signature)
    return onnx_file.Runner(content)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_answers_as_the_model_does(data, models, tmp_path, name, form):
    folder = models[name]
    argv = [f"--model={folder}", f"--format={form}", f"--output={tmp_path}"]
    assert export.main([*argv, f"--data={data}"]) == 0
    path = tmp_path / f"model{files.FORMATS[form][0]}"
    facts = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert facts["genres"] == ["Folk", "Jazz", "Rock"]
    assert facts["test_clips"] == 6
    assert facts["largest_difference"] < 1e-5
    assert facts["manifest"]["settings"] == CONFIG.to_dict()
    card = (tmp_path / "model_card.md").read_text()
    assert card.startswith("# The card")
    assert f"`{path.name}` | float32" in card
    network = load_network(str(folder))
    dataset = open_dataset(str(data))
    records, _ = files.load_clips(dataset, make_model(network), "test")
    expected = network.predict({name: records})
    assert np.ptp(expected) > 1e-3
    if name == "windows" and form == "onnx":
        return  # It takes samples; see below.
    values = records if name == "windows" else records[:, 0]
    field = facts["inputs"]["serve_records"]["name"]
    runner = run(form, path.read_bytes(), "serve_records")
    for batch in (values, values[:1]):
        found = runner(**{field: batch})["probabilities"]
        np.testing.assert_allclose(found, expected[: len(batch)], atol=1e-5)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["windows", "mel"])
def test_a_network_of_mixed_precision_becomes_a_file_of_float32(
    data, models, tmp_path, name, form
):
    folder = tmp_path / "model"
    shutil.copytree(models[name], folder)
    manifest = open_dataset(str(data)).manifest
    with dtype_policy(True):
        build(name, manifest).save(folder / "model.keras")
    argv = [f"--model={folder}", f"--format={form}", f"--data={data}"]
    assert export.main(argv) == 0
    path = folder / "export" / f"model{files.FORMATS[form][0]}.json"
    facts = json.loads(path.read_text())
    assert facts["test_clips"] == 6
    assert facts["largest_difference"] < 1e-5


def check_samples(form, path, name, config, workspace, network, atol):
    samples = np.resize(make_music(8.0, seed=2)[:, 0], CLIP_SAMPLES)
    arrays = compute_representations(samples, [name], config, workspace)
    runner = run(form, path.read_bytes(), "serve_samples")
    found = runner(samples=samples[None])
    np.testing.assert_allclose(found["records"][0], arrays[name], atol=atol)
    expected = network.predict({name: arrays[name][None]})
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_the_front_end_of_windows_is_inside(models, tmp_path, form):
    folder = models["windows"]
    argv = [f"--model={folder}", f"--format={form}", f"--output={tmp_path}"]
    assert export.main(argv) == 0
    path = tmp_path / f"model{files.FORMATS[form][0]}"
    network = load_network(str(folder))
    check_samples(form, path, "windows", CONFIG, Workspace(), network, 1e-7)


def test_the_front_end_of_embeddings_is_inside(tmp_path):
    config = ClipConfig(music_model="MSD_vgg")
    with pytest.MonkeyPatch.context() as patch:
        weights = publish_chance_weights(patch)
        unit = schema.Normalisation(mean=(0.0,) * 256, variance=(1.0,) * 256)
        manifest = dataclasses.replace(
            make_manifest(),
            representations=make_schemas(["embeddings"], config),
            normalisation={"embeddings": unit},
            settings=config.to_dict(),
        )
        folder = tmp_path / "model"
        folder.mkdir()
        layout = manifest.representations["embeddings"]
        model = build_vector_model(layout, unit, len(manifest.genres))
        model.save(folder / "model.keras")
        (folder / "manifest.json").write_text(manifest.to_json())
        (folder / "music_model.npz").write_bytes(weights)
        network = load_network(str(folder))
        workspace = Workspace(load_music_model(weights, "weights"))
        for form in FORMATS:
            assert export.main([f"--model={folder}", f"--format={form}"]) == 0
            path = folder / "export" / f"model{files.FORMATS[form][0]}"
            check_samples(form, path, "embeddings", config, workspace, network, 1e-4)


@pytest.mark.parametrize(
    ("form", "quantize"), [("litert", "int8"), ("litert", "float16"), ("onnx", "int8")]
)
def test_what_quantization_costs_is_written_down(
    data, models, tmp_path, capsys, monkeypatch, form, quantize
):
    folder = models["statistics"]
    argv = [f"--model={folder}", f"--format={form}", f"--output={tmp_path / 'out'}"]
    argv += [f"--data={data}", f"--quantize={quantize}"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "MAX_LOSS", -101)
        assert export.main(argv) == 2
    error = capsys.readouterr().err
    assert f"--quantize {quantize} costs" in error
    assert "6 validation clips" in error
    assert not (tmp_path / "out").exists()
    assert export.main(argv) == 0
    suffix = files.FORMATS[form][0]
    path = tmp_path / "out" / f"model-{quantize}{suffix}"
    facts = json.loads(path.with_name(f"{path.name}.json").read_text())
    before, after = facts["validation_accuracy"], facts["validation_accuracy_quantized"]
    assert 100 * (before - after) <= 2
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert f"{before:.3f}, {after:.3f} (6 clips)" in card
    assert export.main([*argv[:-1]]) == 0
    whole = path.with_name(f"model{suffix}")
    assert path.stat().st_size < 0.8 * whole.stat().st_size


def test_records_of_a_clip_stay_together(data, models):
    dataset = open_dataset(str(data))
    arrays = dataset.load("windows", "validation")
    tracks = np.array(arrays.track_ids)
    assert tracks[0] != tracks[1]  # Or nothing would be out of place.
    model = make_model(load_network(str(models["windows"])))
    records, labels = files.load_clips(dataset, model, "validation")
    for index, track in enumerate(dict.fromkeys(arrays.track_ids)):
        np.testing.assert_array_equal(records[index], arrays.values[tracks == track])
        assert set(arrays.labels[tracks == track]) == {labels[index]}
    kinds = dict(dataset.manifest.representations)
    kinds["windows"] = dataclasses.replace(kinds["windows"], records_per_clip=4)
    manifest = dataclasses.replace(dataset.manifest, representations=kinds)
    four = dataclasses.replace(model, manifest=manifest)
    with pytest.raises(UserError, match="do not hold 4 records of each clip"):
        files.load_clips(dataset, four, "validation")


def test_a_file_that_answers_otherwise_is_not_written(data, models, tmp_path):
    network = load_network(str(models["statistics"]))
    other = dataclasses.replace(make_model(network), temperature=2.0)
    output = str(tmp_path / "out")
    request = files.Request(
        form="onnx", quantize=None, folder=output, dataset=open_dataset(str(data))
    )
    with pytest.raises(UserError, match="does not answer as the model does"):
        files.export_file(other, network, str(models["statistics"]), request)
    assert not (tmp_path / "out").exists()


def refuse(capsys, argv, *messages):
    assert export.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for message in messages:
        assert message in error


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("form", FORMATS)
def test_what_a_format_cannot_hold_is_one_sentence(
    data, models, tmp_path, capfd, form, quantize
):
    network = load_network(str(models["statistics"]))
    strange = dataclasses.replace(
        make_model(network), score=lambda records: tf.math.erfinv(records[:, :3])
    )
    output = str(tmp_path / "out")
    request = files.Request(
        form=form, quantize=quantize, folder=output, dataset=open_dataset(str(data))
    )
    message = rf"--format {form} cannot hold this model \(it has no Erfinv\)"
    with pytest.raises(UserError, match=message):
        files.export_file(strange, network, str(models["statistics"]), request)
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_converter_stumbles_over_is_one_sentence(
    models, tmp_path, capfd, monkeypatch, form
):
    output = tmp_path / "out"
    argv = [f"--model={models['statistics']}", f"--format={form}", "--output"]
    assert export.main([*argv, str(output)]) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    library = litert if form == "litert" else onnx_file
    capfd.readouterr()
    for error in (*library.find_errors(), NameError, AttributeError, KeyError):

        def convert(*_: object, error=error) -> bytes:
            raise error("first line\nsecond line")

        monkeypatch.setattr(library, "convert", convert)
        refuse(capfd, [*argv, str(output)], "cannot hold this model", error.__name__)
    full = functools.partial(OSError, errno.ENOSPC)
    monkeypatch.setattr(library, "convert", lambda *_: convert(error=full))
    refuse(capfd, [*argv, str(output)], "The temporary folder", "make room there")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


@pytest.mark.parametrize("failing", ["onnx.json", "model_card.md"])
def test_a_file_is_not_exported_without_what_lies_beside_it(
    models, tmp_path, capfd, monkeypatch, failing
):
    write = LocalFiles.write

    def fail(self, path, content):
        if failing in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        write(self, path, content)

    argv = [f"--model={models['statistics']}", "--format=onnx", f"--output={tmp_path}"]
    monkeypatch.setattr(LocalFiles, "write", fail)
    refuse(capfd, argv, "--output cannot be written", "make room")
    assert [path.name for path in tmp_path.iterdir()] == ["OWNER.json"]


def test_no_file_is_loaded_with_what_lies_beside_another(
    models, tmp_path, capfd, monkeypatch
):
    rename = LocalFiles.rename

    def fail(self, source, target):
        if target.endswith("model_card.md"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        rename(self, source, target)

    argv = [f"--model={models['statistics']}", "--format=onnx", f"--output={tmp_path}"]
    assert export.main(argv) == 0
    capfd.readouterr()
    monkeypatch.setattr(LocalFiles, "rename", fail)
    refuse(capfd, argv, "--output cannot be written")
    assert not (tmp_path / "model.onnx").exists()
    monkeypatch.undo()
    assert export.main(argv) == 0
    assert (tmp_path / "model.onnx").exists()


def test_flags_that_do_not_go_together_are_refused(data, models, tmp_path, capsys):
    model = f"--model={models['statistics']}"
    refuse(capsys, [model, "--quantize=int8"], "--quantize goes with --format litert")
    refuse(capsys, [model, "--format=litert", "--quantize=int8"], "name it with --data")
    argv = [model, "--format=onnx", f"--data={data}"]
    refuse(capsys, [*argv, "--quantize=float16"], "must be one of int8")
    refuse(capsys, [*argv, "--output=x/model.onnx"], "--output names a folder")
    other = shutil.copytree(models["statistics"], tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["fingerprint"] = "another"
    (other / "manifest.json").write_text(json.dumps(manifest))
    argv = [f"--model={other}", "--format=onnx", f"--data={data}"]
    refuse(capsys, argv, "--data must be the dataset", "fingerprint is another")


def test_tensorflow_is_hushed_before_a_converter_imports_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "tf2onnx")
    refuse(capsys, ["--model=nowhere", "--format=onnx"], "There is no model folder")
    assert "tf2onnx" not in sys.modules


def test_somebodys_file_in_the_folder_stays(models, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    argv = [f"--model={models['statistics']}", "--format=onnx", f"--output={tmp_path}"]
    refuse(capsys, argv, "holds thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

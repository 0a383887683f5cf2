"""An exported model answers as prediction does, without this project or Keras."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipeline.common.files import LocalFiles
from pipeline.schema import UserError
from tests.support.audio_files import encode, make_music, represent_file
from tests.support.small_models import CONFIG, GENRES, make_manifest
from tests.support.small_models import make_model as make_keras
from tests.support.trainer_fixtures import write_dataset
from trainer.export import __main__ as export
from trainer.export import saved_model
from trainer.export.serving import Serving, make_model
from trainer.predict.loading import load_audio_predictor
from trainer.predict.network import load_network
from trainer.training.networks.vectors import build_vector_model

TEMPERATURE = 1.7


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Model folders."""
    root = tmp_path_factory.mktemp("models")
    manifest = make_manifest()
    made = {}
    for name in manifest.representations:
        folder = root / name
        folder.mkdir()
        make_keras(name, manifest).save(folder / "model.keras")
        (folder / "manifest.json").write_text(manifest.to_json())
        report = {"calibration": {"temperature": TEMPERATURE}}
        (folder / "report.json").write_text(json.dumps(report))
        made[name] = folder
    return made


@pytest.fixture(scope="module")
def mel(folders):
    """The mel model's export, loaded."""
    assert export.main([f"--model={folders['mel']}"]) == 0
    return tf.saved_model.load(str(folders["mel"] / "export"))


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> list[Path]:
    """Real and odd audio: rates, channels, sample formats, lengths."""
    folder = tmp_path_factory.mktemp("wavs")
    kinds = [
        (make_music(30.0), 44_100, "PCM_16"),
        (make_music(16.0, 22_050, seed=1)[:, :1], 22_050, "PCM_16"),
        (make_music(40.0, 48_000, seed=2), 48_000, "PCM_24"),
        (make_music(29.9, 32_000, seed=3), 32_000, "FLOAT"),
    ]
    paths = []
    for number, (samples, rate, subtype) in enumerate(kinds):
        paths.append(folder / f"{number}.wav")
        paths[-1].write_bytes(encode(samples, rate, "WAV", subtype=subtype))
    return paths


def check_wavs(folder, served, wavs):
    """Compares what is served of WAV files with prediction."""
    predictor = load_audio_predictor([str(folder)], excerpts=1)
    found = served(audio_bytes=tf.constant([path.read_bytes() for path in wavs]))
    assert found["genres"].numpy().tolist() == [
        [genre.encode() for genre in GENRES]
    ] * len(wavs)
    for row, path in enumerate(wavs):
        expected = predictor.predict(str(path)).genres
        shares = found["probabilities"][row].numpy()
        np.testing.assert_allclose(
            shares, [expected[genre] for genre in GENRES], atol=1e-3
        )
        assert found["genre"][row].numpy().decode() == next(iter(expected))


def test_wav_bytes_give_what_prediction_gives(folders, mel, wavs):
    check_wavs(folders["mel"], mel.signatures["serving_default"], wavs)


@pytest.mark.slow
def test_wav_bytes_give_what_prediction_gives_for_windows_too(folders, wavs):
    assert export.main([f"--model={folders['windows']}"]) == 0
    loaded = tf.saved_model.load(str(folders["windows"] / "export"))
    check_wavs(folders["windows"], loaded.signatures["serving_default"], wavs)


def test_the_genuine_clip_is_served_as_it_was_trained(folders, mel, genuine_path):
    samples, rate = soundfile.read(genuine_path, dtype="float32", always_2d=True)
    content = encode(samples, rate, "WAV", subtype="FLOAT")
    found = mel.signatures["serving_default"](audio_bytes=tf.constant([content]))
    predictor = load_audio_predictor([str(folders["mel"])])
    expected = predictor.predict(str(genuine_path)).genres
    np.testing.assert_allclose(
        found["probabilities"][0], [expected[genre] for genre in GENRES], atol=1e-3
    )


def test_pcm_gives_what_its_wav_gives(mel, wavs):
    samples, rate = soundfile.read(wavs[1], dtype="float32")
    pcm = mel.signatures["serve_pcm"](
        samples=tf.constant(samples[None]), sample_rate=tf.constant(rate)
    )
    content = tf.constant([wavs[1].read_bytes()])
    wav = mel.signatures["serving_default"](audio_bytes=content)
    np.testing.assert_allclose(pcm["probabilities"], wav["probabilities"], atol=1e-6)


@pytest.mark.parametrize("name", ["mel", "windows"])
def test_records_give_what_the_model_gives(folders, wavs, name):
    records = represent_file(str(wavs[0]), CONFIG, [name])[name]
    field = "image" if name == "mel" else "window"
    value = records[None]
    predictor = load_network(str(folders[name]))
    serve, (spec,) = Serving(make_model(predictor)).signatures["serve_records"]
    assert spec.name == field
    assert spec.is_compatible_with(tf.constant(value))
    found = serve(tf.constant(value))
    mean = np.asarray(predictor.model(records)).mean(axis=0)
    expected = mean ** (1 / TEMPERATURE)
    np.testing.assert_allclose(
        found["probabilities"][0], expected / expected.sum(), rtol=1e-4
    )


def test_labels_fingerprint_and_parameters_are_inside(folders, mel):
    described = mel.signatures["describe"]()["description"].numpy()
    facts = json.loads(described)
    extra = folders["mel"] / "export" / "assets.extra" / "description.json"
    assert json.loads(extra.read_text()) == facts
    assert facts["genres"] == list(GENRES)
    assert facts["fingerprint"] == "fingerprint"
    assert facts["temperature"] == TEMPERATURE
    assert facts["manifest"]["settings"] == CONFIG.to_dict()
    assert set(facts["signatures"]) == set(mel.signatures)


WITHOUT = """
import sys

from importlib.machinery import PathFinder

HIDDEN = ("keras", "tf_keras", "trainer", "pipeline")

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
content = tf.io.read_file(sys.argv[2])
print(model.signatures["serving_default"](audio_bytes=content[None])["genre"])
assert not set(HIDDEN) & set(sys.modules)
"""


@pytest.mark.usefixtures("mel")
def test_it_loads_without_keras_and_without_this_project(folders, wavs, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, folders["mel"] / "export", wavs[1]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert any(genre in done.stdout for genre in GENRES)


@pytest.mark.parametrize("name", ["mel", "vectors"])
def test_the_warm_up_request_is_one_of_tensorflow_serving(
    folders, mel, vector_model, name
):
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    folder = folders["mel"]
    if name == "vectors":
        folder = vector_model
        assert export.main([f"--model={folder}"]) == 0
    path = folder / "export" / "assets.extra" / "tf_serving_warmup_requests"
    [record] = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    request = log.PredictionLog.FromString(record).predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    values = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
    served = tf.saved_model.load(str(folder / "export")) if name != "mel" else mel
    inputs = {key: tf.constant(value) for key, value in values.items()}
    found = served.signatures["serving_default"](**inputs)["probabilities"]
    assert found.shape[0] == 1
    assert np.all(np.isfinite(found))


def test_bad_audio_is_an_error_that_says_so(mel):
    with pytest.raises(tf.errors.InvalidArgumentError, match="no WAV file"):
        mel.signatures["serving_default"](audio_bytes=tf.constant([b"ID3 something"]))


@pytest.fixture(scope="module")
def vector_model(tmp_path_factory) -> Path:
    """Folder of a model that has no way from audio in the graph."""
    root = tmp_path_factory.mktemp("vectors")
    manifest = write_dataset(root / "data", representations=["statistics"])
    layout = manifest.representations["statistics"]
    model = build_vector_model(
        layout, manifest.normalisation["statistics"], len(manifest.genres)
    )
    folder = root / "model"
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def test_vector_models_take_their_records(vector_model):
    assert export.main([f"--model={vector_model}"]) == 0
    model = load_network(str(vector_model)).model
    values = np.random.default_rng(0).normal(size=(3, 518)).astype(np.float32)
    loaded = tf.saved_model.load(str(vector_model / "export"))
    served = loaded.signatures["serving_default"]
    found = served(statistics=tf.constant(values))
    np.testing.assert_allclose(found["probabilities"], model(values), rtol=1e-4)


def test_what_cannot_be_written_leaves_the_old_export(vector_model, tmp_path, capsys):
    output = tmp_path / "output"
    argv = [f"--model={vector_model}", f"--output={output}"]
    assert export.main(argv) == 0
    before = read_folder(output)
    capsys.readouterr()
    model = make_model(load_network(str(vector_model)))
    name = saved_model.SAVED_MODEL_FILE
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"The temporary folder .*File too large"):
            saved_model.export_model(model, str(output))
        with pytest.raises(OSError, match="File too large"):
            saved_model.replace_export(
                LocalFiles(), str(output), {**before, name: bytes(2_000)}, name
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_folder(output) == before


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_somebodys_file_within_an_export_stays(vector_model, tmp_path, capsys):
    output = tmp_path / "output"
    argv = [f"--model={vector_model}", f"--output={output}"]
    assert export.main(argv) == 0
    (output / "variables" / "thesis.txt").write_text("precious")
    before = read_folder(output)
    assert export.main(argv) == 2
    assert "holds variables/thesis.txt" in capsys.readouterr().err
    assert read_folder(output) == before


def test_an_export_replaces_an_export_and_nothing_else(vector_model, tmp_path, capsys):
    output = tmp_path / "output"
    output.mkdir()
    (output / "thesis.txt").write_text("precious")
    argv = [f"--model={vector_model}", f"--output={output}"]
    assert export.main(argv) == 2
    assert "holds thesis.txt, which is no part of a" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    shutil.rmtree(output)
    assert export.main(argv) == 0
    assert export.main(argv) == 0
    made, then = capsys.readouterr().out.splitlines()[-2:]
    assert made.startswith(f"Export: {output} (")
    tool = "tensorflow.python.tools.saved_model_cli"
    assert then == f"Next: ./launch.sh run {tool} show --dir {output} --all"
    assert export.main([f"--model={tmp_path / 'none'}"]) == 2
    assert "no model folder" in capsys.readouterr().err

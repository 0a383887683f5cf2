import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline import schema
from pipeline.clip import represent_file
from pipeline.config import ClipConfig
from pipeline.representations import make_schemas
from trainer import predict
from trainer.models import build_windows_model

GENRES = ("Folk", "Jazz", "Pop", "Rock")
CONFIG = ClipConfig(windows_per_clip=2)


def make_manifest() -> schema.Manifest:
    return schema.Manifest(
        genres=GENRES,
        representations=make_schemas(("windows", "mel"), CONFIG),
        num_shards=1,
        clips={},
        records={},
        record_bytes={},
        normalisation={"windows": schema.Normalisation(mean=(0.0,), variance=(0.04,))},
        settings=CONFIG.to_dict(),
        split_rule="",
        artists_in_several_splits=(),
        inputs={},
        rejects={},
        versions={},
        fingerprint="fingerprint",
    )


def make_model(name: str, manifest: schema.Manifest) -> keras.Model:
    keras.utils.set_random_seed(0)
    layout = manifest.representations[name]
    if name == "windows":
        normalisation = manifest.normalisation[name]
        return build_windows_model(layout, normalisation, len(GENRES))
    inputs = keras.Input(layout.value.shape, dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(x))
    outputs = keras.layers.Dense(len(GENRES), activation="softmax")(x)
    return keras.Model(inputs, outputs, name=name)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    manifest = make_manifest()
    for name in manifest.representations:
        (folder / name).mkdir()
        make_model(name, manifest).save(folder / name / "model.keras")
        (folder / name / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory, music_files) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("songs")
    for kind, content in music_files.items():
        (folder / f"song.{kind}").write_bytes(content)
    return {kind: str(folder / f"song.{kind}") for kind in music_files}


def run(capsys, model: Path, *arguments: str) -> tuple[int, list[str], list[str]]:
    code = predict.main([f"--model={model}", *arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("name", ["windows", "mel"])
def test_probabilities_are_the_mean_over_the_clips_records(models, songs, name):
    predictor = predict.load_predictor(str(models / name))
    assert (predictor.representation, predictor.manifest) == (name, make_manifest())
    model = keras.models.load_model(models / name / "model.keras")
    for path in songs.values():
        records = represent_file(path, CONFIG, [name])[name]
        assert len(records) == (2 if name == "windows" else 1)
        expected = model.predict(records, verbose=0).mean(axis=0)
        found = predictor.predict(path)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        np.testing.assert_allclose([found[g] for g in GENRES], expected, rtol=1e-5)


def test_formats_of_one_song_agree(models, songs):
    predictor = predict.load_predictor(str(models / "mel"))
    found = [predictor.predict(path) for path in songs.values()]
    assert len(found) == 4
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=0.05)


def test_one_line_for_each_file(models, songs, capsys):
    code, out, err = run(capsys, models / "mel", songs["wav"], songs["flac"])
    assert (code, err) == (0, [])
    best = predict.load_predictor(str(models / "mel")).predict(songs["wav"])
    expected = ", ".join(f"{genre} {p:.3f}" for genre, p in list(best.items())[:3])
    assert out == [f"{songs['wav']}: {expected}", f"{songs['flac']}: {expected}"]
    code, out, _ = run(capsys, models / "mel", songs["wav"], "--top=1")
    assert out == [f"{songs['wav']}: {expected.partition(',')[0]}"]


def test_json(models, songs, capsys):
    code, out, _ = run(capsys, models / "mel", songs["ogg"], "--json", "--top=9")
    assert code == 0
    (found,) = map(json.loads, out)
    assert found["path"] == songs["ogg"]
    assert set(found["genres"]) == set(GENRES)
    assert sum(found["genres"].values()) == pytest.approx(1, abs=1e-5)


def test_a_bad_file_does_not_keep_the_others_back(models, songs, tmp_path, capsys):
    text = tmp_path / "lyrics.mp3"
    text.write_text("la la la\n" * 100)
    missing = tmp_path / "missing.mp3"
    files = [str(text), songs["mp3"], str(missing), str(tmp_path), songs["wav"]]
    code, out, err = run(capsys, models / "mel", *files)
    assert code == 1
    assert [line.partition(": ")[0] for line in out] == [songs["mp3"], songs["wav"]]
    bad = [line.partition(": ") for line in err]
    assert [path for path, _, _ in bad] == [str(text), str(missing), str(tmp_path)]
    assert all(message for _, _, message in bad)
    assert bad[1][2] == "No such file or directory"


@pytest.fixture
def damaged(tmp_path, models):
    """A copy of a model folder, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.keras", "manifest.json"):
        (folder / name).write_bytes((models / "mel" / name).read_bytes())
    return folder


def test_what_is_no_model_folder_is_refused(damaged, songs, capsys):
    def refuse(message: str, folder: Path, *flags: str) -> None:
        code, out, err = run(capsys, folder, songs["wav"], *flags)
        assert (code, out) == (2, [])
        assert len(err) == 1
        assert err[0].startswith("error: ")
        assert message in err[0]

    refuse("--top must be 1 or more. Received: 0", damaged, "--top=0")
    refuse("There is no model folder", damaged / "elsewhere")

    manifest = make_manifest()
    settings = {**manifest.settings, "n_fft": 4096}
    changed = dataclasses.replace(manifest, settings=settings)
    (damaged / "manifest.json").write_text(changed.to_json())
    refuse("made by another version of the pipeline", damaged)

    windows = {"windows": manifest.representations["windows"]}
    changed = dataclasses.replace(manifest, representations=windows)
    (damaged / "manifest.json").write_text(changed.to_json())
    refuse("reads 'mel', which its manifest.json does not describe", damaged)

    (damaged / "manifest.json").write_text(manifest.to_json())
    (damaged / "model.keras").write_text("no zip")
    refuse("model.keras cannot be loaded", damaged)
    (damaged / "model.keras").unlink()
    refuse("holds no model.keras", damaged)


def test_unknown_flags_are_errors():
    for argv in (["a.mp3"], ["--model=x"], ["--mod=x", "a.mp3"]):
        with pytest.raises(SystemExit) as error:
            predict.main(argv)
        assert error.value.code == 2

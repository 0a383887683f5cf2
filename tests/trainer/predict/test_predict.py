import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from pipeline import schema
from pipeline.common.plain_text import one_line
from pipeline.common.rejects import AudioError
from pipeline.decoding import isolation
from pipeline.decoding.excerpts import Part
from pipeline.decoding.waveform import downmix, fit_clip
from tests.support.audio_files import encode, make_music, make_sine, represent_file
from tests.support.small_models import CONFIG, GENRES, make_manifest, write_models
from trainer.predict import __main__ as predict
from trainer.predict.ensemble import Ensemble
from trainer.predict.loading import load_audio_predictor
from trainer.predict.network import load_network


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


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
    predictor = load_audio_predictor([str(models / name)])
    network = predictor.predictor
    assert (network.representation, network.manifest) == (name, make_manifest())
    model = keras.models.load_model(models / name / "model.keras")
    for path in songs.values():
        records = represent_file(path, CONFIG, [name])[name]
        assert len(records) == (2 if name == "windows" else 5)
        expected = model.predict(records, verbose=0).mean(axis=0)
        prediction = predictor.predict(path)
        found = prediction.genres
        assert prediction.excerpts == 1
        assert list(found.values()) == sorted(found.values(), reverse=True)
        np.testing.assert_allclose([found[g] for g in GENRES], expected, rtol=1e-5)


def test_formats_of_one_song_agree(models, songs):
    predictor = load_audio_predictor([str(models / "mel")])
    found = [predictor.predict(path).genres for path in songs.values()]
    assert len(found) == 4
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=0.05)


def test_one_line_for_each_file_in_a_table(models, songs, capsys):
    code, out, err = run(capsys, models / "mel", songs["wav"], songs["flac"])
    # Not among the lines that a program may read.
    assert (code, err) == (0, [f"Next: ./launch.sh app --model {models / 'mel'}"])
    best = load_audio_predictor([str(models / "mel")]).predict(songs["wav"]).genres
    names = [f"{genre} {p:.3f}" for genre, p in list(best.items())[:3]]
    assert [line.split() for line in out] == [
        ["file", "1", "2", "3"],
        [songs["wav"], *" ".join(names).split()],
        [songs["flac"], *" ".join(names).split()],
    ]
    assert len({line.index(names[2]) for line in out[1:]}) == 1
    assert out[0].index("3") == out[1].index(names[2])
    _, out, _ = run(capsys, models / "mel", songs["wav"], "--top=1")
    assert out[1].split() == [songs["wav"], *names[0].split()]


def test_the_temperature_of_the_report_is_applied(models, songs, tmp_path):
    plain = load_audio_predictor([str(models / "mel")]).predict(songs["wav"]).genres
    folder = tmp_path / "model"
    shutil.copytree(models / "mel", folder)
    report = {"calibration": {"temperature": 2.5}}
    (folder / "report.json").write_text(json.dumps(report))
    found = load_audio_predictor([str(folder)]).predict(songs["wav"]).genres
    expected = np.array(list(plain.values())) ** (1 / 2.5)
    np.testing.assert_allclose(
        list(found.values()), expected / expected.sum(), rtol=1e-5
    )
    assert list(found) == list(plain)
    (folder / "report.json").write_text('{"calibration": null}')
    assert load_network(str(folder)).temperature == 1
    (folder / "report.json").write_text("[]")
    with pytest.raises(schema.UserError, match="does not hold a model's report"):
        load_network(str(folder))


def test_several_models_are_averaged(models, songs, capsys):
    folders = [str(models / name) for name in ("mel", "windows")]
    each = [
        load_audio_predictor([folder]).predict(songs["wav"]).genres
        for folder in folders
    ]
    code, out, _ = run(
        capsys, models / "mel", f"--model={folders[1]}", songs["wav"], "--json"
    )
    assert code == 0
    for genre, share in json.loads(out[0])["genres"].items():
        assert share == pytest.approx(np.mean([one[genre] for one in each]), abs=2e-6)


def test_models_of_other_genres_are_not_averaged(models, tmp_path, songs, capsys):
    folder = tmp_path / "model"
    shutil.copytree(models / "mel", folder)
    changed = dataclasses.replace(make_manifest(), genres=("A", "B", "C", "D"))
    (folder / "manifest.json").write_text(changed.to_json())
    code, _, err = run(capsys, models / "mel", f"--model={folder}", songs["wav"])
    assert code == 2
    assert "names other genres" in err[0]


def test_models_of_one_genre_a_clip_and_of_several_are_not_averaged(models):
    single = load_network(str(models / "mel"))
    manifest = SimpleNamespace(**{**vars(single.manifest), "task": schema.MULTI_LABEL})
    several = SimpleNamespace(
        genres=GENRES, sources={"windows": manifest}, thresholds=[0.5] * len(GENRES)
    )
    with pytest.raises(schema.UserError, match="another all that it has"):
        Ensemble([single, several])


def test_a_long_file_is_the_mean_of_its_excerpts(models, tmp_path):
    path = tmp_path / "long.wav"
    # Three parts of 30 s that are nothing like each other.
    rng = np.random.default_rng(0)
    parts = [
        make_music(30.0, 22_050)[:, :1],
        0.1 * rng.standard_normal((30 * 22_050, 1)),
        make_sine(440, 30.0, 22_050),
    ]
    path.write_bytes(encode(np.concatenate(parts), 22_050, "WAV"))
    predictor = load_audio_predictor([str(models / "mel")])
    each = [
        predictor.predict_clips([Part(*fit_clip(downmix(part), 22_050), 0.0, 90.0)])
        for part in np.float32(parts)
    ]
    found = predictor.predict(str(path))
    assert found.excerpts == 3
    expected = dict(zip(GENRES, np.mean(each, axis=0), strict=True))
    assert found.genres == pytest.approx(expected, abs=2e-3)
    # One excerpt: the middle, as in training.
    predictor.excerpts = 1
    found = predictor.predict(str(path))
    assert found.excerpts == 1
    expected = dict(zip(GENRES, each[1], strict=True))
    assert found.genres == pytest.approx(expected, abs=2e-3)


def test_an_answer_for_a_file_that_training_would_reject(models, songs, tmp_path):
    data = bytearray(Path(songs["mp3"]).read_bytes())
    data[100_000] ^= 1
    (tmp_path / "a.mp3").write_bytes(data)
    with pytest.raises(AudioError, match="checksum"):
        represent_file(str(tmp_path / "a.mp3"), CONFIG, ["mel"])
    predictor = load_audio_predictor([str(models / "mel")])
    found = predictor.predict(str(tmp_path / "a.mp3")).genres
    expected = predictor.predict(songs["mp3"]).genres
    assert found == pytest.approx(expected, abs=0.02)


def test_a_folder_stands_for_the_audio_files_in_it(models, songs, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    shutil.copy(songs["flac"], tmp_path / "b" / "x.FLAC")
    shutil.copy(songs["wav"], tmp_path / "z.wav")
    (tmp_path / "cover.jpg").write_bytes(b"no music")
    code, out, err = run(capsys, models / "mel", str(tmp_path), "--json")
    assert (code, err) == (0, [])
    paths = [json.loads(line)["path"] for line in out]
    assert paths == [str(tmp_path / "b" / "x.FLAC"), str(tmp_path / "z.wav")]
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, models / "mel", str(tmp_path / "empty"))
    assert code == 2
    assert "holds no file with an extension" in err[0]


def test_json(models, songs, capsys):
    code, out, _ = run(capsys, models / "mel", songs["ogg"], "--json", "--top=9")
    assert code == 0
    (found,) = map(json.loads, out)
    assert found["path"] == songs["ogg"]
    assert set(found["genres"]) == set(GENRES)
    assert sum(found["genres"].values()) == pytest.approx(1, abs=1e-5)


def write_bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and what is said of each."""
    folder.mkdir()
    unreadable = os.fsdecode(os.fsencode(folder) + b"/caf\xe9\n.mp3")
    Path(unreadable).write_text("la la la\n" * 100)
    os.mkfifo(folder / "fifo.mp3")
    (folder / "device.mp3").symlink_to("/dev/zero")
    (folder / "loop.mp3").symlink_to(folder / "loop.mp3")
    return {
        unreadable: "",
        str(folder / "fifo.mp3"): "is a FIFO, not a file",
        str(folder / "device.mp3"): "is a character device, not a file",
        str(folder / "loop.mp3"): "Too many levels of symbolic links",
        str(folder / "missing.mp3"): "No such file or directory",
    }


def test_a_bad_file_does_not_keep_the_others_back(models, songs, tmp_path, capsys):
    bad = write_bad_files(tmp_path / "bad")
    files = [songs["mp3"], *bad, songs["wav"]]
    code, out, err = run(capsys, models / "mel", *files)
    assert code == 1
    assert err.pop().startswith("Next: ./launch.sh app --model ")
    assert [line.split()[0] for line in out] == ["file", songs["mp3"], songs["wav"]]
    assert [line.partition(": ")[0] for line in err] == list(map(one_line, bad))
    for line, message in zip(err, bad.values(), strict=True):
        assert line.endswith(message)
    assert all("\xe9" not in line and line.isprintable() for line in err)


def test_each_file_is_one_json_object(models, songs, tmp_path, capsys):
    bad = write_bad_files(tmp_path / "bad")
    named = tmp_path / "a\nb\x1b[31m.wav"
    named.symlink_to(songs["wav"])
    code, out, err = run(
        capsys, models / "mel", "--json", str(tmp_path / "bad"), str(named)
    )
    assert (code, err) == (1, [])
    objects = [json.loads(line) for line in out]
    assert {o["path"] for o in objects[:-1]} == set(bad) - {
        str(tmp_path / "bad/missing.mp3")
    }
    assert all(set(o) == {"path", "error"} and o["error"] for o in objects[:-1])
    assert objects[-1]["path"] == str(named)
    assert set(objects[-1]) == {"path", "excerpts", "genres"}


def test_a_folder_that_cannot_be_read_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "a.mp3").touch()

    scan = os.scandir

    def scan_or_refuse(path):
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scan_or_refuse)
    paths, problems = predict.find_files([str(tmp_path)])
    assert paths == [f"{tmp_path}/a.mp3", f"{tmp_path}/closed"]
    assert problems == {f"{tmp_path}/closed": "Permission denied"}


def test_a_crash_of_the_decoder_costs_one_file(models, songs, monkeypatch, capsys):
    crash = os.path.dirname(songs["mp3"]) + "/crash.txt"
    Path(crash).write_bytes(b"segmentation fault")
    monkeypatch.setattr(isolation, "HELPER", "tests.support.crashing_decoder")
    code, out, err = run(capsys, models / "mel", "--json", crash, songs["flac"])
    assert (code, err) == (1, [])
    first, second = map(json.loads, out)
    assert "died" in first["error"]
    assert "genres" in second


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
    refuse("--excerpts must be 1 or more. Received: -1", damaged, "--excerpts=-1")
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


def test_a_cross_validated_folder_names_its_models(models, songs, tmp_path, capsys):
    for fold in (0, 1, 10):
        shutil.copytree(models / "mel", tmp_path / f"fold-{fold}")
    (tmp_path / "report.json").write_text("{}")
    code, out, err = run(capsys, tmp_path, songs["wav"])
    assert (code, out, len(err)) == (2, [], 1)
    assert "each of fold-0 to fold-10" in err[0]
    command = err[0].partition("mean: ")[2].split()
    assert command[1::2] == [str(tmp_path / f"fold-{fold}") for fold in (0, 1, 10)]
    assert run(capsys, tmp_path / "fold-10", songs["wav"])[0] == 0


def test_linked_folders_are_followed_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("music/a.mp3", "music/cover.jpg", "store/B.WAV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("jazz", "twice"):
        (tmp_path / "music" / name).symlink_to("../store")
    (tmp_path / "store" / "back").symlink_to("../music")
    (tmp_path / "music" / "gone.mp3").symlink_to("nowhere.mp3")
    expected = ["music/a.mp3", "music/gone.mp3", "music/jazz/B.WAV"]
    assert predict.find_files(["music"])[0] == expected
    assert predict.find_files(["music/", "x.mp3"])[0] == [*expected, "x.mp3"]
    (tmp_path / "linked").symlink_to("music")
    assert predict.find_files(["linked"])[0][0] == "linked/a.mp3"

import io
import json
import os
import pickle
import shutil
import threading
import zipfile
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow.parquet
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.shared import Shared

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.inputs.join import AudioFile
from pipeline.launch.commands import main as launch
from pipeline.shards import replace
from tests.support.small_models import GENRES, write_models, write_tones
from trainer.predict import loading, network
from trainer.predict.label import complete, graph, songs
from trainer.predict.label.__main__ import main
from trainer.predict.label.config import LabelConfig, suggest_shards
from trainer.predict.label.handler import SharedPredictor
from trainer.predict.label.rows import make_rows, make_schema, to_jsonl, to_parquet
from trainer.predict.label.shards import LabelledShard, keep_or_make_shard
from trainer.predict.label.songs import SongLabels
from trainer.predict.loading import load_audio_predictor, load_predictors

SONGS = 9


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Tones, one of them long, a file that is no audio, and two that are broken."""
    folder = tmp_path_factory.mktemp("music")
    write_tones(folder, SONGS - 1)
    [long] = write_tones(folder / "long", 1, 95.0)
    assert long.exists()
    (folder / "broken.mp3").write_bytes(b"words " * 99)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "notes.txt").write_text("words")
    return folder


def label(music: Path, output: Path, *models: Path, options: tuple[str, ...] = ()):
    flags = [f"--audio={music}", f"--output={output}", *options]
    flags += [f"--model={model}" for model in models]
    return main([*flags, "--direct_running_mode=in_memory"])


def read_rows(output: Path) -> list[dict]:
    """Rows of all JSONL files, which are those of the Parquet files."""
    files = sorted(output.glob("labels/*.jsonl"))
    rows = [json.loads(line) for f in files for line in f.read_text().splitlines()]
    tables = [
        pyarrow.parquet.read_table(f.with_suffix(".parquet")).to_pylist() for f in files
    ]
    assert [row for table in tables for row in table] == rows
    return rows


def read_folder(output: Path) -> dict[str, bytes]:
    files = (path for path in output.rglob("*") if path.is_file())
    found = {str(path.relative_to(output)): path.read_bytes() for path in files}
    del found["report.json"]  # Tells of the run.
    return found


@pytest.fixture(scope="module")
def labelled(models, music, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("labelled") / "labels"
    options = ("--num_shards=4", "--top=2")
    assert (
        label(music, output, models / "windows", models / "mel", options=options) == 0
    )
    return output


def test_rows_are_what_predict_says(labelled, models, music):
    rows = read_rows(labelled)
    assert len(rows) == SONGS
    ensemble = load_audio_predictor([str(models / "windows"), str(models / "mel")])
    for row in rows:
        expected = ensemble.predict(row["path"])
        assert row["probabilities"] == pytest.approx(expected.genres, abs=1e-6)
        assert row["excerpts"] == expected.excerpts
        best = list(expected.genres)[:2]
        assert [entry["genre"] for entry in row["top"]] == best
        assert (row["genre"], row["probability"]) == tuple(row["top"][0].values())
    [long] = [row for row in rows if row["excerpts"] > 1]
    assert (long["excerpts"], long["seconds"]) == (3, 95.0)


def test_every_file_is_in_one_place(labelled, music):
    summary = json.loads((labelled / "labels.json").read_text())
    assert summary["inputs"] == {
        "files": SONGS + 3,
        "songs": SONGS,
        "rejects": 2,
        "not_audio": 1,
    }
    [rejects] = labelled.glob("rejects-*.jsonl")
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert {(Path(r["path"]).name, r["reason"]) for r in found} == {
        ("broken.mp3", "undecodable"),
        ("empty.wav", "empty"),
    }
    assert summary["rejects"] == {"empty": 1, "undecodable": 1}
    assert sum(summary["songs"].values()) == SONGS
    assert {row["model"] for row in read_rows(labelled)} == {summary["model"]}
    assert not (labelled / "_progress").exists()
    assert not (labelled / "_temporary").exists()


def test_a_completed_folder_is_kept_unless_told_otherwise(
    labelled, models, music, capsys
):
    before = read_folder(labelled)
    both = (models / "windows", models / "mel")
    assert label(music, labelled, *both) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert read_folder(labelled) == before


def test_labels_stay_until_those_that_replace_them_are_whole(
    labelled, models, music, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "labels"
    shutil.copytree(labelled, output)
    before = read_folder(output)
    options = ("--num_shards=2", "--top=1")

    def fail(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    for module, step in ((complete, "summarise"), (replace, "publish")):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, fail)
            changed = (*options, "--overwrite")
            assert label(music, output, models / "windows", options=changed) == 1
        left = read_folder(output)
        assert {name: left[name] for name in before} == before
    assert len(list(output.glob("_next/_progress/shard-*"))) == 2
    capsys.readouterr()
    assert label(music, output, models / "windows", options=changed) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 shards are there" in printed
    assert f"Labels: {output} (" in printed
    assert label(music, tmp_path / "new", models / "windows", options=options) == 0
    assert read_folder(output) == read_folder(tmp_path / "new")
    assert not list(tmp_path.glob(".*"))


def test_a_replacement_that_was_cut_off_is_ended_by_the_next_command(
    labelled, models, music, tmp_path, capsys
):
    output = tmp_path / "labels"
    shutil.copytree(labelled, output)
    shutil.copytree(labelled, output / "_next")
    (output / "COMPLETED").unlink()
    assert label(music, output, models / "windows") == 1
    assert "or has completed it" in capsys.readouterr().err
    assert read_folder(output) == read_folder(labelled)


def test_other_options_keep_nothing(models, music, tmp_path):
    config = make_config(tmp_path, models)
    files = [AudioFile(str(path), 1) for path in sorted(music.glob("*.wav"))[:2]]
    calls = 0

    def answer(files):
        nonlocal calls
        for file in files:
            calls += 1
            yield file, make_song()

    def make(config):
        return keep_or_make_shard(0, files, config, answer, lambda _: True)

    assert [make(config).kept, make(config).kept, calls] == [False, True, 2]
    changed = make_config(tmp_path, models, top=1)
    assert not make(changed).kept
    (tmp_path / "labels" / "00000-of-00001.jsonl").write_bytes(b"cut off")
    assert not make(changed).kept


def make_config(output: Path, models: Path = Path("models"), **changes) -> LabelConfig:
    values = {
        "audio": ("music",),
        "output": str(output),
        "models": (str(models / "windows"),),
        "fingerprint": "a" * 64,
        "genres": GENRES,
        "excerpts": 10,
        "top": 2,
    }
    return LabelConfig(**values | changes)


def make_song() -> SongLabels:
    return SongLabels(
        probabilities=np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.2, 0.1]]),
        starts=(0.0, 30.0),
        seconds=60.0,
        embeddings=np.array([[1, 2], [3, 4]], np.float32),
    )


def test_rows_of_a_song():
    [row] = make_rows("a.mp3", make_song(), make_config(Path("out"), embeddings=True))
    assert (row["path"], row["genre"]) == ("a.mp3", "Folk")
    assert row["probability"] == pytest.approx(0.3)
    assert [entry["genre"] for entry in row["top"]] == ["Folk", "Pop"]
    assert row["embedding"] == [2, 3]
    config = make_config(Path("out"), by_excerpt=True)
    first, second = make_rows("a.mp3", make_song(), config)
    assert (first["excerpt"], first["start"], first["genre"]) == (0, 0.0, "Rock")
    assert (second["excerpt"], second["start"], second["genre"]) == (1, 30.0, "Folk")
    data = to_parquet([first, second], make_schema(config))
    assert pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist() == [first, second]
    assert [json.loads(line) for line in to_jsonl([first]).splitlines()] == [first]


def test_the_summary_counts_every_genre_that_a_song_is_given(tmp_path):
    # Means of 0.3, 0.2, 0.25 and 0.25; the last excerpt's best is the first.
    song = make_song()
    [folk, _, pop, _] = GENRES
    for changes, expected in (
        ({}, {folk: 1}),
        ({"thresholds": (0.3, 0.3, 0.2, 0.9), "paths": GENRES}, {folk: 1, pop: 1}),
        ({"thresholds": (0.9,) * 4, "paths": GENRES}, {}),
    ):
        config = make_config(tmp_path, by_excerpt=True, **changes)
        shard = keep_or_make_shard(
            0,
            [AudioFile("a.mp3", 1)],
            config,
            lambda files: ((file, song) for file in files),
            lambda _: True,
        )
        assert LabelledShard.from_json(shard.to_json()) == shard
        summary = complete.summarise(config, [shard])
        assert summary["songs"] == dict.fromkeys(GENRES, 0) | expected
        assert summary.get("songs_without_genre") == (
            None if not changes else int(not expected)
        )


def test_shards_grow_with_the_catalogue():
    counts = (1, 15, 16, 64, 256, 257, 1000, 10**6)
    expected = [1, 1, 2, 8, 8, 9, 32, 1024]
    assert [suggest_shards(count) for count in counts] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top=0",), "--top must be 1 or more. Received: 0"),
        (("--num_shards=0",), "--num_shards must be 1 or more"),
        (("--excerpts=0",), "--excerpts must be 1 or more"),
        (("--by_exerpt",), "did you mean --by_excerpt?"),
        (("--runner=DaskRunner",), "--runner DaskRunner is refused"),
    ],
)
def test_wrong_flags_are_one_sentence(
    models, music, tmp_path, capsys, options, message
):
    assert label(music, tmp_path / "out", models / "mel", options=options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_outputs_among_the_inputs_are_refused(models, music, tmp_path, capsys):
    assert label(music, music, models / "mel") == 2
    assert label(music, music / "labels", models / "mel") == 2
    assert "would match" in capsys.readouterr().err
    (tmp_path / "own.txt").write_text("mine")
    assert label(music, tmp_path, models / "mel") == 2
    assert "own.txt" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own.txt"]


def test_embeddings_take_one_model(models, music, tmp_path, capsys):
    both = (models / "windows", models / "mel")
    assert label(music, tmp_path / "out", *both, options=("--embeddings",)) == 2
    assert "--embeddings takes one --model" in capsys.readouterr().err


def test_a_network_is_frozen_when_it_is_asked(models, monkeypatch):
    """Whether a model has embeddings is looked at before a job, too."""
    frozen = []

    def freeze(model):
        frozen.append(model.name)
        return genuine(model)

    genuine = network.freeze
    monkeypatch.setattr(network, "freeze", freeze)
    predictor = load_predictors([str(models / "windows")])
    embedder = network.Embedder(predictor)
    assert frozen == []
    value = predictor.manifest.representations["windows"].value
    records = {"windows": np.zeros((2, 1, *value.shape), value.dtype)}
    for _ in range(2):
        assert embedder.embed(records).shape == (2, embedder.width)
    assert frozen == ["penultimate"]


def test_nothing_that_can_be_used_is_no_success(models, tmp_path, capsys):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"")
    assert label(tmp_path / "music", tmp_path / "out", models / "mel") == 1
    assert "No file could be used (1 empty)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "COMPLETED").exists()


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_a_failure_is_one_sentence_with_any_workers(models, tmp_path, capfd, mode):
    """Beam's workers would print what a step raises, twice, with its traceback."""
    (tmp_path / "a.wav").write_bytes(b"")
    flags = [f"--audio={tmp_path}/a.wav", f"--output={tmp_path}/out"]
    flags += [f"--direct_running_mode={mode}", "--direct_num_workers=2"]
    assert main([*flags, f"--model={models}/windows"]) == 1
    err = capfd.readouterr().err
    assert err.endswith(
        "error: No file could be used (1 empty); see "
        f"{tmp_path}/out/rejects-00000-of-00001.jsonl.\n"
    )
    assert "Traceback" not in err


def make_shard(**changes) -> LabelledShard:
    values = {
        "shard": 0,
        "fingerprint": "",
        "files": {},
        "songs": (("a.mp3", ("Folk",)),),
        "rejects": (),
        "not_audio": ("c.txt",),
        "seconds": 1.0,
    }
    return LabelledShard(**values | changes)


@pytest.mark.parametrize(
    ("songs", "expected"),
    [
        ((("a.mp3", ("Folk",)),), []),
        ((), ["a.mp3: 1 in the inputs, 0 in the results"]),
        (
            (("a.mp3", ("Folk",)), ("a.mp3", ("Folk",)), ("b.mp3", ("Folk",))),
            [
                "a.mp3: 1 in the inputs, 2 in the results",
                "b.mp3: 0 in the inputs, 1 in the results",
            ],
        ),
    ],
)
def test_accounting_sees_what_is_lost_or_doubled(songs, expected):
    files = [AudioFile("a.mp3", 1), AudioFile("c.txt", 1)]
    with TestPipeline(runner="FnApiRunner") as pipeline:
        listed = pipeline | "Files" >> beam.Create(files)
        shards = pipeline | "Shards" >> beam.Create([make_shard(songs=songs)])
        assert_that((listed, shards) | graph.Account(), equal_to(expected))


def test_results_of_shards_are_kept_as_json():
    shard = make_shard()
    assert LabelledShard.from_json(shard.to_json()) == shard
    with pytest.raises(ValueError, match="Expected a shard's result"):
        LabelledShard.from_json("{}")


def test_files_that_cannot_be_opened_are_rejects(tmp_path):
    for file, reason in (
        (AudioFile(str(tmp_path / "none.wav"), 1), Reason.UNREADABLE),
        (AudioFile(str(tmp_path), 1), Reason.NOT_A_FILE),
        (AudioFile("a.wav", 1, 0.0, "dangling link"), Reason.UNREADABLE),
    ):
        with pytest.raises(AudioError) as caught:
            songs.open_song(file)
        assert caught.value.reason == reason


def test_the_command_is_known(capsys, monkeypatch):
    for command, expected in (
        (["label"], "./launch.sh label"),
        (["dataflow", "--label"], "./launch.sh dataflow --label"),
    ):
        with pytest.raises(SystemExit):
            launch(["launch", *command, "--help"])
        assert expected in capsys.readouterr().out


def test_the_next_file_is_decoded_while_one_is_asked_about(models, music, monkeypatch):
    predictor = load_predictors([str(models / "windows")])
    files = [AudioFile(str(path), 1) for path in sorted(music.glob("0*.wav"))]
    begun = threading.Semaphore(0)
    original = songs.SongLabeller._decode

    def decode(labeller, file, opened):
        begun.release()
        return original(labeller, file, opened)

    monkeypatch.setattr(songs.SongLabeller, "_decode", decode)
    monkeypatch.setattr(songs, "BATCH_CLIPS", 1)
    with IsolatedDecoder() as decoder:
        labeller = songs.SongLabeller(predictor, decoder, excerpts=10)
        answers = labeller.label(files)
        found = [next(answers)]
        # Of the second one nobody has asked.
        assert begun.acquire(timeout=240)
        assert begun.acquire(timeout=240)
        found += answers
    assert [file for file, _ in found] == files
    assert all(isinstance(result, SongLabels) for _, result in found)


def test_a_network_gets_few_records_at_once(models, monkeypatch):
    whole = load_predictors([str(models / "mel")])
    rng = np.random.default_rng(0)
    records = {"mel": rng.integers(0, 256, (5, 5, 224, 224, 3), np.uint8)}
    expected = whole.predict(records)
    sizes = []
    monkeypatch.setattr(network, "RECORDS_AT_ONCE", 4)
    asked = whole._compiled
    monkeypatch.setitem(
        vars(whole), "_compiled", lambda x: sizes.append(len(x)) or asked(x)
    )
    assert whole.predict(records) == pytest.approx(expected, abs=1e-7)
    assert sizes == [4, 4, 4, 4, 4, 4, 1]


def test_a_process_loads_the_models_once(models, monkeypatch):
    loads = []

    def load(folders):
        loads.append(folders)
        return load_predictors(folders)

    monkeypatch.setattr(loading, "load_predictors", load)
    shared = SharedPredictor([str(models / "windows")])
    predictor = shared.load()
    # Beam takes it apart for every worker, also for threads.
    assert pickle.loads(pickle.dumps(shared)).load() is predictor
    # Beam itself forgets what it shared before the latest.
    Shared().acquire(threading.Event)
    assert pickle.loads(pickle.dumps(shared)).load() is predictor
    assert loads == [(str(models / "windows"),)]
    # Another process does not get them along.
    assert len(pickle.dumps(shared)) < 1000


def test_several_patterns_are_taken_as_one(models, music, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    with zipfile.ZipFile(more / "a.zip", "w") as archive:
        archive.write(music / "000.wav", "in/a.wav")
    shutil.copy(music / "001.wav", tmp_path / "b.wav")
    patterns = [str(music / "00[23].wav"), str(more / "*.zip"), f"{music}/00[3]*"]
    flags = [f"--model={models / 'windows'}", f"--output={tmp_path / 'labels'}"]
    mode = "--direct_running_mode=in_memory"
    audio = ["--audio", *patterns, "--audio", str(tmp_path / "b.wav")]
    assert main([*flags, mode, *audio]) == 0
    found = {row["path"] for row in read_rows(tmp_path / "labels")}
    zipped = f"{more}/a.zip!/in/a.wav"
    here = {str(music / "002.wav"), str(music / "003.wav"), str(tmp_path / "b.wav")}
    assert found == {zipped, *here}
    summary = json.loads((tmp_path / "labels" / "labels.json").read_text())
    assert summary["options"]["audio"] == [*patterns, str(tmp_path / "b.wav")]


def test_no_pattern_may_match_what_is_written(models, music, tmp_path, capsys):
    flags = [f"--model={models / 'windows'}", f"--output={tmp_path / 'labels'}"]
    shutil.copy(music / "000.wav", tmp_path / "a.wav")
    assert main([*flags, "--audio", str(music), str(tmp_path)]) == 2
    assert "would match" in capsys.readouterr().err

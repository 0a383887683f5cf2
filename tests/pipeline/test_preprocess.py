import errno
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.common import storage
from pipeline.inspect import __main__ as inspect
from pipeline.launch import messages
from pipeline.schema import Manifest
from pipeline.shards.runs import SupersededError
from pipeline.shards.tfrecord import read_records
from tests.support.corpora import write_csv, write_plain_corpus, write_tone


def run(*arguments: object) -> int:
    return preprocess.main([str(argument) for argument in arguments])


def read_manifest(folder) -> Manifest:
    return Manifest.from_json((folder / "manifest.json").read_text(), source="test")


def read_dataset(folder) -> dict[str, bytes]:
    """All files but the report, which has times in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    del found["report.json"]
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset of six tones, made once with everything there is."""
    folder = tmp_path_factory.mktemp("corpus")
    glob, metadata = write_plain_corpus(folder)
    output = folder / "dataset"
    code = run(
        "--audio", glob, "--metadata", metadata, "--output", output, "--num_shards", 2,
    )  # fmt: skip
    assert code == 0
    return folder


def test_makes_a_complete_dataset(dataset):
    manifest = read_manifest(dataset / "dataset")
    assert manifest.genres == ("High", "Low")
    assert sum(map(sum, (c.values() for c in manifest.clips.values()))) == 6
    assert manifest.records["windows"] == {"training": 32, "validation": 8, "test": 8}
    assert manifest.records["mel"] == {"training": 20, "validation": 5, "test": 5}
    assert manifest.records["statistics"] == {"training": 4, "validation": 1, "test": 1}
    assert manifest.artists_in_several_splits == ()
    assert len(manifest.normalisation["features"].mean) == 37
    assert np.isfinite(manifest.normalisation["features"].variance).all()
    for name, schema in manifest.representations.items():
        for split, count in manifest.records[name].items():
            files = manifest.shard_files(name, split)
            found = sum(
                len(list(read_records((dataset / "dataset" / file).open("rb"))))
                for file in files
            )
            assert found == count, (schema.name, split)
    marker = (dataset / "dataset" / "COMPLETED").read_text().splitlines()[0]
    assert marker == manifest.fingerprint
    assert not (dataset / "dataset" / "_temporary").exists()
    assert (dataset / "dataset" / "transform_fn" / "saved_model.pb").exists()


def test_workers_write_the_same_bytes(dataset, capfd):
    """And so does another order of the metadata's rows."""
    header, *rows = (dataset / "tracks.csv").read_text().splitlines(keepends=True)
    (dataset / "reversed.csv").write_text(header + "".join(reversed(rows)))
    code = run(
        "--audio", f"{dataset}/audio/*.wav", "--metadata", dataset / "reversed.csv",
        "--output", dataset / "workers", "--num_shards", 2, "--quiet",
        "--direct_running_mode=multi_processing", "--direct_num_workers=2",
    )  # fmt: skip
    assert code == 0
    first = read_dataset(dataset / "dataset")
    assert len([name for name in first if name.endswith(".tfrecord")]) == 24
    assert "transform_fn/saved_model.pb" in first
    assert read_dataset(dataset / "workers") == first
    captured = capfd.readouterr()
    assert re.fullmatch(r"Dataset: \S+/workers, \S+ MB \(.*\)\n", captured.out)
    assert captured.err == ""


def test_refuses_a_completed_output(dataset, capsys):
    arguments = (
        "--audio", f"{dataset}/audio/*.wav", "--metadata", dataset / "tracks.csv",
        "--output", dataset / "dataset",
    )  # fmt: skip
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --output already holds a completed dataset")
    assert str(dataset / "dataset") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--audio", "/nowhere/*.mp3"], "--audio matches no file"),
        (["--num_shards", "0"], "--num_shards must be 1 or more. Received: 0"),
        (["--windows_per_clip", "0"], "--windows_per_clip must be 1 or more"),
        (["--min_duration", "-1"], "--min_duration must be over 0"),
        (["--max_reject_ratio", "2"], "--max_reject_ratio must lie between"),
        (["--genres", "Polka"], "unknown genre 'Polka'"),
        (["--subset", "small"], "a plain CSV has no subsets"),
        (["--split", "hash", "--split_percent", "80,20"], "takes three numbers"),
        (["--split", "hash", "--split_percent", "80,20,10"], "sum to 100"),
        (["--label", "all"], "did you mean --labels? Received: --label all"),
        (["--colour", "red"], "unknown option; see --help. Received: --colour red"),
    ],
)
def test_bad_flags_are_one_sentence(dataset, capsys, extra, message):
    code = run(
        "--audio", f"{dataset}/audio/*.wav", "--metadata", dataset / "tracks.csv",
        "--output", dataset / "never", *extra,
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (dataset / "never").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "is neither FMA's tracks.csv"),
        ("", "Its first row is: nothing"),
        (
            "path,genre,split\na.wav,Rock,dev\n",
            "line 2: unknown split. Received: 'dev'",
        ),
        ("path,genre\na.wav\n", "line 2: expected 2 columns"),
    ],
)
def test_bad_metadata_is_one_sentence(dataset, tmp_path, capsys, text, message):
    (tmp_path / "bad.csv").write_text(text)
    code = run(
        "--audio", f"{dataset}/audio/*.wav", "--metadata", tmp_path / "bad.csv",
        "--output", tmp_path / "never",
    )  # fmt: skip
    assert code == 2
    assert message in capsys.readouterr().err


def test_too_many_rejects_fail_the_job(tmp_path, capfd):
    write_tone(tmp_path / "good.wav", 440)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("not audio")
    names = ["good.wav", "a.wav", "b.wav"]
    write_csv(tmp_path / "t.csv", [{"path": n, "genre": "Low"} for n in names])
    arguments = (
        "--audio", f"{tmp_path}/*.wav", "--metadata", tmp_path / "t.csv",
        "--output", tmp_path / "out", "--split", "hash", "--split_percent", "100,0,0",
        "--representations", "mel", "--quiet",
    )  # fmt: skip
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=1"]
    assert run(*arguments, *workers) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1, error
    assert "2 of 3 audio files could not be used (2 undecodable)" in error
    assert "Traceback" not in error
    assert "while running" not in error
    assert not (tmp_path / "out" / "COMPLETED").exists()
    lines = (tmp_path / "out" / "rejects-00000-of-00001.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["undecodable"] * 2
    # The way out that the message names works, in the same folder.
    assert run(*arguments, "--max_reject_ratio", "0.9") == 0
    assert (tmp_path / "out" / "COMPLETED").exists()


def test_leaks_are_taken_out_or_kept(tmp_path, capsys):
    tones = [write_tone(tmp_path / "a" / f"{i}.wav", 300 + i) for i in range(4)]
    tones[1].write_bytes(tones[0].read_bytes())
    rows = [
        {"path": f"{i}.wav", "genre": "Low", "artist_id": artist, "split": split}
        for i, (artist, split) in enumerate(
            [("a", "test"), ("b", "training"), ("a", "training"), ("c", "training")]
        )
    ]
    write_csv(tmp_path / "t.csv", rows)
    arguments = (
        "--audio", f"{tmp_path}/a/*.wav", "--metadata", tmp_path / "t.csv",
        "--representations", "mel", "--output", tmp_path / "out",
    )  # fmt: skip
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert "1 artists are in several splits; their clips stay in one of them" in out
    assert "4 tracks and 4 files are 2 clips, 2 rejects, 0 unwanted files" in out
    assert "No artist (of 2) and no recording (of 2) is in two splits." in out
    manifest = read_manifest(tmp_path / "out")
    assert manifest.rejects == {"artist_leak": 1, "duplicate_audio": 1}
    assert manifest.records["mel"] == {"training": 5, "validation": 0, "test": 5}
    assert manifest.integrity["artists_in_several_splits"] == 0
    assert manifest.integrity["audio_in_several_splits"] == 0
    assert run(*arguments, "--overwrite", "--leaks", "keep") == 0
    out = capsys.readouterr().out
    assert "stay there, which makes scores too high" in out
    assert "Splits share artists (a): scores will be too high." in out
    assert "Splits share recordings (0 (test), 1 (training))" in out
    manifest = read_manifest(tmp_path / "out")
    assert manifest.rejects == {}
    assert manifest.artists_in_several_splits == ("a",)
    assert manifest.audio_in_several_splits == ("0 (test), 1 (training)",)
    assert inspect.main([str(tmp_path / "out"), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "Nothing is wrong but the leaks above, kept on purpose." in out


def test_a_full_disk_is_one_sentence(dataset, tmp_path, capsys, monkeypatch):
    """At any time: nothing looks finished, and the next run goes on."""
    arguments = (
        "--audio", f"{dataset}/audio/*.wav", "--metadata", dataset / "tracks.csv",
        "--output", tmp_path / "out", "--num_shards", 2, "--representations", "mel",
        "--mel_images_per_clip", 1,
    )  # fmt: skip
    original = storage.create
    monkeypatch.setattr(storage, "create", lambda path: FullDisk(original(path)))
    for room in (10, 200_000, 640_000):
        FullDisk.left = room
        assert run(*arguments, "--quiet") == 1
        error = capsys.readouterr().err
        assert "cannot be written: No space left on device." in error
        assert "finished shards are kept" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out" / "COMPLETED").exists()
        assert not (tmp_path / "out" / "manifest.json").exists()
    FullDisk.left = 10**9
    assert run(*arguments) == 0
    assert "kept from an earlier run" in capsys.readouterr().out


class FullDisk:
    """A file on a disk with little room left; all such files share it."""

    left = 0

    def __init__(self, file) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        if len(data) > FullDisk.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        FullDisk.left -= len(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_an_interruption_says_how_to_go_on(dataset, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.launch.plan.run_job", interrupt)
    code = run(
        "--audio", f"{dataset}/audio/*.wav", "--metadata", dataset / "tracks.csv",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert code == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_help_names_every_flag():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    for flag in ("--audio", "--metadata", "--subset", "--split", "--wav_output"):
        assert flag in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stderr == ""


def test_explains_what_people_can_change():
    explain = messages.explain_failure
    assert explain(ValueError("x")) is None
    assert (
        explain(SupersededError("Another job. [while running 'X']")) == "Another job."
    )
    quoted = RuntimeError(
        "T\npipeline.common.storage.WriteError: a cannot be written: full."
    )
    message = "a cannot be written: full. Then run the same command again to go on; "
    assert explain(quoted) == message + "finished shards are kept."
    # TensorFlow's own writes.
    other = RuntimeError("ResourceExhaustedError: /a/b; No space left on device")
    assert explain(other).startswith("No space left on device. Make room, then run")

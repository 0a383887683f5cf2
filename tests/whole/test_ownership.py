"""No command destroys what is somebody's: every option that names an output.

A command of the project is added to `OUTPUTS`: its name, how it is called with a
place to write to, and what would be written there.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import preprocess, show
from pipeline.demo import __main__ as demo
from pipeline.inspect import __main__ as inspect
from tests.support.corpora import write_plain_corpus
from tests.support.jobs import read_dataset
from tests.support.small_models import write_models
from trainer.predict.label import __main__ as label

#: Names that we give, in folders of somebody else, and others.
SOMEBODYS = (
    "report.json",
    "report.html",
    "COMPLETED",
    "clips/song.mp3",
    "features/thesis.txt",
    "windows/training-00000-of-00016.tfrecord",
    "transform_fn/saved_model.pb",
    "checkpoints/best.ckpt",
    "fma_metadata/tracks.csv",
    "model.keras",
    "0.wav",
    "picture.png",
    "clips.parquet",
    "_temporary/x",
    "_next/COMPLETED",
    "labels/song.txt",
    "notes.txt",
)

Command = Callable[[Path, Path], int]


def run_preprocess(corpus: Path, *flags: object) -> int:
    return preprocess.main(
        [
            f"--audio={corpus}/audio/*.wav",
            f"--metadata={corpus}/tracks.csv",
            "--num_shards=2",
            *map(str, flags),
            "--representations",
            "mel",
        ]
    )


def show_clip(corpus: Path, output: Path) -> int:
    return show.main([f"{corpus}/audio/0.wav", f"--output={output}"])


def run_label(corpus: Path, *flags: object) -> int:
    return label.main(
        [
            f"--audio={corpus}/audio/*.wav",
            f"--model={corpus}/models/windows",
            *map(str, flags),
        ]
    )


#: Name, call of (corpus, output), and what in the folder of somebody is the output:
#: "" for the folder itself.
OUTPUTS: list[tuple[str, Command, str]] = [
    ("preprocess", lambda c, out: run_preprocess(c, "--output", out), ""),
    (
        "preprocess, overwriting",
        lambda c, out: run_preprocess(c, "--output", out, "--overwrite"),
        "",
    ),
    (
        "WAVs",
        lambda c, out: run_preprocess(c, "--output", c / "x", "--wav_output", out),
        "",
    ),
    (
        "picture of a dataset",
        lambda c, out: inspect.main([f"{c}/dataset", f"--picture={out}"]),
        "picture.png",
    ),
    (
        "table of clips",
        lambda c, out: inspect.main([f"{c}/dataset", f"--parquet={out}"]),
        "clips.parquet",
    ),
    ("picture of a clip", show_clip, "picture.png"),
    ("picture over music", show_clip, "clips/song.mp3"),
    ("labels", lambda c, out: run_label(c, "--output", out), ""),
    (
        "labels, overwriting",
        lambda c, out: run_label(c, "--output", out, "--overwrite"),
        "",
    ),
    ("demo", lambda c, out: demo.main([f"--output={out}", "--workers=1"]), ""),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Audio, metadata, a dataset that was made of them, and models."""
    folder = tmp_path_factory.mktemp("corpus")
    write_models(folder / "models")
    write_plain_corpus(folder, clips=6)
    assert run_preprocess(folder, "--output", folder / "dataset") == 0
    return folder


def write_somebodys(folder: Path) -> None:
    for name in SOMEBODYS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check_refused(code: int, errors: str, *parts: str) -> None:
    """Exit code 2, and one sentence."""
    assert code == 2, errors
    [line] = [line for line in errors.splitlines() if line.strip()]
    assert "Traceback" not in line
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("command", "call", "name"), OUTPUTS, ids=[o[0] for o in OUTPUTS]
)
def test_a_folder_full_of_somebodys_files_stays_as_it_is(
    corpus, tmp_path, capsys, command, call, name
):
    write_somebodys(tmp_path)
    before = read_all(tmp_path)
    code = call(corpus, tmp_path / name)
    check_refused(code, capsys.readouterr().err, str(tmp_path))
    assert read_all(tmp_path) == before


@pytest.mark.parametrize("strange", SOMEBODYS)
def test_each_file_alone_is_enough(corpus, tmp_path, capsys, strange):
    (tmp_path / strange).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / strange).write_text("mine")
    for flags in ([], ["--overwrite"]):
        code = run_preprocess(corpus, "--output", tmp_path, *flags)
        check_refused(code, capsys.readouterr().err, strange)
    assert read_all(tmp_path) == {strange: b"mine"}


# Inputs


@pytest.mark.parametrize(
    "flags",
    [
        ["--output={c}"],
        ["--output={c}/audio"],
        ["--output={c}/x/../audio/"],
        ["--output={c}/link"],
        ["--output={c}/AUDIO"],
        ["--output={c}/x", "--wav_output={c}/audio"],
        ["--output={c}/x", "--wav_output={c}/link/../audio"],
        ["--output={c}/x", "--wav_output={c}/link"],
        ["--output={c}/x", "--wav_output={c}/Audio"],
        ["--output={c}/x", "--wav_output={c}/x/wavs"],
    ],
)
def test_an_output_that_holds_an_input_is_refused(tmp_path, capsys, flags):
    write_plain_corpus(tmp_path, clips=2)
    (tmp_path / "link").symlink_to(tmp_path / "audio")
    before = read_all(tmp_path)
    for more in ([], ["--overwrite"]):
        given = [flag.format(c=tmp_path) for flag in flags]
        code = run_preprocess(tmp_path, *given, *more)
        check_refused(code, capsys.readouterr().err, flags[-1].split("=")[0])
        assert read_all(tmp_path) == before


@pytest.mark.parametrize("glob", ["**", "*", "*/*", "**.wav"])
def test_output_that_would_be_read_as_input_is_refused(tmp_path, capsys, glob):
    write_plain_corpus(tmp_path / "c", clips=2)
    base = tmp_path / "c" / "audio"
    before = read_all(tmp_path)
    flags = [f"--output={base}/new"]
    if glob == "*":
        flags = [f"--output={tmp_path}/out", f"--wav_output={base}"]
    if glob == "**.wav":
        flags = [f"--output={tmp_path}/out", f"--wav_output={base}/wavs"]
    code = preprocess.main(
        [f"--audio={base}/{glob}", f"--metadata={tmp_path}/c/tracks.csv", *flags]
    )
    check_refused(code, capsys.readouterr().err)
    assert read_all(tmp_path) == before


def test_a_wav_whose_name_would_be_too_long_is_told_before_any_work(tmp_path, capsys):
    write_plain_corpus(tmp_path / "c", clips=2)
    audio = tmp_path / "c" / "audio"
    long = f"{'x' * 252}.au"  # No file system takes another letter.
    sorted(audio.iterdir())[0].rename(audio / long)
    (tmp_path / "c" / "tracks.csv").write_text(f"path,genre\n{long},Rock\n")
    before = read_all(tmp_path)
    code = preprocess.main(
        [
            *(f"--audio={audio}", f"--metadata={tmp_path}/c/tracks.csv"),
            *(f"--output={tmp_path}/out", f"--wav_output={tmp_path}/wavs"),
        ]
    )
    check_refused(code, capsys.readouterr().err, "--wav_output", long[:200])
    assert read_all(tmp_path) == before


def test_metadata_in_the_output_is_not_lost(tmp_path, capsys):
    write_plain_corpus(tmp_path / "c", clips=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "c" / "tracks.csv").rename(tmp_path / "out" / "tracks.csv")
    code = preprocess.main(
        [
            f"--audio={tmp_path}/c/audio/*.wav",
            f"--metadata={tmp_path}/out/tracks.csv",
            f"--output={tmp_path}/out",
        ]
    )
    check_refused(code, capsys.readouterr().err, "tracks.csv")


# The old is there until the new is complete


def test_replacing_keeps_the_old_dataset_until_the_end(corpus, monkeypatch, capsys):
    output = corpus / "dataset"
    before = read_all(output)
    mark = json.loads((output / "OWNER.json").read_text())
    assert mark == {"kind": "dataset", "owner": "fma-genre-classifiers"}
    for runner in (
        ["--runner=NoSuchRunner"],
        ["--direct_num_workers=-3"],
        ["--runner=PortableRunner"],
        ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:9"],
        ["--runner=FlinkRunner", "--flink_master=127.0.0.1:9"],
        ["--runner=DataflowRunner"],
        ["--runner=DaskRunner"],
    ):
        code = run_preprocess(corpus, "--output", output, "--overwrite", *runner)
        check_refused(code, capsys.readouterr().err, "--")
        assert read_all(output) == before

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.job.complete.check_files", fail)
        assert run_preprocess(corpus, "--output", output, "--overwrite") == 1
    now = read_all(output)
    assert {name: now[name] for name in before} == before
    # What is finished of the new one is kept; the result is that of a new folder.
    capsys.readouterr()
    assert run_preprocess(corpus, "--output", output, "--overwrite") == 0
    assert "2 shards kept" in capsys.readouterr().out
    assert run_preprocess(corpus, "--output", corpus / "fresh") == 0
    assert read_dataset(output) == read_dataset(corpus / "fresh")
    assert not list(corpus.glob(".*"))


def test_wavs_are_written_again_only_over_their_own(corpus, tmp_path, capsys):
    wavs = tmp_path / "wavs"
    flags = ["--output", tmp_path / "x", "--wav_output", wavs]
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "mine.txt").write_text("mine")
    assert run_preprocess(corpus, *flags) == 0
    before = read_all(wavs)
    assert run_preprocess(corpus, *flags, "--overwrite") == 0
    assert read_all(wavs) == before
    assert before["mine.txt"] == b"mine"


@pytest.mark.parametrize("name", ["x.mp3", "no/such/folder\n/x.png", "file/x.png"])
def test_pictures_that_cannot_be_written(corpus, tmp_path, capsys, name):
    (tmp_path / "file").write_text("mine")
    if name.startswith("no"):
        (tmp_path / "no").write_text("mine")
    code = inspect.main([f"{corpus}/dataset", f"--picture={tmp_path}/{name}"])
    check_refused(code, capsys.readouterr().err, "--picture")

import shutil

import pytest

from pipeline.common.clip_config import ClipConfig
from pipeline.launch.output import prepare_output
from pipeline.launch.versions import PACKAGE, find_versions, fingerprint_tools
from pipeline.schema import UserError
from pipeline.shards.result import DatasetConfig


def make_dataset(folder, **changes) -> DatasetConfig:
    values = {
        "output": str(folder),
        "representations": ("windows",),
        "clip": ClipConfig(),
        "genres": ("High",),
        "num_shards": 2,
        "run": "mine",
    }
    return DatasetConfig(**(values | changes))


def write_files(folder, names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def list_files(folder) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_prepare_output_protects_a_completed_dataset(tmp_path):
    (tmp_path / "COMPLETED").write_text("x")
    with pytest.raises(UserError, match=f"--overwrite.*Received: {tmp_path}"):
        prepare_output(make_dataset(tmp_path), overwrite=False)
    assert list_files(tmp_path) == {"COMPLETED"}


@pytest.mark.parametrize("flag", ["output", "wav_output"])
@pytest.mark.parametrize("name", ["a*", "a[1]", "a?"])
def test_wildcards_in_folders_are_refused(tmp_path, flag, name):
    dataset = make_dataset(tmp_path / "out", **{flag: str(tmp_path / name)})
    with pytest.raises(UserError, match=f"--{flag} must not contain"):
        prepare_output(dataset, overwrite=False)
    assert list_files(tmp_path) == set()


SHARD_0 = [f"windows/{s}-00000-of-00002.tfrecord" for s in ("training", "test")]
OTHERS = [
    "windows/training-00001-of-00002.tfrecord",
    "windows/training-00000-of-00003.tfrecord",
    "mel/training-00000-of-00002.tfrecord",
    "_progress/shard-00001-of-00003.json",
    "_progress/RUN",
    "_temporary/x",
    "transform_tmp/x/y",
    "clips/00000-of-00002.jsonl",
    "manifest.json",
    "_unfinished-COMPLETED",
    "report.json",
]


def test_prepare_output_keeps_finished_shards_only(tmp_path):
    finished = [*SHARD_0, "_progress/shard-00000-of-00002.json", "notes/mine.txt"]
    write_files(tmp_path, [*finished, *OTHERS])
    assert prepare_output(make_dataset(tmp_path), overwrite=False) == 1
    assert list_files(tmp_path) == {*finished, "_progress/RUN"}
    assert (tmp_path / "_progress" / "RUN").read_text() == "mine"


def test_overwriting_removes_only_its_own_remains(tmp_path):
    finished = [*SHARD_0, "_progress/shard-00000-of-00002.json", "COMPLETED"]
    write_files(tmp_path, [*finished, *OTHERS, "notes/mine.txt"])
    assert prepare_output(make_dataset(tmp_path), overwrite=True) == 0
    assert list_files(tmp_path) == {"notes/mine.txt", "_progress/RUN"}
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"notes", "_progress", "_temporary", "clips", "windows"}


def test_tools_are_versions_and_code():
    versions = find_versions()
    assert fingerprint_tools(versions) == fingerprint_tools(dict(versions))
    assert fingerprint_tools(versions) != fingerprint_tools({**versions, "numpy": "0"})


def test_a_change_in_any_folder_of_the_package_changes_the_tools(tmp_path):
    package = shutil.copytree(PACKAGE, tmp_path / "pipeline")
    digests = {fingerprint_tools({}, package)}
    assert digests == {fingerprint_tools({})}
    files = sorted(package.rglob("__init__.py"))
    assert package / "decoding" / "__init__.py" in files
    for count, file in enumerate(files, start=2):
        file.write_text(file.read_text() + "# changed\n")
        digests.add(fingerprint_tools({}, package))
        assert len(digests) == count, file


def test_versions_name_the_decoder():
    versions = find_versions()
    assert versions["libsndfile"].count(".") == 2
    assert {"numpy", "librosa", "soxr", "pydub"} <= set(versions)

import dataclasses
import shutil

import pytest

from pipeline.common import ownership
from pipeline.common.clip_config import ClipConfig
from pipeline.common.files import LocalFiles
from pipeline.common.owned_kinds import DATASET, MARK_FILE
from pipeline.launch.output import check_output, prepare_output
from pipeline.launch.versions import PACKAGE, find_versions, fingerprint_tools
from pipeline.schema import UserError
from pipeline.shards.result import DatasetConfig
from pipeline.shards.runs import SupersededError


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


def write_dataset(folder, names=("COMPLETED",)) -> None:
    """Files with which a folder passes for a dataset of ours."""
    ownership.claim(LocalFiles(), str(folder), DATASET)
    write_files(folder, names)


def test_a_completed_dataset_is_replaced_only_if_asked(tmp_path):
    write_dataset(tmp_path)
    with pytest.raises(UserError, match=f"--overwrite.*Received: {tmp_path}"):
        check_output(str(tmp_path), overwrite=False)
    check_output(str(tmp_path), overwrite=True)
    with pytest.raises(SupersededError, match="or has completed it"):
        prepare_output(make_dataset(tmp_path), overwrite=False)
    assert list_files(tmp_path) == {"COMPLETED", MARK_FILE}


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


def test_what_a_run_has_laid_into_its_own_folder_stays(tmp_path):
    dataset = dataclasses.replace(make_dataset(tmp_path), run="this")
    prepare_output(dataset, overwrite=False)
    for run in ("this", "another"):
        folder = tmp_path / "_temporary" / run / "look"
        folder.mkdir(parents=True)
        (folder / "here").touch()
    prepare_output(dataset, overwrite=True)
    assert (tmp_path / "_temporary" / "this" / "look" / "here").exists()
    assert not (tmp_path / "_temporary" / "another").exists()


def test_prepare_output_keeps_finished_shards_only(tmp_path):
    finished = [*SHARD_0, "_progress/shard-00000-of-00002.json"]
    write_dataset(tmp_path, [*finished, *OTHERS])
    dataset = make_dataset(tmp_path)
    assert prepare_output(dataset, overwrite=False) == (dataset, 1)
    assert list_files(tmp_path) == {*finished, "_progress/RUN", MARK_FILE}
    assert (tmp_path / "_progress" / "RUN").read_text() == "mine"
    assert prepare_output(dataset, overwrite=True) == (dataset, 0)
    assert list_files(tmp_path) == {"_progress/RUN", MARK_FILE}
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"_progress", "_temporary", "clips", "windows"}


def test_overwriting_begins_beside_the_old_dataset(tmp_path):
    old = [*SHARD_0, "manifest.json", "COMPLETED"]
    write_dataset(tmp_path, old)
    dataset, kept = prepare_output(make_dataset(tmp_path), overwrite=True)
    assert (dataset.output, dataset.replaces, kept) == (
        f"{tmp_path}/_next",
        str(tmp_path),
        0,
    )
    new = {f"_next/{name}" for name in (MARK_FILE, "_progress/RUN")}
    assert list_files(tmp_path) == {*old, MARK_FILE, *new}
    # An interrupted replacement goes on where it was.
    write_files(tmp_path / "_next", ["_progress/shard-00000-of-00002.json", *SHARD_0])
    _, kept = prepare_output(make_dataset(tmp_path), overwrite=True)
    assert kept == 1
    assert (tmp_path / "_next" / SHARD_0[0]).exists()


@pytest.mark.parametrize(
    "names",
    [
        ["clips/a.mp3"],
        ["features/thesis.txt", "report.json"],
        ["COMPLETED"],
        ["manifest.json", "windows/training-00000-of-00002.tfrecord"],
        ["_temporary/x"],
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_somebodys_folder_is_refused_untouched(tmp_path, names, overwrite):
    write_files(tmp_path, names)
    for action in (
        lambda: check_output(str(tmp_path), overwrite=overwrite),
        lambda: prepare_output(make_dataset(tmp_path), overwrite=overwrite),
    ):
        with pytest.raises(UserError, match=f"^--output holds .*Received: {tmp_path}"):
            action()
        assert list_files(tmp_path) == set(names)


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

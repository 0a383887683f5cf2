import pytest

from pipeline.metadata import MetadataConfig, glob_base
from pipeline.preflight import (
    find_versions,
    inspect_inputs,
    make_folders,
    prepare_output,
)
from pipeline.schema import UserError
from tests.corpora import write_csv, write_plain_corpus


def inspect(glob, metadata, **changes):
    config = MetadataConfig(path=str(metadata), audio_base=glob_base(glob), **changes)
    return inspect_inputs(glob, config)


def test_counts_what_a_job_will_process(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=4)
    (tmp_path / "audio" / "3.wav").unlink()
    (tmp_path / "audio" / "stray.wav").write_bytes(b"")
    inputs = inspect(glob, metadata)
    assert inputs.genres == ("High", "Low")
    assert inputs.tracks == 4
    assert inputs.files == 4
    assert [clip.path[-5:] for clip in inputs.clips] == ["0.wav", "1.wav", "2.wav"]
    assert inputs.layout.kind == "plain"


def test_genres_select_and_order(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=4)
    assert inspect(glob, metadata, genres=("Low", "High")).genres == ("Low", "High")
    only = inspect(glob, metadata, genres=("Low",))
    assert only.tracks == len(only.clips) == 2


def test_refuses_a_glob_without_files(tmp_path):
    _, metadata = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match=r"matches no file.*Received: .*\*\.ogg"):
        inspect(f"{tmp_path}/*.ogg", metadata)


def test_refuses_an_unknown_file_system(tmp_path):
    _, metadata = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match=r"--audio cannot be matched.*nowhere://x"):
        inspect("nowhere://x/*.mp3", metadata)


def test_refuses_missing_and_binary_metadata(tmp_path):
    glob, _ = write_plain_corpus(tmp_path, clips=1)
    with pytest.raises(UserError, match="--metadata cannot be read"):
        inspect(glob, tmp_path / "no.csv")
    with pytest.raises(UserError, match="must be UTF-8"):
        inspect(glob, next((tmp_path / "audio").iterdir()))


def test_refuses_genres_nobody_has(tmp_path):
    glob, metadata = write_plain_corpus(tmp_path, clips=2)
    with pytest.raises(UserError, match="unknown genre 'Polka'"):
        inspect(glob, metadata, genres=("Low", "Polka"))
    write_csv(metadata, [{"path": "0.wav", "genre": ""}])
    with pytest.raises(UserError, match="no track with a genre"):
        inspect(glob, metadata)


def test_prepare_output_protects_a_completed_dataset(tmp_path):
    (tmp_path / "COMPLETED").write_text("x")
    with pytest.raises(UserError, match=f"--overwrite.*Received: {tmp_path}"):
        prepare_output(str(tmp_path), overwrite=False)
    assert (tmp_path / "COMPLETED").exists()


def test_prepare_output_removes_only_its_own_remains(tmp_path):
    for name in ("windows/training-0.tfrecord", "_temporary/x", "notes/mine.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "COMPLETED").write_text("x")
    (tmp_path / "manifest.json").write_text("x")
    prepare_output(str(tmp_path), overwrite=True)
    make_folders(str(tmp_path), ("windows",))
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert left == ["_temporary", "notes", "notes/mine.txt", "windows"]


def test_versions_name_the_decoder():
    versions = find_versions()
    assert versions["libsndfile"].count(".") == 2
    assert {"numpy", "librosa", "soxr", "pydub"} <= set(versions)

import dataclasses
import os

import pytest

from pipeline.common.progress import Reporter
from pipeline.schema import UserError
from tests.support import trainer_fixtures
from trainer.data import checksums
from trainer.data.dataset import open_dataset


@pytest.fixture
def folder(tmp_path):
    trainer_fixtures.write_dataset(tmp_path, representations=("statistics", "mel"))
    return tmp_path


def test_whole_files_pass(folder, capsys, monkeypatch):
    monkeypatch.setattr(checksums, "PIECE", 1000)
    reporter = Reporter(verbose=True)
    checksums.check_files(open_dataset(str(folder)), "statistics", reporter=reporter)
    size = sum(path.stat().st_size for path in (folder / "statistics").iterdir())
    said = f"6 files of statistics, {size / 1e6:.1f} MB, are whole"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("position", [0, 11, 500, -1])
def test_any_flipped_bit_is_found(folder, position):
    file = folder / "mel" / "test-00001-of-00002.tfrecord"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    dataset = open_dataset(str(folder))
    checksums.check_files(dataset, "statistics")
    checksums.check_files(dataset, "mel", splits=("training", "validation"))
    checksums.check_files(dataset, "mel", worker=0, workers=2)
    for share in ({}, {"worker": 1, "workers": 2}):
        with pytest.raises(UserError, match=f"{file} has the checksum"):
            checksums.check_files(dataset, "mel", **share)


def test_other_sizes_are_found(folder):
    file = folder / "mel" / "training-00000-of-00002.tfrecord"
    content = file.read_bytes()
    dataset = open_dataset(str(folder))
    for changed in (b"", content[:-1], content + b"x"):
        file.write_bytes(changed)
        with pytest.raises(UserError, match=f"{file} has {len(changed)} bytes"):
            checksums.check_files(dataset, "mel")
    file.unlink()
    with pytest.raises(UserError, match=f"Cannot read {file}"):
        checksums.check_files(dataset, "mel")


def test_a_file_that_the_manifest_does_not_know(folder):
    dataset = open_dataset(str(folder))
    files = dict(dataset.manifest.files)
    del files["mel/test-00000-of-00002.tfrecord"]
    manifest = dataclasses.replace(dataset.manifest, files=files)
    dataset = dataclasses.replace(dataset, manifest=manifest)
    with pytest.raises(UserError, match="is not in the dataset's manifest"):
        checksums.check_files(dataset, "mel")


def test_the_first_bad_record_is_found(folder):
    dataset = open_dataset(str(folder))
    assert "A record of mel" in checksums.find_bad_record(dataset, "mel")
    file = folder / "mel" / "validation-00001-of-00002.tfrecord"
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3 - 100] ^= 1
    file.write_bytes(content)
    said = checksums.find_bad_record(dataset, "mel")
    assert said.startswith(f"Record 1 of {file} cannot be read (")


def test_a_shard_that_is_no_file(folder):
    """A FIFO would be waited for without an end."""
    dataset = open_dataset(str(folder))
    [path, *_] = dataset.files("mel", "training")
    os.remove(path)
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a FIFO, not a file; copy the dataset"):
        checksums.check_files(dataset, "mel")
    os.remove(path)
    with pytest.raises(UserError, match=r"Cannot read .*No such file"):
        checksums.check_files(dataset, "mel")
    os.symlink("/dev/zero", path)
    with pytest.raises(UserError, match="is a character device, not a file"):
        checksums.check_files(dataset, "mel")

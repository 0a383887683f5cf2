import numpy as np
import pytest
import tensorflow as tf

from trainer.runtime.checkpoint import (
    SUFFIX,
    Checkpoint,
    CheckpointFolder,
    DamagedCheckpointError,
    pack,
    unpack,
)


def make(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        state={"step": 3, "loss": 0.1 + 0.2, "name": "Zoë", "metrics": {"a": [1.5]}},
        arrays={
            "weights": np.arange(12, dtype=np.float32).reshape(3, 4) + step,
            "seed": np.array([1, 2**32 - 1], np.uint32),
            "scalar": np.array(7, np.int64),
        },
    )


def assert_equal(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert (found.step, found.state) == (expected.step, expected.state)
    assert set(found.arrays) == set(expected.arrays)
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_what_is_packed_is_unpacked():
    assert_equal(unpack(pack(make(5))), make(5))


def test_every_truncation_is_noticed():
    content = pack(make(1))
    for size in [*range(120), *range(120, len(content), 37), len(content) - 1]:
        with pytest.raises(DamagedCheckpointError):
            unpack(content[:size])


def test_every_flipped_bit_is_noticed():
    content = bytearray(pack(make(1)))
    for position in range(0, len(content), 7):
        content[position] ^= 4
        with pytest.raises(DamagedCheckpointError):
            unpack(bytes(content))
        content[position] ^= 4
    unpack(bytes(content))


def test_no_pickle_is_loaded():
    harmful = Checkpoint(step=1, state={}, arrays={"a": np.array([{}], object)})
    with pytest.raises(DamagedCheckpointError, match="allow_pickle"):
        unpack(pack(harmful))


@pytest.mark.parametrize("root", ["", "ram://checkpoints"])
def test_two_checkpoints_are_kept(root, tmp_path):
    path = f"{root or tmp_path}/run/phase"
    folder = CheckpointFolder(path=path)
    assert folder.load() is None
    for step in (1, 2, 10, 200):
        folder.save(make(step))
        assert_equal(folder.load(), make(step))
    names = [f"{step:012d}{SUFFIX}" for step in (10, 200)]
    assert sorted(tf.io.gfile.listdir(path)) == [*names, "OWNER.json"]
    folder.remove()
    folder.remove()
    assert folder.load() is None
    # Only a store in memory has empty folders that are not removed.
    assert not tf.io.gfile.glob(f"{path}/*")
    assert root or not tf.io.gfile.isdir(path)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, capsys):
    folder = CheckpointFolder(path=str(tmp_path))
    folder.save(make(1))
    folder.save(make(2))
    older, newest = sorted(tmp_path.glob(f"*{SUFFIX}"))
    newest.write_bytes(newest.read_bytes()[:-1])
    # Others must find what they find, so only the chief removes it.
    assert_equal(CheckpointFolder(path=str(tmp_path), chief=False).load(), make(1))
    assert newest.exists()
    assert_equal(folder.load(), make(1))
    assert f"the checkpoint {newest} is damaged" in capsys.readouterr().err
    assert list(tmp_path.glob(f"*{SUFFIX}")) == [older]
    older.write_bytes(b"")
    assert folder.load() is None


def test_a_half_written_file_is_no_checkpoint(tmp_path, monkeypatch):
    folder = CheckpointFolder(path=str(tmp_path))
    folder.save(make(1))

    class PowerCutError(Exception):
        pass

    def fail(*_, **__):
        raise PowerCutError

    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(PowerCutError):
        folder.save(make(2))
    assert_equal(folder.load(), make(1))


def test_a_store_that_cannot_be_written_is_no_end(tmp_path, capsys):
    (tmp_path / "file").touch()
    folder = CheckpointFolder(path=f"{tmp_path}/file/folder")
    folder.save(make(1))
    assert "training goes on without it" in capsys.readouterr().err


def test_only_the_chief_writes(tmp_path):
    folder = CheckpointFolder(path=str(tmp_path / "run"), chief=False)
    folder.save(make(1))
    assert list(tmp_path.iterdir()) == []
    CheckpointFolder(path=str(tmp_path / "run")).save(make(1))
    assert_equal(folder.load(), make(1))

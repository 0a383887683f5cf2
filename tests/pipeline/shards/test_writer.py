import concurrent.futures
import contextlib
from pathlib import Path

import google_crc32c
import pytest

from pipeline.common import storage
from pipeline.schema import SPLITS, ShardFile
from pipeline.shards.tfrecord import read_records
from pipeline.shards.writer import ShardWriter, total_sizes

NAMES = ("images", "vectors")


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for name in (*NAMES, storage.TEMPORARY_FOLDER):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def make_writer(output, executor):
    def make(shard: int = 1) -> ShardWriter:
        return ShardWriter(
            output=str(output),
            representations=NAMES,
            shard=shard,
            num_shards=3,
            executor=executor,
        )

    return make


def read_all(output: Path) -> dict[str, list[bytes]]:
    """The records of all files, temporary ones too, by path."""
    content = {}
    for path in sorted(output.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                content[str(path.relative_to(output))] = list(read_records(file))
    return content


def fill(writer: ShardWriter) -> None:
    writer.write("images", "training", [b"1", b"22"])
    writer.write("images", "training", [b"333"])
    writer.write("vectors", "test", iter([b"v"]))


FILLED = {
    f"{name}/{split}-00001-of-00003.tfrecord": [] for name in NAMES for split in SPLITS
} | {
    "images/training-00001-of-00003.tfrecord": [b"1", b"22", b"333"],
    "vectors/test-00001-of-00003.tfrecord": [b"v"],
}


def test_records_are_in_their_files_in_order(output, make_writer):
    with make_writer() as writer:
        fill(writer)
        writer.commit()
    assert read_all(output) == FILLED


def test_every_split_has_a_file_even_without_records(output, make_writer):
    with make_writer() as writer:
        writer.commit()
    assert read_all(output) == {path: [] for path in FILLED}
    assert all(path.stat().st_size == 0 for path in output.rglob("*.tfrecord"))


def test_counts(output, make_writer):
    with make_writer() as writer:
        fill(writer)
        writer.commit()
    expected = {}
    for path, records in FILLED.items():
        data = (output / path).read_bytes()
        expected[path] = ShardFile(
            records=len(records),
            size=len(data),
            crc32c=f"{google_crc32c.value(data):08x}",
        )
    assert writer.files == expected
    assert total_sizes(writer.files) == {"images": 3 * 16 + 6, "vectors": 17}


def test_a_check_comes_when_files_are_whole_and_have_no_names(output, make_writer):
    seen = []

    @contextlib.contextmanager
    def permission():
        seen.append(read_all(output))
        yield
        seen.append(read_all(output))

    with make_writer() as writer:
        fill(writer)
        writer.commit(permission())
    before, after = seen
    assert after == FILLED
    assert sorted(before.values()) == sorted(FILLED.values())
    assert all(path.startswith("_temporary/") for path in before)
    assert read_all(output) == FILLED


def test_a_check_that_fails_leaves_nothing(output, make_writer):
    @contextlib.contextmanager
    def fail():
        raise ValueError("not now")
        yield

    def attempt() -> None:
        with make_writer() as writer:
            fill(writer)
            writer.commit(fail())

    with pytest.raises(ValueError, match="not now"):
        attempt()
    assert read_all(output) == {}


@pytest.mark.parametrize("error", [ValueError("a"), KeyboardInterrupt()])
def test_without_commit_nothing_is_left(output, make_writer, error):
    def write_half() -> None:
        with make_writer() as writer:
            fill(writer)
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert read_all(output) == {}


def test_leaving_without_commit_removes_everything(output, make_writer):
    with make_writer() as writer:
        fill(writer)
    assert read_all(output) == {}


@pytest.mark.parametrize("failing", ["create", "rename"])
@pytest.mark.parametrize("call", [1, 4, 6])
def test_after_a_failure_files_are_whole_or_absent(
    output, make_writer, monkeypatch, failing, call
):
    original = getattr(storage, failing)
    calls = []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise OSError(28, "no space")
        return original(*arguments)

    def attempt() -> None:
        with make_writer() as writer:
            fill(writer)
            writer.commit()

    monkeypatch.setattr(storage, failing, fail_once)
    with pytest.raises(
        storage.WriteError, match=r"00001-of-00003.* no space"
    ) as caught:
        attempt()
    assert not caught.value.transient
    left = read_all(output)
    # Of names already given, the files are complete; no unfinished ones stay.
    assert left.items() <= FILLED.items()
    assert len(left) < len(FILLED)
    if failing == "create":
        assert left == {}
    # The next attempt finds nothing in its way.
    attempt()
    assert read_all(output) == FILLED


def test_a_failure_to_close_leaves_nothing(output, make_writer, monkeypatch):
    create = storage.create

    def create_failing(path: str):
        file = create(path)
        if "vectors-test" in path:
            close = file.close

            def fail():
                close()
                raise OSError("no space")

            monkeypatch.setattr(file, "close", fail)
        return file

    def attempt() -> None:
        with make_writer() as writer:
            fill(writer)
            writer.commit()

    monkeypatch.setattr(storage, "create", create_failing)
    with pytest.raises(storage.WriteError, match=r"vectors/test-.*: no space"):
        attempt()
    assert read_all(output) == {}


def test_doubled_attempts_do_not_mix(output, make_writer):
    with make_writer() as first, make_writer() as second:
        fill(first)
        fill(second)
        first.commit()
        assert read_all(output).items() >= FILLED.items()
        second.commit()
    assert read_all(output) == FILLED


def test_an_abandoned_attempt_does_not_harm_a_complete_one(output, make_writer):
    with make_writer() as slow:
        slow.write("images", "training", [b"half"])
        with make_writer() as fast:
            fill(fast)
            fast.commit()
    assert read_all(output) == FILLED


def test_a_later_attempt_replaces_the_files(output, make_writer):
    for _ in range(2):
        with make_writer() as writer:
            fill(writer)
            writer.commit()
    assert read_all(output) == FILLED


def test_shards_keep_apart(output, make_writer):
    for shard in range(3):
        with make_writer(shard) as writer:
            writer.write("images", "test", [b"shard %d" % shard])
            writer.commit()
    content = read_all(output)
    assert len(content) == 3 * len(NAMES) * len(SPLITS)
    for shard in range(3):
        name = f"images/test-0000{shard}-of-00003.tfrecord"
        assert content[name] == [b"shard %d" % shard]


def test_unknown_names_are_errors(output, make_writer):
    with make_writer() as writer, pytest.raises(KeyError):
        writer.write("images", "train", [b"x"])

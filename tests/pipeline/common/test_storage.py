import concurrent.futures
import os
import stat
import threading
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.localfilesystem import LocalFileSystem
from google.api_core.exceptions import Forbidden, ServiceUnavailable

from pipeline.common import storage
from pipeline.common.files import LocalFiles, join
from tests.support.flaky import make_store_flaky


def files_under(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


# Atomic writes


@pytest.mark.parametrize("name", ["a.json", "new/folder/a.json"])
def test_write_atomically(tmp_path, name):
    path = tmp_path / name
    for data in (b"first", b"", b"a second, longer content"):
        storage.write_atomically(str(path), data, scratch=str(tmp_path))
        assert path.read_bytes() == data
        assert files_under(tmp_path) == [name]


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.001)


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", ["write", "close", "rename"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    create = storage.create

    def create_failing(name):
        file = create(name)
        original = getattr(file, failing)

        def write_half(data):
            original(data[: len(data) // 2])
            raise error

        monkeypatch.setattr(file, failing, write_half if failing == "write" else fail)
        return file

    if failing == "rename":
        monkeypatch.setattr(storage, "rename", fail)
    else:
        monkeypatch.setattr(storage, "create", create_failing)
    kind, message = type(error), None
    if isinstance(error, OSError):
        kind, message = storage.WriteError, "a.json cannot be written: full"
    with pytest.raises(kind, match=message):
        storage.write_atomically(str(path), b"new content", scratch=str(tmp_path))
    assert files_under(tmp_path) == ["a.json"]
    assert path.read_bytes() == b"old"


def test_content_is_never_seen_half_written(tmp_path):
    path = tmp_path / "a"
    contents = {bytes([letter]) * 200_000 for letter in b"abc"}
    path.write_bytes(next(iter(contents)))
    done = threading.Event()

    def write():
        for _ in range(10):
            for data in contents:
                storage.write_atomically(str(path), data, scratch=str(tmp_path))
        done.set()

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        # Two writers of the same file, as of a doubled attempt.
        writers = [executor.submit(write) for _ in range(2)]
        while not done.is_set():
            assert path.read_bytes() in contents
        for writer in writers:
            writer.result()
    assert files_under(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127])
def test_a_name_may_be_as_long_as_file_systems_allow(tmp_path, name):
    storage.write_atomically(f"{tmp_path}/{name}", b"a", scratch=str(tmp_path / "s"))
    LocalFiles().write(f"{tmp_path}/2/{name}", b"b")
    assert sorted(files_under(tmp_path)) == sorted([f"2/{name}", name])


def test_temporary_names_differ():
    names = {storage.temporary_path("/out", "x.tfrecord") for _ in range(1_000)}
    assert len(names) == 1_000
    for name in names:
        assert name.startswith("/out/_temporary/")
        assert name.endswith("-x.tfrecord")


# Patience


def test_a_store_that_works_the_third_time(tmp_path, monkeypatch):
    failures = make_store_flaky(monkeypatch)
    path = str(tmp_path / "a")
    storage.write_atomically(path, bytes(200_000), scratch=str(tmp_path))
    assert storage.read_bytes(path) == bytes(200_000)
    assert [found.path for found in storage.match(f"{tmp_path}/*")] == [path]
    assert failures == dict.fromkeys(["create", "rename", "open", "match"], 2)


def test_a_file_is_read_on_where_it_broke(tmp_path, monkeypatch):
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    failures = make_store_flaky(monkeypatch)
    with storage.open_patiently(str(tmp_path / "a")) as file:
        assert file.read(90_000) == data[:90_000]
        file.seek(5_000, os.SEEK_CUR)
        assert file.tell() == 95_000
        assert file.read(100_000) == data[95_000:195_000]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(3)
        assert file.read(5) == data[3:8]
    assert failures["open"] == failures["read"] == 2
    assert file.closed


def test_a_file_that_breaks_for_good(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(300_000))
    make_store_flaky(monkeypatch)
    monkeypatch.setattr("tests.support.flaky.FAILURES", storage.ATTEMPTS)
    with pytest.raises(ConnectionResetError):
        storage.open_patiently(str(tmp_path / "a"))
    with storage.open_patiently(str(tmp_path / "a")) as file:
        assert len(file.read(90_000)) == 90_000
        with pytest.raises(storage.ReadError, match="a cannot be read: reset by peer"):
            file.read()


def test_what_asking_again_cannot_help_is_asked_once(tmp_path, monkeypatch):
    calls = []

    def fail(error):
        calls.append(error)
        raise error

    final = [
        FileNotFoundError(2, "no such file"),
        PermissionError(13, "not yours"),
        OSError(28, "full"),
        BeamIOError("failed", {"a": OSError(OSError(28, "full"))}),
        Forbidden("not yours"),
    ]
    for error in final:
        with pytest.raises(type(error)):
            storage.retry(fail, error)
    assert calls == final
    calls.clear()
    passing = [OSError("reset"), BeamIOError("busy"), ServiceUnavailable("busy")]
    for error in passing:
        with pytest.raises(type(error)):
            storage.retry(fail, error)
    assert len(calls) == storage.ATTEMPTS * len(passing)


def test_programming_errors_are_not_repeated():
    calls = []

    def fail():
        calls.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        storage.retry(fail)
    assert len(calls) == 1


def test_pauses_double(monkeypatch):
    pauses = []
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.25)
    monkeypatch.setattr(storage.time, "sleep", pauses.append)
    with pytest.raises(ConnectionError):
        storage.retry(fail_to_connect)
    assert pauses == [0.25, 0.5]


def fail_to_connect():
    raise ConnectionError("refused")


def test_a_rename_that_was_done_but_not_confirmed(tmp_path, monkeypatch):
    original, calls = LocalFileSystem.rename, []

    def rename(self, *arguments):
        calls.append(arguments)
        original(self, *arguments)
        raise BeamIOError("lost", {"x": TimeoutError("late")})

    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(LocalFileSystem, "rename", rename)
    storage.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"new"
    assert len(calls) == 1
    # Without a source, the old file is not taken for the new one.
    with pytest.raises(BeamIOError):
        storage.rename(str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_delete_that_fails_is_no_secret(tmp_path, monkeypatch):
    (tmp_path / "COMPLETED").write_text("x")

    def fail(self, paths):
        raise BeamIOError("failed", {paths[0]: PermissionError(13, "not yours")})

    monkeypatch.setattr(LocalFileSystem, "delete", fail)
    with pytest.raises(BeamIOError):
        storage.delete(str(tmp_path / "COMPLETED"))
    storage.delete(str(tmp_path / "gone"))


def test_explain_names_the_cause():
    full = OSError(28, "No space left on device")
    for error in (full, BeamIOError("failed", {"x": OSError(full)})):
        assert storage.explain(error) == "No space left on device"
    assert storage.explain(Forbidden("no")) == "403 no"


# Files and folders


def test_list_sizes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c d").write_bytes(b"123")
    (tmp_path / "a" / "e").write_bytes(b"")
    assert storage.list_sizes(str(tmp_path / "a")) == {"b/c d": 3, "e": 0}
    assert storage.list_sizes(f"{tmp_path}/a/") == {"b/c d": 3, "e": 0}
    assert storage.list_sizes(str(tmp_path / "none")) == {}


def test_files_are_read_as_they_are_stored(tmp_path):
    # Beam would unpack them by their extension.
    content = b"no gzip at all"
    for name in ("a.gz", "a.bz2", "a.mp3"):
        path = str(tmp_path / name)
        with storage.create(path) as file:
            file.write(content)
        assert Path(path).read_bytes() == content
        with storage.open_for_reading(path) as file:
            assert file.read() == content
            file.seek(3)
            assert file.read(4) == content[3:7]


def test_read_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("größer\r\n".encode())
    assert storage.read_text(str(path)) == "größer\r\n"


def test_join():
    assert join("/a/", "b") == "/a/b"
    assert join("gs://bucket/a", "b", "c/d") == "gs://bucket/a/b/c/d"


def test_exists(tmp_path):
    path = tmp_path / "a"
    assert not storage.exists(str(path))
    path.touch()
    assert storage.exists(str(path))
    assert storage.exists(str(tmp_path))


def test_folders_may_be_made_again(tmp_path):
    for _ in range(2):
        storage.make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught:
        storage.make_folder(str(tmp_path / "file" / "folder"))
    assert storage.explain(caught.value) == "Not a directory"


def test_deleting_what_is_gone_is_no_error(tmp_path):
    path = tmp_path / "a"
    path.touch()
    for _ in range(2):
        storage.delete(str(path))
    assert not path.exists()


def test_delete_tree(tmp_path):
    folder = tmp_path / "a"
    for name in ("x", "b/y", "b/c/z"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "ab").touch()
    for _ in range(2):
        storage.delete_tree(str(folder))
    assert files_under(tmp_path) == ["ab"]
    assert not folder.exists()


def test_rename_replaces(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    target.write_text("old")
    storage.rename(str(source), str(target))
    assert (target.read_text(), source.exists()) == ("new", False)
    with pytest.raises(BeamIOError):
        storage.rename(str(source), str(target))


def test_written_files_may_be_read_by_others(tmp_path):
    path = tmp_path / "a"
    storage.write_atomically(str(path), b"x", scratch=str(tmp_path))
    (tmp_path / "plain").touch()
    plain = stat.S_IMODE(os.stat(tmp_path / "plain").st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == plain


# Reading ahead


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_items_come_in_order(executor, depth, count):
    gate = threading.Event()

    def read(item: int) -> int:
        if item == 0 and count > 1 and depth > 1:
            gate.wait(10)  # The first one takes longest.
        else:
            gate.set()
        return item * item

    found = [
        (item, future.result())
        for item, future in storage.read_ahead(
            range(count), read, executor=executor, depth=depth
        )
    ]
    assert found == [(item, item * item) for item in range(count)]


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_no_more_is_read_ahead_than_asked(executor, depth):
    started: list[int] = []
    taken: list[int] = []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    reading = storage.read_ahead(
        items(), started.append, executor=executor, depth=depth
    )
    assert taken == []
    for consumed, (_, future) in enumerate(reading):
        future.result()
        # The one that is handed out, and `depth` behind it.
        assert len(started) <= len(taken) <= consumed + 1 + depth
    assert started == taken == list(range(30))


def test_reads_run_at_the_same_time(executor):
    together = threading.Barrier(4)
    reading = storage.read_ahead(
        range(8), lambda _: together.wait(10), executor=executor, depth=4
    )
    # Were they not, the barrier would break.
    assert len({future.result() for _, future in reading}) == 4


def test_an_error_appears_at_its_item(executor):
    def read(item: int) -> int:
        if item % 3 == 2:
            raise OSError(f"no {item}")
        return item

    reading = storage.read_ahead(range(7), read, executor=executor, depth=3)
    errors = {item: str(future.exception()) for item, future in reading}
    assert list(errors) == list(range(7))
    failed = {item: error for item, error in errors.items() if error != "None"}
    assert failed == {2: "no 2", 5: "no 5"}


def test_an_error_of_the_items_is_not_lost(executor):
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(storage.read_ahead(items(), str, executor=executor, depth=2))

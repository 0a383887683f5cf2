import os
import socket

import pytest

from pipeline.common import storage
from pipeline.common.regular_file import NotAFileError, check_regular, open_regular


@pytest.fixture
def strange(tmp_path):
    """What is no file, by its kind."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        yield {
            "a FIFO": tmp_path / "fifo",
            "a character device": tmp_path / "endless",
            "a folder": tmp_path / "folder",
            "a socket": tmp_path / "socket",
        }


@pytest.mark.parametrize("open_any", [open_regular, storage.open_for_reading])
@pytest.mark.parametrize(
    "kind", ["a FIFO", "a character device", "a folder", "a socket"]
)
def test_what_is_no_file_is_not_opened(strange, kind, open_any):
    with pytest.raises(NotAFileError) as caught:
        open_any(str(strange[kind]))
    assert caught.value.strerror == f"is {kind}, not a file"
    assert caught.value.filename == str(strange[kind])


def test_a_name_that_leads_nowhere(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, error in (("none", FileNotFoundError), ("loop", OSError)):
        with pytest.raises(error):
            check_regular(str(tmp_path / name))


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    with open_regular(str(tmp_path / "b")) as file:
        assert file.read() == b"content"


def test_a_file_that_grows_ends_where_it_ended(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with open_regular(str(path)) as file:
        with path.open("ab") as more:
            more.write(b"more")
        assert file.seek(0, os.SEEK_END) == 10
        assert file.seek(-3, os.SEEK_END) == 7
        assert file.read() == b"789"
        file.seek(5)
        assert file.read(100) == b"56789"
        buffer = bytearray(100)
        file.seek(8)
        assert file.readinto(buffer) == 2

import pytest

from trainer.runtime.whole_file import whole_file


def test_a_file_is_replaced_when_it_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with whole_file(str(path)) as part:
        with open(part, "w") as file:
            file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_is_cut_off_replaces_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with whole_file(str(path)) as part, open(part, "w") as file:
            file.write("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_text() == "old"

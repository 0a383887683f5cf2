import concurrent.futures
import contextlib
import errno
import io
import random
import struct
import tempfile
import zipfile
import zlib

import pytest

from pipeline.common.regular_file import open_regular
from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.archives import directory, members
from pipeline.inputs.archives.directory import ArchiveError, read_archive
from pipeline.inputs.archives.members import open_member, stream_member
from tests.support.zips import METHODS, damage, write_zip


def make_contents(count=8, size=5000):
    rng = random.Random(0)
    return {f"a/{k}.mp3": rng.randbytes(size) + bytes(size) for k in range(count)}


@pytest.mark.parametrize("method", METHODS)
def test_members_are_the_bytes_that_were_packed(tmp_path, method):
    contents = make_contents()
    path = str(write_zip(tmp_path / "a.zip", contents, (method,)))
    for name, content in contents.items():
        assert open_member(path, name).read() == content
        with stream_member(path, name) as stream:
            assert stream.read() == content


@pytest.mark.parametrize("method", METHODS)
def test_large_members_are_unpacked_to_a_file(tmp_path, method, monkeypatch):
    monkeypatch.setattr(members, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(members, "_READ_BYTES", 777)
    contents = make_contents(2, 20_000)
    path = str(write_zip(tmp_path / "a.zip", contents, (method,)))
    for name, content in contents.items():
        with open_member(path, name) as file:
            assert not isinstance(file, io.BytesIO)
            assert file.read() == content
            assert file.seek(0) == 0


def test_extras_in_front_of_the_content_may_be_long(tmp_path):
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("a.mp3")
    info.extra = struct.pack("<HH", 0x9999, 60_000) + bytes(60_000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"content")
    assert open_member(str(path), "a.mp3").read() == b"content"


def test_zip64_and_bytes_in_front_are_read(tmp_path):
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open("a.mp3", "w", force_zip64=True) as file,
    ):
        file.write(b"content")
    assert open_member(str(path), "a.mp3").read() == b"content"
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert open_member(str(path), "a.mp3").read() == b"content"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unpack", [open_member, stream_member])
def test_a_damaged_member_is_a_reject_and_no_other(tmp_path, method, unpack):
    contents = make_contents(3)
    path = write_zip(tmp_path / "a.zip", contents, (method,))
    damage(path, "a/1.mp3")
    for name in ("a/0.mp3", "a/2.mp3"):
        assert unpack(str(path), name).read() == contents[name]
    with pytest.raises(AudioError) as caught:
        unpack(str(path), "a/1.mp3").read()
    assert caught.value.reason is Reason.DAMAGED_IN_ZIP


@pytest.mark.parametrize("method", METHODS)
def test_damage_anywhere_is_found(tmp_path, method):
    content = make_contents(1, 400)["a/0.mp3"]
    whole = write_zip(tmp_path / "whole.zip", {"a": content}, (method,)).read_bytes()
    path = tmp_path / "a.zip"
    rng = random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        data[rng.randrange(31, len(whole) - 80)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with contextlib.suppress(AudioError):
            assert open_member(str(path), "a").read() == content


def test_a_wrong_size_in_the_directory_is_found(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"x" * 1000}, (zipfile.ZIP_DEFLATED,))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    for size, message in ((900, "CRC-32"), (1100, "unpacks to 1,000 bytes of")):
        data[at : at + 4] = struct.pack("<L", size)
        path.write_bytes(data)
        with pytest.raises(AudioError, match=message) as caught:
            open_member(str(path), "a")
        assert caught.value.reason is Reason.DAMAGED_IN_ZIP


def test_without_its_beginning_an_archive_has_the_other_members(tmp_path):
    contents = make_contents(2)
    path = write_zip(tmp_path / "a.zip", contents, (zipfile.ZIP_STORED,))
    path.write_bytes(path.read_bytes()[5000:])
    with pytest.raises(AudioError, match="is not where the ZIP's") as caught:
        open_member(str(path), "a/0.mp3")
    assert caught.value.reason is Reason.DAMAGED_IN_ZIP
    assert open_member(str(path), "a/1.mp3").read() == contents["a/1.mp3"]


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MOST_MEMBER_BYTES", 999)
    path = str(write_zip(tmp_path / "a.zip", {"a": bytes(1000), "b": bytes(999)}))
    with pytest.raises(AudioError, match="unpacks to 1,000 bytes; 999 are") as caught:
        open_member(path, "a")
    assert caught.value.reason is Reason.TOO_LARGE
    assert len(open_member(path, "b").read()) == 999


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(members, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    path = str(write_zip(tmp_path / "a.zip", {"a": bytes(1000)}))
    with pytest.raises(AudioError, match="has no room for 1,000 bytes") as caught:
        open_member(path, "a")
    assert caught.value.reason is Reason.NO_SPACE


class Counted(io.BufferedReader):
    """Notes what is read: offset and size."""

    reads: list[tuple[int, int]]

    def read(self, count=-1):
        start = self.tell()
        data = super().read(count)
        self.reads.append((start, len(data)))
        return data


def make_opener():
    """Opens files that note what is read of them, and what they have noted."""
    reads: list[tuple[int, int]] = []

    def opener(path):
        file = Counted(open_regular(path).detach())
        file.reads = reads
        return file

    return opener, reads


def test_the_directory_is_read_once_by_all_threads(tmp_path):
    contents = make_contents(40, 50_000)
    path = write_zip(tmp_path / "a.zip", contents, METHODS)
    opener, reads = make_opener()

    def unpack(name):
        return open_member(str(path), name, opener).read()

    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        found = executor.map(
            lambda name: open_member(str(path), name, opener), contents
        )
        assert [file.read() for file in found] == list(contents.values())
    # One read of the end, and one of each member.
    assert len(reads) == 41
    size = path.stat().st_size
    assert [start for start, _ in reads].count(size - (1 << 17)) == 1
    assert max(count for _, count in reads) < size // 4


def test_a_long_directory_is_one_more_read(tmp_path):
    contents = {f"{'x' * 200}/{k}.mp3": b"" for k in range(1000)}
    path = write_zip(tmp_path / "a.zip", contents)
    opener, reads = make_opener()
    assert list(read_archive(str(path), opener).members) == list(contents)
    assert len(reads) == 2
    whole = path.read_bytes()
    assert reads[1] == (
        whole.index(b"PK\1\2"),
        len(whole) - whole.index(b"PK\1\2") - 22,
    )


def test_directories_are_kept_while_there_is_room(tmp_path, monkeypatch):
    names = [write_zip(tmp_path / f"{n}.zip", make_contents(10, 1)) for n in range(40)]
    opener, reads = make_opener()
    for name in names * 2:
        read_archive(str(name), opener)
    assert len(reads) == 40
    # The one used last stays, whatever its size.
    monkeypatch.setattr(directory, "MOST_MEMBERS", 25)
    for name in (names[0], names[1], names[0], names[2], names[0]):
        read_archive(str(name), opener)
    assert len(reads) == 42
    for name in (names[3], names[0], names[3]):
        read_archive(str(name), opener)
    assert len(reads) == 43
    monkeypatch.setattr(directory, "MOST_MEMBERS", 5)
    assert len(read_archive(str(names[5]), opener).members) == 10


def test_an_archive_that_changes_is_read_again(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"1"})
    assert list(read_archive(str(path)).members) == ["a"]
    path.unlink()
    write_zip(path, {"b": b"22", "c": b"3"})
    assert list(read_archive(str(path)).members) == ["b", "c"]
    with pytest.raises(FileNotFoundError):
        open_member(str(path), "a")


def test_reading_errors_are_not_taken_for_damage(tmp_path):
    path = str(write_zip(tmp_path / "a.zip", {"a": bytes(9_000_000)}, (0,)))
    broken = False

    class Breaking(io.BufferedReader):
        def read(self, count=-1):
            if broken and count > 1 << 20 and self.tell() > 1000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    def opener(path):
        return Breaking(open_regular(path).detach())

    assert len(open_member(path, "a", opener).read()) == 9_000_000
    broken = True
    with pytest.raises(OSError, match="Input/output error"):
        open_member(path, "a", opener)


@pytest.mark.parametrize("cut", [1, 10, 60, 5000])
def test_an_archive_that_was_cut_off_is_no_archive(tmp_path, cut):
    path = write_zip(tmp_path / "a.zip", make_contents())
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ArchiveError, match=r"is no whole ZIP \(.*\): cut off"):
        read_archive(str(path))


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>not found</html>", bytes(99)])
def test_what_is_no_archive_is_said_so(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="is no whole ZIP"):
        read_archive(str(path))


def test_random_bytes_in_the_directory_end_in_one_error(tmp_path):
    whole = write_zip(tmp_path / "whole.zip", make_contents(5, 10)).read_bytes()
    start = whole.index(b"PK\1\2")
    path = tmp_path / "a.zip"
    rng = random.Random(2)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(start, len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            for name in read_archive(str(path)).members:
                open_member(str(path), name)
        except (AudioError, OSError):
            continue


def test_a_directory_without_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "MOST_DIRECTORY_BYTES", 300)
    path = write_zip(tmp_path / "a.zip", make_contents(20, 1))
    with pytest.raises(ArchiveError, match=r"has a directory of [\d,]+ bytes; 300 are"):
        read_archive(str(path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_not_guessed_between(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"1")
    assert list(read_archive(str(path)).members) == ["a"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a", b"2")
    with pytest.raises(ArchiveError, match="two different files of the name 'a'"):
        read_archive(str(path))


def test_a_part_of_a_split_archive_is_named(tmp_path):
    path = write_zip(tmp_path / "a.zip", make_contents(2))
    data = bytearray(path.read_bytes())
    data[-18:-14] = struct.pack("<HH", 2, 2)  # This disk's number, and the first's.
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"is the last of 3 parts of a ZIP; join"):
        read_archive(str(path))


def rename(path, packed):
    """Changes a name of the directory and its header; both have the same length."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 30), (b"PK\1\2", 46)):
        at = data.index(signature) + place
        data[at : at + len(packed)] = packed
    path.write_bytes(data)
    return list(read_archive(str(path)).members)


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        ("Café/é.mp3".encode("cp437"), "Café/é.mp3"),
        ("Café/é.mp3".encode(), "Café/é.mp3"),  # As macOS writes it.
        ("ソ/é.mp3".encode(), "ソ/é.mp3"),
        (b"\xff\xfe/a.mp3", b"\xff\xfe/a.mp3".decode("cp437")),
    ],
)
def test_names_are_read_as_they_were_meant(tmp_path, packed, name):
    path = write_zip(tmp_path / "a.zip", {"x" * len(packed): b"content"})
    assert rename(path, packed) == [name]
    assert open_member(str(path), name).read() == b"content"


def test_names_of_windows_may_have_backslashes(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x/a.mp3": b"content"})

    assert rename(path, b"x\\a.mp3") == ["x\\a.mp3"]
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 5] = 0  # Made on DOS.
    path.write_bytes(data)
    assert list(read_archive(str(path)).members) == ["x/a.mp3"]
    assert open_member(str(path), "x/a.mp3").read() == b"content"
    data = path.read_bytes().replace(b"x\\a.mp3", b"..\\.mp3")
    path.write_bytes(data)
    [member] = read_archive(str(path)).members.values()
    assert member.problem == "its name leads out of the ZIP"


def test_a_name_in_utf8_may_lie_in_an_extra_field(tmp_path):
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("?.mp3")
    plain, name = "\u2500.mp3", "ソ.mp3".encode()
    field = struct.pack("<BL", 1, zlib.crc32(plain.encode("cp437"))) + name
    info.extra = struct.pack("<HH", 0x9999, 2) + b"??"
    info.extra += struct.pack("<HH", 0x7075, len(field)) + field
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"content")
    assert rename(path, plain.encode("cp437")) == ["ソ.mp3"]
    # A field for another name counts nothing.
    data = path.read_bytes().replace(field[:5], b"\1\0\0\0\0")
    path.write_bytes(data)
    assert list(read_archive(str(path)).members) == [plain]


def test_what_cannot_be_used_is_known_from_the_directory(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../a", "/etc/a", "b/../../c", "d" * 256, "fine/a", "folder/"):
            archive.writestr(name, b"1")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, b"/etc/passwd")
        for name in ("locked", "strange"):
            archive.writestr(name, b"1")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2", data.index(b"locked", data.index(b"PK\1\2")) - 46)
    data[entry + 8] |= 1
    entry = data.index(b"strange", entry) - 46
    data[entry + 10] = 93
    path.write_bytes(data)
    problems = {k: m.problem for k, m in read_archive(str(path)).members.items()}
    assert problems == {
        "../a": "its name leads out of the ZIP",
        "/etc/a": "its name leads out of the ZIP",
        "b/../../c": "its name leads out of the ZIP",
        "d" * 256: "its name has a part of more than 255 bytes",
        "fine/a": "",
        "link": "it is a link",
        "locked": "it is encrypted",
        "strange": "it is compressed by method 93, which is none of stored, deflate, "
        "bzip2, LZMA",
    }
    with pytest.raises(OSError, match="it is encrypted"):
        open_member(str(path), "locked")

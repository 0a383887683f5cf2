import hashlib
import io
from pathlib import Path

import pytest

from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.checksums import check_sha1, list_audio
from pipeline.schema import UserError
from pipeline.shards.shard import fetch_audio
from tests.support.corpora import make_clip
from tests.support.zips import zip_folder

CONTENTS = {"000/000002.mp3": b"two", "001/001001.mp3": b"a thousand and one"}


def sha1(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def fma(tmp_path, monkeypatch):
    """A folder and a ZIP in FMA's layout, the second file unlike its checksum."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "fma_small"
    lines = []
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        lines.append(f"{sha1(content)}  {name}\n")
    (folder / "checksums").write_text("".join(lines))
    (folder / "001/001001.mp3").write_bytes(b"damaged")
    zip_folder(tmp_path / "fma_small.zip", folder)
    return folder


@pytest.mark.parametrize(
    "pattern",
    [
        "fma_small",
        "fma_small/**.mp3",
        "fma_small/000/*.mp3",
        "**.mp3",
        "../*/fma_small/**.mp3",
        "fma_small.zip",
        "fma_small.zip!/fma_small/**.mp3",
        "fma_small.zip!/fma_small/000/*.mp3",
        "fma_small.zip!/**/*.mp3",
        "{}/fma_small/**.mp3",
    ],
)
def test_checksums_are_found_beside_the_audio(fma, pattern):
    files = list_audio(pattern.format(fma.parent))
    known = {file.path[-14:]: file.sha1 for file in files if "mp3" in file.path}
    assert known == {name: sha1(CONTENTS[name]) for name in known}
    assert "000/000002.mp3" in known


@pytest.mark.parametrize("source", ["fma_small/", "fma_small.zip!/fma_small/"])
def test_a_file_unlike_its_checksum_is_a_reject(fma, source):
    files = {file.path: file for file in list_audio("fma_small")}
    files |= {file.path: file for file in list_audio("fma_small.zip")}

    def fetch(name):
        file = files[source + name]
        return fetch_audio(
            make_clip(Path(file.path), size=file.size, sha1=file.sha1), "middle"
        )

    assert fetch("000/000002.mp3").read() == b"two"
    with pytest.raises(AudioError, match=r"its SHA-1 is .* beside it: dam") as caught:
        fetch("001/001001.mp3")
    assert caught.value.reason is Reason.SHA1_MISMATCH


def test_large_members_are_checked_as_they_are_unpacked_whole(fma, monkeypatch):
    monkeypatch.setattr("pipeline.shards.shard.WHOLE_FILE_BYTES", 1)
    monkeypatch.setattr("pipeline.inputs.archives.members.MOST_IN_MEMORY", 1)
    file = list_audio("fma_small.zip!/fma_small/001/*.mp3")[0]
    clip = make_clip(Path(file.path), size=file.size, sha1=file.sha1)
    with pytest.raises(AudioError, match="its SHA-1 is"):
        fetch_audio(clip, "middle")


def test_a_file_that_holds_something_else_is_not_taken(fma):
    for text in ("", "d41d8cd98f00b204e9800998ecf8427e  000/000002.mp3\n", "\0\xff"):
        (fma / "checksums").write_text(text)
        assert not any(file.sha1 for file in list_audio("fma_small"))


@pytest.mark.parametrize("line", ["123  a.mp3", f"{'0' * 40} a.mp3", "<<<<<<< HEAD"])
def test_a_strange_line_is_named(fma, line):
    text = (fma / "checksums").read_text()
    (fma / "checksums").write_text(f"{text}\n{line}\n")
    with pytest.raises(UserError, match=r"line 4 of fma_small/checksums is none that"):
        list_audio("fma_small")


def test_a_file_stays_at_its_start():
    file = io.BytesIO(b"content")
    check_sha1(file, sha1(b"content"))
    assert file.read() == b"content"
    check_sha1(file, "")

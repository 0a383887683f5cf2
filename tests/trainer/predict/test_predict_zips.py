import pytest

from pipeline.schema import UserError
from tests.support.zips import damage, write_zip
from trainer.compare.html.clip_media import find_audio
from trainer.predict.__main__ import find_files

CONTENTS = {
    "music/b.mp3": b"2",
    "music/a.mp3": b"1",
    "music/notes.txt": b"3",
    "music/x/000007.wav": b"4" * 99,
}


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "music.zip", CONTENTS)
    return tmp_path / "music.zip"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("music.zip", ["a.mp3", "b.mp3", "x/000007.wav"]),
        ("zip://music.zip", ["a.mp3", "b.mp3", "x/000007.wav"]),
        ("music.zip!/music/x", ["x/000007.wav"]),
        ("music.zip!/music/*.mp3", ["a.mp3", "b.mp3"]),
        ("music.zip!/music/notes.txt", ["notes.txt"]),
    ],
)
def test_a_zip_stands_for_its_audio(catalogue, name, files):
    found, problems = find_files([name])
    assert found == [f"music.zip!/music/{file}" for file in files]
    assert not problems


def test_a_glob_stands_for_the_audio_that_it_matches(catalogue, tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("a.mp3", "b.wav", "c.txt", "d[1].mp3"):
        (tmp_path / "here" / name).write_bytes(b"1")
    for pattern, expected in (
        ("here/*", ["here/a.mp3", "here/b.wav", "here/d[1].mp3"]),
        ("here/d[1].mp3", ["here/d[1].mp3"]),
        (
            "*.zip",
            [f"music.zip!/music/{n}" for n in ("a.mp3", "b.mp3", "x/000007.wav")],
        ),
        ("here/none.mp3", ["here/none.mp3"]),
    ):
        assert find_files([pattern]) == (expected, {})
    with pytest.raises(UserError, match=r"\*.txt matches no file with an extension"):
        find_files(["here/*.txt"])


def test_a_zip_without_audio_or_without_an_end_is_one_sentence(catalogue):
    with pytest.raises(UserError, match="holds no file with an extension"):
        find_files(["music.zip!/music/*.txt"])
    catalogue.write_bytes(catalogue.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"music.zip cannot be used \(is no whole ZIP"):
        find_files(["music.zip"])
    # What is not there is told file by file, as for other files.
    assert find_files(["no.zip"])[0] == ["no.zip"]


def test_members_are_heard_as_files(catalogue, music_files, tmp_path):
    from pipeline.common.clip_config import ClipConfig
    from pipeline.common.rejects import AudioError
    from pipeline.decoding.isolation import IsolatedDecoder
    from pipeline.inputs.archives.members import open_member

    plain = tmp_path / "a.mp3"
    plain.write_bytes(music_files["mp3"])
    path = write_zip(tmp_path / "own.zip", {"a.mp3": music_files["mp3"]})
    with IsolatedDecoder() as decoder:
        [mine] = decoder.load_excerpts(str(plain), ClipConfig(), 1)
        with open_member(str(path), "a.mp3") as file:
            [theirs] = decoder.load_parts(file, ClipConfig(), 1)
        assert (mine.samples == theirs.samples).all()
    damage(path, "a.mp3")
    with pytest.raises(AudioError, match="cannot be unpacked"):
        open_member(str(path), "a.mp3")


def test_a_report_finds_its_sounds_in_a_zip(catalogue):
    expected = {
        "7": "music.zip!/music/x/000007.wav",
        "b": "music.zip!/music/b.mp3",
    }
    assert find_audio(["music.zip"], {"7", "b", "x"}) == expected
    (catalogue.parent / "here").mkdir()
    (catalogue.parent / "here" / "000009.mp3").write_bytes(b"9")
    found = find_audio(["*.zip", "here"], {"7", "9"})
    assert found == {"7": expected["7"], "9": "here/000009.mp3"}


def test_a_catalogue_is_labelled_from_its_zip(catalogue):
    from pipeline.common.rejects import AudioError
    from pipeline.inputs.audio_files import match_audio
    from trainer.predict.label.songs import open_song

    files = {file.path: file for file in match_audio("zip://music.zip")}
    file = files["music.zip!/music/x/000007.wav"]
    assert open_song(file).read() == b"4" * 99
    damage(catalogue, "music/x/000007.wav", 20)
    with pytest.raises(AudioError, match="cannot be unpacked"):
        open_song(file)

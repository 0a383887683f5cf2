import os

import pytest
from apache_beam.io.gcp.gcsfilesystem import GCSFileSystem

from pipeline.common import storage
from pipeline.inputs.audio_files import locate_audio, make_audio_check, match_audio
from pipeline.inputs.join import AudioFile
from pipeline.schema import UserError


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("top.wav", "a/mid.wav", "a/UP.WAV"):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"123")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    return tmp_path / "music"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "must name a folder, or a quoted glob"),
        ("musik", "there is no musik in the current folder (is it music?);"),
        ("musik/*.wav", "there is no folder musik (is it music?);"),
        ("music/b/*.wav", "there is no folder music/b;"),
        ("no/where/*.wav", "there is no folder no/where;"),
        ("music/top.wave", "there is no top.wave in music (is it music/top.wav?);"),
        ("empty", "empty holds no file;"),
        ("texts/*.wav", "none of the 1 files in texts is named as audio;"),
        (
            "music/**.flac",
            "no file in music is named **.flac, but it holds 3 .wav files; give "
            "'music/**.wav', or the folder alone.",
        ),
        (
            "music/[2020]/*.wav",
            "named [2020]/*.wav (for a bracket or brace itself, write [[] or [{])",
        ),
        ("music/top.wav/*.wav", "there is no folder music/top.wav;"),
    ],
)
def test_what_matches_nothing_is_one_sentence(music, pattern, message):
    with pytest.raises(UserError) as caught:
        match_audio(pattern)
    text = str(caught.value)
    assert message in text
    assert text.startswith("--audio ")
    assert "Received: " in text
    assert "\n" not in text


def test_a_folder_that_cannot_be_listed_is_named(music, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"music/ cannot be listed \(Permission denied"):
        match_audio("music/*.wav")


def test_links_to_nothing_keep_their_reason(music):
    (music / "gone.wav").symlink_to("nowhere.wav")
    [file] = match_audio("music/gone.wav")
    assert file.problem == "it is a link to nowhere.wav: No such file or directory"
    assert file.size == 0


def test_audio_is_told_by_name_and_then_by_content(music, monkeypatch):
    opened = []
    real = storage.open_patiently
    monkeypatch.setattr(
        storage,
        "open_patiently",
        lambda path, **options: opened.append(path) or real(path, **options),
    )
    contents = {
        "song": b"ID3\4\0\0\0\0\0\0",
        "notes": b"la la la",
        "a.part": b"RIFF\0\0\0\0WAVE",
        "a.mp3": b"text",
        "a.jpg": b"ID3\4",
    }
    for name, content in contents.items():
        (music / name).write_bytes(content)
    os.mkfifo(music / "pipe")
    is_audio = make_audio_check()
    found = {
        name: is_audio(AudioFile(f"music/{name}", 9)) for name in [*contents, "pipe"]
    }
    assert found == {
        "song": True,
        "notes": False,
        "a.part": True,
        "a.mp3": True,
        "a.jpg": False,
        "pipe": False,
    }
    is_audio(AudioFile("music/song", 9))
    # Only where the name does not tell, and once.
    assert opened == ["music/song", "music/notes", "music/a.part"]


class Bucket:
    """Stands for Beam's matching on an object store."""

    def __init__(self, names: list[str]) -> None:
        self.files = [storage.FileMetadata(f"gs://b/{name}", 1, 2.0) for name in names]
        self.patterns: list[str] = []

    def match(self, pattern: str) -> list[storage.FileMetadata]:
        self.patterns.append(pattern)
        system = object.__new__(GCSFileSystem)
        return list(system.match_files(self.files, pattern))


@pytest.mark.parametrize(
    ("pattern", "base", "names"),
    [
        ("gs://b/m/**.mp3", "gs://b/m", ["m/a.mp3", "m/x/UP.MP3", "m/x/b [1].mp3"]),
        ("gs://b/m/**/*.mp3", "gs://b/m", ["m/a.mp3", "m/x/UP.MP3", "m/x/b [1].mp3"]),
        ("gs://b/m/*.{mp3,wav}", "gs://b/m", ["m/a.mp3", "m/c.wav"]),
        ("gs://b/m/a.mp3", "gs://b/m", ["m/a.mp3"]),
        ("gs://b/m/x/b [[]1].mp3", "gs://b/m/x", ["m/x/b [1].mp3"]),
        ("gs://b/m/x", "gs://b/m/x", ["m/x/UP.MP3", "m/x/b [1].mp3"]),
        ("gs://b/m/x/", "gs://b/m/x", ["m/x/UP.MP3", "m/x/b [1].mp3"]),
    ],
)
def test_globs_on_an_object_store(monkeypatch, pattern, base, names):
    everything = [
        "m/a.mp3",
        "m/c.wav",
        "m/x/UP.MP3",
        "m/x/b [1].mp3",
        "m/x/",
        "n/a.mp3",
    ]
    bucket = Bucket(everything)
    monkeypatch.setattr(storage, "match", bucket.match)
    assert [file.path for file in match_audio(pattern)] == [
        f"gs://b/{n}" for n in names
    ]
    assert locate_audio(pattern).path == base


def test_an_object_store_is_asked_for_what_begins_so(monkeypatch):
    bucket = Bucket(["m/abc.mp3"])
    monkeypatch.setattr(storage, "match", bucket.match)
    match_audio("gs://b/m/a*.{mp3,wav}")
    assert bucket.patterns == ["gs://b/m/a**"]
    with pytest.raises(UserError, match=r"nothing below gs://b/m is named \*\.ogg;"):
        match_audio("gs://b/m/*.ogg")


def test_an_object_store_is_asked_again(monkeypatch):
    answers = [ConnectionResetError("reset by peer"), ConnectionResetError("again")]
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.001)

    def match(patterns):
        if answers:
            raise answers.pop()
        found = storage.FileMetadata("gs://b/m/a.mp3", 1)
        return [type("Match", (), {"metadata_list": [found]})()]

    monkeypatch.setattr(storage.FileSystems, "match", match)
    assert match_audio("gs://b/m/**.mp3") == [AudioFile("gs://b/m/a.mp3", 1, 0.0)]
    assert not answers


def test_names_that_are_no_text_are_refused(music):
    os.close(os.open(b"music/\xff.wav", os.O_CREAT))
    with pytest.raises(UserError, match="name is not UTF-8 text; rename it"):
        match_audio("music/*.wav")

import pytest

from pipeline.inputs.names import (
    AudioFolder,
    audio_key,
    name_aliases,
    relative_path,
    wav_name,
)


def test_fma_files_are_known_by_their_number():
    for path in ("000/000002.mp3", "/x/2.mp3", "gs://b/fma/000/000002.wav"):
        assert audio_key(path, "", "fma") == "2"
    # Not a track's file, and not another one's by chance.
    assert audio_key("/x/README.txt", "", "fma") == "/x/README.txt"
    assert audio_key("/x/12a.mp3", "", "fma") == "/x/12a.mp3"


def test_the_wav_of_a_file_has_its_key():
    assert audio_key("in/x/a.b.mp3", "in", "plain") == "x/a.b"
    assert audio_key("wav/x/a.b.wav", "wav", "plain") == "x/a.b"


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("/m/x/a", "/m", "x/a"),
        ("/mm/a", "/m", "/mm/a"),
        ("a/b", "", "a/b"),
        ("./m/a", "m", "a"),
        ("gs://b/m/a", "gs://b/m/", "a"),
        ("gs://b/a", "gs://c", "gs://b/a"),
    ],
)
def test_relative_paths(path, base, expected):
    assert relative_path(path, base) == expected


@pytest.mark.parametrize(
    "path",
    [
        "x/a.mp3",
        "./x/a.mp3",
        "x//a.mp3",
        "x/../x/a.mp3",
        "x\\a.mp3",
        "/music/x/a.mp3",
        "/music//x/./a.mp3",
        "music/x/a.mp3",
        "x/a",
        "x/a.flac",
        "x/a.mp3.wav",
    ],
)
def test_what_may_mean_one_file_has_one_key(path):
    """From the folder above `/music` a row may start with `music`."""
    for base in ("/music", "/music/", "/./music"):
        assert audio_key(path, base, "plain", ("/music", "music")) == "x/a"
        assert audio_key("/music/x/a.mp3", base, "plain", ("music",)) == "x/a"


def test_keys_on_an_object_store():
    base = "gs://bucket/music"
    assert audio_key("gs://bucket/music/x/a.mp3", base, "plain") == "x/a"
    assert audio_key("x/a.mp3", base, "plain") == "x/a"
    assert audio_key("gs://other/x/a.mp3", base, "plain") == "gs://other/x/a"


def test_a_path_may_have_two_meanings():
    folder = AudioFolder(path="music", aliases=("/home/me/music", "music"))
    assert folder.readings("music/a.wav") == ("a.wav", "music/a.wav")
    assert folder.readings("./a.wav") == ("a.wav",)
    assert folder.readings("/home/me/music/music/a.wav") == ("music/a.wav",)
    assert folder.readings("/home/you/a.wav") == ("/home/you/a.wav",)
    assert folder.name_file("music/music/a.wav") == "music/a.wav"
    for path in ("music/a.wav", "a.wav", "music/music/a.wav"):
        assert folder.key(path) == "a"
    assert AudioFolder(path=".").name_file("./a.wav") == "a.wav"
    assert AudioFolder(path="/").name_file("/a.wav") == "a.wav"
    assert AudioFolder().name_file("x/a.wav") == "x/a.wav"


def test_only_known_extensions_are_extensions():
    assert audio_key("blues/blues.00000", "", "plain") == "blues/blues.00000"
    assert audio_key("blues/blues.00000.AU", "", "plain") == "blues/blues.00000"
    assert wav_name("x/a.b.mp3", whole=False) == "x/a.b.wav"
    assert wav_name("x/a.b.mp3", whole=True) == "x/a.b.mp3.wav"
    assert wav_name("blues.00000", whole=False) == "blues.00000.wav"


def test_aliases_are_absolute_and_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_aliases("music") == (f"{tmp_path}/music", "music")
    assert name_aliases(f"{tmp_path}/music") == (f"{tmp_path}/music", "music")
    assert name_aliases("gs://b/music") == ()

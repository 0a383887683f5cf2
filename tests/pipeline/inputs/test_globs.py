import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs import globs

FILES = (
    "top.wav",
    "a/mid.wav",
    "a/UP.WAV",
    "a/song.mp3",
    "a/b/deep.wav",
    "[ab]/in.wav",
    "album [2020] {x}/one, two.wav",
    "st*r/q.wav",
)
WAVS = tuple(name for name in FILES if name != "a/song.mp3")


@pytest.fixture
def music(tmp_path, monkeypatch):
    """A folder `music`, in the current one."""
    for name in FILES:
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"123")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "music"


def find(pattern: str) -> list[str]:
    glob = globs.parse(pattern)
    return sorted(glob.join(entry.name) for entry in globs.match(glob))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("music", FILES),
        ("music/", FILES),
        ("music/**", FILES),
        ("music/**.wav", WAVS),
        ("music/**/*.wav", WAVS),
        ("music/**.WaV", WAVS),
        ("music/*/*.wav", [name for name in WAVS if name.count("/") == 1]),
        ("music/*.wav", ["top.wav"]),
        ("music/?op.wav", ["top.wav"]),
        ("music/a/u*.wav", []),
        ("music/a/*.{wav,mp3}", ["a/mid.wav", "a/UP.WAV", "a/song.mp3"]),
        ("music/{top.wav,a/b/*}", ["top.wav", "a/b/deep.wav"]),
        ("music/{,a/}*.wav", ["top.wav", "a/mid.wav", "a/UP.WAV"]),
        ("music/a/[l-n]id.wav", ["a/mid.wav"]),
        ("music/a/[!m]*.wav", ["a/UP.WAV"]),
        ("music/a/[^m]*.wav", ["a/UP.WAV"]),
        ("music/[ab]/*.wav", ["[ab]/in.wav"]),
        ("music/[[]ab]/*.wav", ["[ab]/in.wav"]),
        ("music/[ab]?/*.wav", []),
        ("music/album [2020] {x}", ["album [2020] {x}/one, two.wav"]),
        ("music/album [2020] {x}/*.wav", ["album [2020] {x}/one, two.wav"]),
        ("music/album [[]2020] {x}/**", ["album [2020] {x}/one, two.wav"]),
        ("music/al*/one, two.wav", ["album [2020] {x}/one, two.wav"]),
        ("music/st*r/**", ["st*r/q.wav"]),
        ("music/st[*]r/*", ["st*r/q.wav"]),
        ("music/top.wav", ["top.wav"]),
        ("music/up.wav", []),
        ("music/**/b/*", ["a/b/deep.wav"]),
        ("music/a**/*.wav", [name for name in WAVS if name.startswith("a")]),
        ("music/[", []),
        ("music/[z-a]*", []),
        ("music/{a", []),
    ],
)
def test_patterns_as_people_type_them(music, pattern, names):
    """The same from here, from the root, and from home."""
    expected = sorted(f"music/{name}" for name in names)
    assert find(pattern) == expected
    for start in (str(music.parent), "."):
        assert find(f"{start}/{pattern}") == [f"{start}/{name}" for name in expected]
    assert find(f"~/{pattern}") == [f"{music.parent}/{name}" for name in expected]


def test_the_current_folder(music, monkeypatch):
    monkeypatch.chdir(music)
    assert find("*.wav") == ["top.wav"]
    assert find("**.wav") == find("**/*.wav") == sorted(WAVS)
    assert find(".") == sorted(FILES)


def test_what_exists_is_meant_literally(music, monkeypatch):
    monkeypatch.chdir(music)
    (music / "~").mkdir()
    (music / "~" / "t.wav").touch()
    (music / "{a,b}.wav").touch()
    assert find("~/*.wav") == ["~/t.wav"]
    assert find("{a,b}.wav") == ["{a,b}.wav"]


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1))
def test_every_name_can_be_written(name):
    pattern = globs.escape(name)
    assert globs.unescape(pattern) == name
    assert re.fullmatch(globs.translate(pattern), name)


@pytest.mark.parametrize(
    ("pattern", "folder", "rest"),
    [
        ("/m/**.mp3", "/m", "**.mp3"),
        ("/m/x/*/y/*.mp3", "/m/x", "*/y/*.mp3"),
        ("/m/x[12]/a?.mp3", "/m", "x[12]/a?.mp3"),
        ("/m/x[[]/a?.mp3", "/m/x[", "a?.mp3"),
        ("/m/a.mp3", "/m", "a.mp3"),
        ("*.mp3", "", "*.mp3"),
        ("{a,b}/*.mp3", "", "{a,b}/*.mp3"),
        ("x/{a/b,c}/*.mp3", "x", "{a/b,c}/*.mp3"),
        ("gs://b/m/**", "gs://b/m", "**"),
        ("gs://b/m/", "gs://b/m", "**"),
        ("gs://b/m", "gs://b", "m"),
        ("gs://b", "gs://b", "**"),
    ],
)
def test_the_folder_of_a_glob(tmp_path, monkeypatch, pattern, folder, rest):
    monkeypatch.chdir(tmp_path)
    assert globs.parse(pattern) == globs.Glob(folder=folder, rest=rest)


def test_linked_folders_are_entered_once(music):
    store = music.parent / "store"
    store.mkdir()
    (store / "x.wav").touch()
    (store / "back").symlink_to("../music")
    for name in ("linked", "twice"):
        (music / name).symlink_to("../store")
    (music / "inside").symlink_to("a")
    (music / "loop").symlink_to("..")
    (music / "itself").symlink_to(".")
    (music / "file.wav").symlink_to("top.wav")
    expected = [*WAVS, "linked/x.wav", "file.wav"]
    assert find("music/**.wav") == sorted(f"music/{name}" for name in expected)
    # A pattern that only the second link fits finds what is behind it.
    assert find("music/tw*/*.wav") == ["music/twice/x.wav"]
    assert find("music/inside/*.mp3") == ["music/inside/song.mp3"]


def test_links_to_nothing_say_so(music):
    (music / "gone.wav").symlink_to("../objects/gone.wav")
    (music / "self.wav").symlink_to("self.wav")
    gone, itself = (
        next(entry for entry in globs.walk("music") if entry.name == name)
        for name in ("gone.wav", "self.wav")
    )
    assert gone.problem == (
        "it is a link to ../objects/gone.wav: No such file or directory"
    )
    assert itself.problem.startswith("it is a link to self.wav: ")


def test_pipes_are_listed_and_not_opened(music):
    os.mkfifo(music / "pipe.wav")
    assert "music/pipe.wav" in find("music/*.wav")


def test_folders_that_cannot_match_are_not_read(music, monkeypatch):
    read = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(path) or scandir(path))
    find("music/*.wav")
    find("music/a/*/*.wav")
    assert read == ["music/", "music/a/", "music/a/b"]


def test_a_folder_that_cannot_be_listed_is_an_error(music, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        find("music")

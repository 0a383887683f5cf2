import pytest

from pipeline.inputs.names import (
    AudioFolder,
    audio_key,
    find_common,
    name_aliases,
    relative_path,
    wav_name,
)


def test_fma_files_are_known_by_their_number():
    for path in ("000/000002.mp3", "/x/2.mp3", "gs://b/fma/000/000002.wav"):
        assert audio_key(path, "fma", AudioFolder()) == "2"
    # Not a track's file, and not another one's by chance.
    assert audio_key("/x/README.txt", "fma", AudioFolder()) == "/x/README.txt"
    assert audio_key("/x/12a.mp3", "fma", AudioFolder()) == "/x/12a.mp3"


def test_the_wav_of_a_file_has_its_key():
    assert AudioFolder(path="in").key("in/x/a.b.mp3") == "x/a.b"
    assert AudioFolder(path="wav").key("wav/x/a.b.wav") == "x/a.b"


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
        assert AudioFolder(path=base, aliases=("/music", "music")).key(path) == "x/a"
        assert AudioFolder(path=base, aliases=("music",)).key("/music/x/a.mp3") == "x/a"


def test_keys_on_an_object_store():
    base = "gs://bucket/music"
    assert AudioFolder(path=base).key("gs://bucket/music/x/a.mp3") == "x/a"
    assert AudioFolder(path=base).key("x/a.mp3") == "x/a"
    assert AudioFolder(path=base).key("gs://other/x/a.mp3") == "gs://other/x/a"


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
    assert AudioFolder().key("blues/blues.00000") == "blues/blues.00000"
    assert AudioFolder().key("blues/blues.00000.AU") == "blues/blues.00000"
    assert wav_name("x/a.b.mp3", whole=False) == "x/a.b.wav"
    assert wav_name("x/a.b.mp3", whole=True) == "x/a.b.mp3.wav"
    assert wav_name("blues.00000", whole=False) == "blues.00000.wav"


def test_aliases_are_absolute_and_from_here_and_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("music")
    music = f"{tmp_path}/music"
    assert name_aliases("music") == (music, "music", music)
    assert name_aliases(music) == (music, "music", music)
    assert name_aliases("link") == (f"{tmp_path}/link", "link", music)
    assert name_aliases("gs://b/music") == ()


@pytest.mark.parametrize(
    "folder", ["music", "./music", "music/.", "music/../music", "music//", "/m/./music"]
)
def test_a_folder_may_be_written_in_many_ways(folder):
    assert AudioFolder(path=folder).name_file(f"{folder}/a/b.mp3") == "a/b.mp3"


@pytest.mark.parametrize(
    ("folders", "common"),
    [
        (["./music"], "./music"),
        (["music/a", "music/b/c"], "music"),
        (["music/a", "./music//ab"], "music"),
        (["music", "music/a"], "music"),
        (["a", "b"], ""),
        (["", "a"], ""),
        (["../a", "b"], ""),
        (["/x/a", "/y"], "/"),
        (["/x/a.zip!/a", "/x/b.zip!"], "/x"),
        (["a.zip!/x", "a.zip!/y/z"], "a.zip!"),
        (["gs://b/x/1", "gs://b/x/2"], "gs://b/x"),
        (["gs://b/x", "gs://b"], "gs://b"),
        (["gs://b/x", "gs://c/x"], None),
        (["gs://b/x", "/x"], None),
        (["x", "/x"], None),
    ],
)
def test_folders_have_one_in_common(folders, common):
    assert find_common(folders) == common


ALBUMS = AudioFolder(
    path="albums",
    aliases=(
        *("/home/me/albums", "albums", "/home/me/albums"),
        *("albums/first.zip!/First", "albums/second.zip!", "albums/loose"),
    ),
)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (
            "first.zip!/First/x/1.mp3",
            ["x/1.mp3", "first/x/1.mp3", "first/First/x/1.mp3", "First/x/1.mp3"],
        ),
        ("second.zip!/x/1.mp3", ["x/1.mp3", "second/x/1.mp3"]),
        ("loose/x/1.mp3", ["x/1.mp3"]),
        ("other/1.mp3", []),
    ],
)
def test_paths_start_in_each_of_several_folders(file, names):
    path = f"albums/{file}"
    assert ALBUMS.name_file(path) == file
    assert list(ALBUMS.rename_file(path)) == names
    key = ALBUMS.key(path)
    assert key == names[0].partition(".")[0] if names else file
    for name in (*names, file, path, f"/home/me/{path}"):
        assert ALBUMS.key(name) == key


def test_a_folder_alone_has_one_name_for_a_file():
    for folder in (
        AudioFolder(path="m", aliases=("/h/m", "m", "/h/m")),
        AudioFolder(path="", aliases=("/h/m", ".", "/h/m")),
        AudioFolder(path="/", aliases=("/", "../..", "/")),
        AudioFolder(path="a.zip!/a", aliases=("/h/a.zip!/a", "a.zip!/a", "a")),
    ):
        assert folder.rename_file(f"{folder.path}/x/1.mp3") == ()

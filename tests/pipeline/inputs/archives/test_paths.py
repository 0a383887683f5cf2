import unicodedata
from pathlib import Path

import pytest

from pipeline.common import storage
from pipeline.inputs.archives import paths
from pipeline.inputs.archives.reading import find_csv
from pipeline.inputs.audio_files import locate_audio, make_audio_check, match_audio
from pipeline.inputs.join import AudioFile
from pipeline.inputs.names import AudioFolder, name_aliases
from pipeline.schema import UserError
from tests.support.zips import encrypt, write_zip

FMA = {
    "fma_small/README.txt": b"read me",
    "fma_small/checksums": b"",
    "fma_small/000/000002.mp3": b"22",
    "fma_small/000/000005.MP3": b"555",
    "fma_small/001/001010.mp3": b"1010",
}


@pytest.fixture
def fma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "fma_small.zip", FMA)
    return "fma_small.zip"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.zip!/b/c.mp3", ("a.zip", "b/c.mp3")),
        ("gs://b/x/a.ZIP!/c", ("gs://b/x/a.ZIP", "c")),
        ("/x/a.zip!", ("/x/a.zip", "")),
        ("a.zip!/b.zip!/c", ("a.zip", "b.zip!/c")),
        ("a.zip", None),
        ("a.zip!b", None),
        ("azip!/b", None),
        ("a/b.mp3", None),
    ],
)
def test_a_path_leads_into_the_first_archive(path, found):
    assert paths.split(path) == found


def test_a_folder_of_such_a_name_is_a_folder(tmp_path):
    folder = tmp_path / "a.zip!"
    folder.mkdir()
    (folder / "b.mp3").write_bytes(b"1")
    assert paths.split(f"{folder}/b.mp3") is None
    [file] = match_audio(f"{folder}/*.mp3")
    assert file.path == f"{folder}/b.mp3"


def test_a_folder_that_is_named_as_a_zip_is_a_folder(tmp_path):
    (tmp_path / "a.zip").mkdir()
    (tmp_path / "a.zip" / "b.mp3").write_bytes(b"1")
    [file] = match_audio(f"{tmp_path}/a.zip")
    assert file.path == f"{tmp_path}/a.zip/b.mp3"


@pytest.mark.parametrize(
    ("pattern", "base", "names"),
    [
        ("{}", "{}!/fma_small", sorted(FMA)),
        ("zip://{}", "{}!/fma_small", sorted(FMA)),
        ("{}!/", "{}!/fma_small", sorted(FMA)),
        ("{}!/fma_small", "{}!/fma_small", sorted(FMA)),
        ("{}!/fma_small/000/", "{}!/fma_small/000", sorted(FMA)[:2]),
        ("{}!/fma_small/**.mp3", "{}!/fma_small", sorted(FMA)[:3]),
        ("zip://{}!/fma_small/**.mp3", "{}!/fma_small", sorted(FMA)[:3]),
        ("{}!/**/*.mp3", "{}!", sorted(FMA)[:3]),
        ("{}!/fma_small/00[1-9]/*", "{}!/fma_small", sorted(FMA)[2:3]),
        ("{}!/fma_small/000/000002.mp3", "{}!/fma_small/000", sorted(FMA)[:1]),
        ("{}!/fma_small/000/000002.{{mp3,wav}}", "{}!/fma_small/000", sorted(FMA)[:1]),
    ],
)
def test_globs_are_those_of_folders(fma, pattern, base, names):
    pattern = pattern.format(fma)
    files = match_audio(paths.drop_scheme(pattern))
    assert sorted(file.path for file in files) == [f"{fma}!/{name}" for name in names]
    assert all(len(file.crc) == 8 and file.size for file in files if "mp3" in file.path)
    assert locate_audio(pattern).path == base.format(fma)


def test_the_archive_may_lie_anywhere(fma, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    for pattern in (f"{tmp_path}/{fma}", f"../{fma}", f"~/{fma}", f"~/{fma}!/**"):
        assert len(match_audio(pattern)) == len(FMA)


def test_names_are_those_below_an_unpacked_folder(fma):
    base = locate_audio(fma).path
    folder = AudioFolder(path=base, aliases=name_aliases(base))
    assert folder.name_file(f"{fma}!/fma_small/000/000002.mp3") == "000/000002.mp3"
    for row in ("000/000002.mp3", "fma_small/000/000002.mp3"):
        assert "000/000002.mp3" in folder.readings(row)
        assert folder.key(row) == "000/000002"
        assert folder.name_row(row, whole=False) == "000/000002"


def test_what_lies_at_the_top_stays_there(tmp_path):
    contents = {"a.mp3": b"1", "b/c.mp3": b"2"}
    path = str(write_zip(tmp_path / "a.zip", contents))
    assert locate_audio(path).path == f"{path}!"
    mac = {"music/a.mp3": b"1", "music/x/b.mp3": b"2", "__MACOSX/music/._a.mp3": b"3"}
    path = str(write_zip(tmp_path / "mac.zip", mac))
    assert locate_audio(path).path == f"{path}!/music"
    assert len(match_audio(path)) == 2
    assert len(match_audio(f"{path}!/**")) == 3


def test_letters_with_accents_are_the_same(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Café/Été.mp3")
    path = str(write_zip(tmp_path / "a.zip", {decomposed: b"1", "x.mp3": b"2"}))
    for pattern in ("Café/*.mp3", "Café", "Café/Été.mp3"):
        for form in ("NFC", "NFD"):
            [file] = match_audio(f"{path}!/{unicodedata.normalize(form, pattern)}")
            assert file.path == f"{path}!/{decomposed}"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("fma_smal.zip", "there is no fma_smal.zip in the current folder (is it fma_"),
        ("{}!/fma_small/*.wav", "nothing in {}!/fma_small is named *.wav; give {} "),
        ("{}!/nothing", "nothing in {}! is named nothing; give {} alone."),
        ("no.zip!/*.mp3", "the ZIP cannot be read (No such file or directory); name"),
        ("no*.zip!/*.mp3", "matches no ZIP: none of the 1 files in the current folder"),
        ("no*.zip", "matches no ZIP: none of the 1 files in the current folder is"),
        ("*.zip!/*.mp3", "nothing in {}! is named *.mp3; give {} alone."),
    ],
)
def test_what_matches_nothing_is_one_sentence(fma, pattern, message):
    with pytest.raises(UserError) as caught:
        match_audio(pattern.format(fma))
    text = str(caught.value)
    assert message.format(fma, fma) in text
    assert text.startswith("--audio")
    assert "Received: " in text
    assert "\n" not in text


def test_an_archive_of_nothing_is_one_sentence(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"folder/": b""})
    with pytest.raises(UserError, match=r"matches no file: .*a\.zip holds none; fetch"):
        match_audio(str(path))


@pytest.fixture
def albums(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "albums").mkdir()
    for name in ("one", "two", "[3]"):
        contents = {f"{name}/01.mp3": b"1", f"{name}/02.MP3": b"22", "x": b"no audio"}
        write_zip(tmp_path / "albums" / f"{name}.zip", contents)
    (tmp_path / "albums" / "notes.txt").write_bytes(b"")
    return "albums"


ALL = [f"{n}.zip!/{n}/{file}" for n in ("[3]", "one", "two") for file in (1, 2)]


@pytest.mark.parametrize(
    ("patterns", "found", "folder"),
    [
        (["albums/*.zip!/**.mp3"], ALL, "albums"),
        (["albums/*.zip!/*/0[12].mp3"], ALL, "albums"),
        (["albums/*.ZIP!/**/01.*"], ALL[::2], "albums"),
        (["{albums,x}/{one,two}.zip!/**.mp3"], ALL[2:], "albums"),
        (["albums/[[]*.zip!/**.mp3"], ALL[:2], "albums/[3].zip!"),
        (["albums/one.zip!/**.mp3", "albums/two.zip!/**.mp3"], ALL[2:], "albums"),
        (["albums/*.zip!/**.mp3", "albums/one.zip!/one"], ALL, "albums"),
    ],
)
def test_globs_match_several_archives(albums, patterns, found, folder):
    files = sorted(file.path for file in match_audio(*patterns))
    assert [path.lower()[len("albums/") :] for path in files] == [
        name.replace("/1", "/01.mp3").replace("/2", "/02.mp3") for name in found
    ]
    assert locate_audio(*patterns).path == folder


def test_a_glob_of_archives_means_all_that_they_hold(albums):
    for pattern in ("albums/*.zip", "{albums,b}/**.zip", "zip://albums/*.zip"):
        assert len(match_audio(pattern)) == 9
    names = {"albums/{one,two}.zip": 6, "albums/{one.zip,two.zip}": 6}
    for pattern, count in names.items():
        assert len(match_audio(pattern)) == count
    folder = locate_audio("albums/*.zip")
    assert folder.key("one/one/01.mp3") == folder.key("albums/one.zip!/one/01.mp3")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["albums"], None),
        (["albums/*"], None),
        (
            ["albums/[[]3].zip", "albums/no*.zip"],
            "matches no ZIP: none of the 3",
        ),
        (["albums/*.zip!/*.wav"], "nothing in these 3 ZIPs is named *.wav. Received"),
        (["albums/one.zip", "albums/no.zip"], "there is no no.zip in albums"),
        (["**/*.rar", "albums"], "matches no file: none of the 3 files"),
    ],
)
def test_what_several_match_or_not_is_one_sentence(albums, patterns, message):
    (Path(albums) / "notes.txt").unlink()
    with pytest.raises(UserError) as caught:
        match_audio(*patterns)
    text = str(caught.value)
    assert (message or "matches ZIPs alone, which are read where their") in text
    assert text.startswith("--audio")
    assert "Received: " in text
    assert "\n" not in text


def test_one_archive_of_several_that_is_damaged_is_named(albums, tmp_path):
    path = tmp_path / "albums" / "two.zip"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"^--audio: albums/two.zip is no whole ZIP"):
        match_audio("albums/*.zip")


def test_one_archive_of_several_that_is_encrypted_is_rejects(albums, tmp_path):
    encrypt(tmp_path / "albums" / "one.zip")
    problems = {file.path: file.problem for file in match_audio("albums/*.zip")}
    assert [name for name, problem in problems.items() if problem] == [
        f"albums/one.zip!/{name}" for name in ("one/01.mp3", "one/02.MP3", "x")
    ]
    with pytest.raises(UserError, match="the first because it is encrypted; pack it"):
        match_audio("albums/one.zip")


def test_an_archive_in_an_archive_is_one_sentence(tmp_path, albums):
    inner = (tmp_path / "albums" / "one.zip").read_bytes()
    write_zip(tmp_path / "outer.zip", {"x/one.zip": inner, "x/two.zip": inner})
    with pytest.raises(UserError, match="unpack those that lie in another ZIP"):
        match_audio("outer.zip")
    # Beside audio it is no audio.
    write_zip(tmp_path / "mixed.zip", {"x/one.zip": inner, "x/a.mp3": b"1"})
    assert len(match_audio("mixed.zip")) == 2
    with pytest.raises(UserError, match=r"in a ZIP is not read; unpack mixed\.zip"):
        match_audio("mixed.zip!/x/one.zip!/one/01.mp3")


@pytest.mark.parametrize("patterns", [("gs://b/x", "gs://c/x"), ("x", "/y")])
def test_globs_have_a_folder_in_common(patterns, monkeypatch):
    monkeypatch.setattr(storage, "match", lambda _: [])
    with pytest.raises(UserError, match=r"must lie in one bucket, or on this machine"):
        locate_audio(*patterns)


def test_an_archive_that_was_cut_off_is_one_sentence(fma, tmp_path):
    path = tmp_path / fma
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"^--audio: fma_small.zip is no whole"):
        match_audio(fma)


def test_an_encrypted_archive_is_one_sentence(fma, tmp_path):
    data = bytearray(encrypt(tmp_path / fma).read_bytes())
    with pytest.raises(UserError, match="the first because it is encrypted; pack it"):
        match_audio(fma)
    # One of several is a reject.
    at = data.index(b"PK\1\2")
    data[at + 8] &= 0xFE
    (tmp_path / fma).write_bytes(data)
    problems = [file.problem for file in match_audio(fma)]
    assert problems.count("it is encrypted") == len(FMA) - 1


def test_audio_without_a_name_is_told_by_its_content(tmp_path):
    contents = {"song": b"ID3\4\0\0\0\0\0\0", "notes": b"la la la"}
    path = str(write_zip(tmp_path / "a.zip", contents))
    is_audio = make_audio_check()
    assert is_audio(AudioFile(f"{path}!/song", 10))
    assert not is_audio(AudioFile(f"{path}!/notes", 8))


def test_tables_are_found_in_archives(tmp_path):
    contents = {
        "fma_metadata/tracks.csv": b"1",
        "fma_metadata/genres.csv": b"2",
        "__MACOSX/fma_metadata/._tracks.csv": b"3",
    }
    fma = str(write_zip(tmp_path / "fma_metadata.zip", contents))
    table = f"{fma}!/fma_metadata/tracks.csv"
    for path in (fma, f"zip://{fma}", f"{fma}!/fma_metadata", table):
        assert find_csv(path, "tracks.csv", "--metadata") == table
    assert find_csv("x/tracks.csv", "tracks.csv", "--metadata") == "x/tracks.csv"
    one = str(write_zip(tmp_path / "one.zip", {"x/mine.csv": b"1", "a.txt": b"2"}))
    assert find_csv(one, "tracks.csv", "--metadata") == f"{one}!/x/mine.csv"
    two = str(write_zip(tmp_path / "two.zip", {"a.csv": b"1", "b.csv": b"2"}))
    with pytest.raises(UserError, match=r"it holds a.csv, b.csv\. Received: "):
        find_csv(two, "tracks.csv", "--metadata")
    none = str(write_zip(tmp_path / "none.zip", {"a.txt": b"1"}))
    with pytest.raises(UserError, match=r"must hold one tracks.csv, or name"):
        find_csv(none, "tracks.csv", "--metadata")

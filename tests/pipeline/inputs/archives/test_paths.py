import unicodedata

import pytest

from pipeline.inputs.archives import paths
from pipeline.inputs.archives.reading import find_csv
from pipeline.inputs.audio_files import glob_base, make_audio_check, match_audio
from pipeline.inputs.join import AudioFile
from pipeline.inputs.names import make_folder, name_aliases
from pipeline.schema import UserError
from tests.support.zips import write_zip

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
    assert glob_base(pattern) == base.format(fma)


def test_the_archive_may_lie_anywhere(fma, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    for pattern in (f"{tmp_path}/{fma}", f"../{fma}", f"~/{fma}", f"~/{fma}!/**"):
        assert len(match_audio(pattern)) == len(FMA)


def test_names_are_those_below_an_unpacked_folder(fma):
    base = glob_base(fma)
    folder = make_folder(base, name_aliases(base))
    assert folder.name_file(f"{fma}!/fma_small/000/000002.mp3") == "000/000002.mp3"
    for row in ("000/000002.mp3", "fma_small/000/000002.mp3"):
        assert "000/000002.mp3" in folder.readings(row)
        assert folder.key(row) == "000/000002"
        assert folder.name_row(row, whole=False) == "000/000002"


def test_what_lies_at_the_top_stays_there(tmp_path):
    contents = {"a.mp3": b"1", "b/c.mp3": b"2"}
    path = str(write_zip(tmp_path / "a.zip", contents))
    assert glob_base(path) == f"{path}!"
    mac = {"music/a.mp3": b"1", "music/x/b.mp3": b"2", "__MACOSX/music/._a.mp3": b"3"}
    path = str(write_zip(tmp_path / "mac.zip", mac))
    assert glob_base(path) == f"{path}!/music"
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
        ("*.zip!/*.mp3", "name one that is there. Received: *.zip"),
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


def test_an_archive_that_was_cut_off_is_one_sentence(fma, tmp_path):
    path = tmp_path / fma
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"^--audio: fma_small.zip is no whole"):
        match_audio(fma)


def test_an_encrypted_archive_is_one_sentence(fma, tmp_path):
    data = bytearray((tmp_path / fma).read_bytes())
    at = 0
    while (at := data.find(b"PK\1\2", at + 1)) > 0:
        data[at + 8] |= 1
    (tmp_path / fma).write_bytes(data)
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

"""Which file belongs to which row: every case that a user has reported, and its kin."""

import itertools
import unicodedata

import pytest

from pipeline.common.rejects import Reason
from pipeline.inputs.audio_names import looks_like_audio
from pipeline.inputs.join import AudioFile, Join, Pairing
from pipeline.inputs.metadata import Track
from pipeline.inputs.names import AudioFolder, audio_key

GENRES = ("Rock", "Jazz", "Pop")
FOLDER = AudioFolder(path="music", aliases=("/home/me/music", "music"))


def make_track(path: str, genre: str, number: int = 0, **changes) -> Track:
    values = {
        "key": "",
        "track_id": f"t{number}",
        "artist_id": "",
        "genres": (genre,) if genre else (),
        "split": "training",
        "path": path,
        "wanted": True,
    }
    return Track(**(values | changes))


def pair_all(
    rows: list[tuple[str, str]] | list[Track],
    files: list[str],
    *,
    kind: str = "plain",
    folder: AudioFolder = FOLDER,
    **options,
) -> Pairing:
    """Pairs group by group, as the survey and the job do."""
    join = Join(
        labels={genre: label for label, genre in enumerate(GENRES)},
        folder=folder,
        kind=kind,
        **options,
    )
    tracks = [
        row if isinstance(row, Track) else make_track(*row, number=number)
        for number, row in enumerate(rows)
    ]

    def key(path: str) -> str:
        return audio_key(path, kind, folder)

    found = [AudioFile(f"{folder.path}/{name}", 9) for name in files]
    keys = {key(track.path) for track in tracks} | {key(file.path) for file in found}
    whole = Pairing([], [], [], [], [])
    for each in sorted(keys):
        part = join.pair(
            [track for track in tracks if key(track.path) == each],
            [file for file in found if key(file.path) == each],
        )
        for total, more in zip(whole, part, strict=True):
            total.extend(more)
    wanted = [track for track in tracks if track.wanted]
    ends = [clip.track_id for clip in whole.clips] + [
        reject.track_id
        for reject in whole.rejects
        if reject.track_id and reject.reason is not Reason.DUPLICATE_FILE
    ]
    assert sorted(ends) == sorted(track.track_id for track in wanted)
    row_only = (Reason.MISSING, Reason.DUPLICATE_ROW, Reason.AMBIGUOUS_ROW)
    placed = [clip.path for clip in whole.clips] + [
        reject.path for reject in whole.rejects if reject.reason not in row_only
    ]
    placed += whole.not_wanted + whole.not_audio
    assert sorted(placed) == sorted(file.path for file in found)
    return whole


def labels(pairing: Pairing) -> dict[str, str]:
    return {
        clip.path.removeprefix("music/"): GENRES[clip.labels[0]]
        for clip in pairing.clips
    }


def reasons(pairing: Pairing) -> set[tuple[str, str]]:
    return {(reject.reason, reject.path) for reject in pairing.rejects}


def test_two_songs_of_one_stem_have_their_own_labels():
    found = pair_all([("a.mp3", "Rock"), ("a.wav", "Jazz")], ["a.wav", "a.mp3"])
    assert labels(found) == {"a.mp3": "Rock", "a.wav": "Jazz"}
    assert found.rejects == []
    only = pair_all([("a.wav", "Jazz")], ["a.mp3", "a.wav"])
    assert labels(only) == {"a.wav": "Jazz"}
    assert reasons(only) == {("duplicate_file", "music/a.mp3")}


def test_what_is_no_audio_competes_with_nothing():
    rows = [(f"{name}.mp3", "Rock") for name in "abc"]
    files = ["a.mp3", "a.jpg", "b.mp3", "b.json", "c.mp3", "c.lrc", "cover.png", "._a"]
    found = pair_all(rows, files, is_audio=lambda file: file.path.endswith(".mp3"))
    assert len(found.clips) == 3
    assert found.rejects == []
    assert found.not_audio == [
        f"music/{name}" for name in ("._a", "a.jpg", "b.json", "c.lrc", "cover.png")
    ]


def test_what_a_row_names_takes_part_whatever_it_is():
    found = pair_all([("a.jpg", "Rock"), ("b", "Jazz")], ["a.jpg", "b", "b.txt"])
    assert labels(found) == {"a.jpg": "Rock", "b": "Jazz"}
    assert found.not_audio == ["music/b.txt"]


@pytest.mark.parametrize("start", ["", "music/", "/home/me/music/", "./", ".//music/"])
def test_paths_start_where_people_start_them(start):
    rows = [(f"{start}x/a.wav", "Rock"), (f"{start}b.wav", "Jazz")]
    for folder in (FOLDER, AudioFolder(path="/home/me/music", aliases=("music",))):
        found = pair_all(rows, ["x/a.wav", "b.wav"], folder=folder)
        assert {clip.path: GENRES[clip.labels[0]] for clip in found.clips} == {
            f"{folder.path}/x/a.wav": "Rock",
            f"{folder.path}/b.wav": "Jazz",
        }


def test_a_folder_in_a_folder_of_its_name():
    files = ["a.wav", "music/a.wav", "music/b.wav"]
    rows = [("a.wav", "Rock"), ("music/a.wav", "Jazz"), ("music/b.wav", "Jazz")]
    for ordered in itertools.permutations(rows):
        assert labels(pair_all(list(ordered), files)) == {
            "a.wav": "Rock",
            "music/a.wav": "Jazz",
            "music/b.wav": "Jazz",
        }


def test_a_path_with_two_meanings_is_not_guessed():
    found = pair_all([("music/a.wav", "Jazz")], ["a.wav", "music/a.wav"])
    assert found.clips == []
    assert reasons(found) == {
        ("ambiguous_row", "music/a.wav"),
        ("ambiguous_file", "music/a.wav"),
        ("ambiguous_file", "music/music/a.wav"),
    }
    [message] = [r.message for r in found.rejects if r.reason == "ambiguous_row"]
    assert message.startswith("music/a.wav, music/music/a.wav fit it; ")
    absolute = [("/home/me/music/a.wav", "Jazz")]
    assert labels(pair_all(absolute, ["a.wav", "music/a.wav"])) == {"a.wav": "Jazz"}


def test_a_name_without_extension_takes_the_one_that_fits():
    rows = [(f"blues/blues.0000{n}", "Rock") for n in range(3)]
    found = pair_all(rows, [f"blues/blues.0000{n}.au" for n in range(3)])
    assert len(found.clips) == 3
    assert {clip.path[-4] for clip in found.clips} == {"0", "1", "2"}
    assert labels(pair_all([("a.wav", "Pop")], ["a.flac"])) == {"a.flac": "Pop"}
    assert labels(pair_all([("up.wav", "Pop")], ["up.WAV"])) == {"up.WAV": "Pop"}


@pytest.mark.parametrize("row", ["a", "a.flac"])
def test_several_that_fit_are_a_reject_that_names_them(row):
    found = pair_all([(row, "Rock")], ["a.mp3", "a.wav", "a.txt"])
    assert found.clips == []
    assert reasons(found) == {
        ("ambiguous_row", row),
        ("ambiguous_file", "music/a.mp3"),
        ("ambiguous_file", "music/a.wav"),
    }
    [message] = [r.message for r in found.rejects if r.reason == "ambiguous_row"]
    assert "music/a.mp3, music/a.wav fit it" in message
    assert found.not_audio == ["music/a.txt"]


def test_several_rows_that_fit_one_file_are_rejects():
    """Nobody says which of the two the file is, and which genre."""
    found = pair_all([("a.mp3", "Rock"), ("a.wav", "Jazz")], ["a.flac"])
    assert found.clips == []
    assert reasons(found) == {
        ("ambiguous_row", "a.mp3"),
        ("ambiguous_row", "a.wav"),
        ("ambiguous_file", "music/a.flac"),
    }
    [message] = [r.message for r in found.rejects if r.reason == "ambiguous_file"]
    assert message == "it may be the file of a.mp3 (Rock), a.wav (Jazz)"


def test_a_second_row_of_a_file_says_what_it_contradicts():
    found = pair_all([("a.wav", "Rock"), ("./a.wav", "Jazz")], ["a.wav"])
    assert labels(found) == {"a.wav": "Rock"}
    [reject] = found.rejects
    assert (reject.reason, reject.track_id) == ("duplicate_row", "t1")
    assert reject.message == (
        "another row names the same file, as Rock (a.wav, track t0)"
    )


def test_of_several_rows_of_a_file_one_with_a_genre_is_used():
    found = pair_all([("a.wav", ""), ("a.wav", "Rock")], ["a.wav"])
    assert labels(found) == {"a.wav": "Rock"}
    assert found.contradictions == []
    assert found.rejects[0].message.endswith("file, as Rock (a.wav, track t1)")


def test_a_second_row_of_a_file_says_in_which_split_it_is():
    rows = [make_track("a.wav", "Rock", split="test"), make_track("a.wav", "Rock", 1)]
    [reject] = pair_all(rows, ["a.wav"]).rejects
    assert reject.message.endswith("file, in test (a.wav, track t0)")


@pytest.mark.parametrize(
    "other", ["./a.wav", "a.wav", "music/a.wav", "/home/me/music/a.wav"]
)
def test_contradictions_are_found_whatever_the_spelling(other):
    found = pair_all([("music/a.wav", "Rock"), (other, "Jazz")], ["a.wav"])
    assert found.contradictions == ["music/a.wav (Jazz, Rock)"]


def test_letters_are_compared_in_nfc():
    name = "Bj\u00f6rk.wav"
    decomposed = unicodedata.normalize("NFD", name)
    for row, file in itertools.product((name, decomposed), repeat=2):
        assert labels(pair_all([(row, "Pop")], [file])) == {file: "Pop"}
    both = pair_all([(name, "Pop"), (decomposed, "Jazz")], [name, decomposed])
    assert labels(both) == {name: "Pop", decomposed: "Jazz"}


def test_blanks_are_letters():
    rows = [(" a.wav", "Rock"), ("a.wav", "Jazz")]
    assert labels(pair_all(rows, [" a.wav", "a.wav"])) == dict(rows)
    found = pair_all([(" a.wav", "Rock")], ["a.wav"])
    assert reasons(found) == {("missing", " a.wav"), ("no_metadata", "music/a.wav")}


def test_backslashes_are_slashes_unless_they_are_letters():
    assert labels(pair_all([("sub\\b.wav", "Jazz")], ["sub/b.wav"])) == {
        "sub/b.wav": "Jazz"
    }
    assert labels(pair_all([("sub\\b.wav", "Jazz")], ["sub/b.wav", "sub\\b.wav"])) == {
        "sub\\b.wav": "Jazz"
    }


def test_files_of_unwanted_rows_are_not_wanted():
    rows = [
        make_track("a.mp3", "Rock", 0, wanted=False),
        make_track("a.wav", "Jazz", 1),
        make_track("b", "Rock", 2, wanted=False),
    ]
    found = pair_all(rows, ["a.mp3", "a.wav", "b.mp3", "b.wav", "b.jpg"])
    assert labels(found) == {"a.wav": "Jazz"}
    assert found.not_wanted == ["music/a.mp3", "music/b.mp3", "music/b.wav"]
    assert found.not_audio == ["music/b.jpg"]


def test_genres_of_nothing_and_links_to_nothing_are_rejects():
    join = Join(labels={"Rock": 0}, folder=FOLDER)
    nothing = make_track("a.wav", "", no_genre="nan")
    [reject] = join.pair([nothing], [AudioFile("music/a.wav", 1)]).rejects
    assert reject.message == (
        "the metadata gives no genre but nan, which stands for nothing"
    )
    gone = AudioFile("music/a.wav", 0, 0.0, "it is a link to x: No such file")
    [reject] = join.pair([make_track("a.wav", "Rock")], [gone]).rejects
    assert (reject.reason, reject.message) == ("unreadable", gone.problem)


def test_a_row_that_finds_nothing_is_told_the_nearest():
    found = pair_all([("b.wav", "Rock")], [], nearest={"b.wav": "music/c.wav"})
    assert found.rejects[0].message == (
        "no audio file matches it; the nearest is music/c.wav"
    )


def test_fma_files_are_known_by_their_number():
    """Not their pictures; of several, the one of FMA's own name is used."""
    rows = [make_track("000/000002.mp3", "Rock", 2)]
    files = ["000/000002.jpg", "000/000002.mp3", "000/2.flac", "README.txt", "3.mp3"]
    found = pair_all(rows, files, kind="fma")
    assert labels(found) == {"000/000002.mp3": "Rock"}
    assert reasons(found) == {
        ("duplicate_file", "music/000/2.flac"),
        ("no_metadata", "music/3.mp3"),
    }
    assert found.not_audio == ["music/000/000002.jpg", "music/README.txt"]


def test_an_fma_file_that_cannot_be_read_takes_no_track_from_one_that_can():
    [track] = [make_track("000/000002.mp3", "Rock", 2)]
    for first, second in itertools.permutations(("000/000002.mp3", "2.mp3")):
        bad = AudioFile(f"music/{first}", 9, problem="it is encrypted")
        good = AudioFile(f"music/{second}", 9)
        found = Join(labels={"Rock": 0}, folder=FOLDER, kind="fma").pair(
            [track], [bad, good]
        )
        assert [clip.path for clip in found.clips] == [good.path]
        [reject] = found.rejects
        assert (reject.reason, reject.path) == ("duplicate_file", bad.path)


def names_of_wavs(clips) -> list[bool]:
    return [clip.whole_name for clip in sorted(clips, key=lambda clip: clip.path)]


def test_wavs_that_would_meet_keep_whole_names():
    rows = [("a.mp3", "Rock"), ("a.wav", "Jazz"), ("b.mp3", "Rock"), ("c.x", "Pop")]
    found = pair_all(rows, [row for row, _ in rows])
    assert names_of_wavs(found.clips) == [True, True, False, False]
    # A later run on the WAVs finds them by the same rows.
    again = pair_all(rows, ["a.mp3.wav", "a.wav.wav", "b.wav", "c.x.wav"])
    assert labels(again) == {
        "a.mp3.wav": "Rock",
        "a.wav.wav": "Jazz",
        "b.wav": "Rock",
        "c.x.wav": "Pop",
    }
    assert again.rejects == []


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF\x24\x08\0\0WAVE",
        b"ID3\4\0",
        b"\xff\xfb\x90\x64",
        b"\xff\xf1\x50\x80",
        b"fLaC",
        b"OggS",
        b"\0\0\0\x20ftypM4A ",
        b"\x1a\x45\xdf\xa3",
    ],
)
def test_audio_is_known_by_its_first_bytes(head):
    assert looks_like_audio(head + bytes(20))


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff", b"\xff\xd8\xff\xe0", b"\x89PNG", b"{}", b"\xff\xfe\0\0", b"a"],
)
def test_pictures_and_texts_are_no_audio(head):
    assert not looks_like_audio(head)


ALBUMS = AudioFolder(
    path="albums", aliases=("albums/one.zip!/One", "albums/two.zip!", "albums/three")
)


def test_rows_name_the_files_of_several_archives():
    """As they lie there, as unpacked, or by what the archive's own folder holds."""
    rows = [
        ("one.zip!/One/01.mp3", "Rock"),
        ("one/02.mp3", "Rock"),
        ("One/03.wav", "Rock"),
        ("two/01.mp3", "Jazz"),
        ("only.mp3", "Jazz"),
        ("three/01", "Pop"),
    ]
    files = [
        *("one.zip!/One/01.mp3", "one.zip!/One/02.mp3", "one.zip!/One/03.mp3"),
        *("two.zip!/01.mp3", "two.zip!/only.mp3", "three/01.mp3"),
    ]
    found = pair_all(rows, files, folder=ALBUMS)
    assert not found.rejects
    paths = {clip.track_id: clip.path for clip in found.clips}
    assert paths == {f"t{n}": f"albums/{file}" for n, file in enumerate(files)}


def test_nobody_guesses_between_archives():
    files = ["one.zip!/One/01.mp3", "two.zip!/01.mp3", "three/02.mp3"]
    found = pair_all([("01.mp3", "Rock")], files, folder=ALBUMS)
    reasons = {(reject.path, reject.reason) for reject in found.rejects}
    assert reasons == {
        ("01.mp3", Reason.AMBIGUOUS_ROW),
        ("albums/one.zip!/One/01.mp3", Reason.AMBIGUOUS_FILE),
        ("albums/two.zip!/01.mp3", Reason.AMBIGUOUS_FILE),
        ("albums/three/02.mp3", Reason.NO_METADATA),
    }
    # What one row names, another may mean by less.
    rows = [("01.mp3", "Rock"), ("two/01.mp3", "Jazz")]
    found = pair_all(rows, files, folder=ALBUMS)
    assert {clip.track_id: clip.path for clip in found.clips} == {
        "t0": "albums/one.zip!/One/01.mp3",
        "t1": "albums/two.zip!/01.mp3",
    }

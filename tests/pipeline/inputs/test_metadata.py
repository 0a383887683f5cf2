import collections
import csv
import dataclasses
import io
import tracemalloc

import pytest

from pipeline.inputs import metadata
from pipeline.inputs.genres import FMA_GENRES
from pipeline.inputs.metadata import (
    MetadataConfig,
    read_layout,
    read_tracks,
)
from pipeline.inputs.names import AudioFolder
from pipeline.inputs.splits import SplitConfig, split_by_hash
from pipeline.schema import SPLITS, UserError

HASH = SplitConfig(rule="hash", percent=(50.0, 25.0, 25.0))
#: FMA's three header rows, cut down to what is used and one more column.
FMA_HEADER = (
    ",artist,artist,set,set,track\n,id,name,split,subset,genre_top\ntrack_id,,,,,\n"
)


def read(text: str, **config) -> list[metadata.Track]:
    file = io.StringIO(text, newline="")
    return list(read_tracks(file, MetadataConfig(path="m.csv", **config)))


def refuse(text: str, **config) -> str:
    with pytest.raises(UserError) as caught:
        read(text, **config)
    message = str(caught.value)
    assert "\n" not in message
    return message


# FMA


@pytest.fixture(scope="module")
def genuine(genuine_tracks) -> list[metadata.Track]:
    with genuine_tracks.open(encoding="utf-8", newline="") as file:
        return list(read_tracks(file, MetadataConfig(path="tracks.csv")))


def test_the_genuine_file(genuine):
    assert len(genuine) == 682
    assert dataclasses.asdict(genuine[0]) == {
        "key": "2",
        "track_id": "2",
        "artist_id": "1",
        "genres": ("Hip-Hop",),
        "split": "training",
        "path": "000/000002.mp3",
        "wanted": True,
        "no_genre": "",
        "below_top": False,
    }
    assert genuine[-1].track_id == "932"
    assert len({track.track_id for track in genuine}) == 682
    assert {track.genre for track in genuine} <= {*FMA_GENRES, ""}
    assert sum(not track.genre for track in genuine) == 51
    assert {track.split for track in genuine} == set(SPLITS)
    assert all(track.artist_id.isdecimal() for track in genuine)


@pytest.mark.parametrize(
    ("subset", "count"),
    [("small", 58), ("medium", 58 + 136), ("large", 682), ("full", 682)],
)
def test_subsets_of_the_genuine_file_contain_the_smaller(genuine_tracks, subset, count):
    config = MetadataConfig(path="tracks.csv", subset=subset)
    with genuine_tracks.open(encoding="utf-8", newline="") as file:
        tracks = list(read_tracks(file, config))
    assert len(tracks) == 682
    assert sum(track.wanted for track in tracks) == count


def test_the_genuine_file_agrees_with_pandas_reading(genuine, genuine_tracks):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(genuine_tracks, index_col=0, header=[0, 1])
    # FMA's own loader: the third header row names the index.
    genres = table["track", "genre_top"].fillna("")
    assert [track.genre for track in genuine] == genres.tolist()
    assert [track.split for track in genuine] == table["set", "split"].tolist()


def test_columns_are_found_by_name():
    turned = (
        ",track,set,artist,set\n,genre_top,subset,id,split\ntrack_id,,,,\n"
        "0012,Jazz,medium,77,test\n"
    )
    (track,) = read(turned)
    assert (track.track_id, track.artist_id) == ("12", "77")
    assert (track.genre, track.split) == ("Jazz", "test")
    assert track.path == "000/000012.mp3"


def test_fields_may_span_lines_and_hold_commas_and_quotes():
    rows = (
        '5,1,"He said ""hi"",\nthen, left\r\n\n",training,small,Rock\r\n'
        "\r\n"
        "123456,2,x,test,large,\n"
    )
    first, second = read(FMA_HEADER + rows)
    assert (first.track_id, first.genre) == ("5", "Rock")
    assert (second.key, second.path) == ("123456", "123/123456.mp3")
    assert second.genre == ""


def test_columns_that_fma_has_twice_are_refused():
    header = [
        line + f",{more}"
        for line, more in zip(
            FMA_HEADER.splitlines(), ("track", "genre_top", ""), strict=True
        )
    ]
    message = refuse("\n".join(header) + "\n1,1,x,training,small,Rock,Pop\n")
    assert message.startswith("m.csv: several columns are named track genre_top;")


def test_wanted_are_subset_and_genres():
    rows = (
        "1,1,x,training,small,Rock\n"
        "2,1,x,training,medium,Rock\n"
        "3,1,x,training,small,Jazz\n"
        "4,1,x,training,small,\n"
    )
    tracks = read(FMA_HEADER + rows, subset="small", genres=("Rock", "Pop"))
    # A track without a genre is rejected later, visibly.
    assert [track.wanted for track in tracks] == [True, False, False, True]


def test_fma_splits_can_be_replaced_by_hash():
    rows = "".join(f"{i},{i % 7},x,test,small,Rock\n" for i in range(1, 40))
    assert {track.split for track in read(FMA_HEADER + rows)} == {"test"}
    hashed = read(FMA_HEADER + rows, split=HASH)
    for track in hashed:
        expected = split_by_hash(track.artist_id, track.track_id, HASH.percent)
        assert track.split == expected
    assert len({track.split for track in hashed}) > 1


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (
            "x7,1,n,test,small,Rock",
            "track_id must be a number of at most 18 digits. Received: 'x7'",
        ),
        (
            ",1,n,test,small,Rock",
            "track_id must be a number of at most 18 digits. Received: ''",
        ),
        ("7,1,n,test,tiny,Rock", "unknown subset. Received: 'tiny'; it must be one of"),
        ("7,1,n,test,,Rock", "unknown subset. Received: ''"),
        ("7,1,n,train,small,Rock", "unknown split. Received: 'train'"),
        ("7,1,n,,small,Rock", "unknown split. Received: ''"),
        ("7,1,n,test,small,Polka", "unknown genre. Received: 'Polka'"),
        ("7,1,n,test,small", "expected 6 columns as in the header. Received: 5"),
        ("7,1,n,test,small,Rock,", "expected 6 columns as in the header. Received: 7"),
    ],
)
def test_errors_in_fma_rows_name_the_line(row, found):
    good = '2,1,"two\nlines",test,small,Rock\n'
    message = refuse(FMA_HEADER + good + row + "\n")
    assert message.startswith(f"m.csv line 6: {found}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a,b,c\n1,2,3\n",
        "genre,title\nRock,x\n",
        FMA_HEADER.replace("track_id", "id"),
        FMA_HEADER.replace("subset", "size"),
        FMA_HEADER.splitlines()[0],
        "\n".join(FMA_HEADER.splitlines()[:2]),
        "<html>\n<body>\n",
    ],
)
def test_files_of_another_shape_are_refused(text):
    message = refuse(text)
    assert message.startswith("m.csv is neither FMA's tracks.csv (three header rows")
    shown = ",".join(next(csv.reader(io.StringIO(text)), [])) or "nothing"
    assert message.endswith(f"Its first row is: {shown}")


def test_a_quote_that_is_never_closed_is_no_csv(monkeypatch):
    monkeypatch.setattr(metadata, "_FIELD_LIMIT", 1_000)
    row = '3,1,"never closed,test,small,Rock\n'
    message = refuse(FMA_HEADER + row + "4,1,x,test,small,Rock\n" * 100)
    assert message.startswith(
        "m.csv line 4: the row that begins there is no CSV (field larger than field "
        "limit (1000)). Close its quotes"
    )
    assert refuse('"' + "x" * 2_000).startswith("m.csv line 1: the row")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        # Rows would be letters of a genre.
        ('a.wav,"Rock\nb.wav,Jazz\n', "line 2: the row that begins there is no CSV"),
        ('a.wav,"Rock\nb.wav,"Jazz"\n', "is no CSV (',' expected after '\"')"),
        ('a.wav,Rock\n"b\n.wav",Pop\nc.wav,"Jazz\n', "line 5: the row that begins"),
        ('a.wav,"Rock\nb.wav,Jazz"\nc.wav,Pop\n', "line 3: the genre goes on behind"),
        ('a.wav,"Rock\rb.wav,Jazz"\rc.wav,Pop\r', "the genre goes on behind"),
    ],
)
def test_a_quote_that_is_closed_too_late_hides_no_row(rows, message):
    assert message in refuse("path,genre\n" + rows)


def test_a_line_break_that_no_row_follows_is_a_part_of_its_value():
    (track,) = read('path,genre,artist_id\n"a\nb,c.wav",Rock,"new\nline"\n')
    assert (track.path, track.artist_id) == ("a\nb,c.wav", "new\nline")


def test_what_is_no_end_of_a_csv_line_may_be_in_a_genre():
    (track,) = read("path,genre,artist_id\na.wav,Rock\x0b\x85Roll,X\u2028Y\n")
    assert (track.genres, track.artist_id) == (("Rock\x0b\x85Roll",), "X\u2028Y")


def test_other_columns_of_fma_hold_line_breaks_and_quotes():
    title = '"<p>""So"" he, said\r\n\n\u2028 \x85"'
    rows = f"3,1,{title},test,small,Rock\n4,1.0,x,test,small,Rock\n"
    assert [track.track_id for track in read(FMA_HEADER + rows)] == ["3", "4"]


def test_long_fields_are_read_without_a_change_to_the_limit_of_others():
    limit = csv.field_size_limit()
    long = "x" * (limit + 1)
    file = io.StringIO(FMA_HEADER + f"3,1,{long},test,small,Rock\n" * 2, newline="")
    for track in read_tracks(file, MetadataConfig(path="m.csv")):
        assert track.track_id == "3"
        with pytest.raises(csv.Error, match="field larger than field limit"):
            next(csv.reader([long]))
    assert read(f'"path",genre,artist_id\na,Fado,{long}\n')[0].artist_id == long
    assert csv.field_size_limit() == limit


# Plain CSV


def test_a_plain_file():
    text = (
        "track_id,split,genre,path,artist_id\n"
        "t1,train,Fado,a/one.mp3,ana\n"
        "t2,VAL,Morna,a/two.mp3,\n"
        ",test,,b.flac,ana\n"
    )
    first, second, third = read(text)
    assert dataclasses.asdict(first) == {
        "key": "a/one",
        "track_id": "t1",
        "artist_id": "ana",
        "genres": ("Fado",),
        "split": "training",
        "path": "a/one.mp3",
        "wanted": True,
        "no_genre": "",
        "below_top": False,
    }
    assert (second.split, second.artist_id) == ("validation", "")
    # Without an id of its own a track goes by its path.
    assert (third.track_id, third.split, third.genre) == ("b", "test", "")


def test_two_columns_are_enough():
    tracks = read("path,genre\na.mp3,Rock\nb.mp3,Jazz\n", genres=("Jazz",))
    assert [track.wanted for track in tracks] == [False, True]
    config = SplitConfig()
    for track in tracks:
        assert track.split == split_by_hash("", track.track_id, config.percent)


@pytest.mark.parametrize("path", ["x/a.mp3", "./x/a.mp3", "/music//x/./a.mp3"])
def test_paths_may_be_relative_or_absolute(path):
    (track,) = read(f"path,genre\n{path},Rock\n", folder=AudioFolder(path="/music"))
    assert (track.key, track.path) == ("x/a", path)


def test_quoted_fields_spaces_and_a_byte_order_mark():
    plain = 'path,genre\n"x, y/a ""live"".mp3","Folk, Old"\n'
    for text in (
        plain,
        "\ufeff" + plain,
        "\ufeff" + plain.replace("path,genre", '"path","genre"'),
        plain.replace("path,genre", " path , genre "),
        plain.replace("\n", "\r\n"),
        plain + "\n\n",
    ):
        (track,) = read(text)
        assert (track.path, track.genre) == ('x, y/a "live".mp3', "Folk, Old")


def test_hash_overrules_fmas_splits():
    rows = "".join(f"{i},{i},n,{'dev' * (i % 2)},small,Rock\n" for i in range(30))
    tracks = read(FMA_HEADER + rows, split=HASH)
    assert {track.split for track in tracks} == set(SPLITS)


def test_hash_overrules_a_split_column():
    text = "path,genre,split\n" + "".join(f"{i},R,nonsense\n" for i in range(30))
    tracks = read(text, split=HASH)
    assert {track.split for track in tracks} == set(SPLITS)


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        (
            "path,genre,bpm,mood\n",
            {},
            "m.csv: unknown columns bpm, mood; the columns are "
            "path,genre[,track_id,artist_id,split].",
        ),
        (
            "path,genre\na,b\n",
            {"split": SplitConfig(rule="fma")},
            "--split fma needs a split column, which m.csv lacks; add one or use "
            "--split hash.",
        ),
        (
            "path,genre\na,b\n",
            {"subset": "small"},
            "--subset is for FMA's tracks.csv; a plain CSV has no subsets. "
            "Received: --subset small with m.csv",
        ),
        (
            "path,genre,split\na,b,test\nc,d,dev\n",
            {},
            "m.csv line 3: unknown split. Received: 'dev'; it must be one of "
            "training, validation, test.",
        ),
        (
            "path,genre\na,b\nc\n",
            {},
            "m.csv line 3: expected 2 columns as in the header. Received: 1",
        ),
        (
            "path,genre\n ,b\n",
            {},
            "m.csv line 2: the path is empty; name an audio file.",
        ),
    ],
)
def test_errors_in_plain_files(text, config, message):
    assert refuse(text, **config) == message


def test_subsets_are_fmas():
    with pytest.raises(UserError, match=r"^--subset must be one of small, .* 'huge'$"):
        MetadataConfig(path="m.csv", subset="huge")


# What spreadsheets and pandas write


@pytest.mark.parametrize(
    "text",
    [
        ",path,genre\n0,a.wav,Rock\n1,b.wav,Jazz\n",
        "Unnamed: 0,path,genre\n0,a.wav,Rock\n1,b.wav,Jazz\n",
        "Unnamed: 0.1,Unnamed: 0,path,genre\n0,0.0,a.wav,Rock\n1,1.0,b.wav,Jazz\n",
        "path,genre,\na.wav,Rock,\nb.wav,Jazz,\n",
        "path,genre,,\na.wav,Rock\nb.wav,Jazz,,\n",
        "path,genre\na.wav,Rock,\nb.wav,Jazz,,\n,,\n",
        "path,genre\na.wav,Rock\n  \n , \nb.wav,Jazz\n\t\n",
        "path,genre,artist_id\na.wav,Rock,nan\nb.wav,Jazz,NaN\n",
        "path,genre,artist_id\na.wav,Rock,None\nb.wav,Jazz,<NA>\n",
    ],
)
def test_columns_without_a_name_and_cells_of_nothing(text):
    tracks = read(text)
    found = [(track.path, track.genre, track.artist_id) for track in tracks]
    assert found == [("a.wav", "Rock", ""), ("b.wav", "Jazz", "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,genre,genre\na,b,c\n",
            "m.csv: several columns are named genre; leave one of each. Received: "
            "path,genre,genre",
        ),
        (
            "path,genre,\na,b,loud\n",
            "m.csv line 2: column 3 has no name in the header; name it, or leave it "
            "out. Received: 'loud'",
        ),
        (
            ",path,genre\nx,a,b\n",
            "m.csv line 2: column 1 has no name in the header; name it, or leave it "
            "out. Received: 'x'",
        ),
        (
            "path,genre\na,b,c\n",
            "m.csv line 2: expected 2 columns as in the header. Received: 3",
        ),
        (
            'path, genre\na, "b"\n',
            "m.csv line 2: a blank stands before the quotes of the genre; remove it, "
            "as they are taken for a part of it. Received: ' \"b\"'",
        ),
        ("path,genre\nnan,b\n", "m.csv line 2: the path is empty; name an audio file."),
    ],
)
def test_columns_that_are_refused(text, message):
    assert refuse(text) == message


def test_the_genre_nan_is_none():
    first, second, third = read("path,genre\na,nan\nb,NaN\nc,\n")
    assert {first.genre, second.genre, third.genre} == {""}
    assert [first.no_genre, second.no_genre, third.no_genre] == ["nan", "NaN", ""]


@pytest.mark.parametrize("word", ["None", "NULL", "N/A", "#N/A", "<NA>", "na", "NaT"])
def test_other_words_for_nothing_are_no_genre(word):
    [track, other] = read(f"path,genre\na,{word}\nnone,Rock\n")
    assert (track.genre, track.no_genre) == ("", word)
    assert other.path == "none"


def test_artists_go_by_nfc():
    first, second = read("path,genre,artist_id\na,R,S\u00e9\nb,R,Se\u0301\n")
    assert first.artist_id == second.artist_id == "S\u00e9"


@pytest.mark.parametrize("kind", ["plain", "fma"])
def test_artists_that_pandas_made_floats_are_the_same(kind):
    artists = ["7", "7.0", "7.50", "v1.0", "7.00"]
    text = "path,genre,artist_id\n" + "".join(f"{a},Fado,{a}\n" for a in artists)
    if kind == "fma":
        header = ",track,set,artist,set\n,genre_top,subset,id,split\ntrack_id,,,,\n"
        rows = (f"{i},Jazz,medium,{a},test\n" for i, a in enumerate(artists))
        text = header + "".join(rows)
    tracks = list(read(text))
    found = [track.artist_id for track in tracks]
    assert found == ["7", "7", "7.50", "v1.0", "7.00"]
    if kind == "plain":
        assert tracks[0].split == tracks[1].split
        assert [track.track_id for track in tracks[:2]] == ["7", "7.0"]


def test_genres_go_by_nfc():
    first, second = read("path,genre\na,M\u00fasica\nb,Mu\u0301sica\n")
    assert first.genre == second.genre


def test_paths_keep_their_blanks_and_go_by_nfc():
    tracks = read("path,genre\n lead.wav,Rock\nBjo\u0308rk .wav , Jazz \n")
    assert [track.path for track in tracks] == [" lead.wav", "Bjo\u0308rk .wav "]
    assert [track.key for track in tracks] == [" lead", "Bj\u00f6rk .wav "]
    assert tracks[1].genre == "Jazz"


def test_ids_are_whole_names_where_two_would_be_the_same():
    text = "path,genre\na.mp3,R\na.wav,J\nb.mp3,R\nblues.00000,B\n"
    assert [t.track_id for t in read(text)] == ["a", "a", "b", "blues.00000"]
    tracks = read(text, shared_keys=frozenset({"a"}))
    assert [t.track_id for t in tracks] == ["a.mp3", "a.wav", "b", "blues.00000"]
    for track in tracks:
        assert track.split == split_by_hash("", track.track_id, (80.0, 10.0, 10.0))


# Layout


def test_the_layout_tells_kind_and_rule():
    def layout(text: str, **config):
        rows = csv.reader(io.StringIO(text))
        return read_layout(rows, MetadataConfig(path="m.csv", **config))

    fma = layout(FMA_HEADER)
    assert (fma.kind, fma.split.rule, fma.width) == ("fma", "fma", 6)
    assert fma.columns == {
        "track_id": 0,
        "artist_id": 1,
        "split": 3,
        "subset": 4,
        "genre": 5,
    }
    assert layout("path,genre").split.rule == "hash"
    assert layout("path,genre,split").split.rule == "fma"
    assert layout("path,genre,split", split=HASH).split == HASH


# Scale


def test_rows_are_not_held():
    rows, biography = 50_000, "la " * 300

    def lines():
        yield from FMA_HEADER.splitlines(keepends=True)
        for number in range(1, rows + 1):
            yield f'{number},{number % 5000},"{biography}\n'
            yield f'{biography}",training,small,Rock\n'

    tracks = read_tracks(lines(), MetadataConfig(path="m.csv"))
    tracemalloc.start()
    try:
        # A deque without length keeps nothing.
        collections.deque(tracks, maxlen=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20  # of 90 MB

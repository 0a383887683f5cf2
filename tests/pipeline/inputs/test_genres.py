"""The tree of genres, and what a row says of its own."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.genres import (
    CellReader,
    GenreTree,
    LabelRule,
    read_genre_tree,
    read_tree_file,
)
from pipeline.inputs.metadata import MetadataConfig, read_tracks
from pipeline.schema import UserError
from tests.conftest import find_data

TABLE = """\
genre_id,#tracks,parent,title,top_level
15,9,0,Electronic,15
12,9,0,Rock,12
25,9,12,Punk,12
89,9,25,Post-Punk,12
247,9,15,IDM,15
"""
TREE = read_genre_tree(io.StringIO(TABLE), "genres.csv")

#: Ids from 1 to the number of genres, each with a parent that comes before it, or 0.
TREES = st.lists(st.integers(0, 30), min_size=1, max_size=30).map(
    lambda numbers: [number % (index + 1) for index, number in enumerate(numbers)]
)


def write_table(parents: list[int]) -> str:
    lines = [
        f"{index},{parent},Genre {index}" for index, parent in enumerate(parents, 1)
    ]
    return "\n".join(["genre_id,parent,title", *lines, ""])


def read_table(parents: list[int]) -> GenreTree:
    return read_genre_tree(io.StringIO(write_table(parents)), "g.csv")


def refuse(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_genre_tree(io.StringIO(text), "g.csv")
    return str(caught.value)


@given(TREES)
def test_paths_lead_from_a_root_to_the_genre(parents):
    tree = read_table(parents)
    for genre, parent in enumerate(parents, 1):
        path = tree.find_path(tree.names[genre])
        assert path[-1] == f"Genre {genre}"
        if parent:
            assert path[:-1] == tree.find_path(f"Genre {parent}")
        else:
            assert len(path) == 1


@given(TREES, st.sets(st.integers(1, 30)))
def test_ancestors_and_leaves_are_each_others_inverse(parents, chosen):
    tree = read_table(parents)
    names = {tree.names[number] for number in chosen if number in tree.names}
    whole = tree.add_ancestors(names)
    leaves = tree.find_leaves(names)
    assert leaves <= names <= whole
    assert tree.add_ancestors(whole) == whole
    assert tree.find_leaves(whole) == leaves
    assert tree.add_ancestors(leaves) == whole


@given(TREES, st.data())
def test_circles_are_refused(parents, data):
    """A genre gets one of its descendants, or itself, for a parent."""
    ends = data.draw(st.integers(1, len(parents)))
    path = [ends]
    while parents[path[-1] - 1]:
        path.append(parents[path[-1] - 1])
    closing = data.draw(st.sampled_from(path))
    parents[closing - 1] = ends
    message = refuse(write_table(parents))
    assert "a genre is its own ancestor: Genre " in message
    assert "g.csv" in message


@given(TREES, st.data())
def test_parents_that_are_not_there_are_refused(parents, data):
    child = data.draw(st.integers(1, len(parents)))
    parents[child - 1] = data.draw(st.integers(len(parents) + 1, 10_000))
    message = refuse(write_table(parents))
    assert f"parent of 'Genre {child}', {parents[child - 1]}, is not in the" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "must have the columns genre_id, parent and title"),
        ("a,b\n1,2\n", "its first row is: 'a,b'"),
        ("genre_id,parent,title\n", "has no genres"),
        ("genre_id,parent,title\n1,0,Rock\n1,0,Punk\n", "line 3"),
        ("genre_id,parent,title\n0,0,Rock\n", "id of its own, over 0"),
        ("genre_id,parent,title\n1,0,  \n", "and a title"),
        ("genre_id,parent,title\n1,,Rock\n", "parent must be a number. Received: ''"),
        ("genre_id,parent,title\nx,0,Rock\n", "genre_id must be a number"),
        ("genre_id,parent,title\n-1,0,Rock\n", "genre_id must be a number"),
        ("genre_id,parent,title\n1,0,Rock\n2,0,Rock\n", "several genres are called"),
        ('genre_id,parent,title\n1,0,"' + "x" * 200_000 + '"\n', "is no CSV"),
        ("genre_id,parent,title\n1,0,Rock, Hard\n", "line 2: expected 3 columns"),
        (
            "genre_id,title,parent,title\n1,Rock,0,A\n",
            "several columns are named title",
        ),
    ],
)
def test_what_is_no_table_of_genres_is_refused(text, part):
    message = refuse(text)
    assert part.lower() in message.lower()
    assert "\n" not in message


def test_long_fields_are_refused_whatever_limit_csv_has():
    limit = csv.field_size_limit(1 << 24)
    try:
        message = refuse('genre_id,parent,title\n1,0,"' + "x" * 200_000 + '"\n')
    finally:
        csv.field_size_limit(limit)
    assert "is no csv (field larger than field limit" in message.lower()


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(UserError, match=r"g\.csv must be UTF-8"):
        read_tree_file(b"\xff\xfe", "g.csv")
    with pytest.raises(UserError, match=r"g\.csv .* more than 16 MiB"):
        read_tree_file(TABLE.encode().ljust((16 << 20) + 1), "g.csv")
    assert read_tree_file("\ufeff".encode() + TABLE.encode(), "g.csv") == TREE


def test_titles_that_several_genres_have_are_told_with_their_ancestors():
    tree = read_genre_tree(
        io.StringIO(
            "genre_id,parent,title\n1,0,Rock\n2,0,Folk\n3,1,Indie\n4,2,Indie\n"
        ),
        "g.csv",
    )
    assert tree.names[3] == "Rock > Indie"
    assert tree.find_path("Folk > Indie") == ("Folk", "Folk > Indie")


@pytest.mark.parametrize(
    ("kind", "cells", "expected"),
    [
        ("all", ("[89]", "[89]"), ("Post-Punk", "Punk", "Rock")),
        ("leaf", ("[89]", "[89, 25, 12]"), ("Post-Punk",)),
        ("leaf", ("[12, 247]", "[]"), ("IDM", "Rock")),
        ("all", ("[]", "[]"), ()),
        ("all", ("[ 15 ,12 ]", "[15]"), ("Electronic", "Rock")),
        ("top", ("[89]", "[89]"), ("Rock",)),
    ],
)
def test_labels_of_fma(kind, cells, expected):
    reader = CellReader(LabelRule(kind=kind, tree=TREE))
    found = reader.read_fma("Rock", *cells)
    assert found.genres == expected
    assert found.wanted
    again = reader.read_fma("Rock", *reversed(cells))
    assert again.genres is found.genres


@pytest.mark.parametrize(
    "cell", ["", "21", "[a]", "[21", "[1.5]", "[-1]", "[1,]", "[\u0663]"]
)
def test_what_is_no_list_of_ids_is_refused(cell):
    with pytest.raises(ValueError, match="genres must be ids"):
        CellReader(LabelRule(kind="all", tree=TREE)).read_fma("", cell)


def test_ids_that_the_table_lacks_are_refused():
    with pytest.raises(ValueError, match="genre 7 is not in the table"):
        CellReader(LabelRule(kind="leaf", tree=TREE)).read_fma("", "[12, 7]")


def test_only_top_says_that_there_are_others():
    top = CellReader(LabelRule())
    assert top.read_fma("", "[12]", "[]").below_top
    assert not top.read_fma("Rock", "[12]", "[12]").below_top
    assert not top.read_fma("", "[]", "[]").below_top
    assert (
        not CellReader(LabelRule(kind="all", tree=TREE)).read_fma("", "[12]").below_top
    )


@pytest.mark.parametrize(
    ("cell", "rule", "expected"),
    [
        ("Rock;Punk", {}, ("Rock;Punk",)),
        ("Rock; Punk ;Rock", {"kind": "all"}, ("Punk", "Rock")),
        ("Rock|Punk", {"kind": "all", "separator": "|"}, ("Punk", "Rock")),
        (";nan; ;", {"kind": "all"}, ()),
        ("Café", {"kind": "all"}, ("Caf\u00e9",)),
        ("Punk;Fado", {"kind": "all", "tree": TREE}, ("Fado", "Punk", "Rock")),
        ("Punk;Rock", {"kind": "leaf", "tree": TREE}, ("Punk",)),
        ("R&amp;B;Caf&eacute;", {"kind": "all"}, ("Caf\u00e9", "R&B")),
        ("R&#38;B", {}, ("R&B",)),
        ("Drum&Bass;House", {"kind": "all"}, ("Drum&Bass", "House")),
        ("\ufeffRock\u200b;\u2060 Punk \0", {"kind": "all"}, ("Punk", "Rock")),
        ("\u200bRock\ufeff", {}, ("Rock",)),
        (" ; ;", {}, ()),
    ],
)
def test_labels_of_a_plain_row(cell, rule, expected):
    assert CellReader(LabelRule(**rule)).read_plain(cell).genres == expected


def test_of_several_genres_the_wanted_ones_stay():
    reader = CellReader(LabelRule(kind="all"), ("Rock", "Jazz"))
    assert reader.read_plain("Punk;Rock") == (("Rock",), True, False)
    assert reader.read_plain("Punk") == (("Punk",), False, False)
    assert reader.read_plain("") == ((), True, False)


@pytest.mark.parametrize("bad", [{"kind": "some"}, {"separator": " "}])
def test_rules_that_mean_nothing_are_refused(bad):
    with pytest.raises(UserError, match="Received"):
        LabelRule(**bad)


# FMA's own files


@pytest.fixture(scope="module")
def genuine_tree() -> GenreTree:
    path = find_data("fma_metadata/genres.csv")
    return read_tree_file(path.read_bytes(), str(path))


def test_the_genuine_tree(genuine_tree):
    assert len(genuine_tree.names) == 163
    roots = set(genuine_tree.names.values()) - genuine_tree.parents.keys()
    assert len(roots) == 16
    assert genuine_tree.find_path("IDM") == ("Electronic", "IDM")
    with find_data("fma_metadata/genres.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            path = genuine_tree.find_path(genuine_tree.names[int(row["genre_id"])])
            assert path[0] == genuine_tree.names[int(row["top_level"])]


def test_genuine_tracks_have_their_genres_with_all_ancestors(
    genuine_tree, genuine_tracks
):
    """`genres_all` is `genres` with ancestors: so says each of FMA's rows."""
    found = {}
    for kind in ("top", "all", "leaf"):
        rule = LabelRule(kind=kind, tree=genuine_tree)
        config = MetadataConfig(path="tracks.csv", labels=rule)
        with genuine_tracks.open(encoding="utf-8", newline="") as file:
            found[kind] = list(read_tracks(file, config))
    assert sum(track.below_top for track in found["top"]) == 50
    assert sum(not track.genres for track in found["all"]) == 1
    for top, every, leaf in zip(*found.values(), strict=True):
        assert set(top.genres) <= set(every.genres)
        assert genuine_tree.add_ancestors(leaf.genres) == set(every.genres)
        assert bool(leaf.genres) == bool(every.genres)
    with genuine_tracks.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        columns = list(zip(next(rows), next(rows), strict=True))
        next(rows)
        column = columns.index(("track", "genres_all"))
        for row, track in zip(rows, found["all"], strict=True):
            ids = [int(text) for text in row[column].strip("[]").split(",") if text]
            assert {genuine_tree.names[number] for number in ids} == set(track.genres)

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.splits import SplitConfig, split_by_hash, stable_hash
from pipeline.schema import SPLITS, UserError

SHARES = (80.0, 10.0, 10.0)
# Datasets made at different times and places depend on these.
GOLDEN = [
    ("1", "2", SHARES),
    ("6", "10", SHARES),
    ("24", "137", SHARES),
    ("9", "2", SHARES),
    ("10", "2", SHARES),
    ("532", "", SHARES),  # bucket 799
    ("448", "", SHARES),  # bucket 800
    ("2177", "", SHARES),  # bucket 899
    ("482", "", SHARES),  # bucket 900
    ("", "2", SHARES),
    ("", "fma/000/000002", SHARES),
    ("Ólafur", "x", SHARES),
    ("1", "2", (10.0, 10.0, 80.0)),
    ("1", "2", (50.0, 0.0, 50.0)),
]
EXPECTED = [
    "training",
    "training",
    "training",
    "test",
    "test",
    "training",
    "validation",
    "validation",
    "test",
    "training",
    "validation",
    "validation",
    "validation",
    "training",
]


def test_golden_values():
    assert [split_by_hash(*case) for case in GOLDEN] == EXPECTED
    assert stable_hash("artist:1") == 0xAD32608C6E36B2EA


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_every_process_assigns_alike(seed):
    code = (
        "import json, sys; from pipeline.inputs.splits import split_by_hash\n"
        "print(json.dumps([split_by_hash(*case) for case in json.load(sys.stdin)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(GOLDEN),
        env=os.environ | {"PYTHONHASHSEED": seed},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == EXPECTED


@pytest.mark.parametrize(
    "percent", [SHARES, (60.0, 20.0, 20.0), (33.3, 33.3, 33.4), (99.5, 0.5, 0.0)]
)
@pytest.mark.parametrize("by", ["artist", "track"])
def test_shares_are_about_right(percent, by):
    total = 20_000
    count = collections.Counter(
        split_by_hash(str(i) if by == "artist" else "", str(i), percent)
        for i in range(total)
    )
    for split, share in zip(SPLITS, percent, strict=True):
        expected = total * share / 100
        # Five standard deviations.
        assert abs(count[split] - expected) <= 5 * expected**0.5
        assert share > 0 or count[split] == 0


@given(artist=st.text(min_size=1), tracks=st.lists(st.text(), min_size=2))
def test_an_artist_is_in_one_split(artist, tracks):
    assert len({split_by_hash(artist, track, SHARES) for track in tracks}) == 1


def test_artists_and_tracks_of_the_same_name_are_told_apart():
    numbers = [str(i) for i in range(200)]
    by_artist = [split_by_hash(i, "7", (50.0, 25.0, 25.0)) for i in numbers]
    by_track = [split_by_hash("", i, (50.0, 25.0, 25.0)) for i in numbers]
    assert by_artist != by_track


@given(artist=st.text(), track=st.text())
def test_a_share_of_all_takes_all(artist, track):
    assert split_by_hash(artist, track, (100.0, 0.0, 0.0)) == "training"
    assert split_by_hash(artist, track, (0.0, 100.0, 0.0)) == "validation"
    assert split_by_hash(artist, track, (0.0, 0.0, 100.0)) == "test"


def test_raising_training_moves_no_track_out_of_it():
    for artist in map(str, range(1_000)):
        if split_by_hash(artist, "", (70.0, 15.0, 15.0)) == "training":
            assert split_by_hash(artist, "", (80.0, 10.0, 10.0)) == "training"


def test_descriptions():
    assert SplitConfig().describe() == "the split that the metadata gives each track"
    assert SplitConfig(rule="hash", percent=(72.5, 7.5, 20)).describe() == (
        "sha256 of the artist's id, or of the track's id where there is no artist: "
        "72.5 % training, 7.5 % validation, 20 % test"
    )


@pytest.mark.parametrize(
    ("values", "flag", "received"),
    [
        ({"rule": "random"}, "--split ", "'random'"),
        ({"percent": (80, 10, 5)}, "--split_percent ", "80,10,5"),
        ({"percent": (110, -5, -5)}, "--split_percent ", "110,-5,-5"),
        ({"percent": (float("nan"), 50, 50)}, "--split_percent ", "nan,50,50"),
    ],
)
def test_what_makes_no_sense_is_refused(values, flag, received):
    with pytest.raises(UserError) as caught:
        SplitConfig(**values)
    assert str(caught.value).startswith(flag)
    assert str(caught.value).endswith(f"Received: {received}")


def test_shares_may_be_rounded():
    SplitConfig(rule="hash", percent=(33.3, 33.3, 33.4))
    SplitConfig(rule="hash", percent=(100 / 3, 100 / 3, 100 / 3))

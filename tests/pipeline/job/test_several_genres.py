"""Several genres a track, from the command line to the records."""

import json

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.inspect import __main__ as inspect
from pipeline.inspect import reading
from pipeline.schema import SPLITS, shard_file
from tests.support.corpora import write_tone

ONE_PROCESS = ("--direct_running_mode=in_memory", "--direct_num_workers=1")
HEADER = (
    ",artist,set,set,track,track,track\n,id,split,subset,genre_top,genres,genres_all\n"
    "track_id,,,,,,\n"
)
ROWS = """\
2,1,training,small,Rock,[25],"[12, 25]"
3,1,training,small,Rock,"[12, 247]","[12, 15, 247]"
4,2,test,small,,"[25, 247]","[12, 15, 25, 247]"
5,3,validation,small,Electronic,[15],[15]
6,4,training,small,,[],[]
7,5,training,small,,[38],[38]
"""
GENRES = """\
genre_id,#tracks,parent,title,top_level
15,3,0,Electronic,15
12,3,0,Rock,12
25,2,12,Punk,12
247,2,15,IDM,15
38,1,0,Experimental,38
"""


def run(*arguments: object, output: object) -> int:
    options = ["--output", output, "--representations", "mel", "--num_shards", "1"]
    return preprocess.main([*map(str, [*arguments, *options]), *ONE_PROCESS])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fma")
    for number in range(2, 8):
        write_tone(folder / "audio" / "000" / f"{number:06d}.wav", 200 + 50 * number)
    (folder / "tracks.csv").write_text(HEADER + ROWS)
    (folder / "genres.csv").write_text(GENRES)
    return folder


@pytest.fixture(scope="module")
def inputs(corpus):
    return [f"--audio={corpus}/audio/**.wav", f"--metadata={corpus}/tracks.csv"]


@pytest.fixture(scope="module")
def dataset(corpus, inputs):
    assert run(*inputs, "--labels=all", output=corpus / "all") == 0
    return corpus / "all"


def read_labels(folder) -> dict[str, set[str]]:
    manifest = reading.read_manifest(str(folder))
    found = {}
    for split in SPLITS:
        path = folder / shard_file("mel", split, 0, 1)
        for record in reading.read_examples(str(path), manifest.representations["mel"]):
            labels = reading.read_labels(record, manifest)
            found[record["track_id"]] = {manifest.genres[label] for label in labels}
    return found


def test_records_have_every_genre_with_its_ancestors(dataset):
    assert read_labels(dataset) == {
        "2": {"Rock", "Punk"},
        "3": {"Rock", "Electronic", "IDM"},
        "4": {"Rock", "Punk", "Electronic", "IDM"},
        "5": {"Electronic"},
        "7": {"Experimental"},
    }
    manifest = reading.read_manifest(str(dataset))
    assert manifest.task == "multi_label"
    assert manifest.genres == ("Electronic", "Experimental", "IDM", "Punk", "Rock")
    assert manifest.genre_path("IDM") == ("Electronic", "IDM")
    assert manifest.genre_path("Rock") == ("Rock",)
    assert manifest.clip_totals == {"training": 3, "validation": 1, "test": 1}
    assert manifest.clips["training"]["Rock"] == 2
    path = dataset / shard_file("mel", "training", 0, 1)
    [first, *_] = reading.read_examples(str(path), manifest.representations["mel"])
    assert "label" not in first
    np.testing.assert_array_equal(first["labels"], np.array([0, 0, 0, 1, 1], np.uint8))
    [clip] = [row for row in reading.read_clips(str(dataset)) if row["track_id"] == "3"]
    assert clip["genres"] == ["Electronic", "IDM", "Rock"]
    assert "genre" not in clip


def test_the_dataset_is_inspected(dataset, capsys):
    picture = str(dataset.parent / "all.png")
    arguments = [str(dataset), "--verify", "--picture", picture]
    assert inspect.main(arguments) == 0
    out = capsys.readouterr().out
    assert "5 genres, 2.2 a clip on average, 1 shard a split." in out
    assert "Electronic > IDM" in out
    rows = {line.split("  ")[0]: line.split()[-3:] for line in out.splitlines()}
    assert rows["all"] == ["3", "1", "1"]
    assert rows["Rock > Punk"] == ["1", "0", "1"]
    assert "Nothing is wrong" in out


def test_records_without_a_genre_are_found(dataset, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in dataset.rglob("*"):
        target = damaged / path.relative_to(dataset)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["clip_totals"]["test"] = 2
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    assert inspect.main([str(damaged), "--verify"]) == 2
    assert "inputs must be" in capsys.readouterr().err


def test_what_top_leaves_out_is_said(corpus, inputs, capsys):
    assert run(*inputs, output=corpus / "top") == 0
    captured = capsys.readouterr()
    assert "2 of 6 tracks carry no top genre; --labels all keeps them." in captured.out
    manifest = reading.read_manifest(str(corpus / "top"))
    assert manifest.task == "single_label"
    assert manifest.genre_paths == {}
    assert manifest.rejects == {"no_genre": 3}
    rejects = list(reading.read_rejects(str(corpus / "top")))
    messages = {reject["track_id"]: reject["message"] for reject in rejects}
    assert messages["6"] == "the metadata gives no genre"
    assert "no top genre, but others, which --labels all takes" in messages["4"]
    for clip in reading.read_clips(str(corpus / "top")):
        assert isinstance(clip["genre"], str)
        assert "genres" not in clip


def test_leaves_and_rare_genres(corpus, inputs, capsys):
    flags = ["--labels=leaf", "--min_tracks=2"]
    assert run(*inputs, *flags, output=corpus / "leaf") == 0
    out = capsys.readouterr().out
    assert (
        "Left out by --min_tracks, with the number of their tracks: Electronic (1), "
        "Experimental (1), Rock (1)." in out
    )
    assert read_labels(corpus / "leaf") == {
        "2": {"Punk"},
        "3": {"IDM"},
        "4": {"Punk", "IDM"},
    }
    manifest = reading.read_manifest(str(corpus / "leaf"))
    assert manifest.genre_paths == {
        "IDM": ("Electronic", "IDM"),
        "Punk": ("Rock", "Punk"),
    }
    assert manifest.inputs["files_not_wanted"] == 2
    assert inspect.main([str(corpus / "leaf"), "--verify"]) == 0


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--labels=all", "--genres_file=nowhere.csv"], "nowhere.csv"),
        (["--genres_file=genres.csv"], "--genres_file is for several genres"),
        (["--genre_separator=|"], "--genre_separator is for several genres"),
        (["--labels=all", "--genre_separator= "], "--genre_separator must be"),
        (["--min_tracks=-1"], "--min_tracks must be 0 or more"),
        (["--min_tracks=9"], "--min_tracks leaves no genre: the largest has 2"),
        (["--labels=all", "--genres=Fado"], "unknown genre 'Fado'"),
    ],
)
def test_flags_that_make_no_sense_are_refused(inputs, tmp_path, capsys, flags, part):
    assert run(*inputs, *flags, output=tmp_path / "out") == 2
    assert part in capsys.readouterr().err


def test_a_plain_table_names_several(corpus, tmp_path, capsys):
    (tmp_path / "t.csv").write_text(
        "path,genre,artist_id,split\n"
        "000/000002.wav,Punk;Fado,a,training\n000/000003.wav,Fado,b,test\n"
        "000/000004.wav,Punk,c,training\n000/000005.wav,;,d,training\n"
    )
    plain = [f"--audio={corpus}/audio/**.wav", f"--metadata={tmp_path}/t.csv"]
    tree = f"--genres_file={corpus}/genres.csv"
    assert run(*plain, "--labels=all", tree, output=tmp_path / "all") == 0
    capsys.readouterr()
    labels = read_labels(tmp_path / "all")
    assert labels == {
        "000/000002": {"Punk", "Rock", "Fado"},
        "000/000003": {"Fado"},
        "000/000004": {"Punk", "Rock"},
    }
    assert reading.read_manifest(str(tmp_path / "all")).rejects["no_genre"] == 1
    assert run(*plain, output=tmp_path / "top") == 0
    assert "A genre names several (Punk;Fado); it counts as one" in (
        capsys.readouterr().out
    )

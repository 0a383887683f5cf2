import csv

import numpy as np
import pytest

from pipeline import preprocess
from pipeline.inspect import __main__ as inspect
from pipeline.inspect.against import compare, read_features
from pipeline.inspect.reading import read_examples, read_manifest
from pipeline.representations.statistics import FEATURES, SEGMENTS
from pipeline.schema import SPLITS, UserError
from tests.support.corpora import write_csv, write_tone
from tests.support.zips import zip_folder

NAMES = [segment.name for segment in SEGMENTS]


def write_features(path, rows):
    """FMA's layout, its columns in another order than ours, as pandas writes it."""
    order = np.random.default_rng(0).permutation(len(NAMES))
    parts = [NAMES[k].rsplit("_", 2) for k in order]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for name, values in zip(
            ("feature", "statistics", "number"), zip(*parts, strict=True), strict=True
        ):
            writer.writerow([name, *values])
        writer.writerow(["track_id"] + [""] * len(NAMES))
        for track, values in rows.items():
            writer.writerow([track, *(f"{values[k]:.9e}" for k in order)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Statistics of two clips of 30 s and of a short one; FMA's file of them."""
    folder = tmp_path_factory.mktemp("dataset")
    rows = []
    for track, hertz, seconds in ((2, 300, 30), (3, 500, 30), (5, 700, 8)):
        write_tone(folder / "audio" / f"{track}.wav", hertz, seconds)
        row = {"path": f"{track}.wav", "genre": "Low", "track_id": str(track)}
        rows.append(row | {"split": "training"})
    write_csv(folder / "tracks.csv", rows)
    code = preprocess.main(
        [
            f"--audio={folder}/audio",
            f"--metadata={folder}/tracks.csv",
            f"--output={folder}/out",
            "--num_shards=1",
            "--representations=statistics",
        ]
    )
    assert code == 0
    manifest = read_manifest(str(folder / "out"))
    values = {}
    for split in SPLITS:
        for file in manifest.shard_files("statistics", split):
            schema = manifest.representations["statistics"]
            for example in read_examples(str(folder / "out" / file), schema):
                values[example["track_id"]] = example["statistics"]
    half = [k for k, name in enumerate(NAMES) if name.startswith("spectral_centroid")]
    theirs = {track: value.copy() for track, value in values.items()}
    for value in theirs.values():
        value[half] /= 2
    write_features(folder / "meta" / "features.csv", theirs | {"99": values["2"]})
    zip_folder(folder / "meta.zip", folder / "meta")
    return folder


@pytest.mark.parametrize("name", ["meta/features.csv", "meta.zip"])
def test_a_dataset_is_held_against_the_file(dataset, capsys, name):
    path = str(dataset / name)
    assert inspect.main([str(dataset / "out"), "--against", path]) == 0
    out = capsys.readouterr().out
    assert "2 clips are in both; 0 are not in it, 1 more are no 30 s" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["mfcc"] == ["140", "1.000", "0.000", "1.000", "100%"]
    assert rows["spectral_centroid"][3] == "2.000"
    assert "Five calls leave out the sampling rate" in out


def test_a_track_without_all_numbers_is_left_out_and_counted(dataset, tmp_path, capsys):
    with (dataset / "meta" / "features.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[5][7] = ""  # Of track 3.
    with (tmp_path / "features.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    flags = [str(dataset / "out"), "--against", str(tmp_path / "features.csv")]
    assert inspect.main(flags) == 0
    out = capsys.readouterr().out
    assert "1 clips are in both; 0 are not in it, 1 lack numbers in it, 1 more" in out
    assert next(line for line in out.splitlines() if "mfcc" in line).endswith("100%")


def test_distances_are_what_they_should_be():
    rng = np.random.default_rng(0)
    theirs = rng.normal(3, 1, (500, 518))
    noise = rng.normal(0, 1, (500, 518))
    rows = {row.feature: row for row in compare(theirs + noise, theirs)}
    assert sum(row.values for row in rows.values()) == 518
    assert list(rows) == list(FEATURES)
    assert abs(rows["mfcc"].correlation - 0.5**0.5) < 0.02
    assert abs(rows["mfcc"].difference - 0.674) < 0.02  # The median of |N(0, 1)|.
    assert rows["mfcc"].same < 0.05
    constant = compare(np.ones((4, 518)), np.ones((4, 518)))
    assert all(np.isnan(row.correlation) and row.same == 1 for row in constant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not FMA's features.csv"),
        ("path,genre\na,b\n", "it lacks chroma_cens_kurtosis_01"),
    ],
)
def test_what_is_no_features_file_is_a_sentence(tmp_path, text, message):
    path = tmp_path / "features.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_features(str(path), {"2"})
    with pytest.raises(UserError, match="--against cannot be read"):
        read_features(str(tmp_path / "no.csv"), {"2"})


def test_a_row_that_is_cut_off_is_named(dataset, tmp_path):
    path = tmp_path / "features.csv"
    path.write_bytes((dataset / "meta" / "features.csv").read_bytes()[:-3000])
    with pytest.raises(UserError, match="row 8: expected 518 numbers"):
        read_features(str(path), {"2", "99"})


def test_tracks_that_are_in_neither_are_a_sentence(dataset, tmp_path, capsys):
    write_features(tmp_path / "features.csv", {"77": np.ones(518)})
    flags = [str(dataset / "out"), "--against", str(tmp_path / "features.csv")]
    assert inspect.main(flags) == 2
    assert (
        "--against has all numbers of none of the 2 clips of 30 s"
        in capsys.readouterr().err
    )

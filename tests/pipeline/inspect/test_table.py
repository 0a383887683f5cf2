"""A dataset's clips as Parquet, read back by pyarrow."""

import json

import numpy as np
import pyarrow.parquet
import pytest

from pipeline import preprocess
from pipeline.inspect import __main__ as inspect
from pipeline.inspect.reading import read_clips, read_examples, read_manifest
from pipeline.schema import SPLITS
from tests.support.corpora import write_plain_corpus


@pytest.fixture(scope="module", params=["top", "all"])
def dataset(tmp_path_factory, request) -> str:
    """Six clips with statistics, of one genre each, or without, of several."""
    folder = tmp_path_factory.mktemp("corpus")
    glob, metadata = write_plain_corpus(folder)
    several = request.param == "all"
    if several:
        text = metadata.read_text()
        metadata.write_text(text.replace("Low,t1", "Low;High,t1"))
    arguments = ["--audio", glob, "--metadata", str(metadata), "--num_shards", "2"]
    arguments += ["--representations", "windows" if several else "statistics"]
    arguments += ["--labels", request.param, "--output", f"{folder}/dataset"]
    assert preprocess.main(arguments) == 0
    return f"{folder}/dataset"


def test_a_row_a_clip(dataset, tmp_path, capsys):
    path = tmp_path / "clips.parquet"
    for _ in range(2):  # The second replaces the first.
        assert inspect.main([dataset, "--parquet", str(path)]) == 0
    assert f"Table: {path}, 6 clips" in capsys.readouterr().out
    table = pyarrow.parquet.read_table(path)
    manifest = read_manifest(dataset)
    mark = f"fma-genre-classifiers {manifest.fingerprint}"
    assert set(table["dataset"].to_pylist()) == {mark}
    clips = list(read_clips(dataset))
    columns = list(clips[0])
    assert table.select(columns).to_pylist() == clips
    assert ("genres" in columns) == (manifest.task == "multi_label")
    layout = manifest.representations.get("statistics")
    if layout is None:
        assert set(table.column_names) == {"dataset", *columns}
        return
    expected = {
        example["track_id"]: example["statistics"]
        for split in SPLITS
        for file in manifest.shard_files("statistics", split)
        for example in read_examples(f"{dataset}/{file}", layout)
    }
    names = [segment.name for segment in layout.segments]
    assert len(names) == 518
    assert set(table.column_names) == {"dataset", *columns, *names}
    for clip, *values in zip(
        table["track_id"].to_pylist(), *(table[n] for n in names), strict=True
    ):
        found = np.array([value.as_py() for value in values], np.float32)
        np.testing.assert_array_equal(found, expected[clip])


def test_only_our_own_table_is_replaced(dataset, tmp_path, capsys):
    path = tmp_path / "mine.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
    content = path.read_bytes()
    assert inspect.main([dataset, "--parquet", str(path)]) == 2
    assert "--parquet is a file that this program did not" in capsys.readouterr().err
    assert path.read_bytes() == content
    assert inspect.main([dataset, "--parquet", str(tmp_path / "clips.csv")]) == 2
    assert "--parquet must end with .parquet" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.parquet"]


def test_a_damaged_dataset_is_one_sentence(dataset, tmp_path, capsys):
    [*_, path] = sorted((tmp_path / dataset / "clips").iterdir())
    whole = path.read_text()
    row = json.loads(whole.splitlines()[0])
    del row["size"]
    path.write_text(json.dumps(row) + "\n")
    try:
        assert inspect.main([dataset, "--parquet", str(tmp_path / "x.parquet")]) == 2
    finally:
        path.write_text(whole)
    error = capsys.readouterr().err
    assert "does not fit its shard" in error
    assert not list(tmp_path.iterdir())

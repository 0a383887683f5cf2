"""A dataset's clips as Parquet, read back by pyarrow."""

import hashlib
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
    arguments += ["--representations", "mel" if several else "statistics"]
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


def test_croissant_tells_what_the_table_has(dataset, tmp_path, capsys):
    path, told = tmp_path / "clips.parquet", tmp_path / "clips.croissant.json"
    for _ in range(2):  # The second replaces the first.
        assert inspect.main([dataset, "--parquet", str(path), "--croissant"]) == 0
    assert f"Described: {told}" in capsys.readouterr().out
    content = json.loads(told.read_text())
    [file] = content["distribution"]
    assert file["contentUrl"] == "clips.parquet"
    assert file["contentSize"] == f"{path.stat().st_size} B"
    assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    [records] = content["recordSet"]
    fields = {field["source"]["extract"]["column"]: field for field in records["field"]}
    schema = pyarrow.parquet.read_schema(path)
    assert list(fields) == schema.names
    kinds = {"string": "sc:Text", "int64": "sc:Integer"}
    for column in schema:
        field, kind = fields[column.name], str(column.type)
        if kind.startswith("list"):
            assert field["repeated"] is True
            kind = "string"
        assert field["dataType"] == kinds.get(kind, "sc:Float")
        assert field["source"]["fileObject"] == {"@id": file["@id"]}
    # Every term is in the context, or one of schema.org's.
    own = {"recordSet", "field", "dataType", "source", "extract", "column", "key"}
    assert own | {"fileObject", "repeated", "conformsTo"} <= set(content["@context"])


def test_croissant_is_valid_and_reads_the_table(dataset, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    path = tmp_path / "clips.parquet"
    assert inspect.main([dataset, "--parquet", str(path), "--croissant"]) == 0
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "clips.croissant.json"))
    assert not found.metadata.issues.errors
    rows = [row["clips/track_id"].decode() for row in found.records("clips")]
    assert rows == [clip["track_id"] for clip in read_clips(dataset)]


def test_croissant_needs_its_table_and_replaces_its_own_alone(
    dataset, tmp_path, capsys
):
    assert inspect.main([dataset, "--croissant"]) == 2
    assert "of --parquet FILE.parquet. Received: None" in capsys.readouterr().err
    path, told = tmp_path / "clips.parquet", tmp_path / "clips.croissant.json"
    told.write_text("{}")
    assert inspect.main([dataset, "--parquet", str(path), "--croissant"]) == 2
    assert "--croissant is a file that this program did" in capsys.readouterr().err
    assert told.read_text() == "{}"
    assert not path.exists()


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

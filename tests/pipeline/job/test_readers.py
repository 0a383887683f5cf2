"""A dataset that the pipeline made, read by the libraries that others use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline import preprocess
from pipeline.inspect import __main__ as inspect
from pipeline.schema import MULTI_LABEL, SPLITS, Manifest
from pipeline.schema.readers import READER_FILES
from tests.support.corpora import write_plain_corpus
from trainer.data.torch_reader import RecordDataset

NAMES = ("windows", "mel", "statistics")


@pytest.fixture(scope="module", params=["top", "all"])
def dataset(tmp_path_factory, request) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    glob, metadata = write_plain_corpus(folder, 7)
    text = metadata.read_text()
    if request.param == "all":
        text = text.replace("Low,t1", "Low;High,t1").replace("High,t4", "High;New,t4")
    metadata.write_text(text)
    code = preprocess.main(
        [
            f"--audio={glob}",
            f"--metadata={metadata}",
            f"--output={folder}/dataset",
            "--num_shards=3",
            f"--labels={request.param}",
            "--description=Tones of two kinds",
            "--representations",
            *NAMES,
        ]
    )
    assert code == 0
    return folder / "dataset"


@pytest.fixture(scope="module")
def manifest(dataset) -> Manifest:
    return Manifest.from_json((dataset / "manifest.json").read_bytes(), source="it")


def test_the_files_are_what_the_manifest_gives(dataset, manifest):
    expected = manifest.reader_files()
    files = set(READER_FILES)
    if manifest.task == MULTI_LABEL:
        files -= {"label.labels.txt"}
    assert set(expected) == {f"{n}/{file}" for n in NAMES for file in files}
    for name, text in expected.items():
        assert (dataset / name).read_text() == text


def test_verify_holds_them_against_the_manifest(dataset, tmp_path, capsys):
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    assert inspect.main([str(copy), "--verify"]) == 0
    (copy / "mel" / "features.json").write_text("{}\n")
    (copy / "windows" / "schema.pbtxt").unlink()
    assert inspect.main([str(copy), "--verify"]) == 1
    printed = capsys.readouterr().out
    assert "mel/features.json does not fit the manifest" in printed
    assert "windows/schema.pbtxt is missing" in printed


@pytest.mark.parametrize("name", NAMES)
def test_tfds_reads_every_value(dataset, manifest, name):
    tfds = pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed")
    builder = tfds.builder_from_directory(dataset / name)
    assert builder.info.description == "Tones of two kinds"
    several = manifest.task == MULTI_LABEL
    if not several:
        assert builder.info.features["label"].names == list(manifest.genres)
    for split in SPLITS:
        count = manifest.records[name][split]
        assert builder.info.splits[split].num_examples == count
        examples = builder.as_dataset(split=split, shuffle_files=False)
        found = {
            (e["track_id"].decode(), int(e["index"])): e
            for e in examples.as_numpy_iterator()
        }
        assert len(found) == count
        value = manifest.representations[name].value
        records = RecordDataset(str(dataset), name, split)
        seen = dict.fromkeys((track for track, _ in found), 0)
        for record in records:
            example = found[record.track_id, seen[record.track_id]]
            seen[record.track_id] += 1
            np.testing.assert_array_equal(example[value.name], record.value)
            assert example[value.name].dtype == value.dtype
            label = example["labels" if several else "label"]
            np.testing.assert_array_equal(label, record.label)
            if several:
                assert label.dtype == np.uint8
                assert label.shape == (len(manifest.genres),)
    half = builder.as_dataset(split="training[:50%]")
    assert sum(1 for _ in half) == round(manifest.records[name]["training"] / 2)


@pytest.mark.parametrize("name", NAMES)
def test_tensorflow_transform_reads_the_schema(dataset, manifest, name):
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tensorflow_transform.tf_metadata import schema_utils

    text = (dataset / name / "schema.pbtxt").read_text()
    schema = text_format.Parse(text, schema_pb2.Schema())
    assert text_format.MessageToString(schema) == text
    spec = schema_utils.schema_as_feature_spec(schema)
    [file, *_] = [
        path
        for path in manifest.shard_files(name, "training")
        if manifest.files[path].records
    ]
    record = next(iter(tf.data.TFRecordDataset(str(dataset / file))))
    parsed = tf.io.parse_single_example(record, spec.feature_spec)
    layout = manifest.representations[name]
    assert set(parsed) == {field.name for field in layout.fields}
    if layout.value.encoding == "float_list":
        assert parsed[layout.value.name].shape == layout.value.shape
    if manifest.task == MULTI_LABEL:
        labels = tf.io.decode_raw(parsed["labels"], tf.uint8)
        assert labels.shape == (len(manifest.genres),)
        assert "label" not in spec.domains
    else:
        assert spec.domains["label"].max == len(manifest.genres) - 1

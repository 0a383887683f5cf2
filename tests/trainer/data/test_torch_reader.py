"""The reader for PyTorch: what TensorFlow reads is what it reads."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import SINGLE_LABEL, UserError
from tests.support.trainer_fixtures import write_dataset
from trainer.data.torch_reader import RecordDataset

NAMES = ("windows", "mel", "features", "statistics")


@pytest.fixture(scope="module", params=[False, True], ids=["one genre", "several"])
def folder(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, representations=NAMES, several=request.param)
    return str(folder)


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_as_tensorflow_reads_it(folder, name):
    dataset = RecordDataset(folder, name, "validation")
    value = dataset.layout.value
    raw = value.encoding == "raw_bytes"
    spec = {
        "track_id": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64, -1),
        "labels": tf.io.FixedLenFeature([], tf.string, ""),
        value.name: tf.io.FixedLenFeature(
            [] if raw else value.shape, tf.string if raw else tf.float32
        ),
    }
    files = [
        f"{folder}/{file}" for file in dataset.manifest.shard_files(name, "validation")
    ]
    records = [
        tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(files)
    ]
    assert len(dataset) == len(records) == dataset.manifest.records[name]["validation"]
    for found, expected in zip(dataset, records, strict=True):
        array = expected[value.name]
        if raw:
            array = tf.reshape(tf.io.decode_raw(array, value.dtype), value.shape)
        np.testing.assert_array_equal(found.value, array)
        assert found.value.dtype == value.dtype
        assert found.value.flags.writeable
        if dataset.manifest.task == SINGLE_LABEL:
            assert found.label == int(expected["label"])
        else:
            labels = tf.io.decode_raw(expected["labels"], tf.uint8)
            np.testing.assert_array_equal(found.label, labels)
            assert found.label.shape == (len(dataset.genres),)
            assert found.label.flags.writeable
        assert found.track_id == expected["track_id"].numpy().decode()


def test_it_goes_to_other_processes(folder):
    dataset = RecordDataset(folder, "statistics", transform=np.tanh)
    first = dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0].value, first.value)
    assert len(copy) == len(dataset)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("waves", "training"), "The representation must be one of"),
        (("mel", "train"), "The split must be one of training"),
    ],
)
def test_wrong_names_are_one_sentence(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        RecordDataset(folder, *arguments)


def test_what_is_no_dataset_or_damaged(tmp_path):
    with pytest.raises(UserError, match="completed dataset"):
        RecordDataset(str(tmp_path), "mel")
    write_dataset(tmp_path, representations=("statistics",))
    path = tmp_path / "statistics" / "training-00000-of-00002.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="cut off or damaged"):
        RecordDataset(str(tmp_path), "statistics")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="holds 0 records"):
        RecordDataset(str(tmp_path), "statistics")


def test_it_imports_neither_tensorflow_nor_torch():
    code = (
        "import sys, trainer.data.torch_reader\n"
        "found = {'tensorflow', 'torch', 'apache_beam'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_loads_it_with_workers(folder):
    data = pytest.importorskip("torch.utils.data", reason="torch is not installed")
    dataset = RecordDataset(folder, "mel")
    expected = {record.track_id: record for record in dataset}
    for start in ("fork", "spawn"):
        loader = data.DataLoader(
            dataset,
            batch_size=5,
            shuffle=True,
            num_workers=2,
            multiprocessing_context=start,
        )
        tracks = []
        for values, labels, ids in loader:
            assert tuple(values.shape[1:]) == dataset.layout.value.shape
            assert not labels.dtype.is_floating_point
            for value, label, track in zip(values, labels, ids, strict=True):
                np.testing.assert_array_equal(value.numpy(), expected[track].value)
                np.testing.assert_array_equal(label.numpy(), expected[track].label)
            tracks += ids
        assert sorted(tracks) == sorted(expected)

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import trainer_fixtures
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schema
from trainer.batches import open_splits
from trainer.dataset import Dataset, load_arrays, open_dataset
from trainer.streams import epoch_permutation

NAMES = ("windows", "mel", "features", "statistics")
SHARDS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(
        path, representations=NAMES, num_shards=SHARDS, statistics=30
    )
    return str(path)


@pytest.fixture(scope="module")
def dataset(folder) -> Dataset:
    return open_dataset(folder)


def keys(values) -> list[bytes]:
    """What tells the records of a batch apart."""
    return [value.tobytes() for value in np.asarray(values)]


def read_examples(dataset: Dataset, name: str, split: str) -> dict[bytes, tuple]:
    """All records, by TensorFlow's own Example class."""
    layout = dataset.manifest.representations[name]
    found = {}
    for file in dataset.files(name, split):
        for record in tf.data.TFRecordDataset(file):
            features = tf.train.Example.FromString(record.numpy()).features.feature
            value = features[layout.value.name]
            if layout.value.encoding == "raw_bytes":
                raw = value.bytes_list.value[0]
                array = np.frombuffer(raw, layout.value.dtype)
            else:
                array = np.array(value.float_list.value, np.float32)
            array = array.reshape(layout.value.shape)
            found[array.tobytes()] = (
                array,
                features["label"].int64_list.value[0],
                features["track_id"].bytes_list.value[0].decode(),
            )
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cached", [False, True])
def test_evaluation_reads_each_record_once_in_one_order(dataset, name, cached):
    split = open_splits(dataset, name, cache_bytes=2**30 if cached else 0)["test"]
    assert (split.arrays is not None) == cached
    expected = read_examples(dataset, name, "test")
    runs = []
    for _ in range(2):
        batches = split.evaluation_batches(4)
        assert batches.cardinality() == -(-split.records // 4)
        read = [(keys(values), labels.numpy()) for values, labels in batches]
        assert len(read[-1][0]) == (split.records % 4 or 4)
        runs.append([key for batch, _ in read for key in batch])
        for batch, labels in read:
            assert [expected[key][1] for key in batch] == labels.tolist()
    assert runs[0] == runs[1]
    assert sorted(runs[0]) == sorted(expected)
    track_ids, labels = split.load_index()
    assert [expected[key][2] for key in runs[0]] == list(track_ids)
    assert [expected[key][1] for key in runs[0]] == labels.tolist()


@pytest.mark.parametrize("cached", [False, True])
def test_each_epoch_visits_each_record_once_in_an_order_of_its_own(dataset, cached):
    split = open_splits(dataset, "windows", cache_bytes=2**30 if cached else 0)[
        "training"
    ]
    expected = sorted(read_examples(dataset, "windows", "training"))
    batch_size, steps = 8, split.steps_per_epoch(8)
    assert steps * batch_size == split.records

    def read(seed: int, epochs: int, start_epoch: int = 0) -> list[list[bytes]]:
        batches = split.training_batches(8, seed=seed, start_epoch=start_epoch)
        assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
        assert batches.element_spec[0].shape == (8, 1000)
        read = [keys(values) for values, _ in batches.take(epochs * steps)]
        return [
            [
                key
                for batch in read[epoch * steps : (epoch + 1) * steps]
                for key in batch
            ]
            for epoch in range(epochs)
        ]

    epochs = read(seed=1, epochs=3)
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert read(seed=1, epochs=3) == epochs
    assert read(seed=1, epochs=1, start_epoch=2) == epochs[2:]
    assert read(seed=2, epochs=1) != epochs[:1]
    try:
        for global_seed in (0, 7):
            tf.random.set_seed(global_seed)
            assert read(seed=1, epochs=1) == epochs[:1]
    finally:
        tf.random.set_seed(None)


@pytest.mark.parametrize("cached", [False, True])
def test_training_leaves_out_the_incomplete_batch(dataset, cached):
    split = open_splits(dataset, "mel", cache_bytes=2**30 if cached else 0)["training"]
    assert (split.records, split.steps_per_epoch(5)) == (12, 2)
    batches = split.training_batches(5, seed=0)
    assert batches.element_spec[0].shape == (5, 32, 32, 3)
    epoch = [key for values, _ in batches.take(2) for key in keys(values)]
    assert len(set(epoch)) == 10


def test_batches_carry_the_labels_of_their_records(dataset):
    expected = read_examples(dataset, "features", "training")
    for cache in (0, 2**30):
        split = open_splits(dataset, "features", cache_bytes=cache)["training"]
        for values, labels in split.training_batches(4, seed=3).take(6):
            assert [expected[key][1] for key in keys(values)] == labels.numpy().tolist()


def test_the_cache_limit_decides_where_records_are(dataset):
    size = sum(dataset.size("mel", split) for split in schema.SPLITS)
    assert size == (12 + 6 + 6) * 32 * 32 * 3
    inside = open_splits(dataset, "mel", cache_bytes=size)
    assert all(split.arrays is not None for split in inside.values())
    outside = open_splits(dataset, "mel", cache_bytes=size - 1)
    assert all(split.arrays is None for split in outside.values())


def test_workers_share_the_shards(dataset):
    read = [
        [
            key
            for values, _ in dataset.records(
                "windows",
                "test",
                batch_size=5,
                training=False,
                worker=worker,
                workers=SHARDS,
            )
            for key in keys(values)
        ]
        for worker in range(SHARDS)
    ]
    assert all(read)
    together = [key for part in read for key in part]
    assert sorted(together) == sorted(read_examples(dataset, "windows", "test"))


def test_more_workers_than_shards_are_refused(dataset):
    with pytest.raises(schema.UserError, match="4 workers cannot share the 3 shards"):
        dataset.files("mel", "test", worker=0, workers=4)


def test_no_whole_batch_is_refused(dataset):
    split = open_splits(dataset, "mel", cache_bytes=0)["training"]
    message = "--batch_size 13 is larger than the training split of mel.*12 records"
    with pytest.raises(schema.UserError, match=message):
        split.training_batches(13, seed=0)
    with pytest.raises(ValueError, match="Received: batch_size=13, 12 records"):
        dataset.records("mel", "training", batch_size=13, training=True)


@pytest.mark.parametrize("name", NAMES)
def test_load_arrays(dataset, name):
    expected = read_examples(dataset, name, "validation")
    arrays = load_arrays(dataset, name, "validation")
    layout = dataset.manifest.representations[name]
    assert arrays.values.dtype == np.float32
    assert arrays.values.shape == (len(expected), layout.value.size)
    for track_id, label, row in zip(
        arrays.track_ids, arrays.labels, arrays.values, strict=True
    ):
        value, *rest = expected[row.astype(layout.value.dtype).tobytes()]
        np.testing.assert_array_equal(value.ravel(), row)
        assert rest == [label, track_id]


def test_an_empty_split_is_no_error(tmp_path):
    trainer_fixtures.write_dataset(
        tmp_path,
        representations=("statistics",),
        clips_per_split_and_genre={"training": 2},
    )
    dataset = open_dataset(str(tmp_path))
    assert load_arrays(dataset, "statistics", "test").values.shape == (0, 518)


def test_a_dataset_may_lie_in_any_file_system():
    trainer_fixtures.write_dataset(
        "ram://somewhere/ds", representations=("statistics",)
    )
    dataset = open_dataset("ram://somewhere/ds/")
    assert len(load_arrays(dataset, "statistics", "training").labels) == 12


def test_a_representation_that_is_not_there(dataset):
    with pytest.raises(schema.UserError, match=r"does not hold 'chroma', only "):
        dataset.representation("chroma")


def edit_manifest(folder: pathlib.Path, **changes: object) -> None:
    path = folder / schema.MANIFEST_FILE
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))


def remove_folder(folder: pathlib.Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace_by_file(folder: pathlib.Path) -> None:
    remove_folder(folder)
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_folder, "There is no dataset folder"),
        (replace_by_file, "There is no dataset folder"),
        (lambda f: (f / "COMPLETED").unlink(), "COMPLETED is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "COMPLETED").write_text("other"), "come from different runs"),
        (lambda f: (f / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda f: edit_manifest(f, schema_version=0), "schema version 0"),
        (
            lambda f: (f / "statistics/test-00001-of-00002.tfrecord").unlink(),
            "statistics/test-00001-of-00002.tfrecord is missing",
        ),
    ],
)
def test_what_is_no_complete_dataset_is_refused(tmp_path, damage, message):
    folder = tmp_path / "dataset"
    trainer_fixtures.write_dataset(folder, representations=("statistics",))
    open_dataset(str(folder))
    damage(folder)
    with pytest.raises(schema.UserError, match=message) as error:
        open_dataset(str(folder))
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("claimed", [11, 13])
def test_a_manifest_that_counts_other_records_is_refused(dataset, claimed):
    records = {**dataset.manifest.records, "mel": {"training": claimed}}
    wrong = dataclasses.replace(
        dataset, manifest=dataclasses.replace(dataset.manifest, records=records)
    )
    message = f"hold 12 records, the manifest says {claimed}"
    with pytest.raises(schema.UserError, match=message):
        wrong.load("mel", "training")
    with pytest.raises(schema.UserError, match=message):
        wrong.load_index("mel", "training")


@settings(max_examples=30)
@given(
    count=st.integers(1, 200),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 2**40),
)
def test_epoch_permutation_is_a_permutation(count, seed, epoch):
    order = epoch_permutation(count, seed, tf.constant(epoch, tf.int64)).numpy()
    assert sorted(order) == list(range(count))

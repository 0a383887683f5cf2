import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer
from pipeline import schema
from tests.support import trainer_fixtures
from trainer.data import streams
from trainer.data.dataset import Dataset, load_arrays, open_dataset
from trainer.data.split import Split, open_splits
from trainer.data.streams import EpochPlan, epoch_permutation

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
                features["artist_id"].bytes_list.value[0].decode(),
            )
    return found


def open_split(dataset: Dataset, name: str, split: str, *, cached: bool) -> Split:
    opened = open_splits(dataset, name, cache_bytes=2**30 if cached else 0)[split]
    assert (opened.values is not None) == cached
    return opened


def plan_of(split: Split, batch_size: int, *, seed: int = 1, **start: int) -> EpochPlan:
    batches = split.steps_per_epoch(batch_size)
    return EpochPlan(batch_size=batch_size, batches=batches, seed=seed, **start)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cached", [False, True])
def test_evaluation_reads_each_record_once_in_one_order(dataset, name, cached):
    split = open_split(dataset, name, "test", cached=cached)
    expected = read_examples(dataset, name, "test")
    runs = []
    for _ in range(2):
        read = [keys(values) for values in split.evaluation_batches(4)]
        assert len(read) == -(-split.records // 4)
        assert len(read[-1]) == (split.records % 4 or 4)
        runs.append([key for batch in read for key in batch])
    assert runs[0] == runs[1]
    assert sorted(runs[0]) == sorted(expected)
    index = split.index
    assert [expected[key][2] for key in runs[0]] == list(index.track_ids)
    assert [expected[key][1] for key in runs[0]] == index.labels.tolist()
    assert [expected[key][3] for key in runs[0]] == list(index.artist_ids)


@pytest.mark.parametrize("cached", [False, True])
def test_each_epoch_visits_each_record_once_in_an_order_of_its_own(dataset, cached):
    split = open_split(dataset, "windows", "training", cached=cached)
    expected = sorted(read_examples(dataset, "windows", "training"))
    batch_size, steps = 8, split.steps_per_epoch(8)
    assert steps * batch_size == split.records

    def read(seed: int, epochs: int, **start: int) -> list[list[bytes]]:
        batches = split.training_batches(plan_of(split, 8, seed=seed, **start))
        assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
        assert batches.element_spec[0].shape == (8, 1000)
        done = start.get("start_batch", 0)
        read = [keys(values) for values, _ in batches.take(epochs * steps - done)]
        read = [[]] * done + read
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
    # Within an epoch too, and the one after it is whole.
    rest = read(seed=1, epochs=2, start_epoch=1, start_batch=steps - 2)
    assert rest == [epochs[1][-16:], epochs[2]]
    assert read(seed=2, epochs=1) != epochs[:1]
    try:
        for global_seed in (0, 7):
            tf.random.set_seed(global_seed)
            assert read(seed=1, epochs=1) == epochs[:1]
    finally:
        tf.random.set_seed(None)


@pytest.mark.parametrize("cached", [False, True])
def test_training_leaves_out_the_incomplete_batch(dataset, cached):
    split = open_split(dataset, "mel", "training", cached=cached)
    assert (split.records, split.steps_per_epoch(5)) == (12, 2)
    batches = split.training_batches(plan_of(split, 5))
    assert batches.element_spec[0].shape == (5, 32, 32, 3)
    epoch = [key for values, _ in batches.take(2) for key in keys(values)]
    assert len(set(epoch)) == 10


@pytest.mark.parametrize("cached", [False, True])
def test_the_end_of_an_iterator_waits_for_no_tuner(dataset, cached):
    split = open_split(dataset, "mel", "training", cached=cached)
    training = split.training_batches(plan_of(split, 4))
    evaluation = dataset.evaluation_batches("mel", "test", 4)
    for batches in (training, evaluation):
        assert batches.options().autotune.enabled is False


def test_no_reader_of_records_leaves_the_tuner_on():
    readers = {
        path.stem: path.read_text()
        for path in pathlib.Path(trainer.__file__).parent.rglob("*.py")
        if "TFRecordDataset(" in path.read_text()
    }
    assert "streams" in readers
    assert [name for name, text in readers.items() if "untuned(" not in text] == []


@pytest.mark.parametrize("cached", [False, True])
def test_batches_ahead_are_bounded_by_their_bytes(dataset, cached, monkeypatch):
    made, kept = [], []

    def spy(name, counts):
        original = getattr(tf.data.Dataset, name)

        def call(self, *args, **options):
            counts.append(options.get("num_parallel_calls", args[-1]))
            return original(self, *args, **options)

        monkeypatch.setattr(tf.data.Dataset, name, call)

    spy("map", made)
    spy("prefetch", kept)
    value = dataset.representation("mel").value
    size = value.size * np.dtype(value.dtype).itemsize
    splits = open_splits(dataset, "mel", cache_bytes=2**40 if cached else 0)
    plan = EpochPlan(batch_size=2, batches=1, seed=0)
    for room, expected in ((1, 2), (2 * size * 3, 3), (2**40, 8)):
        monkeypatch.setattr(streams, "PREFETCHED_BYTES", room)
        made.clear()
        kept.clear()
        splits["training"].training_batches(plan)
        if not cached:
            dataset.evaluation_batches("mel", "test", 2)
        assert set(kept) == {expected}
        # None is left to the tuner, which is off: it would take all processors.
        assert 0 < min(made) <= max(made) <= expected
    made.clear()
    monkeypatch.setattr(streams, "PREFETCHED_BYTES", 1)
    dataset.load("mel", "test")
    assert made == [2]
    monkeypatch.undo()
    field = dataclasses.replace(value, shape=(224, 224, 3), dtype="float32")
    assert streams.batches_ahead(field, 512) == 2
    assert streams.batches_ahead(field, 32) == 8


def test_replicas_get_the_parts_of_the_same_batches(dataset):
    for cached in (False, True):
        split = open_split(dataset, "mel", "training", cached=cached)
        whole = split.training_batches(plan_of(split, 6))
        # Two replicas take turns; of 12 records a third batch of 2 each is left out.
        parts = split.training_batches(EpochPlan(batch_size=3, batches=4, seed=1))
        together = parts.batch(2).map(
            lambda values, _: tf.reshape(values, (6, *values.shape[2:]))
        )
        for one, other in zip(whole.take(4), together.take(4), strict=True):
            assert keys(one[0]) == keys(other)


def test_batches_carry_the_labels_of_their_records(dataset):
    expected = read_examples(dataset, "features", "training")
    for cached in (False, True):
        split = open_split(dataset, "features", "training", cached=cached)
        for values, labels in split.training_batches(plan_of(split, 4)).take(6):
            assert [expected[key][1] for key in keys(values)] == labels.numpy().tolist()


def test_the_cache_limit_decides_where_records_are(dataset):
    sizes = {split: dataset.size("mel", split) for split in schema.SPLITS}
    assert sizes["training"] == 12 * 32 * 32 * 3

    def held(cache_bytes: int, **shares: int) -> list[str]:
        splits = open_splits(dataset, "mel", cache_bytes=cache_bytes, **shares)
        return [name for name, split in splits.items() if split.values is not None]

    read_again = sizes["training"] + sizes["validation"]
    assert held(read_again + sizes["test"]) == list(schema.SPLITS)
    # The test split is read once only.
    assert held(read_again + sizes["test"] - 1) == ["training", "validation"]
    assert held(read_again - 1) in ([], ["test"])
    assert held(0) == []
    # A worker holds its own part.
    assert "training" in held(read_again // SHARDS + 1, worker=1, workers=SHARDS)


@pytest.mark.parametrize("cached", [False, True])
def test_workers_share_the_shards(dataset, cached):
    read, indices = [], []
    for worker in range(SHARDS):
        split = open_splits(
            dataset,
            "windows",
            cache_bytes=2**30 if cached else 0,
            worker=worker,
            workers=SHARDS,
        )["test"]
        read.append([k for values in split.evaluation_batches(5) for k in keys(values)])
        indices.append(split.index)
    assert all(read)
    expected = read_examples(dataset, "windows", "test")
    together = [key for part in read for key in part]
    assert sorted(together) == sorted(expected)
    tracks = [track_id for index in indices for track_id in index.track_ids]
    assert tracks == [expected[key][2] for key in together]


@pytest.mark.parametrize("cached", [False, True])
def test_workers_make_the_same_number_of_steps(dataset, cached):
    """One of two workers has 2 of 3 shards, the other begins again."""
    for worker, records in ((0, 8), (1, 4)):
        split = open_splits(
            dataset,
            "mel",
            cache_bytes=2**30 if cached else 0,
            worker=worker,
            workers=2,
        )["training"]
        plan = EpochPlan(batch_size=3, batches=2, seed=1, worker=worker, workers=2)
        epochs = [
            [
                k
                for values, _ in split.training_batches(
                    dataclasses.replace(plan, start_epoch=epoch)
                ).take(2)
                for k in keys(values)
            ]
            for epoch in range(3)
        ]
        assert all(len(epoch) == 6 for epoch in epochs)
        assert all(len(set(epoch)) == min(6, records) for epoch in epochs)
        assert epochs[0] != epochs[1]
        both = split.training_batches(plan).take(4)
        assert [k for values, _ in both for k in keys(values)] == epochs[0] + epochs[1]


def test_more_workers_than_shards_are_refused(dataset):
    with pytest.raises(schema.UserError, match="4 workers cannot share the 3 shards"):
        dataset.files("mel", "test", worker=0, workers=4)


def test_no_whole_batch_is_refused(dataset):
    split = open_split(dataset, "mel", "training", cached=False)
    message = "--batch_size 13 is larger than the training split of mel.*12 records"
    with pytest.raises(schema.UserError, match=message):
        split.steps_per_epoch(13)
    for batches in (0, 2):
        plan = EpochPlan(batch_size=12, batches=batches, seed=0)
        with pytest.raises(
            ValueError, match=r"at most 12 records\. Received: EpochPlan"
        ):
            split.training_batches(plan)


def test_files_that_hold_fewer_records_are_noticed_in_training(dataset):
    records = {**dataset.manifest.records, "mel": {"training": 14}}
    wrong = dataclasses.replace(
        dataset, manifest=dataclasses.replace(dataset.manifest, records=records)
    )
    plan = EpochPlan(batch_size=4, batches=3, seed=0)
    batches = wrong.training_batches("mel", "training", plan)
    with pytest.raises(
        tf.errors.FailedPreconditionError, match="contain 14 elements but"
    ):
        list(batches.take(4))


@pytest.mark.parametrize("name", NAMES)
def test_load_arrays(dataset, name):
    expected = read_examples(dataset, name, "validation")
    arrays = load_arrays(dataset, name, "validation")
    layout = dataset.manifest.representations[name]
    assert arrays.values.dtype == np.float32
    assert arrays.values.shape == (len(expected), layout.value.size)
    for track_id, label, artist_id, row in zip(
        arrays.track_ids, arrays.labels, arrays.artist_ids, arrays.values, strict=True
    ):
        value, *rest = expected[row.astype(layout.value.dtype).tobytes()]
        np.testing.assert_array_equal(value.ravel(), row)
        assert rest == [label, track_id, artist_id]


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


def rewrite(folder, split: str, change) -> None:
    """Changes the first record of a split; the manifest follows, as a liar's would."""
    path = folder / "statistics" / f"{split}-00000-of-00002.tfrecord"
    examples = [
        tf.train.Example.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    change(examples[0].features.feature)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    described = trainer_fixtures.describe_file(str(path))
    content["files"][f"statistics/{path.name}"] |= {
        "size": described.size,
        "crc32c": described.crc32c,
    }
    content["record_bytes"]["statistics"] = sum(
        file["size"]
        for name, file in content["files"].items()
        if name.startswith("statistics/")
    )
    manifest.write_text(json.dumps(content))


def set_label(feature):
    feature["label"].int64_list.value[0] = 3


def set_negative_label(feature):
    feature["label"].int64_list.value[0] = -1


def set_value(feature):
    feature["statistics"].float_list.value[0] = float("nan")


def set_track(feature):
    feature["track_id"].bytes_list.value[0] = b"\xff"


def set_other_track(feature):
    """That of the next record of the file, of another genre."""
    number = int(feature["track_id"].bytes_list.value[0])
    feature["track_id"].bytes_list.value[0] = b"%06d" % (number + 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_label, "holds the label 3, while the manifest names 3 genres"),
        (set_negative_label, "holds the label -1"),
        (set_value, "that are not finite"),
        (set_track, "an id that is no UTF-8"),
        (set_other_track, "two genres for the track"),
    ],
)
def test_records_that_no_pipeline_writes_are_one_sentence(tmp_path, change, message):
    trainer_fixtures.write_dataset(
        tmp_path, representations=("statistics",), statistics=20
    )
    rewrite(tmp_path, "training", change)
    with pytest.raises(schema.UserError) as error:
        open_dataset(str(tmp_path)).load("statistics", "training")
    text = str(error.value)
    assert text.startswith("A record in the training files of statistics in ")
    assert message in text
    assert "\n" not in text

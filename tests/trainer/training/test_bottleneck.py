import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import SPLITS
from tests.support import trainer_fixtures
from trainer.data.dataset import Dataset, open_dataset
from trainer.runtime.devices import Devices, find_devices
from trainer.training import bottleneck
from trainer.training.bottleneck import (
    NAME,
    describe_outputs,
    make_key,
    write_outputs,
)
from trainer.training.train import dtype_policy


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("dataset")
    trainer_fixtures.write_dataset(folder, representations=("mel",), num_shards=3)
    return open_dataset(str(folder))


def make_network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Conv2D(5, 7, strides=5)(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return make_network()


@pytest.fixture(scope="module")
def devices() -> Devices:
    return find_devices("single")


def write(dataset, folder, network, devices, splits=SPLITS) -> Dataset:
    target = describe_outputs(dataset, "mel", 5, str(folder))
    write_outputs(dataset, "mel", target, network, 4, devices, splits)
    return target


@pytest.mark.parametrize("root", ["", "ram://features"])
def test_they_are_a_dataset_in_the_same_order(
    dataset, network, devices, tmp_path, root
):
    target = write(dataset, root or tmp_path, network, devices)
    for split in SPLITS:
        images, found = dataset.load("mel", split), target.load(NAME, split)
        expected = network.predict(images.values, verbose=0)
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
        assert found.track_ids == images.track_ids
        assert found.artist_ids == images.artist_ids
        np.testing.assert_array_equal(found.labels, images.labels)


def test_what_is_there_is_not_computed_again(
    dataset, network, devices, tmp_path, monkeypatch
):
    target = write(dataset, tmp_path, network, devices)
    expected = target.load(NAME, "training").values
    (gone, kept, _) = target.files(NAME, "training")
    before = tf.io.gfile.stat(kept).mtime_nsec
    tf.io.gfile.remove(gone)
    batches = []
    make = bottleneck.encode_example
    monkeypatch.setattr(
        bottleneck, "encode_example", lambda *args: batches.append(args) or make(*args)
    )
    write(dataset, tmp_path, network, devices)
    assert len(batches) == 4
    assert tf.io.gfile.stat(kept).mtime_nsec == before
    np.testing.assert_array_equal(target.load(NAME, "training").values, expected)
    write(dataset, tmp_path, network, devices)
    assert len(batches) == 4


def test_a_cut_leaves_no_half_file(dataset, network, devices, tmp_path, monkeypatch):
    class PowerCutError(Exception):
        pass

    made = []

    def fail(*args):
        made.append(args)
        if len(made) == 7:
            raise PowerCutError
        return b""

    with monkeypatch.context() as patch:
        patch.setattr(bottleneck, "encode_example", fail)
        with pytest.raises(PowerCutError):
            write(dataset, tmp_path, network, devices)
    assert all(path.suffix == ".part" for path in (tmp_path / NAME).iterdir())
    target = write(dataset, tmp_path, network, devices)
    assert len(target.load(NAME, "training").labels) == 12


def test_only_asked_splits_are_computed(dataset, network, devices, tmp_path):
    target = write(dataset, tmp_path, network, devices, SPLITS[:2])
    assert len(target.load(NAME, "validation").labels) == 6
    assert not any(tf.io.gfile.exists(file) for file in target.files(NAME, "test"))


def test_the_key_names_records_weights_and_precision(dataset, network):
    key = make_key(dataset, network)
    with dtype_policy(True):
        rough = make_network()
    rough.set_weights(network.get_weights())
    assert make_key(dataset, rough) != key
    assert key == make_key(dataset, network)
    weights = network.get_weights()
    try:
        network.set_weights([weight + 1e-6 for weight in weights])
        assert make_key(dataset, network) != key
    finally:
        network.set_weights(weights)

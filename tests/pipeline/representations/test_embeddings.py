"""Music models against the same layers in Keras, and the representation."""

import numpy as np
import pytest

from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
from pipeline.representations import compute_representations, embeddings, weights
from pipeline.representations.log_mel import log_mel_patches
from pipeline.representations.music_model import (
    MODELS,
    digest_weights,
    identify,
    make_network,
    read_weights,
    write_weights,
)
from pipeline.representations.spectrum import Spectrum, Workspace
from pipeline.schema import UserError

PARTS = ("gamma", "beta", "moving_mean", "moving_variance")


@pytest.fixture
def keras():
    return pytest.importorskip("keras")


def random_weights(keras, model):
    """Gives all layers random weights, named as in the checkpoints."""
    rng = np.random.default_rng(0)
    arrays = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        norm = isinstance(layer, keras.layers.BatchNormalization)
        names = PARTS if norm else ("kernel", "bias")
        values = [
            rng.normal(0.5 if norm else 0, 0.1, w.shape).astype("float32") ** (1 + norm)
            for w in layer.weights
        ]
        layer.set_weights(values)
        arrays |= {f"{layer.name}/{n}": v for n, v in zip(names, values, strict=True)}
    return arrays


def suffix(number):
    return f"_{number}" if number else ""


def normalise(keras, x, number):
    name = f"batch_normalization{suffix(number)}"
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name)(x)


def build_vgg(keras, pools):
    layers = keras.layers
    inputs = keras.Input((187, 96, 1))
    x = normalise(keras, inputs, 0)
    for number, (window, stride) in enumerate(pools, start=1):
        convolve = layers.Conv2D(
            128, 3, padding="same", activation="relu", name=f"{number}CNN"
        )
        x = layers.MaxPooling2D(window, stride)(normalise(keras, convolve(x), number))
    return keras.Model(inputs, layers.Flatten()(x))


VGG_POOLS = {
    "MSD_vgg": [((4, 1), None), ((1, 4), None), (2, None), (2, None), (4, None)],
    "MTT_vgg": [((4, 1), (2, 2)), (2, None), (2, None), (2, None), (4, None)],
}


def build_musicnn(keras):
    layers = keras.layers
    inputs = keras.Input((187, 96, 1))
    x = normalise(keras, inputs, 0)
    wide = layers.ZeroPadding2D((3, 0))(x)
    fronts = []
    for number, (filters, kernel) in enumerate(
        [(204, (7, 38)), (204, (7, 67)), (51, (128, 1)), (51, (64, 1)), (51, (32, 1))]
    ):
        convolve = layers.Conv2D(
            filters,
            kernel,
            padding="valid" if number < 2 else "same",
            activation="relu",
            name=f"conv2d{suffix(number)}",
        )
        y = normalise(keras, convolve(wide if number < 2 else x), number + 1)
        bands = y.shape[2]
        y = layers.MaxPooling2D((1, bands))(y)
        fronts.append(layers.Reshape((187, filters))(y))
    front = layers.Concatenate()(fronts)
    parts, y = [front], front
    for number in (5, 6, 7):
        padded = layers.ZeroPadding1D(3)(y)
        convolve = layers.Conv2D(
            64, (7, padded.shape[2]), activation="relu", name=f"conv2d_{number}"
        )
        z = convolve(layers.Reshape((*padded.shape[1:], 1))(padded))
        z = layers.Reshape((187, 64))(normalise(keras, z, number + 1))
        y = z if number == 5 else layers.Add()([y, z])
        parts.append(y)
    both = layers.Concatenate()(parts)
    pools = [
        layers.Reshape((753, 1))(pool()(both))
        for pool in (layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D)
    ]
    flat = layers.Flatten()(layers.Concatenate(axis=2)(pools))
    dense = layers.Dense(200, activation="relu", name="dense")
    return keras.Model(inputs, normalise(keras, dense(normalise(keras, flat, 9)), 10))


@pytest.mark.parametrize("name", list(MODELS))
def test_networks_equal_keras(keras, name):
    build = build_vgg(keras, VGG_POOLS[name]) if "vgg" in name else build_musicnn(keras)
    arrays = random_weights(keras, build)
    patches = np.random.default_rng(1).uniform(0, 3, (2, 187, 96)).astype("float32")
    expected = build.predict(patches[..., None], verbose=0)
    got = make_network(MODELS[name], arrays)(patches)
    assert got.shape == (2, MODELS[name].size)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def fake_network(patches):
    """The mean of each patch, and 255 zeros."""
    vectors = np.zeros((len(patches), 256), np.float32)
    vectors[:, 0] = patches.mean(axis=(1, 2))
    return vectors


def make_samples(seconds=10):
    rng = np.random.default_rng(0)
    return rng.standard_normal(seconds * SAMPLE_RATE).astype(np.float32) * 0.1


@pytest.mark.parametrize("records", ["mean", "patches"])
def test_a_clips_embedding(records):
    config = ClipConfig(
        music_model="MSD_vgg", embedding_patches=3, embedding_records=records
    )
    samples = make_samples()
    [values] = compute_representations(
        samples, ["embeddings"], config, Workspace(fake_network)
    ).values()
    expected = fake_network(log_mel_patches(samples, SAMPLE_RATE, 3))
    if records == "mean":
        expected = expected.mean(axis=0, keepdims=True)
    np.testing.assert_array_equal(values, expected)
    schema = embeddings.make_schema(config)
    assert values.shape == (schema.records_per_clip, *schema.value.shape)
    assert len(schema.segments) == 256


def test_what_was_repeated_is_not_heard_twice():
    config = ClipConfig(music_model="MSD_vgg")
    heard = make_samples(8)
    repeated = np.resize(heard, 30 * SAMPLE_RATE)
    spectrum = Spectrum(repeated, Workspace(fake_network), length=len(heard))
    np.testing.assert_array_equal(
        embeddings.compute(spectrum, config),
        embeddings.compute(Spectrum(heard, Workspace(fake_network)), config),
    )


def test_without_a_network_nothing_is_computed():
    with pytest.raises(ValueError, match="music model"):
        embeddings.compute(
            Spectrum(make_samples(1), Workspace()), ClipConfig(music_model="MSD_vgg")
        )


def test_weights_survive_their_file():
    arrays = {"b/kernel": np.ones((2, 3), np.float32), "a": np.zeros(1, np.float32)}
    content = write_weights(arrays)
    assert content == write_weights(dict(reversed(arrays.items())))
    back = read_weights(content, "w.npz")
    assert digest_weights(back) == digest_weights(arrays)
    with pytest.raises(UserError, match=r"one of MSD_vgg.*Received: w.npz"):
        identify(back, "w.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no weights"])
def test_another_file_is_refused(content):
    with pytest.raises(UserError, match=r"Received: w\.npz"):
        read_weights(content, "w.npz")


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.array([{"code": 1}], dtype=object))
    with pytest.raises(UserError, match="weights"):
        read_weights((tmp_path / "w.npz").read_bytes(), "w.npz")


def test_weights_of_another_origin_are_not_kept(tmp_path, monkeypatch, capsys):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in MODELS:
        folder = tmp_path / "wheel" / "musicnn" / name
        folder.mkdir(parents=True)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            variable = tf.compat.v1.get_variable("dense/bias", initializer=[1.0])
            session.run(variable.initializer)
            tf.compat.v1.train.Saver().save(session, f"{folder}/", write_state=False)
    assert weights.main(["--wheel", str(tmp_path / "wheel")]) == 2
    assert "MSD_vgg are not the published ones" in capsys.readouterr().err
    assert not any(weights.is_cached(model) for model in MODELS.values())


def test_without_an_index_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert weights.main([]) == 2
    error = capsys.readouterr().err
    assert "cannot be fetched" in error
    assert error.count("\n") == 1


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        weights.convert(tmp_path, MODELS["MSD_vgg"])

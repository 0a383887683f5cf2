import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import (
    Field,
    Normalisation,
    RepresentationSchema,
    Segment,
    UserError,
)
from tests.conftest import find_data
from tests.support import trainer_fixtures
from trainer.data.dataset import load_arrays, open_dataset
from trainer.training.networks import layers, mobilenet
from trainer.training.networks.vectors import build_vector_model
from trainer.training.networks.windows import build_windows_model

IMAGE = RepresentationSchema(
    name="mel",
    value=Field(name="image", dtype="uint8", shape=(32, 32, 3), encoding="raw_bytes"),
    records_per_clip=1,
    segments=(),
)
WEIGHTS = (
    "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
)


def make_layout(*lengths: int, name: str = "features") -> RepresentationSchema:
    return RepresentationSchema(
        name=name,
        value=Field(
            name="vector", dtype="float32", shape=(sum(lengths),), encoding="float_list"
        ),
        records_per_clip=1,
        segments=tuple(
            Segment(name=f"segment_{number}", length=length)
            for number, length in enumerate(lengths)
        ),
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def base() -> keras.Model:
    keras.utils.set_random_seed(0)
    return mobilenet.build_base((32, 32, 3), "none")


def statistics_of(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = features.astype(np.float64)
    return values.mean(axis=0), values.std(axis=0)


def test_normalisation_equals_numpy():
    layout = make_layout(3, 1, 4)
    statistics = Normalisation(mean=(5.0, -300.0, 0.1), variance=(4.0, 1e6, 0.01))
    layer = layers.build_normalisation(layout, statistics)
    values = np.random.default_rng(0).normal(0, 100, (7, 8)).astype(np.float32)
    mean = np.repeat(statistics.mean, (3, 1, 4))
    deviation = np.sqrt(np.repeat(statistics.variance, (3, 1, 4)))
    np.testing.assert_allclose(
        layer(values), (values - mean) / deviation, rtol=1e-5, atol=1e-5
    )


def test_normalisation_whitens_the_training_split(tmp_path):
    trainer_fixtures.write_dataset(tmp_path, representations=("features",))
    dataset = open_dataset(str(tmp_path))
    values = load_arrays(dataset, "features", "training").values
    layout = dataset.representation("features")
    layer = layers.build_normalisation(
        layout, dataset.manifest.normalisation["features"]
    )
    normalised = np.asarray(layer(values), np.float64)
    ends = np.cumsum([segment.length for segment in layout.segments])
    for part in np.split(normalised, ends[:-1], axis=1):
        np.testing.assert_allclose([part.mean(), part.var()], [0, 1], atol=1e-4)


def test_a_constant_segment_stays_moderate():
    layout = make_layout(2, 2, 2)
    statistics = Normalisation(mean=(0.0, 1e4, 7.0), variance=(0.0, 1e-6, 1e-15))
    layer = layers.build_normalisation(layout, statistics)
    values = np.float32([[0.5, 0, 1e4, 1e4 + 2, 7, 8]])
    np.testing.assert_allclose(layer(values), [[0.5, 0, 0, 2, 0, 1]], atol=1e-5)


@pytest.mark.parametrize("name", ["windows", "features", "statistics"])
def test_a_saved_model_predicts_the_same_from_raw_records(tmp_path, name):
    keras.utils.set_random_seed(0)
    layout = make_layout(1500, 500, name=name)
    build = build_vector_model
    statistics = Normalisation(mean=(100.0, -5.0), variance=(9.0, 400.0))
    if name == "windows":
        model = build_windows_model(layout, statistics, 5)
    else:
        model = build(layout, statistics, 5)
    values = np.random.default_rng(0).normal(90, 20, (3, 2000)).astype(np.float32)
    before = model.predict(values, verbose=0)
    model.save(tmp_path / "model.keras")
    # Without any of the project's classes: a plain Keras model.
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(values, verbose=0), before)
    assert loaded.name == name
    np.testing.assert_allclose(before.sum(axis=1), 1, rtol=1e-5)
    # The normalisation arrives in the file.
    shifted = loaded.predict(values + 1, verbose=0)
    assert np.abs(shifted - before).max() > 1e-6


def test_probabilities_are_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_vector_model(
            make_layout(8), Normalisation(mean=(0.0,), variance=(1.0,)), 3
        )
    finally:
        keras.config.set_dtype_policy(before)
    dense = next(x for x in model.layers if isinstance(x, keras.layers.Dense))
    assert dense.compute_dtype == "bfloat16"
    assert model.get_layer("normalisation").compute_dtype == "float32"
    assert model.output.dtype == "float32"


def test_bottleneck_and_head_are_the_whole_network(base, images, tmp_path):
    base.trainable = False
    bottleneck = mobilenet.build_bottleneck(IMAGE, base)
    features = bottleneck.predict(images, verbose=0)
    assert features.shape == (6, 1280)
    # As Keras' own preprocessing would have it.
    prepared = keras.applications.mobilenet_v2.preprocess_input(
        images.astype(np.float32)
    )
    expected = np.mean(base(prepared, training=False), axis=(1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-16)
    standardise = mobilenet.build_standardiser(*statistics_of(features))
    head = mobilenet.build_head(1280, 4, standardise=standardise)
    model = mobilenet.attach_head(bottleneck, head, "mel")
    np.testing.assert_allclose(
        model.predict(images, verbose=0), head.predict(features, verbose=0), atol=1e-6
    )
    assert model.input.dtype == "uint8"
    assert len(model.trainable_variables) == 2
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_a_frozen_base_keeps_its_statistics_in_training(base, images):
    base.trainable = False
    bottleneck = mobilenet.build_bottleneck(IMAGE, base)
    before = [np.array(weight) for weight in base.weights]
    quiet = bottleneck(images, training=False)
    np.testing.assert_array_equal(bottleneck(images, training=True), quiet)
    for weight, value in zip(base.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_standardiser_reaches_signals_of_any_size():
    rng = np.random.default_rng(0)
    scales = np.array([1e-14, 1e-12, 1.0, 1e6, 0.0])
    features = (scales * (3 + rng.normal(size=(50, 5)))).astype(np.float32)
    layer = mobilenet.build_standardiser(*statistics_of(features))
    out = np.asarray(layer(features))
    np.testing.assert_allclose(out[:, :4].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(out[:, :4].std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(out[:, 4], 0)
    copy = keras.layers.Rescaling.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(features), out)


def test_unfreeze_last_layers(base):
    try:
        mobilenet.unfreeze_last_layers(base, 3, batch_norm=True)
        trainable = [layer for layer in base.layers if layer.trainable]
        assert trainable == base.layers[-3:]
        mobilenet.unfreeze_last_layers(base, 1000, batch_norm=True)
        assert len(base.trainable_variables) == 2 * 52 + 52
        mobilenet.unfreeze_last_layers(base, 1000, batch_norm=False)
        assert len(base.trainable_variables) == 52
    finally:
        base.trainable = False


def test_quickened_statistics_converge(images):
    base = mobilenet.build_base((32, 32, 3), "none")
    mobilenet.quicken_statistics(base)
    values = tf.constant(images[..., :1], tf.float32) + tf.zeros(32)
    layer = base.get_layer("bn_Conv1")
    for _ in range(60):
        layer(values, training=True)
    mean = np.mean(values, axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=0.01)


def test_weights_come_from_a_file(tmp_path, base):
    path = tmp_path / "some.weights.h5"
    base.save_weights(path)
    loaded = mobilenet.build_base((32, 32, 3), str(path))
    for weight, expected in zip(loaded.weights, base.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    text = tmp_path / "notes.weights.h5"
    text.write_text("no weights")
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(other)
    smaller = tmp_path / "smaller.weights.h5"
    keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35
    ).save_weights(smaller)
    for path in (text, other, smaller):
        with pytest.raises(UserError) as caught:
            mobilenet.build_base((32, 32, 3), str(path))
        message = str(caught.value)
        assert "does not hold the weights of MobileNetV2 without top" in message
        assert len(message) < 500 + len(str(path))


def test_weights_that_are_no_numbers_are_refused(tmp_path, base):
    copy = keras.models.clone_model(base)
    copy.set_weights([np.full_like(array, np.nan) for array in base.get_weights()])
    copy.save_weights(tmp_path / "nan.weights.h5")
    with pytest.raises(
        UserError, match=r"nan\.weights\.h5 holds values that are not f"
    ):
        mobilenet.build_base((32, 32, 3), str(tmp_path / "nan.weights.h5"))


def test_a_damaged_cache_is_named(tmp_path, monkeypatch):
    cached = tmp_path / "models" / mobilenet.IMAGENET_FILE
    cached.parent.mkdir()
    cached.write_bytes(b"broken off")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"--weights {cached} does not hold the weig"):
        mobilenet.build_base((32, 32, 3), "imagenet")


def test_missing_weights_are_refused(tmp_path):
    for path in (tmp_path / "missing.h5", tmp_path):
        with pytest.raises(UserError, match=r"--weights .*: there is no such file"):
            mobilenet.check_weights(str(path))
    for keyword in ("none", "imagenet"):
        mobilenet.check_weights(keyword)


def test_cached_weights_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert mobilenet.find_cached_weights() is None
    cached = tmp_path / "models" / mobilenet.IMAGENET_FILE
    cached.parent.mkdir()
    cached.touch()
    assert mobilenet.find_cached_weights() == str(cached)


def test_a_failed_download_is_the_users_to_solve(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def fail(*_, **__):
        raise Exception("URL fetch failure on https://...: None -- unreachable")

    monkeypatch.setattr(keras.utils, "get_file", fail)
    with pytest.raises(UserError, match="--weights imagenet: URL fetch failure"):
        mobilenet.build_base((32, 32, 3), "imagenet")


def test_imagenet_weights_tell_images_apart(images):
    path = find_data(WEIGHTS)
    base = mobilenet.build_base((32, 32, 3), str(path))
    base.trainable = False
    bottleneck = mobilenet.build_bottleneck(IMAGE, base)
    features = bottleneck.predict(images, verbose=0)
    # Unlike a random base's, the features are of the order of 1.
    assert 0.1 < features.std() < 10
    assert features.std(axis=0).max() > 0.1

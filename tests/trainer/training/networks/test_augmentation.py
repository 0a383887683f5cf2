import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.schema import Field, Normalisation, RepresentationSchema, Segment
from trainer.training.networks.augmentation import (
    Jitter,
    Loudness,
    SpecAugment,
    build_augmentation,
)

IMAGES = np.random.default_rng(0).integers(1, 256, (50, 20, 30, 3), dtype=np.uint8)


def layout(name: str, *shape: int) -> RepresentationSchema:
    return RepresentationSchema(
        name=name,
        value=Field(name="x", dtype="float32", shape=shape, encoding="float_list"),
        records_per_clip=1,
        segments=(Segment(name="all", length=shape[0]),) if len(shape) == 1 else (),
    )


def test_masks_hide_whole_lines_of_each_image_alone():
    layer = SpecAugment(frequency_width=0.3, time_width=0.2, masks=1, seed=1)
    masked = np.asarray(layer(IMAGES, training=True))
    assert masked.dtype == np.uint8
    assert masked.shape == IMAGES.shape
    hidden = np.all(masked == 0, axis=-1)
    np.testing.assert_array_equal(masked[~hidden], IMAGES[~hidden])
    rows, columns = hidden.all(axis=2), hidden.all(axis=1)
    np.testing.assert_array_equal(hidden, rows[:, :, None] | columns[:, None, :])
    for lines, size, width in ((rows, 20, 0.3), (columns, 30, 0.2)):
        counts = lines.sum(axis=1)
        assert counts.max() <= np.ceil(width * size)
        assert len(set(counts)) > 2
        # In one piece, and anywhere.
        assert np.all(np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2)
        assert lines.any(axis=0).mean() > 0.9


def test_more_masks_hide_more():
    share = [
        np.mean(
            np.asarray(SpecAugment(masks=masks, seed=1)(IMAGES, training=True)) == 0
        )
        for masks in (1, 2, 4)
    ]
    assert share[0] < share[1] < share[2] < 0.8


def test_gain_and_sign_of_waves():
    waves = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    louder = np.asarray(Loudness(decibels=6, seed=1)(waves, training=True))
    gain = louder / waves
    np.testing.assert_allclose(gain, gain[:, :1] + 0 * gain, rtol=1e-4)
    decibels = 20 * np.log10(np.abs(gain[:, 0]))
    assert np.abs(decibels).max() <= 6.001
    assert decibels.min() < -5 < 5 < decibels.max()
    assert 0.4 < np.mean(gain[:, 0] < 0) < 0.6


def test_noise_has_the_scale_of_each_value():
    deviations = [1e-3, 1.0, 1e4, 0.0]
    vectors = np.tile(np.float32([1, 2, 3, 4]), (4000, 1))
    layer = Jitter(deviations=deviations, strength=0.5, seed=1)
    noise = np.asarray(layer(vectors, training=True)) - vectors
    np.testing.assert_allclose(noise.std(axis=0), 0.5 * np.array(deviations), rtol=0.1)


LAYERS = {
    "images": (SpecAugment(seed=1), IMAGES),
    "windows": (Loudness(seed=1), IMAGES[:, :, 0, 0].astype(np.float32)),
    "vectors": (
        Jitter(deviations=np.ones(20), seed=1),
        IMAGES[:, :, 0, 0].astype(np.float32),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_nothing_in_inference(name):
    layer, values = LAYERS[name]
    np.testing.assert_array_equal(layer(values), values)
    np.testing.assert_array_equal(layer(values, training=False), values)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_alter_each_time_anew_and_reproducibly(name):
    layer, values = LAYERS[name]
    copies = [type(layer).from_config(layer.get_config()) for _ in range(2)]
    first, second = (np.asarray(copies[0](values, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(copies[1](values, training=True), first)
    # The state of their random numbers is a variable, which checkpoints hold.
    (state,) = copies[0].variables
    state.assign(copies[1].variables[0])
    np.testing.assert_array_equal(copies[0](values, training=True), second)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_work_in_graphs_and_models(name, tmp_path):
    layer, values = LAYERS[name]
    graph = tf.function(lambda x: layer(x, training=True))
    assert graph(values).shape == values.shape
    inputs = keras.Input(values.shape[1:], dtype=values.dtype.name)
    model = keras.Model(inputs, layer(inputs))
    assert model.output.shape[1:] == values.shape[1:]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(values, verbose=0), values)


def test_strength_decides():
    normal = Normalisation(mean=(0.0,), variance=(4.0,))
    assert build_augmentation(layout("mel", 8, 8, 3), None, 0.0, 1) is None
    images = build_augmentation(layout("mel", 8, 8, 3), None, 0.5, 1)
    assert isinstance(images, SpecAugment)
    assert images.time_width == pytest.approx(0.2)
    windows = build_augmentation(layout("windows", 8), normal, 0.5, 1)
    assert isinstance(windows, Loudness)
    vectors = build_augmentation(layout("features", 8), normal, 0.5, 1)
    assert isinstance(vectors, Jitter)
    np.testing.assert_allclose(vectors.deviations, 2.0)


@pytest.mark.parametrize("name", ["frequency_width", "time_width"])
def test_widths_are_shares(name):
    with pytest.raises(ValueError, match=f"{name} from 0 to 1. Received: 1.5"):
        SpecAugment(**{name: 1.5})

import functools

import numpy as np
import pytest

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
    layer = SpecAugment(0.3, masks=1, seed=1)
    masked = np.asarray(layer(IMAGES, training=True))
    assert masked.dtype == np.uint8
    assert masked.shape == IMAGES.shape
    hidden = np.all(masked == 0, axis=-1)
    np.testing.assert_array_equal(masked[~hidden], IMAGES[~hidden])
    rows, columns = hidden.all(axis=2), hidden.all(axis=1)
    np.testing.assert_array_equal(hidden, rows[:, :, None] | columns[:, None, :])
    for lines, size in ((rows, 20), (columns, 30)):
        counts = lines.sum(axis=1)
        assert counts.max() <= np.ceil(0.3 * size)
        assert len(set(counts)) > 2
        # In one piece, and anywhere.
        assert np.all(np.abs(np.diff(lines.astype(int), axis=1)).sum(axis=1) <= 2)
        assert lines.any(axis=0).mean() > 0.9


def test_more_masks_hide_more():
    share = [
        np.mean(
            np.asarray(SpecAugment(0.2, masks=masks, seed=1)(IMAGES, training=True))
            == 0
        )
        for masks in (1, 2, 4)
    ]
    assert share[0] < share[1] < share[2] < 0.8


def test_gain_and_sign_of_waves():
    waves = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    louder = np.asarray(Loudness(6, seed=1)(waves, training=True))
    gain = louder / waves
    np.testing.assert_allclose(gain, gain[:, :1] + 0 * gain, rtol=1e-4)
    decibels = 20 * np.log10(np.abs(gain[:, 0]))
    assert np.abs(decibels).max() <= 6.001
    assert decibels.min() < -5 < 5 < decibels.max()
    assert 0.4 < np.mean(gain[:, 0] < 0) < 0.6


def test_noise_has_the_scale_of_each_value():
    deviations = [1e-3, 1.0, 1e4, 0.0]
    vectors = np.tile(np.float32([1, 2, 3, 4]), (4000, 1))
    layer = Jitter(np.array(deviations), seed=1)
    noise = np.asarray(layer(vectors, training=True)) - vectors
    np.testing.assert_allclose(noise.std(axis=0), deviations, rtol=0.1)


VECTORS = IMAGES[:, :, 0, 0].astype(np.float32)
LAYERS = {
    "images": (functools.partial(SpecAugment, 0.2, seed=1), IMAGES),
    "windows": (functools.partial(Loudness, 6, seed=1), VECTORS),
    "vectors": (functools.partial(Jitter, np.ones(20), seed=1), VECTORS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_nothing_in_inference(name):
    make, values = LAYERS[name]
    layer = make()
    np.testing.assert_array_equal(layer(values), values)
    np.testing.assert_array_equal(layer(values, training=False), values)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_alter_each_time_anew_and_reproducibly(name):
    make, values = LAYERS[name]
    copies = [make(), make()]
    first, second = (np.asarray(copies[0](values, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(copies[1](values, training=True), first)
    # The state of their random numbers is a variable, which checkpoints hold.
    (state,) = copies[0].variables
    state.assign(copies[1].variables[0])
    np.testing.assert_array_equal(copies[0](values, training=True), second)


def test_strength_decides():
    normal = Normalisation(mean=(0.0,), variance=(4.0,))
    assert build_augmentation(layout("mel", 8, 8, 3), None, 0.0, 1) is None
    images = build_augmentation(layout("mel", 8, 8, 3), None, 0.5, 1)
    assert isinstance(images, SpecAugment)
    assert images.width == pytest.approx(0.2)
    windows = build_augmentation(layout("windows", 8), normal, 0.5, 1)
    assert isinstance(windows, Loudness)
    vectors = build_augmentation(layout("features", 8), normal, 0.5, 1)
    assert isinstance(vectors, Jitter)
    np.testing.assert_allclose(vectors.deviations, 0.5 * 2.0)

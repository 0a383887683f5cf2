import itertools

import librosa
import numpy as np
import pytest

from pipeline.common.clip_config import (
    CLIP_FRAMES,
    CLIP_SAMPLES,
    HOP_LENGTH,
    SAMPLE_RATE,
    ClipConfig,
)
from pipeline.representations import mel
from pipeline.representations.spectrum import Spectrum, Workspace
from tests.support.audio_files import SIGNALS, make_music, make_sine

WHOLE = ClipConfig(mel_images_per_clip=1)
REPEAT = ClipConfig(mel_channels="repeat", mel_images_per_clip=1)
FIVE = ClipConfig()


def draw(samples: np.ndarray, config: ClipConfig = WHOLE) -> np.ndarray:
    return mel.compute(Spectrum(samples, Workspace()), config)[0]


def mel_power(samples: np.ndarray) -> np.ndarray:
    """librosa's mel spectrogram, `(224, frames)`."""
    return librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, n_mels=224)


def draw_with_librosa(power: np.ndarray, loudest: float) -> np.ndarray:
    """The image of a part of a mel spectrogram by its definition, `(224, 224, 3)`."""
    edges = np.floor(np.arange(225) * power.shape[1] / 224 + 0.5).astype(int)
    groups = [power[:, a:b] for a, b in itertools.pairwise(edges)]
    channels = []
    for reduce in (np.mean, np.max, np.min):
        pixels = np.stack([reduce(group, axis=1) for group in groups], axis=1)
        decibels = 10 * np.log10(np.maximum(pixels, 1e-10) / loudest)
        channels.append(np.clip((decibels + 80) / 80 * 255, 0, 255))
    return np.stack(channels, axis=2).round()


@pytest.mark.parametrize("name", SIGNALS)
def test_image_is_what_librosa_and_numpy_make(signal, name):
    samples = signal(name)
    image = draw(samples)
    assert image.shape == (224, 224, 3)
    assert image.dtype == np.uint8
    power = mel_power(samples)
    difference = np.abs(image - draw_with_librosa(power, power.max()))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    repeated = draw(samples, REPEAT)
    for channel in range(3):
        np.testing.assert_array_equal(repeated[..., channel], image[..., 0])


@pytest.mark.parametrize("hertz", [110, 440, 1_000, 5_000, 15_000])
def test_a_sine_lights_up_its_row(hertz):
    samples = np.resize(make_sine(hertz, 5.0)[:, 0], CLIP_SAMPLES)
    image = draw(samples)
    # The centres of the 224 triangles.
    centres = librosa.mel_frequencies(n_mels=226, fmax=SAMPLE_RATE / 2)[1:-1]
    row = np.argmin(np.abs(centres - hertz))
    # Only the lowest bands are narrower than a bin of 21.5 Hz.
    found = np.argmax(image[:, 100, 0])
    assert abs(found - row) <= (1 if hertz < 500 else 0)
    assert image[found, 100].min() >= 250
    distant = np.abs(centres - hertz) > 500
    assert image[distant, 100].max() < 20


def test_rows_go_up_and_columns_forward(signal):
    # A burst at 15 s in silence: bright in one column from the bottom up.
    image = draw(signal("click"))
    column = 600_000 / CLIP_SAMPLES * 224
    lit = np.flatnonzero(image[..., 0].max(axis=0))
    assert column - 2 < lit.min() <= column
    assert column < lit.max() + 1 < column + 2
    rising = draw(librosa.chirp(fmin=100, fmax=15_000, sr=44_100, length=CLIP_SAMPLES))
    ridge = np.argmax(rising[..., 0], axis=0)
    assert (np.diff(ridge.astype(int)) >= 0).mean() > 0.99
    assert ridge[0] < 10
    assert ridge[-1] > 180


def test_channels_are_mean_maximum_and_minimum(signal):
    mean, maximum, minimum = np.moveaxis(draw(signal("music")).astype(int), 2, 0)
    assert (minimum <= mean).all()
    assert (mean <= maximum).all()
    assert (minimum < maximum).mean() > 0.8
    assert maximum.max() == 255


def test_loudness_does_not_matter(signal):
    samples = signal("music")
    quieter = draw(np.float32(0.25) * samples).astype(int)
    assert np.abs(quieter - draw(samples)).max() <= 1


@pytest.mark.parametrize("frames", [224, 300, 1_291, CLIP_FRAMES])
def test_every_frame_belongs_to_one_pixel(frames):
    edges = mel.pixel_edges(frames)
    assert edges.shape == (225,)
    assert edges[0] == 0
    assert edges[-1] == frames
    widths = np.diff(edges)
    assert widths.min() >= frames // 224
    assert widths.max() <= frames // 224 + 1


def test_pixels_have_eleven_or_twelve_frames():
    assert set(np.diff(mel.pixel_edges(CLIP_FRAMES)).tolist()) == {11, 12}


@pytest.mark.parametrize("config", [WHOLE, REPEAT])
def test_schema(config):
    schema = mel.make_schema(config)
    assert schema.value.shape == (224, 224, 3)
    assert (schema.value.dtype, schema.value.encoding) == ("uint8", "raw_bytes")
    assert schema.segments == ()
    assert schema.records_per_clip == 1


def test_several_images_lie_evenly_in_the_clip(signal):
    images = mel.compute(Spectrum(signal(SIGNALS[0]), Workspace()), FIVE)
    assert images.shape == (5, 224, 224, 3)
    assert mel.make_schema(FIVE).records_per_clip == 5
    starts = np.linspace(0, CLIP_FRAMES - mel.IMAGE_FRAMES, 5).astype(int)
    spans = mel.image_spans(5, CLIP_FRAMES, CLIP_FRAMES)
    assert [span.start for span in spans] == starts.tolist()


def test_what_was_repeated_is_drawn_once():
    heard = make_sine(440, 8.0)[:, 0]
    samples = np.resize(heard, CLIP_SAMPLES)
    images = mel.compute(Spectrum(samples, Workspace(), length=len(heard)), FIVE)
    frames = 1 + len(heard) // HOP_LENGTH
    spans = mel.image_spans(5, CLIP_FRAMES, frames)
    assert (spans[0].start, spans[-1].stop) == (0, frames)
    whole = mel.compute(Spectrum(samples, Workspace()), FIVE)
    assert not np.array_equal(images[1], whole[1])


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("length", [400, 1_500, 20_000, 132_096, 400_123, CLIP_SAMPLES])
def test_images_are_those_of_the_audio_alone(length, double):
    """Whatever follows it, and where it is padded: silence."""
    heard = make_music(30.0)[:length, 0]
    repeated = np.resize(heard, CLIP_SAMPLES)
    spectrum = Spectrum(repeated, Workspace(), double=double, length=length)
    images = mel.compute(spectrum, FIVE)
    padded = np.zeros(max(length, mel.IMAGE_FRAMES * HOP_LENGTH), np.float32)
    padded[:length] = heard
    power = mel_power(padded)
    heard_frames = 1 + length // HOP_LENGTH
    loudest = power[:, :heard_frames].max()
    spans = mel.image_spans(5, CLIP_FRAMES, heard_frames)
    for image, span in zip(images, spans, strict=True):
        difference = np.abs(image - draw_with_librosa(power[:, span], loudest))
        assert difference.max() <= 2
        assert np.mean(difference > 1) < 1e-4


@pytest.mark.parametrize("frames", [10, 257, 258, 259, CLIP_FRAMES])
@pytest.mark.parametrize("count", [2, 5, 100])
def test_images_lie_within_what_was_heard(frames, count):
    spans = mel.image_spans(count, CLIP_FRAMES, frames)
    assert len(spans) == count
    assert all(span.stop - span.start == mel.IMAGE_FRAMES for span in spans)
    assert spans[-1].stop == max(frames, mel.IMAGE_FRAMES)

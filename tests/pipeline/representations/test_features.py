import warnings

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.clip_config import CLIP_FRAMES, N_FFT, SAMPLE_RATE, ClipConfig
from pipeline.representations import features
from pipeline.representations.spectrum import Spectrum, Workspace
from tests.support.audio_files import SIGNALS, make_sine

BIN = SAMPLE_RATE / N_FFT
#: Largest deviation of an MFCC; a click in silence has the widest range.
MFCC_TOLERANCE = {"click": 2e-3}


@pytest.fixture(scope="module", params=SIGNALS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def clip(name, signal) -> Spectrum:
    return Spectrum(signal(name), Workspace())


@pytest.fixture(scope="module")
def power(clip) -> np.ndarray:
    """librosa's power spectrogram of the clip."""
    return np.abs(librosa.stft(clip.samples)) ** 2


def make_clip(samples: np.ndarray) -> Spectrum:
    return Spectrum(np.asarray(samples, np.float32), Workspace())


def test_mfcc_is_librosas(name, clip, power):
    mel = librosa.feature.melspectrogram(S=power, sr=SAMPLE_RATE)
    expected = librosa.feature.mfcc(S=librosa.power_to_db(mel))
    assert expected.shape == (20, CLIP_FRAMES)
    np.testing.assert_allclose(
        features.compute_mfcc(clip),
        expected,
        rtol=0,
        atol=MFCC_TOLERANCE.get(name, 1e-3),
    )


def test_chroma_is_librosas(clip, power):
    np.testing.assert_allclose(
        features.compute_chroma(clip),
        librosa.feature.chroma_stft(S=power, sr=SAMPLE_RATE),
        rtol=0,
        atol=1e-5,
    )


def test_zero_crossings_are_librosas(clip):
    np.testing.assert_array_equal(
        features.compute_zero_crossing_rate(clip),
        librosa.feature.zero_crossing_rate(clip.samples)[0],
    )


def test_centroid_is_librosas(clip, power):
    expected = librosa.feature.spectral_centroid(S=np.sqrt(power), sr=SAMPLE_RATE)[0]
    found = features.compute_brightness(clip).centroid
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05)


def test_rolloff_is_librosas_to_the_bin(clip, power):
    expected = librosa.feature.spectral_rolloff(S=np.sqrt(power), sr=SAMPLE_RATE)[0]
    bins = (features.compute_brightness(clip).rolloff - expected) / BIN
    np.testing.assert_array_equal(bins, bins.round())
    assert np.abs(bins).max() <= 1
    assert np.count_nonzero(bins) < 0.005 * CLIP_FRAMES


def test_rolloff_is_exact(signal):
    clip = make_clip(signal("music"))
    sums = np.cumsum(clip.magnitude, axis=1, dtype=np.float64)
    exact = np.argmax(sums >= np.float64(0.85) * sums[:, -1:], axis=1) * BIN
    wrong = features.compute_brightness(clip).rolloff != exact
    assert np.count_nonzero(wrong) <= 2


def test_the_vector_is_librosas_with_its_defaults(signal):
    samples = signal("music")
    vector = features.compute(make_clip(samples), ClipConfig())
    assert vector.shape == (1, 85_210)
    assert vector.dtype == np.float32
    centroid = librosa.feature.spectral_centroid(y=samples, sr=SAMPLE_RATE)
    rolloff = librosa.feature.spectral_rolloff(y=samples, sr=SAMPLE_RATE)
    expected = [
        librosa.feature.mfcc(y=samples, sr=SAMPLE_RATE),
        librosa.feature.chroma_stft(y=samples, sr=SAMPLE_RATE),
        librosa.feature.zero_crossing_rate(y=samples),
    ]
    np.testing.assert_allclose(
        vector[0, :-4], np.concatenate(expected).ravel(), rtol=0, atol=1e-3
    )
    np.testing.assert_allclose(
        vector[0, -4:],
        [centroid.mean(), centroid.std(), rolloff.mean(), rolloff.std()],
        rtol=1e-4,
    )


def test_segments_name_the_layout():
    names = [segment.name for segment in features.SEGMENTS]
    lengths = [segment.length for segment in features.SEGMENTS]
    assert names[:2] == ["mfcc_01", "mfcc_02"]
    assert names[19:21] == ["mfcc_20", "chroma_01"]
    assert names[31:33] == ["chroma_12", "zero_crossing_rate"]
    assert len(set(names)) == 37
    assert lengths == [CLIP_FRAMES] * 33 + [1] * 4
    assert sum(lengths) == 33 * 2_582 + 4 == 85_210
    schema = features.make_schema(ClipConfig())
    assert schema.value.shape == (85_210,)
    assert schema.segments == features.SEGMENTS


@pytest.mark.parametrize(("hertz", "pitch"), [(261.63, 0), (440, 9), (1_975.5, 11)])
def test_a_tone_has_its_pitch_class(hertz, pitch):
    chroma = features.compute_chroma(make_clip(make_sine(hertz, 2.0)[:, 0]))
    inner = chroma[:, 5:-5]
    assert (np.argmax(inner, axis=0) == pitch).all()
    np.testing.assert_array_equal(inner.max(axis=0), 1)


def test_a_tone_crosses_zero_twice_a_period():
    clip = make_clip(make_sine(1_000, 2.0)[:, 0])
    rate = features.compute_zero_crossing_rate(clip)
    np.testing.assert_allclose(rate[4:-4], 2_000 / SAMPLE_RATE, atol=1 / N_FFT)


@pytest.mark.parametrize("hertz", [100 * BIN, 500 * BIN])
def test_a_tone_is_as_bright_as_it_is_high(hertz):
    brightness = features.compute_brightness(make_clip(make_sine(hertz, 2.0)[:, 0]))
    np.testing.assert_allclose(brightness.centroid[5:-5], hertz, atol=1)
    np.testing.assert_allclose(brightness.rolloff[5:-5], hertz + BIN, atol=0.1)


def test_energy_in_the_highest_bin_is_found():
    nyquist = 0.5 * (-1.0) ** np.arange(20_000)
    brightness = features.compute_brightness(make_clip(nyquist))
    np.testing.assert_array_equal(brightness.rolloff[5:-5], SAMPLE_RATE / 2)


def test_silent_frames_have_finite_features(signal):
    clip = make_clip(signal("click"))
    vector = features.compute(clip, ClipConfig())
    assert np.isfinite(vector).all()
    brightness = features.compute_brightness(clip)
    assert brightness.centroid[0] == brightness.rolloff[0] == 0
    assert features.compute_chroma(clip)[:, 0].max() == 0


@settings(max_examples=100)
@given(
    samples=hnp.arrays(
        np.float32,
        st.integers(1, 3_000),
        # -0.0 and what librosa takes for zero.
        elements=st.sampled_from([0.0, -0.0, 1e-11, -1e-11, 1e-9, -1e-9, 0.5, -0.5]),
    )
)
def test_zero_crossings_of_any_samples(samples):
    np.testing.assert_array_equal(
        features.compute_zero_crossing_rate(make_clip(samples)),
        librosa.feature.zero_crossing_rate(samples)[0],
    )


@settings(max_examples=30)
@given(
    length=st.integers(600, 9_000),
    seed=st.integers(0, 99),
    exponent=st.integers(-6, 0),
)
def test_noise_of_any_length_and_loudness(length, seed, exponent):
    noise = np.random.default_rng(seed).standard_normal(length)
    samples = (10.0**exponent * noise).astype(np.float32)
    clip = make_clip(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa: shorter than a window
        mfcc = librosa.feature.mfcc(y=samples, sr=SAMPLE_RATE)
        chroma = librosa.feature.chroma_stft(y=samples, sr=SAMPLE_RATE)
        centroid = librosa.feature.spectral_centroid(y=samples, sr=SAMPLE_RATE)[0]
    np.testing.assert_allclose(features.compute_mfcc(clip), mfcc, atol=2e-3)
    np.testing.assert_allclose(features.compute_chroma(clip), chroma, atol=1e-5)
    brightness = features.compute_brightness(clip)
    np.testing.assert_allclose(brightness.centroid, centroid, atol=0.05)

"""The 518 statistics against librosa and scipy.stats, FMA's way at 44.1 kHz."""

import librosa
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.clip_config import CLIP_SAMPLES, SAMPLE_RATE, ClipConfig
from pipeline.inspect.recompute import compute_frames, compute_moments
from pipeline.representations import (
    DEFAULTS,
    NAMES,
    compute_representations,
    features,
    make_schemas,
    statistics,
)
from pipeline.representations.spectrum import Spectrum, Workspace, compute_power
from pipeline.representations.statistics import SEVEN_NUMBERS, summarise
from tests.support.audio_files import make_sine

#: The sizes in FMA's own order; its table sorts them.
FMA_SIZES = {
    "chroma_stft": 12,
    "chroma_cqt": 12,
    "chroma_cens": 12,
    "tonnetz": 6,
    "mfcc": 20,
    "rmse": 1,
    "zcr": 1,
    "spectral_centroid": 1,
    "spectral_bandwidth": 1,
    "spectral_contrast": 7,
    "spectral_rolloff": 1,
}
FMA_MOMENTS = ("mean", "std", "skew", "kurtosis", "median", "min", "max")

#: Largest difference of a frame from librosa's, in the feature's unit.
FRAME_TOLERANCE = {
    "chroma_cens": 1e-6,
    "chroma_cqt": 3e-5,
    "chroma_stft": 1e-6,
    "mfcc": 2e-3,
    "rmse": 1e-6,
    "spectral_bandwidth": 1e-2,
    "spectral_centroid": 5e-2,
    "spectral_contrast": 1e-4,
    "spectral_rolloff": SAMPLE_RATE / 2048 * 1.001,
    "tonnetz": 1e-6,
    "zcr": 1e-12,
}
SIGNALS = ("genuine", "music")


@pytest.fixture(scope="module")
def compared(signal):
    """Our frames, our vector and librosa's frames of a signal, each made once."""
    made = {}

    def get(name):
        if name not in made:
            samples = signal(name)
            spectrum = Spectrum(samples, Workspace(), double=True)
            ours = statistics.compute_frame_features(spectrum)
            vector = statistics.compute(spectrum, ClipConfig())
            made[name] = ours, vector, compute_frames(samples)
        return made[name]

    return get


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("feature", FMA_SIZES)
def test_frames_are_librosas(compared, name, feature):
    ours, _, oracle = compared(name)
    assert ours[feature].shape == (FMA_SIZES[feature], 2582)
    difference = np.abs(ours[feature] - oracle[feature])
    assert difference.max() <= FRAME_TOLERANCE[feature]
    # Rounding moves a roll-off to the next bin, but seldom.
    assert feature != "spectral_rolloff" or np.mean(difference > 0) < 5e-3


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("feature", FMA_SIZES)
def test_moments_are_within_a_thousandth(compared, name, feature):
    _, vector, oracle = compared(name)
    values = {
        segment.name: value
        for segment, value in zip(statistics.SEGMENTS, vector[0], strict=True)
    }
    moments = compute_moments(oracle[feature])
    for moment, expected in zip(SEVEN_NUMBERS, moments, strict=True):
        got = [values[f"{feature}_{moment}_{i + 1:02d}"] for i in range(len(expected))]
        # Skewness and kurtosis have no unit, and cross zero; so do MFCC.
        shape = moment in ("skew", "kurtosis")
        absolute = 1e-4 if shape or feature == "mfcc" else 1e-9
        np.testing.assert_allclose(
            got, expected, rtol=1e-3, atol=absolute, err_msg=moment
        )


def test_contrast_needs_the_float64_transform(signal):
    samples = signal("music")
    workspace = Workspace()
    magnitude = np.abs(librosa.stft(samples))
    expected = librosa.feature.spectral_contrast(S=magnitude, sr=SAMPLE_RATE)
    errors = []
    for double in (False, True):
        power = compute_power(samples, workspace, double=double)
        contrast = statistics.compute_contrast(power)
        errors.append(np.abs(contrast - expected).max())
    assert errors[0] > 0.1
    assert errors[1] < 1e-4


def test_bandwidth_of_a_high_pure_tone():
    # Mean square and squared centroid agree to 4 digits here.
    samples = make_sine(18_000, 3)[:, 0]
    workspace = Workspace()
    power = compute_power(samples, workspace, double=True)
    magnitude = np.abs(librosa.stft(samples))
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=SAMPLE_RATE)
    expected = librosa.feature.spectral_bandwidth(S=magnitude, sr=SAMPLE_RATE)
    got = statistics.compute_bandwidth(power, centroid[0].astype(np.float32))
    assert expected[0, 10:-10].max() < 200
    np.testing.assert_allclose(got, expected[0], rtol=1e-4)


def test_names_and_order_are_those_of_features_csv():
    columns = [
        (feature, moment, f"{number + 1:02d}")
        for feature, size in FMA_SIZES.items()
        for moment in FMA_MOMENTS
        for number in range(size)
    ]
    names = [segment.name for segment in statistics.SEGMENTS]
    assert names == ["_".join(column) for column in sorted(columns)]
    assert names[0] == "chroma_cens_kurtosis_01"
    assert names[-1] == "zcr_std_01"


def test_schema():
    schema = make_schemas(["statistics"], ClipConfig())["statistics"]
    assert schema.value.shape == (518,)
    assert schema.value.dtype == "float32"
    assert schema.records_per_clip == 1
    assert [segment.length for segment in schema.segments] == [1] * 518
    assert "statistics" in NAMES
    assert "statistics" in DEFAULTS


def test_refuses_a_spectrum_of_single_precision(signal):
    with pytest.raises(ValueError, match="Received: single"):
        statistics.compute(Spectrum(signal("music"), Workspace()), ClipConfig())


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_constant_signals_give_finite_numbers(level):
    samples = np.full(CLIP_SAMPLES, level, np.float32)
    spectrum = Spectrum(samples, Workspace(), double=True)
    vector = statistics.compute(spectrum, ClipConfig())
    assert vector.dtype == np.float32
    assert vector.shape == (1, 518)
    assert np.isfinite(vector).all()
    values = dict(zip((s.name for s in statistics.SEGMENTS), vector[0], strict=True))
    assert values["zcr_mean_01"] == 0
    assert values["zcr_kurtosis_01"] == 0
    assert values["zcr_skew_01"] == 0
    if not level:
        assert values["rmse_max_01"] == 0
        assert values["mfcc_mean_01"] < -1000
        assert values["chroma_cens_std_05"] == 0


@pytest.mark.parametrize(
    "names", [["features", "statistics"], ["statistics", "features"]]
)
def test_shared_frames_are_computed_once(monkeypatch, names):
    samples = make_sine(440, 2)[:, 0]
    workspace = Workspace()
    alone = {
        name: compute_representations(samples, [name], ClipConfig(), workspace)[name]
        for name in names
    }
    calls = []

    def count(name):
        original = getattr(features, name)

        def wrapper(spectrum):
            calls.append(name)
            return original(spectrum)

        return wrapper

    shared = (
        "compute_mfcc",
        "compute_chroma",
        "compute_zero_crossing_rate",
        "compute_brightness",
    )
    for name in shared:
        monkeypatch.setattr(features, name, count(name))
    together = compute_representations(samples, names, ClipConfig(), workspace)
    assert sorted(calls) == sorted(shared)
    np.testing.assert_array_equal(together["statistics"], alone["statistics"])
    # Alone, its spectrum is of single precision.
    np.testing.assert_allclose(together["features"], alone["features"], 1e-3, 1e-3)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 40)),
        elements=st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
    )
)
def test_moments_are_scipys(rows):
    got = dict(zip(SEVEN_NUMBERS, summarise(rows), strict=True))
    expected = dict(zip(SEVEN_NUMBERS, compute_moments(rows), strict=True))
    scale = np.abs(rows).max()
    for moment in ("max", "median", "min"):
        np.testing.assert_array_equal(got[moment], expected[moment])
    for moment in ("mean", "std"):
        np.testing.assert_allclose(
            got[moment], expected[moment], rtol=1e-9, atol=1e-12 * scale
        )
    for moment in ("skew", "kurtosis"):
        np.testing.assert_allclose(got[moment], expected[moment], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_moments_of_a_constant_row_are_finite():
    rows = np.array([[0.1] * 2582, [3.0] * 2582, [1e-30] * 2582], np.float32)
    got = dict(zip(SEVEN_NUMBERS, summarise(rows), strict=True))
    assert np.isnan(scipy.stats.skew(rows[1]))
    np.testing.assert_array_equal(got["skew"], 0)
    np.testing.assert_array_equal(got["kurtosis"], 0)
    np.testing.assert_allclose(got["std"], 0, atol=1e-15)
    np.testing.assert_array_equal(got["median"], rows[:, 0])

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.clip_config import (
    CLIP_FRAMES,
    FREQUENCY_BINS,
    HOP_LENGTH,
    N_FFT,
    SAMPLE_RATE,
)
from pipeline.representations import spectrum
from pipeline.representations.spectrum import (
    Spectrum,
    Workspace,
    compute_power,
    estimate_tuning,
)
from tests.support.audio_files import SIGNALS, make_sine


def noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length, np.float32)


@pytest.fixture(scope="module", params=SIGNALS)
def clip(request, signal) -> Spectrum:
    return Spectrum(signal(request.param), Workspace())


@pytest.fixture(scope="module")
def power(clip) -> np.ndarray:
    """librosa's power spectrogram of the clip."""
    return np.abs(librosa.stft(clip.samples)) ** 2


def test_power_is_librosas(clip, power):
    assert clip.power.shape == (CLIP_FRAMES, FREQUENCY_BINS)
    assert clip.power.dtype == np.float32
    np.testing.assert_allclose(clip.power.T, power, rtol=1e-4, atol=1e-6 * power.max())


def test_magnitude_is_the_root_of_power(clip):
    np.testing.assert_allclose(clip.magnitude**2, clip.power, rtol=1e-6)


def test_tuning_is_librosas(clip, power):
    # As `librosa.feature.chroma_stft` estimates it: from the power.
    expected = librosa.estimate_tuning(S=power, sr=SAMPLE_RATE, n_fft=N_FFT)
    assert clip.tuning == expected


def test_tuning_of_magnitudes_is_librosas(clip, power):
    # As `librosa.cqt` estimates it.
    magnitude = np.sqrt(power)
    expected = librosa.estimate_tuning(S=magnitude, sr=SAMPLE_RATE, n_fft=N_FFT)
    assert estimate_tuning(np.ascontiguousarray(magnitude.T)) == expected


@pytest.mark.parametrize("bands", [128, 224])
def test_mel_is_librosas(clip, power, bands):
    expected = librosa.feature.melspectrogram(S=power, sr=SAMPLE_RATE, n_mels=bands)
    np.testing.assert_allclose(
        clip.mel(bands).T, expected, rtol=2e-5, atol=1e-6 * expected.max()
    )


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@pytest.mark.parametrize("length", [1, 511, 512, 513, 2047, 2048, 40_000, 65 * 512])
def test_power_of_any_length(length):
    samples = noise(length)
    expected = np.abs(librosa.stft(samples)) ** 2
    result = compute_power(samples, Workspace())
    assert result.shape == (1 + length // HOP_LENGTH, FREQUENCY_BINS)
    np.testing.assert_allclose(result.T, expected, rtol=1e-3, atol=1e-5)


def test_power_in_double_precision_is_exact_where_it_is_faint():
    # A tone 140 dB above the noise in the other bins.
    samples = make_sine(1_000, 2.0)[:, 0] + 1e-7 * noise(88_200)
    frames = librosa.util.frame(
        np.pad(samples.astype(float), N_FFT // 2),
        frame_length=N_FFT,
        hop_length=HOP_LENGTH,
    )
    window = librosa.filters.get_window("hann", N_FFT)
    exact = np.abs(np.fft.rfft(frames * window[:, None], axis=0)) ** 2
    double = compute_power(samples, Workspace(), double=True)
    assert double.dtype == np.float32
    np.testing.assert_allclose(double.T, exact, rtol=1e-6, atol=1e-12 * exact.max())


@pytest.mark.parametrize("hertz", [440.0, 466.16, 452.9, 430.0])
def test_tuning_of_a_tone(hertz):
    # The pitch is interpolated between bins of 21.5 Hz, so about right.
    samples = sum(make_sine(hertz * k, 3.0)[:, 0] / k for k in range(1, 6))
    power = compute_power(np.asarray(samples, np.float32), Workspace())
    tuning = estimate_tuning(power)
    semitones = 12 * np.log2(hertz / 440)
    expected = semitones - round(semitones)
    assert abs((tuning - expected + 0.5) % 1 - 0.5) < 0.1


def test_tuning_of_silence():
    assert estimate_tuning(np.zeros((5, FREQUENCY_BINS), np.float32)) == 0.0


@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty")
@settings(max_examples=60)
@given(
    power=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(4, 20)),
        # Few values, so that there are plateaus and peaks at the limit.
        elements=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    ),
    # About 150 Hz, anywhere, about 4,000 Hz.
    first=st.sampled_from([0, 60, 180]),
)
def test_tuning_of_any_spectrum_is_librosas(power, first):
    after = FREQUENCY_BINS - first - power.shape[1]
    power = np.pad(power, ((0, 0), (first, after)))
    expected = librosa.estimate_tuning(S=power.T, sr=SAMPLE_RATE, n_fft=N_FFT)
    assert estimate_tuning(power) == pytest.approx(expected, abs=1e-9)


def test_a_workspace_can_be_reused_for_clips_of_any_length():
    workspace = Workspace()
    for length in (60_000, 20_000, 90_000, 20_000):
        samples = noise(length, seed=length)
        reused = Spectrum(samples, workspace)
        fresh = Spectrum(samples, Workspace())
        np.testing.assert_array_equal(reused.power, fresh.power)
        np.testing.assert_array_equal(reused.magnitude, fresh.magnitude)
        np.testing.assert_array_equal(reused.mel(128), fresh.mel(128))
        assert reused.tuning == fresh.tuning


def test_workspace_arrays():
    workspace = Workspace()
    first = workspace.array("a", 10, 4)
    assert first.shape == (10, 4)
    assert first.dtype == np.float32
    assert np.shares_memory(workspace.array("a", 6, 4), first)
    assert not np.shares_memory(workspace.array("b", 10, 4), first)
    assert workspace.array("a", 11, 4).shape == (11, 4)
    assert workspace.array("a", 11, 3).shape == (11, 3)


def test_results_are_computed_once():
    calls = []

    def compute(clip: Spectrum) -> int:
        calls.append(clip)
        return clip.frames

    clip = Spectrum(noise(5_000), Workspace())
    assert clip.once(compute) == clip.once(compute) == 10
    assert calls == [clip]


@pytest.mark.parametrize("bands", [128, 224])
def test_mel_blocks_cover_librosas_filters(bands):
    filters = np.zeros((FREQUENCY_BINS, bands), np.float32)
    for block in spectrum.mel_blocks(bands):
        filters[block.bins, block.bands] += block.weights
    expected = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=bands)
    np.testing.assert_array_equal(filters.T, expected)
    assert (filters.max(axis=0) > 0).all()


@settings(max_examples=50)
@given(
    power=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(0, 2.0**20, width=32),
    )
)
def test_decibels_are_librosas(power):
    before = power.copy()
    np.testing.assert_allclose(
        spectrum.power_to_db(power), librosa.power_to_db(power), atol=2e-5
    )
    np.testing.assert_array_equal(power, before)


def test_window_is_librosas():
    expected = librosa.filters.get_window("hann", N_FFT, fftbins=True)
    np.testing.assert_array_equal(spectrum.hann_window(), expected.astype(np.float32))

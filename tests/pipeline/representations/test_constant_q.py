"""The constant-Q transform, and what is made from it, against librosa."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.clip_config import SAMPLE_RATE
from pipeline.representations.constant_q import compute_constant_q, octave_kernel
from pipeline.representations.tonality import (
    CENS_STEPS,
    compute_cens,
    compute_tonnetz,
    fold_octaves,
    normalise_peak,
)
from tests.support.audio_files import make_music, make_sine

chromas = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 60), st.just(12)),
    elements=st.floats(0, 1, width=32).map(lambda value: round(value * 64) / 64),
)


def compute_oracle(samples, tuning):
    cqt = librosa.cqt(samples, sr=SAMPLE_RATE, n_bins=84, tuning=tuning)
    return np.abs(cqt).T


@pytest.mark.parametrize("tuning", [-0.5, -0.13, 0.0, 0.06, 0.49])
def test_equals_librosa_at_any_tuning(tuning):
    samples = make_music(6)[:, 0]
    expected = compute_oracle(samples, tuning)
    got = compute_constant_q(samples, tuning)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6 * expected.max())


@pytest.mark.filterwarnings("ignore:n_fft=256 is too large")
@pytest.mark.parametrize("length", [512 * 40 + k for k in (-2, -1, 0, 1, 2, 255, 257)])
def test_has_librosas_frames_at_any_length(length):
    samples = make_music(1)[:length, 0]
    expected = compute_oracle(samples, 0.0)
    got = compute_constant_q(samples, 0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-6 * expected.max())


@pytest.mark.parametrize("semitone", [0, 9, 33, 83])
def test_finds_a_tone(semitone):
    hertz = librosa.note_to_hz("C1") * 2 ** (semitone / 12)
    loudness = compute_constant_q(make_sine(hertz, 4)[:, 0], 0.0).mean(axis=0)
    assert loudness.argmax() == semitone
    distant = np.abs(np.arange(84) - semitone) > 3
    assert loudness[distant].max() < 0.02 * loudness[semitone]


def test_kernels_are_kept_for_a_bounded_number_of_tunings():
    octave_kernel.cache_clear()
    assert octave_kernel(0.25) is octave_kernel(0.25)
    for step in range(150):
        octave_kernel(step / 300)
    assert octave_kernel.cache_info().currsize <= 128


def test_octaves_fold_onto_pitch_classes():
    constant_q = np.zeros((3, 84), np.float32)
    constant_q[0, [0, 12, 81]] = 1, 2, 4
    chroma = fold_octaves(constant_q)
    assert chroma[0].tolist() == [3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]
    assert not chroma[1:].any()


@settings(max_examples=20)
@given(chromas)
def test_chroma_is_librosas(chroma):
    constant_q = np.tile(chroma / 8, (1, 7)).astype(np.float32)
    expected = librosa.feature.chroma_cqt(C=constant_q.T, bins_per_octave=12)
    got = normalise_peak(fold_octaves(constant_q))
    np.testing.assert_allclose(got.T, expected, rtol=1e-5)


@settings(max_examples=20)
@given(chromas)
def test_cens_is_librosas(chroma):
    # Rounding would decide about a share that equals a step.
    shares = chroma / np.maximum(chroma.sum(axis=1, keepdims=True), 1e-9)
    distance = np.abs(shares[:, :, None] - CENS_STEPS).min(axis=(1, 2))
    chroma = chroma * (distance > 1e-4)[:, None]
    expected = librosa.feature.chroma_cens(
        C=np.tile(chroma.T, (7, 1)), bins_per_octave=12
    )
    np.testing.assert_allclose(compute_cens(chroma).T, expected, atol=1e-6)


@settings(max_examples=20)
@given(chromas)
def test_tonnetz_is_librosas(chroma):
    expected = librosa.feature.tonnetz(chroma=chroma.T)
    np.testing.assert_allclose(compute_tonnetz(chroma).T, expected, atol=1e-6)


def test_tonnetz_of_a_fifth_is_near_on_the_circle_of_fifths():
    notes = np.eye(12, dtype=np.float32)
    c, g, f_sharp = compute_tonnetz(notes)[[0, 7, 6], :2]
    assert np.linalg.norm(c - g) < 0.6
    assert np.linalg.norm(c - f_sharp) > 1.9

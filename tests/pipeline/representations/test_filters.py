"""Filters against librosa's, to the bit: datasets stay the same bytes."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.fft

from pipeline.representations import filters

#: From the lowest to the highest tuning; librosa gives no other.
TUNINGS = np.linspace(-0.5, 0.5, 101)


@pytest.mark.parametrize("size", [1, 43, 512, 2048])
@pytest.mark.parametrize("periodic", [True, False])
def test_hann(size, periodic):
    expected = librosa.filters.get_window("hann", size, fftbins=periodic)
    if size > 1:  # scipy makes a single one 1.
        np.testing.assert_array_equal(filters.hann(size, periodic=periodic), expected)
    assert filters.hann(size, periodic=periodic).shape == (size,)


@pytest.mark.parametrize(
    ("bands", "rate", "size"),
    [(128, 44_100, 2048), (224, 44_100, 2048), (96, 16_000, 512), (40, 22_050, 1024)],
)
def test_mel_filters(bands, rate, size):
    found = filters.mel_filters(bands, rate, size)
    expected = librosa.filters.mel(sr=rate, n_fft=size, n_mels=bands)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rate", [22_050, 44_100])
def test_chroma_filters(rate):
    for tuning in TUNINGS:
        found = filters.chroma_filters(tuning, rate, 2048)
        expected = librosa.filters.chroma(sr=rate, n_fft=2048, tuning=tuning)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_wavelets_without_their_smallest_parts():
    for tuning in TUNINGS:
        frequencies = 2000 * 2 ** ((tuning + np.arange(12)) / 12)
        found, lengths = filters.wavelets(frequencies, 22_050)
        expected, sizes = librosa.filters.wavelet(freqs=frequencies, sr=22_050)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(lengths, sizes)
        spectra = scipy.fft.fft(found, axis=1)
        sparse = librosa.util.sparsify_rows(spectra, quantile=0.01).toarray()
        assert (sparse == 0).any()
        np.testing.assert_array_equal(filters.drop_smallest(spectra, 0.01), sparse)


def test_find_tuning():
    generator = np.random.default_rng(0)
    for count in (1, 2, 10, 1000):
        for _ in range(20):
            pitches = generator.uniform(60, 4000, count)
            expected = librosa.pitch_tuning(pitches, resolution=0.01)
            assert filters.find_tuning(pitches) == expected


def test_fft_frequencies():
    expected = librosa.fft_frequencies(sr=44_100, n_fft=2048)
    np.testing.assert_array_equal(filters.fft_frequencies(44_100, 2048), expected)

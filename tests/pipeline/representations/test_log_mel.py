"""The music models' log-mel against librosa."""

import librosa
import numpy as np
import pytest

from pipeline.representations.log_mel import (
    HOP_LENGTH,
    PATCH_FRAMES,
    RATE,
    log_mel,
    log_mel_patches,
    patch_starts,
)
from tests.support.audio_files import make_music


def make_mono(seconds, rate):
    return make_music(seconds, rate)[:, 0].astype(np.float32)


def reference(samples):
    power = librosa.feature.melspectrogram(
        y=samples, sr=RATE, n_fft=512, hop_length=256, n_mels=96
    )
    return np.log10(1 + 10_000 * power.T)


@pytest.mark.parametrize("length", [512, 16_000, 100_001])
def test_equals_librosa(length):
    samples = make_mono(length / RATE, RATE)[:length]
    got = log_mel(np.pad(samples, 256))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference(samples), atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_patches_are_parts_of_the_whole(count):
    samples = make_mono(12, RATE)
    whole = log_mel(np.pad(samples, 256))
    patches = log_mel_patches(samples, RATE, count)
    assert patches.shape == (count, PATCH_FRAMES, 96)
    for patch, start in zip(patches, patch_starts(len(whole), count), strict=True):
        # The zeros beyond the whole's ends are the same zeros.
        np.testing.assert_allclose(
            patch, whole[start : start + PATCH_FRAMES], atol=1e-5
        )


def test_patches_reach_from_the_start_to_the_end():
    assert list(patch_starts(1000, 3)) == [0, 406, 813]
    assert list(patch_starts(1000, 1)) == [406]
    assert list(patch_starts(PATCH_FRAMES, 5)) == [0] * 5


def test_a_waveform_under_a_patch_is_padded_with_silence():
    samples = make_mono(1, RATE)
    [patch, again] = log_mel_patches(samples, RATE, 2)
    padded = np.zeros((PATCH_FRAMES - 1) * HOP_LENGTH, np.float32)
    padded[: len(samples)] = samples
    np.testing.assert_array_equal(patch, log_mel(np.pad(padded, 256)))
    np.testing.assert_array_equal(patch, again)


def test_other_rates_are_resampled():
    high = make_mono(5, 44_100)
    low = librosa.resample(high, orig_sr=44_100, target_sr=RATE, res_type="soxr_hq")
    np.testing.assert_allclose(
        log_mel_patches(high, 44_100, 2), log_mel_patches(low, RATE, 2), atol=1e-3
    )

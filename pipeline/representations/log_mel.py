"""The log-mel patches that the music models take: 16 kHz, 96 bands, 3 s each.

These are the numbers of musicnn (Pons and Serra, 2019, arXiv:1909.06654): a power
spectrogram of 512 samples every 256, Slaney mel bands, `log10(1 + 10,000 power)`.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft
import soxr
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pipeline.representations.filters import hann, mel_filters

Float32 = NDArray[np.float32]

#: Hz.
RATE = 16_000
N_FFT = 512
HOP_LENGTH = 256
BANDS = 96
#: Frames of a patch (3 s).
PATCH_FRAMES = 187
#: Factor of the power before its logarithm.
COMPRESSION = np.float32(10_000)


def log_mel_patches(samples: Float32, rate: int, count: int) -> Float32:
    """Patches of a waveform, evenly spaced from its start to its end.

    A waveform shorter than a patch is padded with silence to one.

    Args:
      samples: mono, float32 of shape (n,), n > 0.
      rate: its sampling rate in Hz.
      count: number of patches, at least 1; a single one lies in the middle.

    Returns:
      float32 of shape (count, 187, 96).
    """
    resampled = soxr.resample(samples, rate, RATE, quality="HQ")
    shortest = (PATCH_FRAMES - 1) * HOP_LENGTH
    if len(resampled) < shortest:
        resampled = np.pad(resampled, (0, shortest - len(resampled)))
    padded = np.pad(resampled, N_FFT // 2)
    length = (PATCH_FRAMES - 1) * HOP_LENGTH + N_FFT
    starts = patch_starts(1 + len(resampled) // HOP_LENGTH, count) * HOP_LENGTH
    return np.stack([_log_mel(padded[start : start + length]) for start in starts])


def patch_starts(frames: int, count: int) -> NDArray[np.int64]:
    """First frames of `count` evenly spaced patches, ascending."""
    last = frames - PATCH_FRAMES
    if count == 1:
        return np.array([last // 2])
    return np.arange(count) * last // (count - 1)


def log_mel(samples: Float32) -> Float32:
    """The whole spectrogram, frames centred on zero-padded audio.

    As `log10(1 + 10000 * librosa.feature.melspectrogram(y=samples, sr=16000,
    n_fft=512, hop_length=256, n_mels=96).T)`.

    Args:
      samples: mono at 16 kHz, float32 of shape (n,).

    Returns:
      float32 of shape (1 + n // 256, 96).
    """
    return _log_mel(np.pad(samples, N_FFT // 2))


def _log_mel(padded: Float32) -> Float32:
    padded = np.ascontiguousarray(padded, np.float32)
    frames, step = 1 + (len(padded) - N_FFT) // HOP_LENGTH, padded.itemsize
    framed = as_strided(
        padded, (frames, N_FFT), (HOP_LENGTH * step, step), writeable=False
    )
    spectrum = scipy.fft.rfft(framed * window(), axis=1, overwrite_x=True)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    mel = power @ filters()
    mel *= COMPRESSION
    mel += np.float32(1)
    logarithms: Float32 = np.log10(mel, out=mel)
    return logarithms


@functools.cache
def window() -> Float32:
    """Periodic Hann window, (512,)."""
    return np.asarray(hann(N_FFT), np.float32)


@functools.cache
def filters() -> Float32:
    """Mel filters, (257, 96)."""
    bank = mel_filters(BANDS, RATE, N_FFT)
    return np.ascontiguousarray(bank.T, np.float32)

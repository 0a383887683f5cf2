"""Constant-Q transform: 84 semitones from C1 to B7, every 512 samples.

Equal to `numpy.abs(librosa.cqt(samples, sr=44100, tuning=tuning))`, whose
method it follows: the wavelets of an octave are half as long as those of the
octave below, so halving the sampling rate from octave to octave lets all use
the same kernel (C. Schörkhuber and A. Klapuri, "Constant-Q transform toolbox
for music processing", 2010). Three things make it faster. The kernel, which
librosa applies to the frames' FFTs, is brought back to the time domain, where
it is 256 samples long. The frames that do not overlap are consecutive blocks
of the signal, so that no frame is ever copied. And neither the kernel nor its
scale depends on the octave: it is designed once per tuning.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.fft
import soxr
from numpy.lib.stride_tricks import as_strided

from pipeline.common.clip_config import HOP_LENGTH, SAMPLE_RATE
from pipeline.representations.filters import (
    A440,
    SEMITONES,
    drop_smallest,
    wavelets,
)
from pipeline.representations.spectrum import Float32

OCTAVES = 7
#: Samples of a kernel: the longest wavelet has 178 to 188, depending on tuning.
KERNEL_LENGTH = 256
#: Share of a wavelet's spectrum, in its smallest bins, that librosa drops.
SPARSITY = 0.01


def compute_constant_q(samples: Float32, tuning: float) -> Float32:
    """Computes the magnitudes of the constant-Q transform.

    Args:
      samples: mono at 44,100 Hz, shape (n,), float32.
      tuning: of C1, from A440 = 440 Hz, in semitones.

    Returns:
      Shape (frames, 84), float32, ascending semitones; frames is
      1 + ceil(n / 2) // 256, as in librosa.
    """
    kernel = octave_kernel(tuning)
    signal = samples
    hop = HOP_LENGTH
    octaves = []
    for _ in range(OCTAVES):
        signal = _halve(signal)
        hop //= 2
        octaves.append(_filter(signal, kernel, hop))
    frames = min(len(octave) for octave in octaves)
    return np.concatenate([octave[:frames] for octave in reversed(octaves)], axis=1)


@functools.lru_cache(maxsize=128)
def octave_kernel(tuning: float) -> Float32:
    """Wavelets of the top octave at 22,050 Hz, reversed in time for correlation.

    librosa cuts each wavelet's spectrum to its non-negative frequencies and to
    99 % of its magnitude; the same is done here. It then weights octave k by
    sqrt(2^k) and by 1 / sqrt(length), with lengths that double per octave: the
    octave cancels out.

    Returns:
      Shape (256, 24), float32: real parts of 12 semitones, then imaginary ones.
    """
    # C7 is 27 semitones above A4.
    lowest = A440 * 2.0 ** (27 / SEMITONES) * 2.0 ** (tuning / SEMITONES)
    frequencies = lowest * 2.0 ** (np.arange(SEMITONES) / SEMITONES)
    bank, lengths = wavelets(frequencies, SAMPLE_RATE / 2)
    spectra = scipy.fft.fft(bank, axis=1)[:, : KERNEL_LENGTH // 2 + 1]
    kernel = scipy.fft.fft(drop_smallest(spectra, SPARSITY), n=KERNEL_LENGTH, axis=1).T
    kernel *= np.sqrt(lengths) / KERNEL_LENGTH
    return np.concatenate([kernel.real, kernel.imag], axis=1, dtype=np.float32)


def _halve(signal: Float32) -> Float32:
    """`librosa.resample(signal, orig_sr=2, target_sr=1, scale=True)`."""
    size = (len(signal) + 1) // 2
    halved = soxr.resample(signal, 2, 1, quality="soxr_hq")[:size]
    result = np.zeros(size, np.float32)
    np.multiply(halved, np.float32(np.sqrt(2)), out=result[: len(halved)])
    return result


def _filter(signal: Float32, kernel: Float32, hop: int) -> Float32:
    """Magnitude of the kernel's response, every `hop` samples: (frames, 12).

    Frame t is the block t // phases of the signal that starts at sample
    t % phases * hop: the blocks of one phase are a plain matrix.
    """
    frames = 1 + len(signal) // hop
    phases = KERNEL_LENGTH // hop
    blocks = -(-frames // phases)
    padded = np.zeros((blocks + 1) * KERNEL_LENGTH, np.float32)
    padded[KERNEL_LENGTH // 2 :][: len(signal)] = signal
    step = padded.itemsize
    framed = as_strided(
        padded,
        (phases, blocks, KERNEL_LENGTH),
        (hop * step, KERNEL_LENGTH * step, step),
        writeable=False,
    )
    response = framed @ kernel
    np.multiply(response, response, out=response)
    power = response[:, :, :SEMITONES] + response[:, :, SEMITONES:]
    magnitude = np.sqrt(power, out=power)
    return magnitude.transpose(1, 0, 2).reshape(-1, SEMITONES)[:frames]

"""One short-time spectrum per clip, shared by all representations.

Conventions are librosa's defaults: periodic Hann window of 2,048 samples, hop
512, frames centred on zero-padded audio, power |STFT|^2. Arrays here are
frame-major, (frames, bins), so that a frame's bins are contiguous.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pipeline.common.clip_config import FREQUENCY_BINS, HOP_LENGTH, N_FFT, SAMPLE_RATE
from pipeline.representations import filters

Float32 = NDArray[np.float32]
Result = TypeVar("Result")

#: Frames transformed at a time: their spectra fit into a core's second cache.
CHUNK_FRAMES = 64
#: Below this a sum of magnitudes counts as silence, as in librosa.
TINY = np.finfo(np.float32).tiny


class MelBlock(NamedTuple):
    """Neighbouring mel bands with the frequency bins that they cover."""

    bins: slice
    bands: slice
    weights: Float32  # (bins, bands)


class Workspace:
    """Buffers for one clip at a time, reused by the next clip.

    Page-faulting 20 MB a clip costs as much as the FFT. Not thread-safe: give
    each thread its own.

    Args:
      network: the music model, where `embeddings` are computed: patches to
        embeddings (see `music_model.make_network`).
    """

    def __init__(self, network: Callable[[Float32], Float32] | None = None) -> None:
        self.network = network
        self._arrays: dict[str, Float32] = {}

    def array(self, name: str, frames: int, columns: int) -> Float32:
        """An uninitialised (frames, columns) float32 array.

        It is valid until the same name is asked for again.
        """
        buffer = self._arrays.get(name)
        if buffer is None or buffer.shape[0] < frames or buffer.shape[1] != columns:
            buffer = np.empty((frames, columns), np.float32)
            self._arrays[name] = buffer
        return buffer[:frames]


class Spectrum:
    """The power spectrogram of a clip and what is derived from it, on demand.

    Valid until its workspace is used for the next clip.

    Args:
      samples: mono waveform at 44,100 Hz, shape (n,), float32.
      workspace: the thread's buffers.
      double: whether the power is that of a float64 FFT; see `compute_power`.
      length: samples that are the audio's own, before the waveform is padded or
        begins again; all of them where none is given.
    """

    def __init__(
        self,
        samples: Float32,
        workspace: Workspace,
        *,
        double: bool = False,
        length: int | None = None,
    ) -> None:
        self.samples = samples
        self.length = len(samples) if length is None else length
        self.workspace = workspace
        self.double = double
        self._results: dict[Callable[[Spectrum], Any], Any] = {}

    def once(self, compute: Callable[[Spectrum], Result]) -> Result:
        """`compute(self)`, made once a clip for all representations that ask.

        The result is shared: do not write to it.
        """
        if compute not in self._results:
            self._results[compute] = compute(self)
        result: Result = self._results[compute]
        return result

    @property
    def frames(self) -> int:
        """Number of frames, 1 + n // 512."""
        return 1 + len(self.samples) // HOP_LENGTH

    @property
    def heard_frames(self) -> int:
        """Number of frames over the audio's own samples, 1 + length // 512."""
        return 1 + self.length // HOP_LENGTH

    @functools.cached_property
    def power(self) -> Float32:
        """|STFT|^2, shape (frames, 1025)."""
        return compute_power(self.samples, self.workspace, double=self.double)

    @functools.cached_property
    def magnitude(self) -> Float32:
        """|STFT|, shape (frames, 1025)."""
        out = self.workspace.array("magnitude", self.frames, FREQUENCY_BINS)
        return np.sqrt(self.power, out=out)

    @functools.cached_property
    def tuning(self) -> float:
        """Deviation from A440 in fractions of a semitone, from the power."""
        return estimate_tuning(self.power)

    def mel(self, bands: int) -> Float32:
        """Mel power spectrogram (Slaney), shape (frames, bands)."""
        out = self.workspace.array(f"mel-{bands}", self.frames, bands)
        return _apply_filters(self.power, bands, out)

    def heard_mel(self, bands: int, least: int) -> Float32:
        """`mel` of the audio's own samples, followed by silence.

        Returns:
          Shape (frames, bands): `heard_frames`, or `least` if that is more.
        """
        mel = self.mel(bands)
        frames = max(self.heard_frames, least)
        if self.length == len(self.samples) and frames <= len(mel):
            return mel
        # Windows from here on reach behind the end.
        first = max((self.length - N_FFT // 2) // HOP_LENGTH + 1, 0)
        before = min(first, N_FFT // 2 // HOP_LENGTH)
        end = np.zeros((frames - 1 - first + before) * HOP_LENGTH, np.float32)
        own = self.samples[(first - before) * HOP_LENGTH : self.length]
        end = np.append(own, end[len(own) :])
        power = compute_power(end, Workspace(), double=self.double)[before:]
        heard = np.empty((frames, bands), np.float32)
        heard[:first] = mel[:first]
        _apply_filters(power, bands, heard[first:])
        return heard


def _apply_filters(power: Float32, bands: int, out: Float32) -> Float32:
    for block in mel_blocks(bands):
        out[:, block.bands] = power[:, block.bins] @ block.weights
    return out


def frame_samples(samples: Float32, workspace: Workspace) -> Float32:
    """Views a zero-padded copy of the samples as overlapping frames.

    Args:
      samples: shape (n,), float32.
      workspace: holds the copy.

    Returns:
      Read-only view of shape (1 + n // 512, 2048), float32.
    """
    padded = workspace.array("padded", 1, len(samples) + N_FFT)[0]
    padded[: N_FFT // 2] = 0
    padded[N_FFT // 2 : -N_FFT // 2] = samples
    padded[-N_FFT // 2 :] = 0
    frames, step = 1 + len(samples) // HOP_LENGTH, padded.itemsize
    return as_strided(
        padded, (frames, N_FFT), (HOP_LENGTH * step, step), writeable=False
    )


def compute_power(
    samples: Float32, workspace: Workspace, *, double: bool = False
) -> Float32:
    """Computes |STFT|^2 as `np.abs(librosa.stft(samples)) ** 2`, transposed.

    Args:
      samples: shape (n,), float32.
      workspace: holds the result.
      double: transform in float64, as librosa does: twice the time, but exact
        also where a bin is 10^-7 of its frame's loudest or less, which is the
        noise of a float32 FFT and the level above an MP3's low-pass filter.

    Returns:
      Array of shape (1 + n // 512, 1025), float32.
    """
    framed = frame_samples(samples, workspace)
    suffix, real, words = ("-double", np.float64, 2) if double else ("", np.float32, 1)
    power = workspace.array(f"power{suffix}", len(framed), FREQUENCY_BINS)
    buffer = workspace.array(f"windowed{suffix}", CHUNK_FRAMES, words * N_FFT)
    windowed = buffer.view(real)
    window = hann_window(real)
    for start in range(0, len(framed), CHUNK_FRAMES):
        chunk = framed[start : start + CHUNK_FRAMES]
        np.multiply(chunk, window, out=windowed[: len(chunk)])
        spectrum = scipy.fft.rfft(windowed[: len(chunk)], axis=1, overwrite_x=True)
        parts = spectrum.view(real)
        np.multiply(parts, parts, out=parts)
        out = power[start : start + CHUNK_FRAMES]
        np.add(parts[:, 0::2], parts[:, 1::2], out=out, casting="same_kind")
    return power


def estimate_tuning(power: Float32) -> float:
    """Estimates the tuning exactly as `librosa.estimate_tuning(S=power.T)`.

    Parabolic interpolation of spectral peaks (librosa.piptrack), touching only
    the bins from 150 to 4,000 Hz in which librosa accepts a pitch.

    Args:
      power: shape (frames, 1025), float32; `librosa.feature.chroma_stft` passes
        the power, `librosa.cqt` the magnitude.

    Returns:
      Tuning in fractions of a semitone, in [-0.5, 0.5); 0 without any peak.
    """
    frequencies = filters.fft_frequencies(SAMPLE_RATE, N_FFT)
    in_range = np.flatnonzero((frequencies >= 150.0) & (frequencies < 4000.0))
    low, high = int(in_range[0]), int(in_range[-1]) + 1
    centre = power[:, low:high]
    loudest = power.max(axis=1, keepdims=True)
    peaks = centre > np.float32(0.1) * loudest
    peaks &= centre > power[:, low - 1 : high - 1]
    peaks &= centre >= power[:, low + 1 : high + 1]
    frame, bin_ = np.nonzero(peaks)
    if not len(frame):
        return 0.0
    bin_ += low
    left, middle, right = (power[frame, bin_ + k] for k in (-1, 0, 1))
    curvature = left + right - 2 * middle
    slope = np.float32(0.5) * (right - left)
    linear = np.abs(slope) >= np.abs(curvature)
    shift = np.where(linear, 0, -slope / np.where(curvature == 0, 1, curvature))
    pitches = (bin_ + shift) * float(SAMPLE_RATE) / N_FFT
    heights = middle + np.float32(0.5) * slope * shift
    loud = heights >= np.median(heights)
    return filters.find_tuning(pitches[loud])


@functools.cache
def bin_frequencies() -> Float32:
    """Frequency of each bin in Hz: shape (1025,)."""
    return np.asarray(filters.fft_frequencies(SAMPLE_RATE, N_FFT), np.float32)


@functools.cache
def hann_window(dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """Periodic Hann window of 2,048 samples."""
    return np.asarray(filters.hann(N_FFT), dtype)


@functools.cache
def mel_blocks(bands: int) -> Sequence[MelBlock]:
    """Slaney mel filters as eight dense blocks on their diagonal.

    A filter covers a few neighbouring bins; multiplying by whole rows of the
    filterbank would spend nine tenths of the time on zeros.
    """
    bank = filters.mel_filters(bands, SAMPLE_RATE, N_FFT)
    result = []
    for rows in np.array_split(np.arange(bands), 8):
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        used = np.flatnonzero(bank[band].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1)
        weights = np.ascontiguousarray(bank[band, bins].T, np.float32)
        result.append(MelBlock(bins, band, weights))
    return tuple(result)


@functools.lru_cache(maxsize=128)
def chroma_filters(tuning: float) -> Float32:
    """`librosa.filters.chroma` for 12 pitch classes, transposed to (1025, 12)."""
    bank = filters.chroma_filters(tuning, SAMPLE_RATE, N_FFT)
    return np.ascontiguousarray(bank.T)


def power_to_db(power: Float32) -> Float32:
    """`librosa.power_to_db(power)` in float32: 10 log10, at most 80 dB deep."""
    decibels = np.maximum(power, np.float32(1e-10))
    np.log10(decibels, out=decibels)
    decibels *= np.float32(10)
    floor = decibels.max() - np.float32(80)
    np.maximum(decibels, floor, out=decibels)
    return decibels

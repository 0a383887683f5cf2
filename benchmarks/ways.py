"""How people compute features today, the floor, and how the pipeline does it.

Written from their descriptions. Each way takes the path of an MP3; librosa 0.11
and its defaults at the file's own sampling rate.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import scipy.fft
import scipy.stats
import soundfile
from numpy.lib.stride_tricks import as_strided

from pipeline.common.clip_config import HOP_LENGTH, N_FFT, ClipConfig
from pipeline.decoding.waveform import downmix, load_waveform
from pipeline.inputs.join import Clip
from pipeline.representations import compute_representations
from pipeline.representations.spectrum import (
    CHUNK_FRAMES,
    Spectrum,
    Workspace,
    hann_window,
)
from pipeline.shards.records import make_records

Way = Callable[[Path], object]

#: What the 2020 article makes of a clip, and the notebook that is compared with.
ARTICLE = ("windows", "mel", "features")
ARTICLE_CLIP = ClipConfig(mel_images_per_clip=1)


def five_loads(path: Path) -> list[Any]:
    """The article's notebook: it loads the file again for every feature."""

    def load() -> dict[str, Any]:
        samples, rate = librosa.load(path, sr=None, mono=True)
        return {"y": samples, "sr": rate}

    centroid = librosa.feature.spectral_centroid(**load())
    rolloff = librosa.feature.spectral_rolloff(**load())
    crossings = librosa.feature.zero_crossing_rate(load()["y"])
    mfcc = librosa.feature.mfcc(**load())
    chroma = librosa.feature.chroma_stft(**load())
    return [centroid, rolloff, crossings, mfcc, chroma]


def one_load(path: Path) -> list[Any]:
    """The same features from one load; each computes its own spectrum."""
    samples, rate = librosa.load(path, sr=None, mono=True)
    return [
        librosa.feature.spectral_centroid(y=samples, sr=rate),
        librosa.feature.spectral_rolloff(y=samples, sr=rate),
        librosa.feature.zero_crossing_rate(samples),
        librosa.feature.mfcc(y=samples, sr=rate),
        librosa.feature.chroma_stft(y=samples, sr=rate),
    ]


def one_stft(path: Path) -> list[Any]:
    """The best of plain librosa: one load and one shared spectrum."""
    samples, rate = librosa.load(path, sr=None, mono=True)
    magnitude = np.abs(librosa.stft(samples))
    power = magnitude**2
    mel = librosa.feature.melspectrogram(S=power, sr=rate)
    return [
        librosa.feature.spectral_centroid(S=magnitude, sr=rate),
        librosa.feature.spectral_rolloff(S=magnitude, sr=rate),
        librosa.feature.zero_crossing_rate(samples),
        librosa.feature.mfcc(S=librosa.power_to_db(mel), sr=rate),
        librosa.feature.chroma_stft(S=power, sr=rate),
    ]


def librosa_statistics(path: Path) -> list[Any]:
    """FMA's 518 statistics by librosa and scipy.stats, with the right rate."""
    samples, rate = librosa.load(path, sr=None, mono=True)
    return statistics_of(samples, int(rate))


def statistics_of(samples: Any, rate: int) -> list[Any]:
    """The seven numbers of FMA's 74 frame features."""
    constant_q = np.abs(
        librosa.cqt(samples, sr=rate, bins_per_octave=12, n_bins=84, tuning=None)
    )
    cens = librosa.feature.chroma_cens(
        C=constant_q, n_chroma=12, n_octaves=7, bins_per_octave=12
    )
    magnitude = np.abs(librosa.stft(samples))
    power = magnitude**2
    mel = librosa.feature.melspectrogram(sr=rate, S=power)
    frames = [
        librosa.feature.zero_crossing_rate(samples),
        librosa.feature.chroma_cqt(
            C=constant_q, n_chroma=12, n_octaves=7, bins_per_octave=12
        ),
        cens,
        librosa.feature.tonnetz(chroma=cens),
        librosa.feature.chroma_stft(S=power, sr=rate),
        librosa.feature.rms(S=magnitude),
        librosa.feature.spectral_centroid(S=magnitude, sr=rate),
        librosa.feature.spectral_bandwidth(S=magnitude, sr=rate),
        librosa.feature.spectral_contrast(S=magnitude, sr=rate),
        librosa.feature.spectral_rolloff(S=magnitude, sr=rate),
        librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
    ]
    moments = []
    for values in frames:
        moments += [values.mean(axis=1), values.std(axis=1), np.median(values, axis=1)]
        moments += [values.min(axis=1), values.max(axis=1)]
        moments += [scipy.stats.skew(values, axis=1), scipy.stats.kurtosis(values, 1)]
    return moments


def floor(path: Path) -> object:
    """What nobody can go below: decode, downmix, window, one real FFT pass."""
    frames, _ = soundfile.read(path, dtype="float32", always_2d=True)
    samples = downmix(frames)
    count = 1 + len(samples) // HOP_LENGTH
    padded = np.zeros(len(samples) + N_FFT, np.float32)
    padded[N_FFT // 2 : -N_FFT // 2] = samples
    framed = as_strided(padded, (count, N_FFT), (HOP_LENGTH * 4, 4))
    buffer = np.empty((CHUNK_FRAMES, N_FFT), np.float32)
    spectrum = None
    for start in range(0, count, CHUNK_FRAMES):
        chunk = framed[start : start + CHUNK_FRAMES]
        np.multiply(chunk, hann_window(), out=buffer[: len(chunk)])
        spectrum = scipy.fft.rfft(buffer[: len(chunk)], axis=1, overwrite_x=True)
    return spectrum


def make_ours(names: tuple[str, ...], *, records: bool = False) -> Way:
    """The pipeline's way: representations, or the records made of them."""
    workspace = Workspace()
    config = ARTICLE_CLIP

    def ours(path: Path) -> object:
        file = io.BytesIO(path.read_bytes())
        waveform = load_waveform(file, config)
        if records:
            clip = Clip(
                track_id="0",
                artist_id="a",
                labels=(0,),
                split="training",
                path=str(path),
                size=0,
            )
            return make_records(clip, waveform, names, config, workspace)
        return compute_representations(waveform.samples, names, config, workspace)

    return ours


def make_ways() -> Mapping[str, Way]:
    """All ways, by the name that the results show."""
    warnings.simplefilter("ignore")
    return {
        "notebook: five loads": five_loads,
        "librosa: one load": one_load,
        "librosa: one load, one STFT": one_stft,
        "librosa: 518 statistics": librosa_statistics,
        "floor: decode and one FFT pass": floor,
        "pipeline: three representations": make_ours(ARTICLE),
        "pipeline: their records": make_ours(ARTICLE, records=True),
        "pipeline: statistics": make_ours(("statistics",)),
        "pipeline: all four": make_ours((*ARTICLE, "statistics")),
    }


def make_stages(path: Path) -> Mapping[str, Callable[[], object]]:
    """The pipeline's stages for one clip, each to be timed alone, and the floor."""
    from pipeline.representations import features, mel, windows

    config, workspace = ARTICLE_CLIP, Workspace()
    data = path.read_bytes()
    samples = load_waveform(io.BytesIO(data), config).samples
    spectrum = Spectrum(samples, workspace)
    _ = spectrum.power, spectrum.magnitude, spectrum.tuning

    def derived(name: str) -> Callable[[], object]:
        def compute() -> object:
            fresh = Spectrum(samples, workspace)
            fresh.__dict__["power"] = spectrum.power
            return getattr(fresh, name)

        return compute

    frames, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return {
        "floor": lambda: floor(path),
        "decode": lambda: soundfile.read(
            io.BytesIO(data), dtype="float32", always_2d=True
        ),
        "downmix": lambda: downmix(frames),
        "window, FFT, power": lambda: Spectrum(samples, workspace).power,
        "magnitude": derived("magnitude"),
        "tuning": derived("tuning"),
        "chroma": lambda: features.compute_chroma(spectrum),
        "MFCC": lambda: features.compute_mfcc(spectrum),
        "centroid, roll-off": lambda: features.compute_brightness(spectrum),
        "zero crossings": lambda: features.compute_zero_crossing_rate(spectrum),
        "mel image": lambda: mel.compute(spectrum, config),
        "windows": lambda: windows.compute(spectrum, config),
    }

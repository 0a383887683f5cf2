"""Audio files to waveforms: decode once, downmix, resample, fit to a clip."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from pipeline import ffmpeg, mp3
from pipeline.config import (
    CLIP_SAMPLES,
    EXCERPT_SECONDS,
    MAX_CLIP_SECONDS,
    SAMPLE_RATE,
    ClipConfig,
)
from pipeline.rejects import AudioError, Reason

Float32 = NDArray[np.float32]

#: A shorter file is zero-padded up to this many samples (four MP3 frames, which
#: decoders and resamplers disagree about); beyond that it is repeated.
MAX_PADDING = 4608
#: Share of the announced length that must decode.
MIN_DECODED = 0.95
#: MP3s of loud music peak at up to 1.5; a damaged stream at 77 and more.
MAX_PEAK = 4.0
#: -80 dB of full scale.
MIN_PEAK = 1e-4

LIBSNDFILE = "libsndfile"
FFMPEG = "ffmpeg"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waveform:
    """A clip's audio.

    Attributes:
      samples: mono at 44,100 Hz, shape (1321967,), float32, full scale 1.
      decoder: `libsndfile` or `ffmpeg`.
    """

    samples: Float32
    decoder: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decoded:
    """What a decoder made of a file.

    Attributes:
      samples: the file or its excerpt, mono, shape (n,), float32.
      peak: their largest magnitude; infinite where one is not finite.
      sample_rate: in Hz.
      seconds: length of the whole file.
      share: part of the frames asked for that the decoder gave.
      decoder: name.
    """

    samples: Float32
    peak: float
    sample_rate: int
    seconds: float
    share: float
    decoder: str


def load_waveform(file: BinaryIO, config: ClipConfig) -> Waveform:
    """Decodes an audio file to the waveform of a clip.

    libsndfile reads it. What libsndfile cannot read, or reads only in part,
    ffmpeg tries again by way of pydub.

    Args:
      file: seekable; MP3, WAV, FLAC, OGG, or whatever ffmpeg knows.
      config: clip parameters.

    Raises:
      AudioError: the file cannot be used; says why.
    """
    decoded = _decode(file, config)
    seconds = decoded.seconds
    if seconds < config.min_duration:
        raise AudioError(
            Reason.TOO_SHORT,
            f"lasts {seconds:.2f} s; at least {config.min_duration:g} s are needed "
            "(--min_duration)",
        )
    if decoded.peak < MIN_PEAK:
        raise AudioError(Reason.SILENT, f"peaks at {decoded.peak:.1e} of full scale")
    samples = resample(decoded.samples, decoded.sample_rate)
    return Waveform(samples=fit_length(samples), decoder=decoded.decoder)


def downmix(frames: Float32) -> Float32:
    """Averages channels: shape (n, channels) to (n,), float32.

    For stereo, bit-equal to `np.mean(axis=1)` and 35 times as fast.
    """
    if frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0])
    if frames.shape[1] == 2:
        mono = frames[:, 0] + frames[:, 1]
        mono *= np.float32(0.5)
        return mono
    return np.asarray(frames.mean(axis=1))


def resample(samples: Float32, sample_rate: int) -> Float32:
    """Resamples (n,) from `sample_rate` to 44,100 Hz (soxr, high quality)."""
    if sample_rate == SAMPLE_RATE:
        return samples
    return np.asarray(soxr.resample(samples, sample_rate, SAMPLE_RATE, quality="HQ"))


def fit_length(samples: Float32) -> Float32:
    """Fits a waveform to the length of a clip: shape (n,) to (1321967,).

    A longer one is cropped. One short by a few MP3 frames is padded with
    zeros. A much shorter one is repeated: silence would distort its levels
    and statistics.
    """
    missing = CLIP_SAMPLES - len(samples)
    if missing <= 0:
        return samples[:CLIP_SAMPLES]
    if missing <= MAX_PADDING:
        return np.pad(samples, (0, missing))
    return np.resize(samples, CLIP_SAMPLES)


def _peak(samples: Float32) -> float:
    """Largest magnitude; infinite where a value is not finite."""
    if not samples.size:
        return 0.0
    peak = float(max(samples.max(), -samples.min()))
    return peak if np.isfinite(peak) else np.inf


def _decode(file: BinaryIO, config: ClipConfig) -> _Decoded:
    """Decodes with libsndfile and, where that is not enough, with ffmpeg."""
    file.seek(0)
    if not file.read(1):
        raise AudioError(Reason.EMPTY, "has no bytes")
    source = mp3.prepare(file, config.excerpt)
    decoded = None
    try:
        decoded = _decode_with_libsndfile(source, config)
    except soundfile.LibsndfileError as error:
        trouble = f"libsndfile says: {error.error_string.strip()}"
    else:
        _check_levels(decoded.peak)
        if decoded.share >= 0.99:
            return decoded
        trouble = f"libsndfile reads {decoded.share:.0%} of it."
    try:
        second = _decode_with_ffmpeg(source, config)
    except ffmpeg.FfmpegError as error:
        if decoded is None:
            message = f"{trouble} ffmpeg says: {error}"
            raise AudioError(Reason.UNDECODABLE, message) from error
        second = decoded
    return _choose(decoded, second, _announced_seconds(source))


def _check_levels(peak: float) -> None:
    """Refuses what cannot be music.

    Another decoder is no help: what a damaged stream decodes to is noise in
    any of them, and ffmpeg's 16 bits only hide it.
    """
    if peak > MAX_PEAK:
        found = f"peaks at {peak:.3g} times full scale"
        if np.isinf(peak):
            found = "has samples that are no finite numbers"
        raise AudioError(Reason.CORRUPT, found)


def _announced_seconds(source: BinaryIO) -> float:
    """Length by the file's own header; 0 where it does not tell."""
    seconds = mp3.announced_seconds(source)
    if not seconds:
        source.seek(0)
        with contextlib.suppress(soundfile.LibsndfileError):
            seconds = soundfile.info(source).duration
    return seconds


def _choose(first: _Decoded | None, second: _Decoded, announced: float) -> _Decoded:
    """The better decoding of a damaged file, if it is complete enough.

    Args:
      first: libsndfile's, None if it failed.
      second: ffmpeg's, or again the first if that failed.
      announced: seconds that the file's header announces; 0 if it does not.
    """
    reason, best = Reason.CORRUPT, second
    if first is not None:
        reason = Reason.TRUNCATED
        best = max(first, second, key=lambda decoded: decoded.seconds)
    if best.seconds < MIN_DECODED * announced:
        raise AudioError(
            reason,
            f"{best.seconds:.2f} s of the announced {announced:.2f} s can be decoded",
        )
    return best


def _decode_with_libsndfile(source: BinaryIO, config: ClipConfig) -> _Decoded:
    source.seek(0)
    with soundfile.SoundFile(source) as file:
        start, length = _excerpt(file.frames, file.samplerate, config)
        if start:
            file.seek(start)
        frames = file.read(length, dtype="float32", always_2d=True)
        samples = downmix(frames)
        share = len(samples) / max(length, 1)
        return _Decoded(
            samples=samples,
            peak=_peak(samples),
            sample_rate=file.samplerate,
            seconds=file.frames * share / file.samplerate,
            share=share,
            decoder=LIBSNDFILE,
        )


def _decode_with_ffmpeg(source: BinaryIO, config: ClipConfig) -> _Decoded:
    source.seek(0)
    frames, sample_rate = ffmpeg.decode(source)
    start, length = _excerpt(len(frames), sample_rate, config)
    samples = downmix(frames[start : start + length])
    return _Decoded(
        samples=samples,
        peak=_peak(samples),
        sample_rate=sample_rate,
        seconds=len(frames) / sample_rate,
        share=1.0,
        decoder=FFMPEG,
    )


def _excerpt(frames: int, sample_rate: int, config: ClipConfig) -> tuple[int, int]:
    """First frame and number of frames to use of a file of `frames` frames."""
    if frames <= MAX_CLIP_SECONDS * sample_rate:
        return 0, frames
    length = round(EXCERPT_SECONDS * sample_rate)
    return (frames - length) // 2 if config.excerpt == "middle" else 0, length

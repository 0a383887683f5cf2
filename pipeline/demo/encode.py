"""From a place in the corpus to the bytes of its file."""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import scipy.signal
import soundfile

from pipeline.demo.arrange import make_artist, plan_track
from pipeline.demo.layout import DemoTrack, Kind
from pipeline.demo.render import render_track
from pipeline.demo.synth import SAMPLE_RATE, Samples

#: Chance for each role of a track that another genre's style provides it.
BORROWING = 0.15

_FRAME = 1_152
# What a decoder drops at the start of a stream that was cut out of a longer one; with
# it, thirty seconds give the 1,321,967 samples of a genuine FMA clip.
_DECODER_DELAY = 529
_SHORT_SECONDS = 1.6
_KEPT_SHARE = 0.4
# libsndfile's 0 is the best quality; each has its plausible `track.bit_rate`.
_QUALITIES = {0.6: 256_000, 0.7: 192_000, 0.8: 128_000}

_ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested clip is not on this server.</p></body></html>
"""


def count_clip_samples(seconds: float) -> int:
    """Returns the samples of a clip of `seconds` at 44.1 kHz, whole MP3 frames."""
    return int(seconds * SAMPLE_RATE) // _FRAME * _FRAME - _DECODER_DELAY


def choose_quality(seed: int, artist_id: int) -> tuple[float, int]:
    """Returns an artist's (libsndfile compression level, bit rate to state)."""
    rng = np.random.default_rng([seed, 3, artist_id])
    return list(_QUALITIES.items())[int(rng.integers(len(_QUALITIES)))]


def render_clip(track: DemoTrack, seed: int, seconds: float) -> Samples:
    """Renders a track's music; shape (2, n)."""
    artist = make_artist(
        track.artist.genre,
        track.artist.index,
        np.random.default_rng([seed, 1, track.artist.artist_id]),
    )
    rng = np.random.default_rng([seed, 2, track.track_id])
    plan = plan_track(artist, BORROWING, rng)
    # A few real clips are a frame or two longer than the others.
    frames = int(rng.choice(4, p=(0.85, 0.09, 0.04, 0.02)))
    count = count_clip_samples(seconds) + frames * _FRAME
    return render_track(plan, count, [seed, 4, track.track_id])


def encode_mp3(samples: Samples, sample_rate: int, quality: float) -> bytes:
    """Returns an MP3 stream (variable bit rate) of samples of shape (channels, n)."""
    file = io.BytesIO()
    soundfile.write(
        file,
        samples.T,
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=quality,
    )
    return file.getvalue()


def make_tag(frames: dict[str, str]) -> bytes:
    """Returns an ID3v2.3 tag.

    Args:
      frames: Frame id (``TIT2``, ...) to its text.
    """
    body = b"".join(
        name.encode("ascii")
        + (len(text.encode("latin-1")) + 1).to_bytes(4, "big")
        + b"\0\0\0"
        + text.encode("latin-1")
        for name, text in frames.items()
    )
    # The tag's size is "synchsafe": seven bits a byte.
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body


def _encode_aac(samples: Samples) -> bytes:
    """Returns an MP4 file; only a decoder that knows AAC can read it."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "clip.wav"), Path(folder, "clip.m4a")
        soundfile.write(source, samples.T, SAMPLE_RATE, subtype="PCM_16")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
        command += ["-i", str(source), "-c:a", "aac", "-b:a", "128k"]
        command += ["-fflags", "+bitexact", "-flags:a", "+bitexact", str(result)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return result.read_bytes()


def _resample_to_48k(samples: Samples) -> Samples:
    return np.asarray(
        scipy.signal.resample_poly(samples, 160, 147, axis=1), dtype=np.float32
    )


def make_file(
    track: DemoTrack, title: str, artist: str, seed: int, seconds: float
) -> bytes:
    """Returns the bytes of a track's file, broken where its kind says so.

    The result depends on the arguments alone.

    Args:
      track: A track with a file.
      title: For the ID3 tag.
      artist: For the ID3 tag.
      seed: The corpus's seed.
      seconds: Length of a good clip.
    """
    tag = make_tag({"TCON": track.artist.genre, "TIT2": title, "TPE1": artist})
    if track.kind is Kind.EMPTY:
        return b""
    if track.kind is Kind.TAG_ONLY:
        return tag
    if track.kind is Kind.NOT_AUDIO:
        return _ERROR_PAGE
    quality, _ = choose_quality(seed, track.artist.artist_id)
    if track.kind is Kind.SILENT:
        silence = np.zeros((2, count_clip_samples(seconds)), dtype=np.float32)
        return tag + encode_mp3(silence, SAMPLE_RATE, quality)
    if track.kind is Kind.TOO_SHORT:
        seconds = _SHORT_SECONDS
    samples = render_clip(track, seed, seconds)
    if track.kind is Kind.AAC:
        return _encode_aac(samples)
    if track.kind is Kind.MONO:
        samples = samples.mean(axis=0, keepdims=True)
    if track.kind is Kind.RATE_48K:
        return tag + encode_mp3(_resample_to_48k(samples), 48_000, quality)
    stream = encode_mp3(samples, SAMPLE_RATE, quality)
    if track.kind is Kind.TRUNCATED:
        stream = stream[: int(len(stream) * _KEPT_SHARE)]
    return tag + stream

"""From a place in the corpus to the bytes of its file."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from pipeline.decoding.tags import measure_tag
from pipeline.demo.layout import DemoTrack, Kind
from pipeline.demo.music import Song, draw_song, render
from pipeline.demo.sound import SAMPLE_RATE, Samples

_FRAME = 1_152
# What a decoder drops at the start of a stream that was cut out of a longer one; with
# it, thirty seconds give the 1,321,967 samples of a genuine FMA clip.
_DECODER_DELAY = 529
_SHORT_SECONDS = 1.6
_KEPT_SHARE = 0.4
# LAME's 0 is the best quality; each has its plausible `track.bit_rate`.
_QUALITIES = {4: 256_000, 5: 192_000, 6: 128_000}

_ERROR_PAGE = b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>\n"


def count_clip_samples(seconds: float) -> int:
    """Returns the samples of a clip of `seconds` at 44.1 kHz, whole MP3 frames."""
    return int(seconds * SAMPLE_RATE) // _FRAME * _FRAME - _DECODER_DELAY


def choose_quality(seed: int, artist_id: int) -> tuple[int, int]:
    """Returns an artist's (LAME quality, bit rate to state)."""
    rng = np.random.default_rng([seed, 3, artist_id])
    return list(_QUALITIES.items())[int(rng.integers(len(_QUALITIES)))]


def draw_track(track: DemoTrack, seed: int) -> tuple[Song, int, np.random.Generator]:
    """Returns a track's song, its frames beyond a clip's, and what renders it."""
    artist = np.random.default_rng([seed, 1, track.artist.artist_id])
    rng = np.random.default_rng([seed, 2, track.track_id])
    # A few real clips are a frame or two longer than the others.
    frames = int(rng.choice(4, p=(0.85, 0.09, 0.04, 0.02)))
    return draw_song(track.artist.genre, artist, rng), frames, rng


def render_clip(track: DemoTrack, seed: int, seconds: float) -> Samples:
    """Renders a track's music; shape (2, n)."""
    song, frames, rng = draw_track(track, seed)
    return render(song, count_clip_samples(seconds) + frames * _FRAME, rng)


def _encode(samples: Samples, suffix: str, options: str, tags: str = "") -> bytes:
    """Returns what ffmpeg, which is thrice as fast as libsndfile, makes of samples."""
    exact = "-threads 1 -fflags +bitexact -flags:a +bitexact"
    source = f"-f f32le -ar {SAMPLE_RATE} -ac {len(samples)} -i - {exact}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source.split()]
    for tag in tags.splitlines():
        command += ["-metadata", tag]
    # Into a file, not a pipe: the count of frames is written to its start at the end.
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, f"clip{suffix}")
        command += [*options.split(), str(result)]
        pcm = samples.T.astype("<f4").tobytes()
        done = subprocess.run(command, input=pcm, capture_output=True, check=False)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise OSError(errno.EIO, f"ffmpeg fails in {folder} ({reason})")
        return result.read_bytes()


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

    Raises:
      OSError: The encoder fails, for want of room in the temporary folder perhaps.
    """
    if track.kind is Kind.EMPTY:
        return b""
    if track.kind is Kind.NOT_AUDIO:
        return _ERROR_PAGE
    if track.kind is Kind.TOO_SHORT:
        seconds = _SHORT_SECONDS
    if track.kind in (Kind.SILENT, Kind.TAG_ONLY):
        samples = np.zeros((2, count_clip_samples(seconds)), dtype=np.float32)
    else:
        samples = render_clip(track, seed, seconds)
    if track.kind is Kind.AAC:
        # An MP4 file: only a decoder that knows AAC can read it.
        return _encode(samples, ".m4a", "-c:a aac -b:a 128k")
    quality, _ = choose_quality(seed, track.artist.artist_id)
    options = f"-c:a libmp3lame -q:a {quality} -compression_level 9 -id3v2_version 3"
    if track.kind is Kind.MONO:
        samples = samples.mean(axis=0, keepdims=True)
    if track.kind is Kind.RATE_48K:
        options += " -ar 48000"
    tags = f"genre={track.artist.genre}\ntitle={title}\nartist={artist}"
    data = _encode(samples, ".mp3", options, tags)
    start = measure_tag(data)
    if track.kind is Kind.TAG_ONLY:
        return data[:start]
    if track.kind is Kind.TRUNCATED:
        return data[: start + int((len(data) - start) * _KEPT_SHARE)]
    return data

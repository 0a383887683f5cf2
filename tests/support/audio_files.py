"""Sounds made for tests, and the files that hold them."""

import io
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile

from pipeline.common.clip_config import ClipConfig
from pipeline.decoding.waveform import load_waveform
from pipeline.representations import compute_representations
from pipeline.representations.spectrum import Workspace

RATE = 44_100
#: What the fixture `signal` makes.
SIGNALS = (
    "genuine",
    "music",
    "click",
    "noise",
    "short sine",
    "48 kHz",
    "22 kHz mono",
)
#: Marker tones: second k of `make_markers` sounds at FIRST + k * STEP Hz.
FIRST_MARKER, MARKER_STEP = 400, 20


def make_music(seconds: float = 30.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Chords with overtones, a bass and noisy drums; shape (n, 2), float32."""
    rng = np.random.default_rng(seed)
    total = round(seconds * rate)
    mix = np.zeros((total, 2))
    for beat, start in enumerate(range(0, total, rate // 2)):
        time = np.arange(min(rate // 2, total - start)) / rate
        root = (220, 174.6, 196, 146.8)[beat // 4 % 4] * 1.003
        for third, side in ((1, 0.3), (1.26, 0.5), (1.498, 0.7), (0.25, 0.5)):
            tone = sum(
                np.sin(2 * np.pi * root * third * k * time) / k for k in range(1, 9)
            ) * np.exp(-3 * time)
            mix[start : start + len(time)] += 0.12 * tone[:, None] * [side, 1 - side]
        decay = np.exp(-(40 if beat % 2 else 12) * time)
        mix[start : start + len(time)] += 0.2 * (
            rng.standard_normal((len(time), 2)) * decay[:, None]
        )
    return (0.8 * mix / np.abs(mix).max()).astype(np.float32)


def make_sine(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """A sine at half of full scale; shape (n, 1), float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, None]


def make_markers(seconds: int, rate: int = RATE) -> np.ndarray:
    """A second of each marker tone after the other; shape (n, 1), float32."""
    tones = [
        make_sine(FIRST_MARKER + k * MARKER_STEP, 1.0, rate) for k in range(seconds)
    ]
    return np.concatenate(tones)


def find_marker(samples: np.ndarray, rate: int = RATE) -> float:
    """Which marker tone sounds in the first half second of mono samples."""
    part = samples[: rate // 2] * np.hanning(rate // 2)
    loudest = np.argmax(np.abs(np.fft.rfft(part)))
    return (2 * loudest - FIRST_MARKER) / MARKER_STEP


def encode(
    samples: np.ndarray, rate: int = RATE, kind: str = "MP3", **options: object
) -> bytes:
    """Encodes with libsndfile; `options` are soundfile.write's."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file.getvalue()


def encode_with_ffmpeg(
    samples: np.ndarray, *options: str, rate: int = RATE, extension: str = "mp3"
) -> bytes:
    """Encodes with the wheel's ffmpeg, e.g. AAC or an MP3 without Xing header."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, f"out.{extension}")
        soundfile.write(source, samples, rate, subtype="PCM_16")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(source)]
        command += ["-map_metadata", "-1", *options, str(target)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return target.read_bytes()


def make_id3(size: int) -> bytes:
    """An ID3v2.3 tag of `size` bytes in all, as large cover art makes it."""
    content = size - 10
    digits = bytes(content >> shift & 0x7F for shift in (21, 14, 7, 0))
    # Padding that looks like the start of a frame, again and again.
    filling = (b"\xff\xfb\x90\x64" * (content // 4 + 1))[:content]
    return b"ID3\x03\x00\x00" + digits + filling


def make_hole(data: bytes, size: int) -> bytes:
    """Zeroes `size` bytes in the middle."""
    start = (len(data) - size) // 2
    return data[:start] + bytes(size) + data[start + size :]


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        self.bytes_read += count
        return count


def represent_file(
    path: str, config: ClipConfig, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Decodes a file and computes its representations, by name."""
    with open(path, "rb") as file:
        samples = load_waveform(file, config).samples
    return compute_representations(samples, names, config, Workspace())

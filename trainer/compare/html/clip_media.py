"""Pictures and sounds of clips, as data that a page can hold."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.inputs.archives.members import open_local
from pipeline.inputs.names import relative_path
from pipeline.schema import SPLITS
from trainer.data.dataset import Dataset
from trainer.data.streams import parse_batch, untuned

_BATCH = 16
#: Colours of a picture; more of them make larger files.
_LEVELS = 32
#: What a page plays of a clip.
SOUND_SECONDS = 12
_SOUND_RATE = 22_050
#: Columns that the frames of a feature vector are averaged to.
_COLUMNS = 258


def find_values(
    dataset: Dataset, representation: str, track_ids: Collection[str]
) -> dict[str, NDArray[Any]]:
    """Reads the records of some clips, `(records, ...)` by track id."""
    by_track: dict[str, dict[int, NDArray[Any]]] = {}
    per_clip = dataset.manifest.representations[representation].records_per_clip
    for split in reversed(SPLITS):  # Test clips are asked for most.
        for track, _, index, value in _read(dataset, representation, split):
            if track in track_ids:
                by_track.setdefault(track, {})[index] = value
        if len(by_track) == len(track_ids):
            break
    return {
        track: np.stack([records[index] for index in sorted(records)])
        for track, records in by_track.items()
        if len(records) == per_clip
    }


def find_examples(dataset: Dataset) -> dict[str, str]:
    """A training clip of each genre: track ids by genre."""
    manifest = dataset.manifest
    name = min(manifest.representations, key=lambda name: manifest.record_bytes[name])
    examples: dict[str, str] = {}
    genre_count = sum(count > 0 for count in manifest.clips["training"].values())
    for track, genres, _, _ in _read(dataset, name, "training"):
        for genre in genres:
            examples.setdefault(manifest.genres[genre], track)
        if len(examples) == genre_count:
            break
    return {genre: examples[genre] for genre in manifest.genres if genre in examples}


def _read(
    dataset: Dataset, representation: str, split: str
) -> Iterator[tuple[str, list[int], int, NDArray[Any]]]:
    """Yields track id, genres, index and value of each record of a split."""
    layout = dataset.manifest.representations[representation]
    files = dataset.files(representation, split)
    columns = ("track_id", layout.label.name, "index", layout.value.name)
    batches = tf.data.TFRecordDataset(files).batch(_BATCH)
    records = batches.map(lambda batch: parse_batch(batch, layout, columns))
    for batch in untuned(records).as_numpy_iterator():
        for track, label, index, value in zip(
            *(batch[column] for column in columns), strict=True
        ):
            genres = np.flatnonzero(label).tolist() if label.shape else [int(label)]
            yield track.decode(), genres, int(index), value


def mel_picture(image: NDArray[np.uint8]) -> str:
    """The mean power of a mel image `(rows, columns, 3)`, low bands at the bottom."""
    return png_uri(image[::-1, :, 0], "magma")


def clip_picture(images: NDArray[np.uint8]) -> str:
    """All mel images of a clip `(images, rows, columns, 3)`, as wide as one of them."""
    count, _, columns, _ = images.shape
    joined = np.concatenate(list(images), axis=1)
    means = joined.reshape(len(joined), columns, count, -1).mean(axis=2)
    return mel_picture(means.round().astype(np.uint8))


def features_picture(values: NDArray[np.float32], rows: int, frames: int) -> str:
    """The rows of a feature vector, each standardised: blue low, red high."""
    matrix = values[: rows * frames].reshape(rows, frames).astype(np.float64)
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix /= np.maximum(matrix.std(axis=1, keepdims=True), 1e-9)
    columns = min(_COLUMNS, frames)
    edges = np.linspace(0, frames, columns + 1).astype(int)
    means = np.add.reduceat(matrix, edges[:-1], axis=1) / np.diff(edges)
    levels = np.clip((means + 2.5) / 5 * 255, 0, 255).astype(np.uint8)
    return png_uri(levels, "RdBu_r")


def png_uri(levels: NDArray[np.uint8], colormap: str) -> str:
    """A picture of grey levels `(rows, columns)` as a `data:` address of a PNG.

    With a palette of few colours, it takes a third of what a coloured PNG does.
    """
    palette = (mpl.colormaps[colormap](np.linspace(0, 1, _LEVELS))[:, :3] * 255).round()
    indices = (levels.astype(np.uint16) * _LEVELS // 256).astype(np.uint8)
    rows, columns = indices.shape
    # A filter byte of 0 begins each row.
    content = np.pad(indices, ((0, 0), (1, 0))).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(content, 9))
        + chunk(b"IEND", b"")
    )
    return _uri("image/png", png)


def find_audio(patterns: Sequence[str], track_ids: Collection[str]) -> dict[str, str]:
    """Finds the audio files of tracks in folders, ZIPs and globs, as `preprocess` does.

    A file belongs to a track whose id is its path without extension, as in a plain
    CSV, or the number in its name, as in FMA.

    Returns:
      Paths by track id.

    Raises:
      UserError: one matches nothing, or cannot be used.
    """
    # Imports Beam, which most reports do without.
    from pipeline.inputs.audio_files import locate_audio, match_audio

    folder = locate_audio(*patterns).path
    found: dict[str, str] = {}
    for path in sorted(file.path for file in match_audio(*patterns)):
        key = os.path.splitext(relative_path(path, folder))[0]
        stem = os.path.basename(key)
        number = str(int(stem)) if stem.isdecimal() else key
        for track in (key, number):
            if track in track_ids:
                found.setdefault(track, path)
    return found


def sound_uris(files: Mapping[str, str]) -> dict[str, str]:
    """The middle of audio files as `data:` addresses of small MP3s.

    Files that cannot be decoded (any more) are left out.
    """
    import soundfile
    import soxr

    from pipeline.common.clip_config import SAMPLE_RATE, ClipConfig
    from pipeline.common.rejects import AudioError
    from pipeline.decoding.isolation import IsolatedDecoder

    config = ClipConfig(min_duration=1.0)
    sounds: dict[str, str] = {}
    if not files:
        return sounds
    with IsolatedDecoder() as decoder:
        for track, path in files.items():
            try:
                with open_local(path) as file:
                    samples = decoder.load_waveform(file, config).samples
            except (AudioError, OSError):
                continue
            length = SOUND_SECONDS * SAMPLE_RATE
            start = (len(samples) - length) // 2
            part = samples[start : start + length]
            part = soxr.resample(part, SAMPLE_RATE, _SOUND_RATE)
            peak = max(float(np.abs(part).max()), 1.0)
            buffer = io.BytesIO()
            soundfile.write(buffer, part / peak, _SOUND_RATE, format="MP3")
            sounds[track] = _uri("audio/mpeg", buffer.getvalue())
    return sounds


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

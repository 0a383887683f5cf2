"""From one audio file to the records of a clip: the whole way, without Beam."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.common import storage
from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.decoding.waveform import Loader, load_waveform
from pipeline.inputs.join import Clip
from pipeline.representations import (
    compute_representations,
    embeddings,
    make_schemas,
)
from pipeline.representations.music_model import load_network
from pipeline.representations.spectrum import Float32, Workspace
from pipeline.schema import LABEL_FIELD, Field, RepresentationSchema
from pipeline.schema.example import Value, encode_example
from pipeline.shards.moments import Moments, compute_moments
from pipeline.shards.result import DatasetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRecords:
    """What one clip adds to a dataset.

    Attributes:
      records: serialised Examples, by representation.
      moments: by representation, where it is normalised.
      samples: the waveform; until the next clip is loaded, see `Loader`.
      length: so many samples are the audio's own, see `Waveform`.
      decoder: which one decoded it.
      seconds: length of the whole file.
      audio: checksum of the waveform, by `checksum_audio`.
      decode_ms: time to decode, in milliseconds.
      compute_ms: time to compute and serialise all representations.
    """

    records: Mapping[str, Sequence[bytes]]
    moments: Mapping[str, Moments]
    samples: Float32
    length: int
    decoder: str
    seconds: float
    audio: str
    decode_ms: float
    compute_ms: float


def make_records(
    clip: Clip,
    file: BinaryIO,
    names: Sequence[str],
    config: ClipConfig,
    workspace: Workspace,
    load: Loader = load_waveform,
    label: Field = LABEL_FIELD,
) -> ClipRecords:
    """Decodes a clip once and computes all of its records.

    Args:
      clip: its identity.
      file: its audio, seekable.
      names: representations.
      config: parameters.
      workspace: the thread's buffers.
      load: decodes the file.
      label: the field that holds the clip's genre, or genres.

    Raises:
      AudioError: the audio cannot be used.
    """
    started = time.perf_counter()
    waveform = load(file, config)
    decoded = time.perf_counter()
    schemas = make_schemas(names, config, label)
    arrays = compute_representations(
        waveform.samples, names, config, workspace, length=waveform.length
    )
    records = {
        name: _encode(schemas[name], clip, waveform.decoder, values)
        for name, values in arrays.items()
    }
    moments = {
        name: compute_moments(schemas[name], values)
        for name, values in arrays.items()
        if schemas[name].segments
    }
    finished = time.perf_counter()
    return ClipRecords(
        records=records,
        moments=moments,
        samples=waveform.samples,
        length=waveform.length,
        decoder=waveform.decoder,
        seconds=waveform.seconds,
        audio=checksum_audio(waveform.samples),
        decode_ms=(decoded - started) * 1000,
        compute_ms=(finished - decoded) * 1000,
    )


def make_workspace(config: DatasetConfig) -> Workspace:
    """A thread's buffers, with the music model where it is needed.

    Raises:
      UserError: its weights are not what they should be.
      OSError: or another of `storage.STORE_ERRORS`; they cannot be read.
    """
    if embeddings.NAME not in config.representations:
        return Workspace()
    weights = storage.read_bytes(config.music_weights)
    return Workspace(load_network(weights, config.music_weights))


def warm_up(names: Sequence[str], config: ClipConfig, workspace: Workspace) -> None:
    """Computes noise, so that no clip pays for imports, filters and buffers."""
    noise = np.random.default_rng(0).standard_normal(CLIP_SAMPLES, np.float32)
    compute_representations(noise, names, config, workspace)


def checksum_audio(samples: Float32) -> str:
    """Tells one waveform from another, whatever file it came from.

    Files with the same audio and other tags, or of another lossless format, have
    the same checksum. Four CRC-32Cs of a quarter each: an eighth of the time of a
    cryptographic hash, and 128 bits are equal by no accident.
    """
    quarters = np.array_split(samples, 4)
    return "".join(f"{google_crc32c.value(part.tobytes()):08x}" for part in quarters)


def _encode(
    schema: RepresentationSchema, clip: Clip, decoder: str, values: NDArray[Any]
) -> list[bytes]:
    records = []
    for index, value in enumerate(values):
        content: dict[str, Value] = {
            "track_id": clip.track_id,
            "artist_id": clip.artist_id,
            "decoder": decoder,
            schema.label.name: _make_label(schema.label, clip.labels),
            "index": index,
            schema.value.name: value,
        }
        records.append(encode_example(schema.fields, content))
    return records


def _make_label(field: Field, labels: Sequence[int]) -> Value:
    """A clip's label, or 1 for each of its labels among zeros for all others."""
    if field == LABEL_FIELD:
        [label] = labels
        return label
    values = np.zeros(field.shape, field.dtype)
    values[list(labels)] = 1
    return values

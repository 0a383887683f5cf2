"""From one audio file to the records of a clip: the whole way, without Beam."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.common import storage
from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.decoding.waveform import Waveform
from pipeline.inputs.join import Clip
from pipeline.representations import compute_representations, embeddings, make_schemas
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
      audio: checksum of the waveform, by `checksum_audio`.
      compute_ms: time to compute and serialise all representations, in milliseconds.
    """

    records: Mapping[str, Sequence[bytes]]
    moments: Mapping[str, Moments]
    audio: str
    compute_ms: float


def make_records(
    clip: Clip,
    waveform: Waveform,
    names: Sequence[str],
    config: ClipConfig,
    workspace: Workspace,
    label: Field = LABEL_FIELD,
) -> ClipRecords:
    """Computes all records of a clip.

    Args:
      clip: its identity.
      waveform: its audio.
      names: representations.
      config: parameters.
      workspace: the thread's buffers.
      label: the field that holds the clip's genre, or genres.
    """
    started = time.perf_counter()
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
        audio=checksum_audio(waveform.samples),
        compute_ms=(finished - started) * 1000,
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

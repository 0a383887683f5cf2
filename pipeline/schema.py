"""The contract between pipeline and trainer. Standard library only.

The pipeline writes a `Manifest` as `manifest.json` beside its TFRecords; the
trainer builds its parse spec from that file and from nothing else. This is the
only module of the pipeline that the trainer may import at start-up.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA_VERSION = 2

#: FMA's own names, used for flags, file names and manifest keys alike.
SPLITS = ("training", "validation", "test")

MANIFEST_FILE = "manifest.json"
COMPLETED_FILE = "COMPLETED"
JOB_REPORT_FILE = "report.json"
REJECTS_FILE = "rejects-00000-of-00001.jsonl"
CLIPS_FOLDER = "clips"
#: What readers look for: a dataset may have several files of rejects.
REJECTS_PATTERN = "rejects-*.jsonl"
CLIPS_PATTERN = f"{CLIPS_FOLDER}/*.jsonl"

#: How a field is stored in a `tf.train.Example`.
ENCODINGS = ("int64_list", "float_list", "bytes_list", "raw_bytes")


class UserError(Exception):
    """Input that its owner has to change; the message says what and how.

    Command lines print the message without a traceback and exit with code 2.
    """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One feature of a `tf.train.Example`.

    Attributes:
      name: key in the Example.
      dtype: NumPy name of one value: int64, float32, uint8, or `string`.
      shape: dimensions of the decoded value; () for a scalar.
      encoding: one of `ENCODINGS`. `raw_bytes` is an array's C-order bytes in
        a single bytes value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    encoding: str

    def __post_init__(self) -> None:
        """Refuses encodings that no reader knows."""
        if self.encoding not in ENCODINGS:
            raise ValueError(
                f"Expected one of {ENCODINGS}. Received: encoding={self.encoding!r}"
            )

    @property
    def size(self) -> int:
        """Number of values in one decoded array."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """A named run of values in a flattened float array.

    All `length` values of a segment share one mean and one variance: a frame's
    position in the clip has no meaning of its own.
    """

    name: str
    length: int


#: Features that every record of every representation carries.
CLIP_FIELDS = (
    Field(name="track_id", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="artist_id", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="decoder", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="label", dtype="int64", shape=(), encoding="int64_list"),
    Field(name="index", dtype="int64", shape=(), encoding="int64_list"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepresentationSchema:
    """What the records of one representation look like.

    Attributes:
      name: folder under the dataset, and value of the trainer's `--model`.
      value: the field that holds the array itself.
      records_per_clip: how many records (with `index` 0, 1, ...) a clip has.
      segments: the parts of the flattened value, in order, where it is
        normalised with training statistics; empty where it is not (images).
    """

    name: str
    value: Field
    records_per_clip: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        """Checks that the segments cover the value exactly."""
        total = sum(segment.length for segment in self.segments)
        if self.segments and total != self.value.size:
            raise ValueError(
                f"The segments of {self.name!r} must sum to {self.value.size} values. "
                f"Received: {total}"
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """All features of one record: the clip's, then the value."""
        return (*CLIP_FIELDS, self.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and variance of each segment over the training split."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFile:
    """What a shard file holds.

    Attributes:
      records: number of records.
      size: in bytes.
      crc32c: checksum of all bytes, eight hexadecimal digits; the same that Cloud
        Storage keeps of an object, in base64.
    """

    records: int
    size: int
    crc32c: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """How clips were assigned to splits.

    Attributes:
      rule: `fma`, by what the metadata says; `hash`, by a hash of the artist's id.
      percent: share of each of `SPLITS`, in their order, under `hash`; else empty.
    """

    rule: str
    percent: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs to know about a dataset.

    Attributes:
      genres: ordered genre names; a record's `label` is an index into it.
      representations: schema of each representation, by name.
      num_shards: shards of each split of each representation.
      clips: number of clips, by split and genre.
      records: number of records, by representation and split.
      record_bytes: size of the shard files, by representation.
      normalisation: training statistics, by representation.
      settings: parameters that shape a record (see `pipeline.common.clip_config`).
      split_rule: sentence that says how clips were assigned to splits.
      split: the same for programs; None where they were assigned in another way,
        or by a version that wrote the sentence alone.
      artists_in_several_splits: artists whose clips the splits share; a
        leak when not empty. At most 20 are named.
      audio_in_several_splits: tracks with the same audio in several splits; a
        leak when not empty. At most 20 groups are named.
      inputs: where each input went: `clips` and `rejects`, summing to `total`,
        and what they were made of: `tracks`, `files`, `files_not_wanted` and
        `files_not_audio`.
      rejects: rejected inputs by reason.
      versions: library and decoder versions.
      fingerprint: digest of all that shapes a record.
      files: every shard file, by its path relative to the dataset folder.
      integrity: what was counted in the records: distinct `artists` and `audio`,
        `artists_in_several_splits`, `audio_in_several_splits`,
        `audio_with_several_ids` and, with clips that were left out as leaks,
        `audio_with_several_genres`.
      description: what the corpus is, in its owner's words; may be empty.
      synthetic: nobody recorded the music: scores on it say nothing about real music.
      schema_version: version of this layout.
    """

    genres: tuple[str, ...]
    representations: Mapping[str, RepresentationSchema]
    num_shards: int
    clips: Mapping[str, Mapping[str, int]]
    records: Mapping[str, Mapping[str, int]]
    record_bytes: Mapping[str, int]
    normalisation: Mapping[str, Normalisation]
    settings: Mapping[str, Any]
    split_rule: str
    artists_in_several_splits: tuple[str, ...]
    inputs: Mapping[str, int]
    rejects: Mapping[str, int]
    versions: Mapping[str, str]
    fingerprint: str
    files: Mapping[str, ShardFile] = dataclasses.field(default_factory=dict)
    integrity: Mapping[str, int] = dataclasses.field(default_factory=dict)
    audio_in_several_splits: tuple[str, ...] = ()
    description: str = ""
    split: Split | None = None
    synthetic: bool = False
    schema_version: int = SCHEMA_VERSION

    def shard_files(self, representation: str, split: str) -> list[str]:
        """Paths of a split's shards, relative to the dataset folder."""
        return [
            shard_file(representation, split, shard, self.num_shards)
            for shard in range(self.num_shards)
        ]

    def to_json(self) -> str:
        """Serialises with stable key order, one item a line."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Manifest:
        """Parses a manifest.

        Args:
          text: content of a `manifest.json`.
          source: path named in errors.

        Raises:
          UserError: the text is no manifest, or one of another version.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{source} is not valid JSON ({error}); preprocess the dataset again."
            ) from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{source} has schema version {version!r}, this version reads "
                f"{SCHEMA_VERSION}; preprocess the dataset again."
            )
        raw.setdefault("description", "")
        raw.setdefault("split", None)
        raw.setdefault("synthetic", begins_synthetic(raw["description"]))
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(raw):
            raise UserError(
                f"{source} lacks or adds keys: {sorted(names ^ set(raw))}; "
                "preprocess the dataset again."
            )
        raw["genres"] = tuple(raw["genres"])
        raw["artists_in_several_splits"] = tuple(raw["artists_in_several_splits"])
        raw["audio_in_several_splits"] = tuple(raw["audio_in_several_splits"])
        if raw["split"] is not None:
            raw["split"] = Split(
                rule=raw["split"]["rule"], percent=tuple(raw["split"]["percent"])
            )
        raw["files"] = {
            name: ShardFile(**value) for name, value in raw["files"].items()
        }
        raw["representations"] = {
            name: _representation_from_json(value)
            for name, value in raw["representations"].items()
        }
        raw["normalisation"] = {
            name: Normalisation(
                mean=tuple(value["mean"]), variance=tuple(value["variance"])
            )
            for name, value in raw["normalisation"].items()
        }
        return cls(**raw)


def begins_synthetic(description: object) -> bool:
    """How files without a field `synthetic` say that nobody recorded the music."""
    text = description if isinstance(description, str) else ""
    return text.strip().lower().startswith("synthetic")


def _representation_from_json(raw: Mapping[str, Any]) -> RepresentationSchema:
    value = dict(raw["value"])
    value["shape"] = tuple(value["shape"])
    return RepresentationSchema(
        name=raw["name"],
        value=Field(**value),
        records_per_clip=raw["records_per_clip"],
        segments=tuple(Segment(**segment) for segment in raw["segments"]),
    )


def shard_file(representation: str, split: str, shard: int, num_shards: int) -> str:
    """Path of one shard relative to the dataset folder."""
    return f"{representation}/{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"


def fingerprint(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Hex sha256 of a JSON-serialisable value, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()

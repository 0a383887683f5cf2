"""The contract between pipeline and trainer. Standard library only.

The pipeline writes a `Manifest` as `manifest.json` beside its TFRecords; the
trainer builds its parse spec from that file and from nothing else.

    basics   errors, and how values are told
    records  the fields of a record, and of a representation's
    readers  files by which other libraries read the shards
    checks   is what was read a manifest, and a whole one
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.schema import checks, readers
from pipeline.schema.basics import SPLITS as SPLITS
from pipeline.schema.basics import UserError as UserError
from pipeline.schema.basics import shard_file as shard_file
from pipeline.schema.basics import shorten as shorten
from pipeline.schema.records import CLIP_FIELDS as CLIP_FIELDS
from pipeline.schema.records import ENCODINGS as ENCODINGS
from pipeline.schema.records import LABEL_FIELD as LABEL_FIELD
from pipeline.schema.records import LABELS_NAME as LABELS_NAME
from pipeline.schema.records import MULTI_LABEL as MULTI_LABEL
from pipeline.schema.records import SINGLE_LABEL as SINGLE_LABEL
from pipeline.schema.records import TASKS as TASKS
from pipeline.schema.records import Field as Field
from pipeline.schema.records import Normalisation as Normalisation
from pipeline.schema.records import RepresentationSchema as RepresentationSchema
from pipeline.schema.records import Segment as Segment
from pipeline.schema.records import ShardFile as ShardFile
from pipeline.schema.records import Split as Split
from pipeline.schema.records import make_label_field as make_label_field

SCHEMA_VERSION = 2

MANIFEST_FILE = "manifest.json"
COMPLETED_FILE = "COMPLETED"
JOB_REPORT_FILE = "report.json"
#: Weights of the music model, in datasets with `embeddings` and in models of them.
MUSIC_MODEL_FILE = "music_model.npz"
REJECTS_FILE = "rejects-00000-of-00001.jsonl"
CLIPS_FOLDER = "clips"
#: What readers look for: a dataset may have several files of rejects.
REJECTS_PATTERN = "rejects-*.jsonl"
CLIPS_PATTERN = f"{CLIPS_FOLDER}/*.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs to know about a dataset.

    Attributes:
      genres: ordered genre names; a record's `label` is an index into it, its
        `labels` has a value for each.
      task: `single_label` or `multi_label`: what records have of the two.
      genre_paths: of the genres that are kinds of others, names from the root to the
        genre itself, which need not all be among `genres`.
      representations: schema of each representation, by name.
      num_shards: shards of each split of each representation.
      clips: number of clips, by split and genre; a clip counts for each of its own.
      clip_totals: number of clips, by split.
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
      music_model: of the network that made `embeddings`: `name`, `sha256` of its
        weights, `licence`, `source`, `trained_on`, and `overlap`, a warning about test
        sets; empty without embeddings.
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
    music_model: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task: str = SINGLE_LABEL
    genre_paths: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    clip_totals: Mapping[str, int] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Adds up the clips of a single label; tells the records' label field."""
        if self.task == SINGLE_LABEL:
            totals = {name: sum(counts.values()) for name, counts in self.clips.items()}
            object.__setattr__(self, "clip_totals", totals)
        label = make_label_field(self.task, len(self.genres))
        representations = {
            name: dataclasses.replace(schema, label=label)
            for name, schema in self.representations.items()
        }
        object.__setattr__(self, "representations", representations)

    def genre_path(self, genre: str) -> tuple[str, ...]:
        """Names from the root to a genre, which is its own root in no tree."""
        return tuple(self.genre_paths.get(genre, (genre,)))

    def shard_files(self, representation: str, split: str) -> list[str]:
        """Paths of a split's shards, relative to the dataset folder."""
        return [
            shard_file(representation, split, shard, self.num_shards)
            for shard in range(self.num_shards)
        ]

    def reader_files(self) -> dict[str, str]:
        """Files by which other libraries read the shards: texts by path.

        Empty for a manifest without `files`.
        """
        if not self.files:
            return {}
        shards = {
            name: {
                split: [self.files[path] for path in self.shard_files(name, split)]
                for split in SPLITS
            }
            for name in self.representations
        }
        return readers.make_reader_files(
            genres=self.genres,
            representations=self.representations,
            shard_files=shards,
            description=self.description,
        )

    def to_json(self) -> str:
        """Serialises with stable key order, one item a line."""
        content = dataclasses.asdict(self)
        for schema in content["representations"].values():
            del schema["label"]  # Task and genres say it.
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Manifest:
        """Parses a manifest, and believes nothing in it that cannot be.

        Args:
          text: content of a `manifest.json`.
          source: path named in errors.

        Raises:
          UserError: the text is no manifest, one of another version, or has a value
            of a wrong type or size, or sums that do not add up.
        """
        raw = checks.parse(text, source)
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if type(version) is not int or version != SCHEMA_VERSION:
            raise UserError(
                f"{source} has schema version {shorten(version)}, this version reads "
                f"{SCHEMA_VERSION}; preprocess the dataset again."
            )
        raw.setdefault("description", "")
        raw.setdefault("split", None)
        raw.setdefault("music_model", {})
        raw.setdefault("synthetic", begins_synthetic(raw["description"]))
        raw.setdefault("task", SINGLE_LABEL)
        raw.setdefault("genre_paths", {})
        raw.setdefault("clip_totals", None)
        names = {field.name for field in dataclasses.fields(cls)}
        if names != set(raw):
            raise UserError(
                f"{source} lacks or adds keys: {shorten(sorted(names ^ set(raw)))}; "
                "preprocess the dataset again."
            )
        return cls(**checks.read_values(raw, source))


def begins_synthetic(description: object) -> bool:
    """How files without a field `synthetic` say that nobody recorded the music."""
    text = description if isinstance(description, str) else ""
    return text.strip().lower().startswith("synthetic")


def completion_marker(manifest: Manifest, text: str) -> str:
    """Content of `COMPLETED`: the manifest's fingerprint, and its own digest.

    Args:
      manifest: of the dataset.
      text: of its file.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{manifest.fingerprint}\nsha256 {MANIFEST_FILE} {digest}\n"


def check_marker(
    marker: str, manifest: Manifest, text: str | bytes, *, source: str
) -> None:
    """Checks that a manifest is the one that its dataset was completed with.

    Datasets from before the digest have the fingerprint alone.

    Args:
      marker: content of `COMPLETED`.
      manifest: what was read.
      text: of its file, byte for byte.
      source: path of the manifest, named in errors.

    Raises:
      UserError: it is not, or it does not say all that a job writes.
    """
    checks.check_whole(vars(manifest), source)
    first, *rest = marker.strip().splitlines() or [""]
    if first != manifest.fingerprint:
        raise UserError(
            f"{COMPLETED_FILE} and {source} come from different runs; preprocess the "
            "dataset again."
        )
    data = text.encode() if isinstance(text, str) else text
    digest = hashlib.sha256(data).hexdigest()
    if rest and rest != [f"sha256 {MANIFEST_FILE} {digest}"]:
        raise UserError(
            f"{source} was changed after the dataset was completed: its SHA-256 is not "
            f"the one in {COMPLETED_FILE}. Copy the dataset again, or preprocess it "
            "again."
        )


def fingerprint(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Hex sha256 of a JSON-serialisable value, independent of key order."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()

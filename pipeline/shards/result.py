"""What a finished shard says of itself."""

from __future__ import annotations

import base64
import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import Reject
from pipeline.schema import (
    SINGLE_LABEL,
    Field,
    ShardFile,
    fingerprint,
    make_label_field,
)
from pipeline.shards.moments import Moments


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a shard holds, in numbers.

    Attributes:
      shard: index.
      kept: whether an earlier run made it.
      clips: number by (split, genre); a clip counts for each of its genres.
      clip_totals: number by split.
      records: number by (representation, split).
      files: every file, as `schema.ShardFile`, by path.
      decoders: number of clips by decoder.
      decode_ms: each clip's decoding time.
      compute_ms: each clip's time for all representations.
      digest: of the clips' identities, in order.
      seconds: length of each clip's file.
    """

    shard: int
    kept: bool
    clips: Mapping[tuple[str, str], int]
    clip_totals: Mapping[str, int]
    records: Mapping[tuple[str, str], int]
    files: Mapping[str, ShardFile]
    decoders: Mapping[str, int]
    decode_ms: Sequence[float]
    compute_ms: Sequence[float]
    digest: str
    seconds: Sequence[float] = ()


def count_clips(clips: Iterable[WrittenClip]) -> dict[tuple[str, str], int]:
    """Clips by split and genre; each counts for each of its genres."""
    return dict(
        collections.Counter(
            (clip.split, name) for clip in clips for name in clip.genres
        )
    )


def report_shard(result: ShardResult, *, kept: bool) -> ShardReport:
    """Counts what a shard holds."""
    records: dict[tuple[str, str], int] = {}
    for path, file in result.files.items():
        name, _, rest = path.partition("/")
        if file.records:
            records[name, rest.partition("-")[0]] = file.records
    return ShardReport(
        shard=result.shard,
        kept=kept,
        clips=count_clips(result.clips),
        clip_totals=dict(collections.Counter(clip.split for clip in result.clips)),
        records=records,
        files=result.files,
        decoders=dict(collections.Counter(clip.decoder for clip in result.clips)),
        decode_ms=result.decode_ms,
        compute_ms=result.compute_ms,
        digest=fingerprint(
            [(c.track_id, *c.genres, c.split, c.size, c.audio) for c in result.clips]
        ),
        seconds=[clip.seconds for clip in result.clips],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What to make of the clips, and where.

    Attributes:
      output: folder to write to.
      replaces: folder of the completed dataset whose place it takes in the end; empty
        where `output` is the dataset's own.
      representations: names.
      clip: clip parameters.
      genres: ordered; labels are indices into it.
      task: one of `schema.TASKS`: whether a clip has one label, or several.
      num_shards: files of each split of each representation.
      wav_output: folder for decoded clips; empty for none.
      music_weights: file of the music model's weights, where `embeddings` are made.
      audio_base: folder that the audio's relative paths start from.
      progress_file: local file that grows by a byte a clip; empty for none.
      tools: fingerprint of library versions and of this package's code.
      run: name of the run; only the last one to begin may write. Empty: not
        checked.
      launcher: process that workers on this machine end with; 0 for none.
      analyst: address of a process on this machine that analyses the training split;
        empty for none.
      decode_ahead: whether a clip is decoded while the one before it is computed; for
        a process that has another core to itself.
    """

    output: str
    representations: tuple[str, ...]
    clip: ClipConfig
    genres: tuple[str, ...]
    task: str = SINGLE_LABEL
    num_shards: int = 16
    wav_output: str = ""
    music_weights: str = ""
    audio_base: str = ""
    progress_file: str = ""
    tools: str = ""
    run: str = ""
    launcher: int = 0
    analyst: str = ""
    decode_ahead: bool = False
    replaces: str = ""

    @property
    def label(self) -> Field:
        """The field that holds a clip's genre, or genres."""
        return make_label_field(self.task, len(self.genres))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenClip:
    """A clip that is in the records.

    Attributes:
      track_id: unique name.
      artist_id: empty where it is not known.
      genres: names, in the order of the manifest's.
      split: one of `schema.SPLITS`.
      path: of the audio file.
      size: of the audio file in bytes.
      seconds: length of the whole file.
      decoder: which one decoded it.
      audio: checksum of the decoded samples (see `records.checksum_audio`).
    """

    track_id: str
    artist_id: str
    genres: tuple[str, ...]
    split: str
    path: str
    size: int
    seconds: float
    decoder: str
    audio: str

    def to_row(self, task: str) -> dict[str, Any]:
        """What the list of clips says of it: its `genre`, or its `genres`."""
        row: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            if name == "genres" and task == SINGLE_LABEL:
                [row["genre"]] = value
            else:
                row[name] = value
        return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What became of the clips of a shard.

    Attributes:
      shard: index.
      fingerprint: of all that shapes the shard (see `fingerprint_shard`); empty
        for one that a later run must not keep.
      clips: in the records, by ascending id.
      files: every file of the shard, by path relative to the dataset folder.
      rejects: clips that are not in the records.
      moments: by representation; arrays (clips, segments), one row for each
        training clip, in the order of `clips`.
      decode_ms: each clip's decoding time.
      compute_ms: each clip's time for all representations.
    """

    shard: int
    fingerprint: str
    clips: Sequence[WrittenClip]
    files: Mapping[str, ShardFile]
    rejects: Sequence[Reject]
    moments: Mapping[str, Moments]
    decode_ms: Sequence[float]
    compute_ms: Sequence[float]

    def to_json(self) -> str:
        """Serialises; floats keep all of their bits."""
        content = {
            "shard": self.shard,
            "fingerprint": self.fingerprint,
            "clips": [dataclasses.asdict(clip) for clip in self.clips],
            "files": {
                path: dataclasses.asdict(file) for path, file in self.files.items()
            },
            "rejects": [dataclasses.asdict(reject) for reject in self.rejects],
            "moments": {
                name: {"mean": _pack(moments.mean), "variance": _pack(moments.variance)}
                for name, moments in self.moments.items()
            },
            "decode_ms": list(self.decode_ms),
            "compute_ms": list(self.compute_ms),
        }
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> ShardResult:
        """Parses what `to_json` made.

        Raises:
          ValueError: it is something else.
        """
        try:
            raw = json.loads(text)
            return cls(
                shard=raw["shard"],
                fingerprint=raw["fingerprint"],
                clips=tuple(
                    WrittenClip(**{**clip, "genres": tuple(clip["genres"])})
                    for clip in raw["clips"]
                ),
                files={path: ShardFile(**file) for path, file in raw["files"].items()},
                rejects=tuple(map(Reject.from_dict, raw["rejects"])),
                moments={
                    name: Moments(
                        mean=_unpack(arrays["mean"]),
                        variance=_unpack(arrays["variance"]),
                    )
                    for name, arrays in raw["moments"].items()
                },
                decode_ms=tuple(raw["decode_ms"]),
                compute_ms=tuple(raw["compute_ms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected a shard's result. Received: {error}") from error


def _pack(array: NDArray[np.float32]) -> dict[str, Any]:
    data = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(data).decode()}


def _unpack(raw: Mapping[str, Any]) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(raw["float32"]), "<f4")
    return values.reshape(raw["shape"])

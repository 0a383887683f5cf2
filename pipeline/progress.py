"""What is known about finished shards, so that a later run can keep them.

Beside the shards, `_progress/` holds one file for each finished one, written when
all of the shard's files have their names, and the name of the run that may write.
The folder goes when the dataset is complete.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from apache_beam.io.filesystems import FileSystems
from numpy.typing import NDArray

from pipeline import storage
from pipeline.clip import Clip, Moments
from pipeline.config import ClipConfig
from pipeline.rejects import Reason, Reject
from pipeline.schema import ShardFile, fingerprint

PROGRESS_FOLDER = "_progress"
RUN_FILE = "RUN"


class SupersededError(Exception):
    """Another job has begun to write to the same folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What to make of the clips, and where.

    Attributes:
      output: dataset folder.
      representations: names.
      clip: clip parameters.
      genres: ordered; labels are indices into it.
      num_shards: files of each split of each representation.
      wav_output: folder for decoded clips; empty for none.
      audio_base: folder that the audio's relative paths start from.
      progress_file: local file that grows by a byte a clip; empty for none.
      tools: fingerprint of library versions and of this package's code.
      run: name of the run; only the last one to begin may write. Empty: not
        checked.
      launcher: process that workers on this machine end with; 0 for none.
    """

    output: str
    representations: tuple[str, ...]
    clip: ClipConfig
    genres: tuple[str, ...]
    num_shards: int = 16
    wav_output: str = ""
    audio_base: str = ""
    progress_file: str = ""
    tools: str = ""
    run: str = ""
    launcher: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenClip:
    """A clip that is in the records.

    Attributes:
      track_id: unique name.
      artist_id: empty where it is not known.
      genre: name.
      split: one of `schema.SPLITS`.
      path: of the audio file.
      size: of the audio file in bytes.
      seconds: length of the whole file.
      decoder: which one decoded it.
      audio: checksum of the decoded samples (see `clip.checksum_audio`).
    """

    track_id: str
    artist_id: str
    genre: str
    split: str
    path: str
    size: int
    seconds: float
    decoder: str
    audio: str


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
      feature_ms: each clip's time for all representations.
    """

    shard: int
    fingerprint: str
    clips: Sequence[WrittenClip]
    files: Mapping[str, ShardFile]
    rejects: Sequence[Reject]
    moments: Mapping[str, Moments]
    decode_ms: Sequence[float]
    feature_ms: Sequence[float]

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
                name: {"mean": _pack(found.mean), "variance": _pack(found.variance)}
                for name, found in self.moments.items()
            },
            "decode_ms": list(self.decode_ms),
            "feature_ms": list(self.feature_ms),
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
            rejects = [
                {**row, "reason": Reason(row["reason"])} for row in raw["rejects"]
            ]
            return cls(
                shard=raw["shard"],
                fingerprint=raw["fingerprint"],
                clips=tuple(WrittenClip(**clip) for clip in raw["clips"]),
                files={path: ShardFile(**file) for path, file in raw["files"].items()},
                rejects=tuple(Reject(**row) for row in rejects),
                moments={
                    name: Moments(
                        mean=_unpack(found["mean"]), variance=_unpack(found["variance"])
                    )
                    for name, found in raw["moments"].items()
                },
                decode_ms=tuple(raw["decode_ms"]),
                feature_ms=tuple(raw["feature_ms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected a shard's result. Received: {error}") from error


def _pack(array: NDArray[np.float32]) -> dict[str, Any]:
    data = np.ascontiguousarray(array, "<f4").tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(data).decode()}


def _unpack(raw: Mapping[str, Any]) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(raw["float32"]), "<f4")
    return values.reshape(raw["shape"])


def fingerprint_shard(shard: int, clips: Iterable[Clip], config: DatasetConfig) -> str:
    """Digest of all that shapes a shard's files: inputs, options and versions.

    A file counts as the same while its path, size and time of modification are.
    """
    return fingerprint(
        {
            "shard": shard,
            "num_shards": config.num_shards,
            "representations": list(config.representations),
            "settings": config.clip.to_dict(),
            "genres": list(config.genres),
            "wav_output": config.wav_output,
            "audio_base": config.audio_base,
            "tools": config.tools,
            "clips": [list(dataclasses.astuple(clip)) for clip in sorted(clips)],
        }
    )


def result_file(shard: int, num_shards: int) -> str:
    """Path of a finished shard's result, relative to the dataset folder."""
    return f"{PROGRESS_FOLDER}/shard-{shard:05d}-of-{num_shards:05d}.json"


def _result_path(shard: int, config: DatasetConfig) -> str:
    name = result_file(shard, config.num_shards)
    return storage.join(config.output, *name.split("/"))


def write_result(result: ShardResult, config: DatasetConfig) -> None:
    """Keeps a shard's result; from now on the shard counts as finished."""
    storage.write_atomically(
        _result_path(result.shard, config),
        result.to_json().encode(),
        scratch=config.output,
    )


def forget_result(shard: int, config: DatasetConfig) -> None:
    """Makes a shard count as not finished, before its files are replaced."""
    storage.delete(_result_path(shard, config))


def read_result(shard: int, config: DatasetConfig) -> ShardResult:
    """Reads the result of a shard.

    Raises:
      ValueError: what is there is no result.
      OSError: or another of `storage.STORE_ERRORS`; nothing is there.
    """
    return ShardResult.from_json(storage.read_text(_result_path(shard, config)))


def find_finished(
    shard: int, expected: str, config: DatasetConfig
) -> ShardResult | None:
    """The result of an earlier run's shard, if it is what this run would make.

    Args:
      shard: index.
      expected: fingerprint that the shard must have.
      config: dataset parameters.
    """
    if not storage.exists(_result_path(shard, config)):
        return None
    try:
        result = read_result(shard, config)
    except ValueError:
        return None
    if result.fingerprint != expected:
        return None
    paths = [storage.join(config.output, *path.split("/")) for path in result.files]
    matched = storage.retry(FileSystems.match, paths)
    sizes = [[file.size_in_bytes for file in found.metadata_list] for found in matched]
    return result if sizes == [[file.size] for file in result.files.values()] else None


def list_finished(config: DatasetConfig) -> list[int]:
    """Shards that earlier runs finished, with whatever inputs and options."""
    names = storage.list_sizes(storage.join(config.output, PROGRESS_FOLDER))
    found = {f"{PROGRESS_FOLDER}/{name}" for name in names}
    return [
        shard
        for shard in range(config.num_shards)
        if result_file(shard, config.num_shards) in found
    ]


def begin_run(config: DatasetConfig) -> None:
    """Takes over the folder: runs that began earlier may not write any more."""
    storage.write_atomically(
        storage.join(config.output, PROGRESS_FOLDER, RUN_FILE),
        config.run.encode(),
        scratch=config.output,
    )


def check_run(config: DatasetConfig, *, completing: bool = False) -> None:
    """Makes sure that no later run has taken over the folder.

    Args:
      config: names the run.
      completing: the last step, where the run's own file may be gone already.

    Raises:
      SupersededError: one has.
    """
    path = storage.join(config.output, PROGRESS_FOLDER, RUN_FILE)
    if not config.run or (completing and not storage.exists(path)):
        return
    if not storage.exists(path) or storage.read_text(path) != config.run:
        raise SupersededError(
            f"Another job has begun to write to {config.output}; this one stops. Give "
            "each job a folder of its own."
        )

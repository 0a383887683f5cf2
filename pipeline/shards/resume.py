"""What is known about finished shards, so that a later run can keep them.

Beside the shards, `_progress/` holds one file for each finished one, written when
all of the shard's files have their names, and the name of the run that may write
(see `pipeline.shards.runs`).
The folder goes when the dataset is complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from apache_beam.io.filesystems import FileSystems

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.inputs.join import Clip
from pipeline.schema import fingerprint
from pipeline.shards.result import DatasetConfig, ShardResult
from pipeline.shards.runs import PROGRESS_FOLDER, Place


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
            "task": config.task,
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
    return join(config.output, name)


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
    paths = [join(config.output, path) for path in result.files]
    matches = storage.retry(FileSystems.match, paths)
    sizes = [[file.size_in_bytes for file in match.metadata_list] for match in matches]
    return result if sizes == [[file.size] for file in result.files.values()] else None


def list_finished(config: Place) -> list[int]:
    """Shards that earlier runs finished, with whatever inputs and options."""
    names = storage.list_sizes(join(config.output, PROGRESS_FOLDER))
    files = {f"{PROGRESS_FOLDER}/{name}" for name in names}
    return [
        shard
        for shard in range(config.num_shards)
        if result_file(shard, config.num_shards) in files
    ]

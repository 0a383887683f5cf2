"""The last step of a shard: takes leaking clips out, lists what is in it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.rejects import Reject
from pipeline.representations import make_schemas
from pipeline.schema import CLIPS_FOLDER, SPLITS, shard_file
from pipeline.schema.example import decode_example
from pipeline.shards import resume, runs
from pipeline.shards.leaks import Leak
from pipeline.shards.moments import Moments
from pipeline.shards.result import DatasetConfig, ShardResult, WrittenClip
from pipeline.shards.tfrecord import read_records
from pipeline.shards.writer import open_writer

#: Files of a shard that are opened, closed and renamed at the same time.
_AT_ONCE = 8


def finish_shard(
    shard: int, leaks: Iterable[Leak], config: DatasetConfig
) -> ShardResult:
    """Takes clips out of a shard that was made, and writes the list of the others.

    May be repeated, also after an attempt that was interrupted.

    Args:
      shard: index.
      leaks: clips to take out; without any, the shard's files stay as they are.
      config: dataset parameters.

    Raises:
      WriteError: the store does not take the files.
      SupersededError: a later run has taken over the folder.
      ValueError: a file that was written is damaged.
    """
    result = resume.read_result(shard, config)
    # The first reason where there are several.
    by_track = {leak.track_id: leak for leak in sorted(leaks, reverse=True)}
    if by_track:
        result = _take_out(result, by_track, config)
    lines = "".join(
        json.dumps(clip.to_row(config.task), ensure_ascii=False) + "\n"
        for clip in result.clips
    )
    name = clips_file(shard, config.num_shards)
    with runs.writing(config):
        storage.write_atomically(
            join(config.output, name),
            lines.encode(),
            scratch=config.output,
        )
    return result


def clips_file(shard: int, num_shards: int) -> str:
    """Path of a shard's list of clips, relative to the dataset folder."""
    return f"{CLIPS_FOLDER}/{shard:05d}-of-{num_shards:05d}.jsonl"


def _take_out(
    result: ShardResult, leaks: Mapping[str, Leak], config: DatasetConfig
) -> ShardResult:
    """Rewrites the files of a shard without some of its clips."""
    shard = result.shard
    rest = without_clips(result, leaks)
    with open_writer(shard, config, _AT_ONCE) as (writer, _):
        schemas = make_schemas(config.representations, config.clip, config.label)
        for name, schema in schemas.items():
            for split in SPLITS:
                path = shard_file(name, split, shard, config.num_shards)
                source = join(config.output, path)
                with storage.open_patiently(source) as file:
                    for record in read_records(file):
                        clip = decode_example(schema.fields, record)
                        if clip["track_id"] not in leaks:
                            writer.write(name, split, [record])

        @contextlib.contextmanager
        def keep_result() -> Iterator[None]:
            nonlocal rest
            with runs.writing(config):
                # Without a fingerprint, a later run makes the shard anew: whether its
                # clips still leak then depends on all others.
                rest = dataclasses.replace(rest, files=writer.files, fingerprint="")
                resume.write_result(rest, config)
                yield

        writer.commit(keep_result())
    return rest


def without_clips(result: ShardResult, leaks: Mapping[str, Leak]) -> ShardResult:
    """A shard's result with some clips turned into rejects; its files are not yet."""
    training = [clip for clip in result.clips if clip.split == "training"]
    mask = np.array([clip.track_id not in leaks for clip in training], bool)
    leaking = [clip for clip in result.clips if clip.track_id in leaks]
    return dataclasses.replace(
        result,
        clips=tuple(clip for clip in result.clips if clip.track_id not in leaks),
        rejects=(
            *result.rejects,
            *(_make_reject(c, leaks[c.track_id]) for c in leaking),
        ),
        moments={
            name: Moments(mean=moments.mean[mask], variance=moments.variance[mask])
            for name, moments in result.moments.items()
        },
    )


def _make_reject(clip: WrittenClip, leak: Leak) -> Reject:
    return Reject(
        path=clip.path,
        track_id=clip.track_id,
        stage="split",
        reason=leak.reason,
        message=leak.message,
    )

"""The last step of a shard: takes leaking clips out, lists what is in it."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import progress, storage
from pipeline.clip import Moments
from pipeline.leaks import Leak
from pipeline.progress import DatasetConfig, ShardResult, WrittenClip
from pipeline.rejects import Reject
from pipeline.representations import make_schemas
from pipeline.schema import SPLITS, ShardFile, fingerprint, shard_file
from pipeline.shard_writer import ShardWriter
from pipeline.tfrecord import decode_example, read_records

CLIPS_FOLDER = "clips"
#: Files of a shard that are opened, closed and renamed at the same time.
_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledMoments:
    """Mean and variance of each segment over several clips, float64.

    Attributes:
      clips: number of them.
      mean: shape (segments,).
      variance: about that mean, of all values; shape (segments,).
    """

    clips: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


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
    result = progress.read_result(shard, config)
    # The first reason where there are several.
    by_track = {leak.track_id: leak for leak in sorted(leaks, reverse=True)}
    if by_track:
        result = _take_out(result, by_track, config)
    lines = "".join(
        json.dumps(dataclasses.asdict(clip), ensure_ascii=False) + "\n"
        for clip in result.clips
    )
    storage.write_atomically(
        storage.join(config.output, *clips_file(shard, config.num_shards).split("/")),
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
    with (
        concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as executor,
        ShardWriter(
            output=config.output,
            representations=config.representations,
            shard=shard,
            num_shards=config.num_shards,
            executor=executor,
        ) as writer,
    ):
        for name, schema in make_schemas(config.representations, config.clip).items():
            for split in SPLITS:
                path = shard_file(name, split, shard, config.num_shards)
                source = storage.join(config.output, *path.split("/"))
                with storage.open_patiently(source) as file:
                    for record in read_records(file):
                        clip = decode_example(schema.fields, record)
                        if clip["track_id"] not in leaks:
                            writer.write(name, split, [record])

        def keep_result() -> None:
            nonlocal rest
            progress.check_run(config)
            # Without a fingerprint, a later run makes the shard anew: whether its
            # clips still leak then depends on all others.
            rest = dataclasses.replace(rest, files=writer.files, fingerprint="")
            progress.write_result(rest, config)

        writer.commit(check=keep_result)
    return rest


def without_clips(result: ShardResult, leaks: Mapping[str, Leak]) -> ShardResult:
    """A shard's result with some clips turned into rejects; its files are not yet."""
    training = [clip for clip in result.clips if clip.split == "training"]
    stays = np.array([clip.track_id not in leaks for clip in training], bool)
    gone = [clip for clip in result.clips if clip.track_id in leaks]
    return dataclasses.replace(
        result,
        clips=tuple(clip for clip in result.clips if clip.track_id not in leaks),
        rejects=(*result.rejects, *(_make_reject(c, leaks[c.track_id]) for c in gone)),
        moments={
            name: Moments(mean=found.mean[stays], variance=found.variance[stays])
            for name, found in result.moments.items()
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


def pool_clips(moments: Moments) -> PooledMoments | None:
    """Pools the moments of single clips, arrays (clips, segments).

    All clips have the same number of values, so the mean of means is the mean,
    and the variance is the mean of variances plus the variance of means (law of
    total variance). In float64 and in the given order: the same bits everywhere.

    Returns:
      None where there is no clip.
    """
    clips = len(moments.mean)
    if not clips:
        return None
    means = moments.mean.astype(np.float64)
    mean = means.sum(axis=0) / clips
    spread = ((means - mean) ** 2).sum(axis=0) / clips
    within = moments.variance.astype(np.float64).sum(axis=0) / clips
    return PooledMoments(clips=clips, mean=mean, variance=within + spread)


def pool_shards(shards: Sequence[PooledMoments]) -> PooledMoments:
    """Pools the moments of several shards, in the given order."""
    clips = sum(shard.clips for shard in shards)
    weights = np.array([shard.clips for shard in shards], np.float64)[:, None]
    means = np.stack([shard.mean for shard in shards])
    mean = (weights * means).sum(axis=0) / clips
    spread = (weights * (means - mean) ** 2).sum(axis=0) / clips
    variances = np.stack([shard.variance for shard in shards])
    within = (weights * variances).sum(axis=0) / clips
    return PooledMoments(clips=clips, mean=mean, variance=within + spread)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a shard holds, in numbers.

    Attributes:
      shard: index.
      kept: whether an earlier run made it.
      clips: number by (split, genre).
      records: number by (representation, split).
      files: every file, as `schema.ShardFile`, by path.
      decoders: number of clips by decoder.
      decode_ms: each clip's decoding time.
      feature_ms: each clip's time for all representations.
      digest: of the clips' identities, in order.
      seconds: length of each clip's file.
    """

    shard: int
    kept: bool
    clips: Mapping[tuple[str, str], int]
    records: Mapping[tuple[str, str], int]
    files: Mapping[str, ShardFile]
    decoders: Mapping[str, int]
    decode_ms: Sequence[float]
    feature_ms: Sequence[float]
    digest: str
    seconds: Sequence[float] = ()


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
        clips=dict(collections.Counter((c.split, c.genre) for c in result.clips)),
        records=records,
        files=result.files,
        decoders=dict(collections.Counter(clip.decoder for clip in result.clips)),
        decode_ms=result.decode_ms,
        feature_ms=result.feature_ms,
        digest=fingerprint(
            [(c.track_id, c.genre, c.split, c.size, c.audio) for c in result.clips]
        ),
        seconds=[clip.seconds for clip in result.clips],
    )

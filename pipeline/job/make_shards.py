"""The Beam side of shards: what crosses a shuffle are paths and small rows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import threadpoolctl

from pipeline.common.child_process import end_with
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.inputs.join import Clip
from pipeline.inputs.splits import stable_hash
from pipeline.job.counters import count_reject, count_shard
from pipeline.shards import finish, leaks
from pipeline.shards.moments import PooledMoments, pool_clips
from pipeline.shards.records import make_workspace, warm_up
from pipeline.shards.result import DatasetConfig, ShardResult, report_shard
from pipeline.shards.shard import keep_or_make_shard


class Shards(NamedTuple):
    """Output of `MakeShards`."""

    reports: Any  # PCollection[ShardReport]
    rejects: Any  # PCollection[Reject]
    clips: Any  # PCollection[WrittenClip]
    moments: Any  # PCollection[tuple[int, Mapping[str, PooledMoments]]], by shard
    labels: Any  # PCollection[tuple[str, str, str]]: audio, genres, track id


@dataclasses.dataclass(kw_only=True, eq=False)
class MakeShards(beam.PTransform):
    """Decodes, computes and writes: (one element, PCollection[Clip]) to `Shards`.

    Paths are grouped by the shard that their track's id hashes to; a worker
    then makes whole shards. What leaks from one split to another is known when
    all are made, and is taken out of the few shards that hold it.

    Attributes:
      config: dataset parameters.
      leaks: one of `leaks.POLICIES`.
    """

    config: DatasetConfig
    leaks: str = "drop"

    def expand(self, inputs: tuple[Any, Any]) -> Shards:
        """Groups the paths and makes the shards, also those without a clip."""
        start, clips = inputs
        count = self.config.num_shards
        every_shard = start | "EveryShard" >> beam.FlatMap(
            lambda _: [(shard, None) for shard in range(count)]
        )
        keyed = clips | "KeyByShard" >> beam.Map(
            lambda clip: (stable_hash(clip.track_id) % count, clip)
        )
        outputs = (
            (every_shard, keyed)
            | "Flatten" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "MakeShard"
            >> beam.ParDo(_MakeShardFn(self.config)).with_outputs(
                "shared", "labels", main="shards"
            )
        )
        parts = {"shards": outputs.shards}
        if self.leaks != "keep":
            parts["leaks"] = (
                outputs.shared
                | "GroupByArtistAndAudio" >> beam.GroupByKey()
                | "FindLeaks" >> beam.FlatMapTuple(leaks.find_leaks)
            )
        finished = (
            parts
            | "GroupLeaksByShard" >> beam.CoGroupByKey()
            | "FinishShard"
            >> beam.ParDo(_FinishShardFn(self.config)).with_outputs(
                "rejects", "clips", "moments", main="reports"
            )
        )
        return Shards(
            finished.reports,
            finished.rejects,
            finished.clips,
            finished.moments,
            outputs.labels,
        )


class _MakeShardFn(beam.DoFn):
    """Makes whole shards with a workspace of its own."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config

    def setup(self) -> None:
        if self._config.launcher not in (0, os.getpid()):
            end_with(self._config.launcher)
        # Beam runs one bundle a core; BLAS threads would compete with them.
        self._limits = threadpoolctl.threadpool_limits(1)
        self._workspace = make_workspace(self._config)
        # Starts while this process warms up.
        self._decoder = IsolatedDecoder()
        warm_up(self._config.representations, self._config.clip, self._workspace)

    def teardown(self) -> None:
        self._decoder.close()
        self._limits.restore_original_limits()

    def process(self, element: tuple[int, Iterable[Clip | None]]) -> Iterator[Any]:
        shard, clips = element
        result, kept = keep_or_make_shard(
            shard,
            [clip for clip in clips if clip is not None],
            self._config,
            self._workspace,
            self._decoder.load_waveform,
        )
        count_shard(result, kept=kept)
        yield shard, kept
        rows = [(c.track_id, c.artist_id, c.split, c.audio) for c in result.clips]
        for member in leaks.memberships(shard, rows):
            yield beam.pvalue.TaggedOutput("shared", member)
        # Also of what will be taken out: its label may contradict another.
        for clip in result.clips:
            label = clip.audio, ", ".join(clip.genres), clip.track_id
            yield beam.pvalue.TaggedOutput("labels", label)


class _FinishShardFn(beam.DoFn):
    """Takes leaking clips out of a shard and reports what is left."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config

    def process(
        self, element: tuple[int, Mapping[str, Iterable[Any]]]
    ) -> Iterator[Any]:
        shard, group = element
        [kept] = group["shards"]
        result = finish.finish_shard(shard, group.get("leaks", ()), self._config)
        for reject in result.rejects:
            if reject.stage == "split":
                count_reject(reject)
            yield beam.pvalue.TaggedOutput("rejects", reject)
        for clip in result.clips:
            yield beam.pvalue.TaggedOutput("clips", clip)
        yield beam.pvalue.TaggedOutput("moments", (shard, _pool(result)))
        yield report_shard(result, kept=kept)


def _pool(result: ShardResult) -> dict[str, PooledMoments]:
    pooled = {name: pool_clips(moments) for name, moments in result.moments.items()}
    return {name: moments for name, moments in pooled.items() if moments is not None}

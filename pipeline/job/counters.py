"""Counters and distributions that a runner shows while the job runs."""

from __future__ import annotations

from apache_beam.metrics import Metrics

from pipeline.common.rejects import Reject
from pipeline.shards.result import ShardResult, count_clips

#: Namespace of all of them.
METRICS = "fma"


def count_reject(reject: Reject) -> Reject:
    """Counts a reject by its reason, and returns it."""
    Metrics.counter(METRICS, f"rejected_{reject.reason}").inc()
    return reject


def count_files(kind: str, files: int) -> None:
    """Counts files that are `not_wanted` or `not_audio`."""
    Metrics.counter(METRICS, f"files_{kind}").inc(files)


def count_shard(result: ShardResult, *, kept: bool) -> None:
    """Counts what became of a shard's clips when it was made."""
    Metrics.counter(METRICS, "shards_kept").inc(int(kept))
    Metrics.counter(METRICS, "clips_read").inc(len(result.clips) + len(result.rejects))
    clips = count_clips(result.clips)
    for (split, genre), count in clips.items():
        Metrics.counter(METRICS, f"clips_{split}_{genre}").inc(count)
    for path, file in result.files.items():
        name, _, rest = path.partition("/")
        split = rest.partition("-")[0]
        Metrics.counter(METRICS, f"records_{name}_{split}").inc(file.records)
    for reject in result.rejects:
        count_reject(reject)
    times = {"decode_ms": result.decode_ms, "feature_ms": result.compute_ms}
    for name, values in times.items():
        distribution = Metrics.distribution(METRICS, name)
        for milliseconds in values:
            distribution.update(round(milliseconds))

"""What a job did, in numbers: `report.json`."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.common.clip_config import CLIP_SAMPLES, SAMPLE_RATE
from pipeline.common.rejects import Reject
from pipeline.decoding.waveform import MAX_PADDING
from pipeline.schema import SPLITS
from pipeline.shards.result import ShardReport
from pipeline.shards.writer import total_sizes

#: Seconds; a shorter file is repeated (see `pipeline.decoding.waveform.fit_length`).
SHORTEST_UNREPEATED = (CLIP_SAMPLES - MAX_PADDING) / SAMPLE_RATE


def make_report(
    reports: Sequence[ShardReport], rejects: Iterable[Reject]
) -> dict[str, Any]:
    """Adds up the shards: counters and distributions, JSON-serialisable.

    Times are wall milliseconds in the worker.
    """
    clips: dict[str, collections.Counter[str]] = {
        split: collections.Counter() for split in SPLITS
    }
    totals = dict.fromkeys(SPLITS, 0)
    records: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    record_bytes: collections.Counter[str] = collections.Counter()
    shards: collections.Counter[str] = collections.Counter()
    decoders: collections.Counter[str] = collections.Counter()
    for report in reports:
        for (split, genre), count in report.clips.items():
            clips[split][genre] += count
        for split, count in report.clip_totals.items():
            totals[split] += count
        for (representation, split), count in report.records.items():
            records[representation][split] += count
        record_bytes.update(total_sizes(report.files))
        shards["kept" if report.kept else "made"] += 1
        decoders.update(report.decoders)
    stages: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    for reject in rejects:
        stages[reject.stage] += 1
        reasons[reject.reason] += 1
    return {
        "clips": sum(totals.values()),
        "clips_by_split": totals,
        "clips_by_split_and_genre": {split: dict(clips[split]) for split in SPLITS},
        "records": {name: dict(counts) for name, counts in records.items()},
        "record_bytes": dict(record_bytes),
        "shards": {"kept": shards["kept"], "made": shards["made"]},
        "decoders": dict(decoders),
        "rejects": reasons.total(),
        "rejects_by_stage": dict(stages),
        "rejects_by_reason": dict(reasons),
        "seconds": _distribution(s for r in reports for s in r.seconds),
        "repeated": sum(s < SHORTEST_UNREPEATED for r in reports for s in r.seconds),
        "decode_ms": _distribution(ms for r in reports for ms in r.decode_ms),
        "feature_ms": _distribution(ms for r in reports for ms in r.compute_ms),
    }


def _distribution(values: Iterable[float]) -> dict[str, float]:
    array = np.fromiter(values, float)
    if not len(array):
        return {"count": 0}
    low, median, high = np.percentile(array, (5, 50, 95))
    numbers = {
        "mean": array.mean(),
        "min": array.min(),
        "p5": low,
        "median": median,
        "p95": high,
        "max": array.max(),
    }
    rounded = {name: round(float(value), 2) for name, value in numbers.items()}
    return {"count": len(array), **rounded}

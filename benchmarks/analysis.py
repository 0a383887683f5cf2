"""What TensorFlow Transform's analysis adds to each training clip."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping

import numpy as np

from benchmarks.ways import ARTICLE
from pipeline.common.clip_config import ClipConfig
from pipeline.representations import make_schemas
from pipeline.schema import RepresentationSchema
from pipeline.shards.moments import Moments, pool_clips

SHARDS = 16


def measure_analysis(small: int = 100, large: int = 3000) -> float:
    """CPU milliseconds a clip: the slope between two numbers of clips."""
    schemas = {
        name: schema
        for name, schema in make_schemas(ARTICLE, ClipConfig()).items()
        if schema.segments
    }
    _time_analysis(schemas, _make_moments(schemas, SHARDS))
    times = [_time_analysis(schemas, _make_moments(schemas, n)) for n in (small, large)]
    return (times[1] - times[0]) * 1000 / (large - small)


def _make_moments(
    schemas: Mapping[str, RepresentationSchema], count: int
) -> dict[str, Moments]:
    """Of `count` clips: arrays (count, segments)."""
    rng = np.random.default_rng(0)
    return {
        name: Moments(
            mean=rng.standard_normal((count, len(schema.segments)), np.float32),
            variance=rng.random((count, len(schema.segments)), np.float32),
        )
        for name, schema in schemas.items()
    }


def _time_analysis(
    schemas: Mapping[str, RepresentationSchema], moments: Mapping[str, Moments]
) -> float:
    # Imports TensorFlow, which a benchmark without jobs does not need.
    from pipeline.job.normalisation.analysis import analyse

    started = time.process_time()
    shards = []
    for shard in range(SHARDS):
        pooled = {
            name: pool_clips(
                Moments(
                    mean=all_.mean[shard::SHARDS], variance=all_.variance[shard::SHARDS]
                )
            )
            for name, all_ in moments.items()
        }
        shards.append((shard, {n: pool for n, pool in pooled.items() if pool}))
    with tempfile.TemporaryDirectory() as folder:
        analyse(shards, schemas, folder)
    return time.process_time() - started

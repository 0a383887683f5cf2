import numpy as np
from apache_beam.io.filesystems import FileSystems

from pipeline.job.normalisation.analysis import (
    ROWS,
    analyse,
    group_shards,
    tf,
    tft,
    to_record_batch,
)
from pipeline.schema import Field, RepresentationSchema, Segment
from pipeline.shards.moments import Moments, PooledMoments, compute_moments, pool_clips


def make_schema(name: str, lengths: list[int]) -> RepresentationSchema:
    return RepresentationSchema(
        name=name,
        value=Field(
            name=name, dtype="float32", shape=(sum(lengths),), encoding="float_list"
        ),
        records_per_clip=1,
        segments=tuple(
            Segment(name=f"s{i}", length=length) for i, length in enumerate(lengths)
        ),
    )


SCHEMAS = {
    "windows": make_schema("windows", [5]),
    "features": make_schema("features", [4, 4, 1, 1]),
}


def make_values(clips: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    features = generator.normal(3, 2, (clips, 1, 10)).astype(np.float32)
    features[:, :, 8] = 7.1  # A feature that never varies.
    windows = generator.normal(0, 0.1, (clips, 2, 5)).astype(np.float32)
    return {"features": features, "windows": windows}


def pool(values, start: int, stop: int) -> dict[str, PooledMoments]:
    """What a shard with these clips sends."""
    pooled = {}
    for name, schema in SCHEMAS.items():
        clips = [compute_moments(schema, values[name][i]) for i in range(start, stop)]
        if clips:
            pooled[name] = pool_clips(
                Moments(
                    mean=np.stack([clip.mean for clip in clips]),
                    variance=np.stack([clip.variance for clip in clips]),
                )
            )
    return pooled


def test_statistics_equal_those_of_all_training_values(tmp_path):
    values = make_values(70)
    # Shards of 0 to 11 clips, in no order.
    edges = [0, 11, 11, 15, 40, 69, 70]
    rows = [
        (shard, pool(values, edges[shard], edges[shard + 1]))
        for shard in (3, 0, 5, 1, 4, 2)
    ]
    output = str(tmp_path / "out")
    features = values["features"].reshape(70, 10).astype(np.float64)
    parts = [features[:, :4], features[:, 4:8], features[:, 8], features[:, 9]]

    kept = FileSystems._pipeline_options
    normalisation = analyse(rows, SCHEMAS, output)
    # What the caller's runner has set for its worker.
    assert FileSystems._pipeline_options is kept
    got = normalisation["features"]
    assert got.variance[2] == 0
    np.testing.assert_allclose(got.mean, [p.mean() for p in parts], rtol=1e-5)
    np.testing.assert_allclose(
        got.variance, [p.var() for p in parts], rtol=1e-4, atol=1e-8
    )
    windows = values["windows"].astype(np.float64)
    np.testing.assert_allclose(
        normalisation["windows"].mean, [windows.mean()], atol=1e-6
    )
    np.testing.assert_allclose(
        normalisation["windows"].variance, [windows.var()], rtol=1e-4
    )

    # The written function takes raw arrays alone and normalises them.
    function = tft.TFTransformOutput(output)
    raw = tf.constant(values["features"][:3, 0])
    transformed = function.transform_raw_features({"features": raw})
    means = np.repeat([p.mean() for p in parts], [4, 4, 1, 1])
    deviations = np.repeat([p.std() or 1.0 for p in parts], [4, 4, 1, 1])
    np.testing.assert_allclose(
        transformed["features"].numpy(),
        (features[:3] - means) / deviations,
        rtol=1e-3,
        atol=1e-4,
    )


def test_record_batches_hold_moments_and_null_arrays():
    moments = PooledMoments(
        clips=5, mean=np.array([1.0, 2.0]), variance=np.array([3.0, 4.0])
    )
    schemas = {"x": make_schema("x", [2, 3])}
    batch = to_record_batch([{"x": moments}, {"x": moments}], schemas)
    assert batch.schema.names == ["x", "x_clips", "x_mean", "x_variance"]
    assert batch.column(0).null_count == 2
    assert batch.column(1).to_pylist() == [[5.0], [5.0]]
    assert batch.column(3).to_pylist() == [[3.0, 4.0], [3.0, 4.0]]


def test_many_shards_make_few_rows_in_their_order():
    shards = [
        (
            shard,
            {"x": PooledMoments(clips=1 + shard, mean=np.ones(1), variance=np.zeros(1))}
            if shard % 7
            else {},
        )
        for shard in range(100)
    ]
    [rows] = group_shards(reversed(shards))
    counts = [row["x"].clips for row in rows]
    assert len(rows) <= ROWS
    kept = [1 + shard for shard in range(100) if shard % 7]
    assert counts == [sum(kept[start : start + 3]) for start in range(0, 85, 3)]
    assert group_shards([(0, {}), (1, {})]) == []

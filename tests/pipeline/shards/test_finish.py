import concurrent.futures
import dataclasses
import json

import numpy as np
import pytest

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import Reason, Reject
from pipeline.representations import make_schemas
from pipeline.schema import (
    CLIP_FIELDS,
    SINGLE_LABEL,
    Field,
    RepresentationSchema,
    Segment,
)
from pipeline.schema.example import decode_example, encode_example
from pipeline.shards import finish, resume, runs
from pipeline.shards.finish import finish_shard
from pipeline.shards.leaks import Leak
from pipeline.shards.moments import Moments, compute_moments, pool_clips, pool_shards
from pipeline.shards.result import DatasetConfig, ShardResult, WrittenClip, report_shard
from pipeline.shards.tfrecord import read_records
from pipeline.shards.writer import ShardWriter

CLIP = ClipConfig(windows_per_clip=2)
SPLITS = {"t1": "training", "t2": "training", "t3": "test", "t4": "training"}
REJECT = Reject(path="b", track_id="t0", stage="decode", reason="corrupt", message="m")


def make_written(track_id: str, split: str) -> WrittenClip:
    return WrittenClip(
        track_id=track_id,
        artist_id="é",
        genres=("Low",),
        split=split,
        path=f"{track_id}.wav",
        size=5,
        seconds=30.0,
        decoder="libsndfile",
        audio=track_id,
    )


@pytest.fixture
def config(tmp_path) -> DatasetConfig:
    """A folder with one shard of four clips that was made."""
    config = DatasetConfig(
        output=str(tmp_path),
        representations=("mel",),
        clip=CLIP,
        genres=("Low",),
        num_shards=1,
        run="mine",
    )
    for name in ("mel", "_temporary"):
        (tmp_path / name).mkdir()
    runs.begin_run(config)
    [schema] = make_schemas(("mel",), CLIP).values()
    with (
        concurrent.futures.ThreadPoolExecutor(2) as executor,
        ShardWriter(
            output=str(tmp_path),
            representations=("mel",),
            shard=0,
            num_shards=1,
            executor=executor,
        ) as writer,
    ):
        for number, (track_id, split) in enumerate(SPLITS.items()):
            content = {
                "track_id": track_id,
                "artist_id": "",
                "decoder": "x",
                "label": 0,
                "index": 0,
                "image": np.full(schema.value.shape, number, np.uint8),
            }
            writer.write("mel", split, [encode_example(schema.fields, content)])
        writer.commit()
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    result = ShardResult(
        shard=0,
        fingerprint="f",
        clips=tuple(make_written(*item) for item in SPLITS.items()),
        files=writer.files,
        rejects=(REJECT,),
        moments={"windows": Moments(mean=rows, variance=rows + 1)},
        decode_ms=(1.0,) * 4,
        compute_ms=(2.0,) * 4,
    )
    resume.write_result(result, config)
    return config


def read_ids(tmp_path) -> dict[str, list[str]]:
    found = {}
    for path in sorted((tmp_path / "mel").iterdir()):
        with path.open("rb") as file:
            [schema] = make_schemas(("mel",), CLIP).values()
            examples = [decode_example(schema.fields, r) for r in read_records(file)]
        found[path.name.partition("-")[0]] = [e["track_id"] for e in examples]
    return found


def make_leak(track_id: str, reason=Reason.ARTIST_LEAK) -> Leak:
    return Leak(track_id=track_id, reason=reason, message=f"leaks: {reason}")


def read_list(tmp_path) -> list[str]:
    lines = (tmp_path / "clips" / "00000-of-00001.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    written = [make_written(row["track_id"], row["split"]) for row in rows]
    assert rows == [clip.to_row(SINGLE_LABEL) for clip in written]
    return [row["track_id"] for row in rows]


def test_without_leaks_only_the_list_is_written(config, tmp_path):
    before = read_ids(tmp_path)
    result = finish_shard(0, [], config)
    assert [clip.track_id for clip in result.clips] == list(SPLITS)
    assert read_list(tmp_path) == list(SPLITS)
    assert read_ids(tmp_path) == before
    assert resume.read_result(0, config).fingerprint == "f"


def test_leaking_clips_become_rejects(config, tmp_path):
    leaks = [make_leak("t2"), make_leak("t2", Reason.DUPLICATE_AUDIO), make_leak("t4")]
    result = finish_shard(0, leaks, config)
    assert [clip.track_id for clip in result.clips] == ["t1", "t3"]
    assert result.rejects[0] == REJECT
    assert [(r.track_id, r.reason, r.path) for r in result.rejects[1:]] == [
        ("t2", Reason.ARTIST_LEAK, "t2.wav"),
        ("t4", Reason.ARTIST_LEAK, "t4.wav"),
    ]
    np.testing.assert_array_equal(result.moments["windows"].mean, [[0, 1]])
    assert read_ids(tmp_path) == {"training": ["t1"], "validation": [], "test": ["t3"]}
    assert read_list(tmp_path) == ["t1", "t3"]
    for path, file in result.files.items():
        assert (tmp_path / path).stat().st_size == file.size
    # A later run makes this shard anew.
    assert resume.find_finished(0, "f", config) is None
    assert resume.find_finished(0, "", config) is not None


def test_an_attempt_that_was_interrupted_is_repeated(config, tmp_path, monkeypatch):
    """Before and after the result is kept, and in the middle of renaming."""
    leaks = [make_leak("t2")]
    original = finish.storage.rename
    for failing in range(1, 6):
        calls = []

        def rename(source, target, failing=failing, calls=calls):
            calls.append(target)
            if len(calls) == failing:
                raise OSError(28, "full")
            original(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(finish.storage, "rename", rename)
            with pytest.raises(finish.storage.WriteError):
                finish_shard(0, leaks, config)
    result = finish_shard(0, leaks, config)
    assert [clip.track_id for clip in result.clips] == ["t1", "t3", "t4"]
    assert [r.track_id for r in result.rejects] == ["t0", "t2"]
    assert read_ids(tmp_path)["training"] == ["t1", "t4"]
    assert not list((tmp_path / "_temporary").iterdir())
    again = finish_shard(0, leaks, config)
    assert again.to_json() == result.to_json()


def test_a_job_that_was_taken_over_changes_nothing(config, tmp_path):
    before = read_ids(tmp_path)
    runs.begin_run(dataclasses.replace(config, run="the other"))
    with pytest.raises(runs.SupersededError):
        finish_shard(0, [make_leak("t2")], config)
    assert read_ids(tmp_path) == before
    assert resume.read_result(0, config).fingerprint == "f"


def test_a_damaged_file_is_no_shorter_file(config, tmp_path):
    path = tmp_path / "mel" / "training-00000-of-00001.tfrecord"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        finish_shard(0, [make_leak("t2")], config)


def test_the_report_counts(config):
    report = report_shard(finish_shard(0, [make_leak("t2")], config), kept=True)
    assert report.kept
    assert report.clips == {("training", "Low"): 2, ("test", "Low"): 1}
    assert report.records == {("mel", "training"): 2, ("mel", "test"): 1}
    assert report.decoders == {"libsndfile": 3}
    whole = report_shard(finish_shard(0, [], config), kept=True)
    assert whole.digest == report.digest  # t2 is gone for good.
    assert len(report.files) == 3


# Moments

VALUES = np.random.default_rng(0).normal(100, 3, (23, 1, 6)).astype(np.float32)
SCHEMA = RepresentationSchema(
    name="x",
    value=Field(name="x", dtype="float32", shape=(6,), encoding="float_list"),
    records_per_clip=1,
    segments=(Segment(name="a", length=4), Segment(name="b", length=2)),
)


def pool(values):
    clips = [compute_moments(SCHEMA, value) for value in values]
    return pool_clips(
        Moments(
            mean=np.stack([clip.mean for clip in clips]),
            variance=np.stack([clip.variance for clip in clips]),
        )
    )


def check_moments(pooled, values) -> None:
    values = values.astype(np.float64).reshape(len(values), 6)
    parts = [values[:, :4], values[:, 4:]]
    assert pooled.clips == len(values)
    np.testing.assert_allclose(pooled.mean, [part.mean() for part in parts], rtol=1e-6)
    np.testing.assert_allclose(
        pooled.variance, [part.var() for part in parts], rtol=1e-5
    )


def test_pooled_moments_are_those_of_all_values():
    check_moments(pool(VALUES), VALUES)
    parts = [pool(VALUES[:1]), pool(VALUES[1:9]), pool(VALUES[9:])]
    check_moments(pool_shards(parts), VALUES)
    empty = np.zeros((0, 2), np.float32)
    assert pool_clips(Moments(mean=empty, variance=empty)) is None
    assert len(SCHEMA.fields) == len(CLIP_FIELDS) + 2

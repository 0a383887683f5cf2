import json

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipeline.completion import (
    CompleteDataset,
    CompletionConfig,
    IncompleteDatasetError,
    complete,
    make_report,
)
from pipeline.config import ClipConfig
from pipeline.rejects import Reason, Reject
from pipeline.schema import Manifest, Normalisation
from pipeline.shards import DatasetConfig, ShardReport


def make_config(output, **changes) -> CompletionConfig:
    dataset = DatasetConfig(
        output=str(output),
        representations=("windows", "mel"),
        clip=ClipConfig(windows_per_clip=2),
        genres=("High", "Low"),
        num_shards=2,
    )
    values = {
        "dataset": dataset,
        "split_rule": "by hand",
        "max_reject_ratio": 0.5,
        "versions": {"numpy": "2"},
    }
    return CompletionConfig(**(values | changes))


def make_shard_report(shard: int, split: str = "training", digest="d") -> ShardReport:
    return ShardReport(
        shard=shard,
        clips={(split, "Low"): 2, ("test", "High"): 1},
        records={
            ("windows", split): 4,
            ("windows", "test"): 2,
            ("mel", split): 2,
            ("mel", "test"): 1,
        },
        record_bytes={"windows": 100, "mel": 50},
        decoders={"libsndfile": 3},
        decode_ms=[10.0, 20.0, 30.0],
        feature_ms=[1.0, 2.0, 3.0],
        artists=[("a", split)],
        digest=digest,
    )


def make_reject(name: str, stage: str = "decode", reason=Reason.CORRUPT) -> Reject:
    return Reject(path=name, track_id="t", stage=stage, reason=reason, message="m")


NORMALISATION = {"windows": Normalisation(mean=(0.0,), variance=(1.0,))}


def test_complete_writes_everything_and_the_marker(tmp_path):
    (tmp_path / "_temporary" / "tft").mkdir(parents=True)
    (tmp_path / "_temporary" / "tft" / "left-over").write_text("x")
    rejects = [make_reject("b"), make_reject("a", "join", Reason.MISSING)]
    with TestPipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline | "A" >> beam.Create([make_shard_report(1), make_shard_report(0)]),
            pipeline | "B" >> beam.Create(rejects),
            pipeline | "C" >> beam.Create(["zoe", "amy"]),
            pipeline | "D" >> beam.Create([NORMALISATION]),
            pipeline | "E" >> beam.Create([None]),
        ) | CompleteDataset(config=make_config(tmp_path))
    manifest = Manifest.from_json(
        (tmp_path / "manifest.json").read_text(), source="manifest.json"
    )
    assert manifest.clips["training"] == {"High": 0, "Low": 4}
    assert manifest.clips["test"] == {"High": 2, "Low": 0}
    assert manifest.records["windows"] == {"training": 8, "validation": 0, "test": 4}
    assert manifest.record_bytes == {"windows": 200, "mel": 100}
    assert manifest.artists_in_several_splits == ("amy", "zoe")
    assert manifest.inputs == {"clips": 6, "rejects": 2, "total": 8}
    assert manifest.rejects == {"corrupt": 1, "missing": 1}
    assert manifest.normalisation == NORMALISATION
    assert (tmp_path / "COMPLETED").read_text() == manifest.fingerprint + "\n"
    lines = (tmp_path / "rejects-00000-of-00001.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a", "b"]
    assert not (tmp_path / "_temporary").exists()


def test_report_has_counters_and_distributions():
    report = make_report([make_shard_report(0)], [make_reject("a")])
    assert report["clips"] == 3
    assert report["rejects_by_reason"] == {"corrupt": 1}
    assert report["decode_ms"]["count"] == 3
    assert report["decode_ms"]["median"] == 20
    assert report["decode_ms"]["max"] == 30
    json.dumps(report)


def test_fingerprint_follows_the_clips(tmp_path):
    prints = []
    for digest in ("d", "d", "e"):
        reports = [make_shard_report(0, digest=digest), make_shard_report(1)]
        complete(make_config(tmp_path), reports, [], [], [NORMALISATION], [])
        prints.append((tmp_path / "COMPLETED").read_text())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("reports", "rejects", "message"),
    [
        ([], [make_reject("a")], r"No clip could be used \(1 corrupt\)"),
        (
            [make_shard_report(0)],
            [make_reject(str(i)) for i in range(4)],
            "4 of 7 audio files could not be used.*--max_reject_ratio. Received: 0.5",
        ),
        ([make_shard_report(0, "validation")], [], "None of the 3 clips is in the tra"),
    ],
)
def test_refuses_what_must_not_be_trained_on(tmp_path, reports, rejects, message):
    with pytest.raises(IncompleteDatasetError, match=message):
        complete(make_config(tmp_path), reports, rejects, [], [], [])
    assert not (tmp_path / "COMPLETED").exists()
    assert not (tmp_path / "manifest.json").exists()
    assert (tmp_path / "rejects-00000-of-00001.jsonl").exists()


def test_missing_files_do_not_count_as_broken(tmp_path):
    rejects = [make_reject(str(i), "join", Reason.MISSING) for i in range(99)]
    complete(
        make_config(tmp_path), [make_shard_report(0)], rejects, [], [NORMALISATION], []
    )
    assert (tmp_path / "COMPLETED").exists()

import dataclasses
import hashlib
import json
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipeline.common import storage
from pipeline.common.rejects import Reason, Reject
from pipeline.job.audit import AuditResult
from pipeline.job.checks import IncompleteDatasetError
from pipeline.job.complete import CompleteDataset, complete
from pipeline.job.report import make_report
from pipeline.schema import (
    COMPLETED_FILE,
    Manifest,
    Normalisation,
)
from pipeline.shards import runs
from pipeline.shards.finish import clips_file
from pipeline.shards.moments import PooledMoments
from pipeline.shards.runs import SupersededError
from tests.support.shard_reports import make_config, make_shard_report


def make_audit(clips: int, **changes) -> AuditResult:
    counts = {
        "tracks": clips + 1,
        "files": clips,
        "files_not_wanted": 0,
        "clips": clips,
        "artists": 3,
        "artists_in_several_splits": 2,
        "audio": clips,
        "audio_in_several_splits": 0,
        "audio_with_several_ids": 0,
    }
    return AuditResult(counts=counts, **changes)


def write_files(output: Path, reports) -> None:
    """The files that the reports tell of."""
    for report in reports:
        for path, file in report.files.items():
            (output / path).parent.mkdir(exist_ok=True)
            (output / path).write_bytes(bytes(file.size))
        path = output / clips_file(report.shard, 2)
        path.parent.mkdir(exist_ok=True)
        path.write_text("")


def finish(output: Path, reports, rejects=(), config=None, **changes) -> None:
    clips = sum(sum(report.clips.values()) for report in reports)
    values = {"audits": [make_audit(clips)], "moments": []}
    complete(
        config or make_config(output),
        reports=reports,
        rejects=list(rejects),
        analyse=lambda *_: NORMALISATION,
        **(values | changes),
    )


def make_reject(name: str, stage: str = "decode", reason=Reason.CORRUPT) -> Reject:
    return Reject(path=name, track_id="t", stage=stage, reason=reason, message="m")


#: Two shards of two clips, with means 0 and 1, and one without training clips.
MOMENTS = [
    (0, {"windows": PooledMoments(clips=2, mean=np.zeros(1), variance=np.ones(1))}),
    (1, {"windows": PooledMoments(clips=2, mean=np.ones(1), variance=np.ones(1))}),
    (2, {}),
]
NORMALISATION = {"windows": Normalisation(mean=(0.0,), variance=(1.0,))}


def test_complete_writes_everything_and_the_marker(tmp_path):
    (tmp_path / "_temporary" / "tft").mkdir(parents=True)
    (tmp_path / "_temporary" / "tft" / "left-over").write_text("x")
    (tmp_path / "_progress").mkdir()
    (tmp_path / "_progress" / "shard-00000-of-00002.json").write_text("x")
    rejects = [make_reject("b"), make_reject("a", "join", Reason.MISSING)]
    reports = [make_shard_report(1), make_shard_report(0)]
    write_files(tmp_path, reports)
    audit = make_audit(6, artists=("amy", "zoe"), audio=("1 (test), 2 (training)",))
    with TestPipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline | "A" >> beam.Create(reports),
            pipeline | "B" >> beam.Create(rejects),
            pipeline | "C" >> beam.Create([audit]),
            pipeline | "D" >> beam.Create(MOMENTS),
        ) | CompleteDataset(config=make_config(tmp_path))
    manifest = Manifest.from_json(
        (tmp_path / "manifest.json").read_text(), source="manifest.json"
    )
    assert manifest.clips["training"] == {"High": 0, "Low": 4}
    assert manifest.clips["test"] == {"High": 2, "Low": 0}
    assert manifest.records["windows"] == {"training": 8, "validation": 0, "test": 4}
    assert manifest.record_bytes == {"windows": 120, "mel": 60}
    assert manifest.artists_in_several_splits == ("amy", "zoe")
    assert manifest.audio_in_several_splits == ("1 (test), 2 (training)",)
    assert manifest.integrity["artists_in_several_splits"] == 2
    assert manifest.inputs == {
        "clips": 6,
        "rejects": 2,
        "total": 8,
        "tracks": 7,
        "files": 6,
        "files_not_wanted": 0,
        "files_not_audio": 0,
    }
    assert manifest.files == reports[1].files | reports[0].files
    assert manifest.rejects == {"corrupt": 1, "missing": 1}
    assert manifest.normalisation["windows"] == Normalisation(
        mean=(0.5,), variance=(1.25,)
    )
    assert (tmp_path / "transform_fn" / "saved_model.pb").exists()
    text = (tmp_path / "manifest.json").read_bytes()
    assert (tmp_path / "COMPLETED").read_text() == (
        f"{manifest.fingerprint}\n"
        f"sha256 manifest.json {hashlib.sha256(text).hexdigest()}\n"
    )
    lines = (tmp_path / "rejects-00000-of-00001.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["a", "b"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        "COMPLETED",
        "clips",
        "manifest.json",
        "mel",
        "rejects-00000-of-00001.jsonl",
        "report.json",
        "transform_fn",
        "transformed_metadata",
        "windows",
    }


def test_report_has_counters_and_distributions():
    report = make_report([make_shard_report(0)], [make_reject("a")])
    assert report["clips"] == 3
    assert report["rejects_by_reason"] == {"corrupt": 1}
    assert report["shards"] == {"kept": 0, "made": 1}
    assert report["decode_ms"]["count"] == 3
    assert report["decode_ms"]["median"] == 20
    assert report["decode_ms"]["max"] == 30
    json.dumps(report)


def test_fingerprint_follows_the_clips(tmp_path):
    prints = []
    for digest in ("d", "d", "e"):
        reports = [make_shard_report(0, digest=digest), make_shard_report(1)]
        write_files(tmp_path, reports)
        finish(tmp_path, reports)
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
        (
            [make_shard_report(0, "validation")],
            [make_reject("a")],
            r"training split \(1 .*; see .*rejects.*\), so there is nothing",
        ),
    ],
)
def test_refuses_what_must_not_be_trained_on(tmp_path, reports, rejects, message):
    with pytest.raises(IncompleteDatasetError, match=message):
        finish(tmp_path, reports, rejects)
    assert not (tmp_path / "COMPLETED").exists()
    assert not (tmp_path / "manifest.json").exists()
    assert (tmp_path / "rejects-00000-of-00001.jsonl").exists()


def test_missing_files_do_not_count_as_broken(tmp_path):
    rejects = [make_reject(str(i), "join", Reason.MISSING) for i in range(99)]
    write_files(tmp_path, [make_shard_report(0)])
    finish(tmp_path, [make_shard_report(0)], rejects)
    assert (tmp_path / "COMPLETED").exists()


def refuse(tmp_path: Path, message: str, reports, **changes) -> None:
    with pytest.raises(IncompleteDatasetError, match=message):
        finish(tmp_path, reports, **changes)
    assert not (tmp_path / "COMPLETED").exists()
    assert not (tmp_path / "manifest.json").exists()


def test_refuses_inputs_that_are_not_in_one_place(tmp_path):
    reports = [make_shard_report(0), make_shard_report(1)]
    write_files(tmp_path, reports)
    problem = "track 7: 1 in the inputs, 0 in the records, 0 elsewhere"
    audit = make_audit(6, problems=(problem,))
    refuse(tmp_path, problem, reports, audits=[audit])
    message = "6 clips were written, 5 are known"
    refuse(tmp_path, message, reports, audits=[make_audit(5)])


def test_refuses_a_clip_without_its_records(tmp_path):
    report = make_shard_report(0)
    records = {**report.records, ("windows", "training"): 3}
    reports = [dataclasses.replace(report, records=records)]
    write_files(tmp_path, reports)
    refuse(tmp_path, "windows has 3 records in training in place of 4", reports)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mel/training-00000-of-00002.tfrecord", None),
        ("mel/training-00000-of-00002.tfrecord", 19),
        ("mel/training-00000-of-00004.tfrecord", 0),
        ("windows/notes.txt", 0),
        ("clips/00000-of-00004.jsonl", 0),
        ("clips/00000-of-00002.jsonl", None),
    ],
)
def test_refuses_files_that_are_not_as_they_were_written(tmp_path, name, size):
    reports = [make_shard_report(0), make_shard_report(1)]
    write_files(tmp_path, reports)
    if size is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(bytes(size))
    refuse(tmp_path, f"1 files in .*: {name}", reports)


def test_a_job_that_was_taken_over_completes_nothing(tmp_path):
    reports = [make_shard_report(0)]
    write_files(tmp_path, reports)
    (tmp_path / "_progress").mkdir()
    (tmp_path / "_progress" / "RUN").write_text("the other")
    config = make_config(tmp_path).with_dataset(run="mine")
    with pytest.raises(SupersededError, match="Another job has begun to write"):
        finish(tmp_path, reports, config=config)
    assert not (tmp_path / "COMPLETED").exists()
    # That nobody is named is no permission: the other has completed and is gone.
    (tmp_path / "_progress" / "RUN").unlink()
    with pytest.raises(SupersededError):
        finish(tmp_path, reports, config=config)
    assert not (tmp_path / "COMPLETED").exists()


def test_a_last_step_that_is_repeated_does_nothing(tmp_path):
    reports = [make_shard_report(0)]
    write_files(tmp_path, reports)
    config = make_config(tmp_path).with_dataset(run="mine")
    runs.begin_run(config.dataset)
    finish(tmp_path, reports, config=config)
    finish(tmp_path, reports, config=config)
    assert json.loads((tmp_path / "report.json").read_text())["run"] == "mine"


@pytest.mark.parametrize("failing", ["create", "rename"])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_no_marker_without_a_manifest(tmp_path, monkeypatch, failing, call):
    """Whichever write fails, what is there is no dataset, or a whole one."""
    reports = [make_shard_report(0)]
    write_files(tmp_path, reports)
    config = make_config(tmp_path).with_dataset(run="mine")
    runs.begin_run(config.dataset)
    original, calls = getattr(storage, failing), []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == call + 1:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(storage, failing, fail_once)
    with pytest.raises(storage.WriteError, match="cannot be written: No space left"):
        finish(tmp_path, reports, config=config)
    assert not (tmp_path / COMPLETED_FILE).exists()
    monkeypatch.undo()
    finish(tmp_path, reports, config=config)
    assert (tmp_path / COMPLETED_FILE).exists()

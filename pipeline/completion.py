"""The end of a job: checks what was written, then says so in the output.

Writes the rejects, the report, the manifest and, last, the completion marker.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from pipeline import progress, storage
from pipeline.audit import Findings
from pipeline.config import CLIP_SAMPLES, SAMPLE_RATE
from pipeline.decoding.audio import MAX_PADDING
from pipeline.finishing import CLIPS_FOLDER, ShardReport, clips_file
from pipeline.progress import DatasetConfig
from pipeline.rejects import Reject
from pipeline.representations import make_schemas
from pipeline.schema import (
    COMPLETED_FILE,
    MANIFEST_FILE,
    SPLITS,
    Manifest,
    Normalisation,
    fingerprint,
)
from pipeline.shard_writer import total_sizes

REJECTS_FILE = "rejects-00000-of-00001.jsonl"
#: Seconds; a shorter file is repeated (see `pipeline.decoding.audio.fit_length`).
SHORTEST_UNREPEATED = (CLIP_SAMPLES - MAX_PADDING) / SAMPLE_RATE
REPORT_FILE = "report.json"
#: The last two files, before they get their names.
UNFINISHED = "_unfinished-"
#: What of an audit's counts the manifest keeps, under `inputs` and `integrity`.
INPUTS = ("tracks", "files", "files_not_wanted")
INTEGRITY = (
    "artists",
    "artists_in_several_splits",
    "audio",
    "audio_in_several_splits",
    "audio_with_several_ids",
)


class IncompleteDatasetError(Exception):
    """The job ran, but what it made must not be trained on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """What the end of a job needs to know.

    Attributes:
      dataset: dataset parameters.
      split_rule: sentence for the manifest.
      max_reject_ratio: share of audio files that may fail to decode.
      versions: of libraries and decoders.
      description: of the corpus, for the manifest.
      command: what was asked for, for the report.
    """

    dataset: DatasetConfig
    split_rule: str
    max_reject_ratio: float
    versions: Mapping[str, str]
    description: str = ""
    command: str = ""


@dataclasses.dataclass(kw_only=True, eq=False)
class CompleteDataset(beam.PTransform):
    """Ends the job: (reports, rejects, findings, normalisation, written) to None.

    The inputs are PCollections; `written` only has to be done.
    """

    config: CompletionConfig

    def expand(self, inputs: tuple[Any, Any, Any, Any, Any]) -> Any:
        """Collects everything in one place; all of it is small."""
        reports, rejects, findings, normalisation, written = inputs
        return (
            reports.pipeline
            | "Once" >> beam.Create([self.config])
            | "Complete"
            >> beam.Map(
                complete,
                beam.pvalue.AsList(reports),
                beam.pvalue.AsList(rejects),
                beam.pvalue.AsList(findings),
                beam.pvalue.AsList(normalisation),
                beam.pvalue.AsList(written),
            )
        )


def complete(
    config: CompletionConfig,
    reports: Sequence[ShardReport],
    rejects: Sequence[Reject],
    findings: Sequence[Findings],
    normalisation: Sequence[Mapping[str, Normalisation]],
    written: Sequence[Any],
) -> None:
    """Checks a dataset and writes its last files, the marker after all others.

    Args:
      config: parameters.
      reports: of every shard.
      rejects: of every stage.
      findings: one, of the audit.
      normalisation: one mapping, or none where nothing is normalised.
      written: ignored; makes Beam wait for the transform function.

    Raises:
      IncompleteDatasetError: too many rejects, nothing to train on, or something
        that was written is not as it should be.
      SupersededError: a later run has taken over the folder.
      WriteError: the store does not take the files.
    """
    del written
    dataset = config.dataset
    output = dataset.output
    [found] = findings
    lines = "".join(reject.to_json() + "\n" for reject in sorted(rejects))
    _write(output, REJECTS_FILE, lines)
    report = make_report(reports, rejects) | {"command": config.command}
    _write(output, REPORT_FILE, json.dumps(report, indent=1, sort_keys=True) + "\n")
    check_complete(report, config)
    check_findings(report, found, config)
    check_files(reports, dataset)
    merged: dict[str, Normalisation] = {}
    for mapping in normalisation:
        merged |= mapping
    manifest = make_manifest(config, reports, report, found, merged)
    progress.check_run(dataset, completing=True)
    publish(output, manifest)


def publish(output: str, manifest: Manifest) -> None:
    """Turns a folder into a dataset: manifest, then marker, and nothing else left.

    Both exist under other names before the finished shards' results go, so that
    little can go wrong, and little time passes, between the last steps.
    """
    texts = {
        MANIFEST_FILE: manifest.to_json(),
        COMPLETED_FILE: f"{manifest.fingerprint}\n",
    }
    paths = {
        name: (storage.join(output, UNFINISHED + name), storage.join(output, name))
        for name in texts
    }
    for name, (unfinished, path) in paths.items():
        with storage.writing(path), storage.create(unfinished) as file:
            file.write(texts[name].encode())
    for folder in (storage.TEMPORARY_FOLDER, progress.PROGRESS_FOLDER):
        storage.delete_tree(storage.join(output, folder))
    for unfinished, path in paths.values():
        with storage.writing(path):
            storage.rename(unfinished, path)


def make_report(
    reports: Sequence[ShardReport], rejects: Iterable[Reject]
) -> dict[str, Any]:
    """Adds up the shards: counters and distributions, JSON-serialisable.

    Times are wall milliseconds in the worker.
    """
    clips: dict[str, collections.Counter[str]] = {
        split: collections.Counter() for split in SPLITS
    }
    records: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    record_bytes: collections.Counter[str] = collections.Counter()
    shards: collections.Counter[str] = collections.Counter()
    decoders: collections.Counter[str] = collections.Counter()
    for report in reports:
        for (split, genre), count in report.clips.items():
            clips[split][genre] += count
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
        "clips": sum(counter.total() for counter in clips.values()),
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
        "feature_ms": _distribution(ms for r in reports for ms in r.feature_ms),
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


def check_complete(report: Mapping[str, Any], config: CompletionConfig) -> None:
    """Refuses a dataset that is empty or lost too much.

    Raises:
      IncompleteDatasetError: says what and how to go on.
    """
    output = config.dataset.output
    clips = report["clips"]
    failed = report["rejects_by_stage"].get("decode", 0)
    reasons = ", ".join(
        f"{count} {reason}"
        for reason, count in sorted(report["rejects_by_reason"].items())
    )
    where = f"see {storage.join(output, REJECTS_FILE)}"
    if not clips:
        raise IncompleteDatasetError(
            f"No clip could be used ({reasons or 'no inputs'}); {where}."
        )
    ratio = failed / (clips + failed)
    if ratio > config.max_reject_ratio:
        raise IncompleteDatasetError(
            f"{failed} of {clips + failed} audio files could not be used "
            f"({reasons}), a share of {ratio:.2f}; {where}, or raise "
            f"--max_reject_ratio. Received: {config.max_reject_ratio:g}"
        )
    if not sum(report["clips_by_split_and_genre"]["training"].values()):
        raise IncompleteDatasetError(
            f"None of the {clips} clips is in the training split, so there is nothing "
            "to train on; add clips, or give training a larger share with --split hash "
            "--split_percent."
        )


def check_findings(
    report: Mapping[str, Any], found: Findings, config: CompletionConfig
) -> None:
    """Refuses a dataset that lost or doubled an input, or a record of a clip.

    Raises:
      IncompleteDatasetError: names what does not add up.
    """
    problems = list(found.problems)
    clips = found.counts.get("clips", 0)
    if clips != report["clips"]:
        problems.append(f"{report['clips']} clips were written, {clips} are known")
    schemas = make_schemas(config.dataset.representations, config.dataset.clip)
    for name, schema in schemas.items():
        for split, genres in report["clips_by_split_and_genre"].items():
            expected = sum(genres.values()) * schema.records_per_clip
            records = report["records"].get(name, {}).get(split, 0)
            if records != expected:
                problems.append(
                    f"{name} has {records} records in {split} in place of {expected}"
                )
    if problems:
        raise IncompleteDatasetError(
            "Not every input is in exactly one place, which is a fault of this "
            f"program: {'; '.join(problems)}. Nothing was completed in "
            f"{config.dataset.output}."
        )


def check_files(reports: Sequence[ShardReport], dataset: DatasetConfig) -> None:
    """Makes sure that all files are there as they were written, and no others.

    Raises:
      IncompleteDatasetError: names those that are not.
    """
    expected = {
        path: file.size for report in reports for path, file in report.files.items()
    }
    found = {
        f"{name}/{path}": size
        for name in dataset.representations
        for path, size in storage.list_sizes(storage.join(dataset.output, name)).items()
    }
    lists = {clips_file(report.shard, dataset.num_shards) for report in reports}
    folder = storage.join(dataset.output, CLIPS_FOLDER)
    listed = {f"{CLIPS_FOLDER}/{path}" for path in storage.list_sizes(folder)}
    wrong = sorted(
        {path for path in expected | found if expected.get(path) != found.get(path)}
        | (lists ^ listed)
    )
    if wrong:
        raise IncompleteDatasetError(
            f"{len(wrong)} files in {dataset.output} are missing, of another size, or "
            f"not of this job: {', '.join(wrong[:5])}. Did something else write there? "
            "Run the job again, in a folder of its own."
        )


def make_manifest(
    config: CompletionConfig,
    reports: Sequence[ShardReport],
    report: Mapping[str, Any],
    found: Findings,
    normalisation: Mapping[str, Normalisation],
) -> Manifest:
    """Describes a finished dataset."""
    dataset = config.dataset
    shaping = {
        "settings": dataset.clip.to_dict(),
        "genres": list(dataset.genres),
        "representations": list(dataset.representations),
        "num_shards": dataset.num_shards,
        "split_rule": config.split_rule,
        "versions": dict(config.versions),
        "clips": [shard.digest for shard in sorted(reports, key=lambda r: r.shard)],
    }
    return Manifest(
        genres=dataset.genres,
        representations=make_schemas(dataset.representations, dataset.clip),
        num_shards=dataset.num_shards,
        clips={
            split: {genre: counts.get(genre, 0) for genre in dataset.genres}
            for split, counts in report["clips_by_split_and_genre"].items()
        },
        records={
            name: {split: report["records"][name].get(split, 0) for split in SPLITS}
            for name in dataset.representations
        },
        record_bytes={
            name: report["record_bytes"].get(name, 0)
            for name in dataset.representations
        },
        normalisation=normalisation,
        settings=dataset.clip.to_dict(),
        split_rule=config.split_rule,
        artists_in_several_splits=found.artists,
        audio_in_several_splits=found.audio,
        inputs={
            "clips": report["clips"],
            "rejects": report["rejects"],
            "total": report["clips"] + report["rejects"],
            **{name: found.counts.get(name, 0) for name in INPUTS},
        },
        rejects=report["rejects_by_reason"],
        versions=config.versions,
        fingerprint=fingerprint(shaping),
        description=config.description,
        files={
            path: file
            for shard in sorted(reports, key=lambda r: r.shard)
            for path, file in shard.files.items()
        },
        integrity={name: found.counts.get(name, 0) for name in INTEGRITY},
    )


def _write(folder: str, name: str, text: str) -> None:
    storage.write_atomically(storage.join(folder, name), text.encode(), scratch=folder)

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

from pipeline import storage
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
from pipeline.shards import DatasetConfig, ShardReport

REJECTS_FILE = "rejects-00000-of-00001.jsonl"
REPORT_FILE = "report.json"
#: Leaking artists that the manifest names.
MAX_LEAKS_NAMED = 20


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
    """

    dataset: DatasetConfig
    split_rule: str
    max_reject_ratio: float
    versions: Mapping[str, str]


@dataclasses.dataclass(kw_only=True, eq=False)
class CompleteDataset(beam.PTransform):
    """Ends the job: (reports, rejects, leaks, normalisation, written) to None.

    The inputs are PCollections; `written` only has to be done.
    """

    config: CompletionConfig

    def expand(self, inputs: tuple[Any, Any, Any, Any, Any]) -> Any:
        """Collects everything in one place; all of it is small."""
        reports, rejects, leaks, normalisation, written = inputs
        return (
            reports.pipeline
            | "Once" >> beam.Create([self.config])
            | "Complete"
            >> beam.Map(
                complete,
                beam.pvalue.AsList(reports),
                beam.pvalue.AsList(rejects),
                beam.pvalue.AsList(leaks),
                beam.pvalue.AsList(normalisation),
                beam.pvalue.AsList(written),
            )
        )


def complete(
    config: CompletionConfig,
    reports: Sequence[ShardReport],
    rejects: Sequence[Reject],
    leaks: Sequence[str],
    normalisation: Sequence[Mapping[str, Normalisation]],
    written: Sequence[Any],
) -> None:
    """Checks a dataset and writes its last files, the marker after all others.

    Args:
      config: parameters.
      reports: of every shard.
      rejects: of every stage.
      leaks: artists in several splits.
      normalisation: one mapping, or none where nothing is normalised.
      written: ignored; makes Beam wait for the transform function.

    Raises:
      IncompleteDatasetError: too many rejects, or nothing to train on.
    """
    del written
    output = config.dataset.output
    lines = "".join(reject.to_json() + "\n" for reject in sorted(rejects))
    _write(output, REJECTS_FILE, lines)
    report = make_report(reports, rejects)
    _write(output, REPORT_FILE, json.dumps(report, indent=1, sort_keys=True) + "\n")
    check_complete(report, config)
    merged: dict[str, Normalisation] = {}
    for mapping in normalisation:
        merged |= mapping
    manifest = make_manifest(config, reports, report, leaks, merged)
    _write(output, MANIFEST_FILE, manifest.to_json())
    storage.delete_tree(storage.join(output, storage.TEMPORARY_FOLDER))
    with storage.create(storage.join(output, COMPLETED_FILE)) as file:
        file.write(f"{manifest.fingerprint}\n".encode())


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
    decoders: collections.Counter[str] = collections.Counter()
    for report in reports:
        for (split, genre), count in report.clips.items():
            clips[split][genre] += count
        for (representation, split), count in report.records.items():
            records[representation][split] += count
        record_bytes.update(report.record_bytes)
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
        "decoders": dict(decoders),
        "rejects": reasons.total(),
        "rejects_by_stage": dict(stages),
        "rejects_by_reason": dict(reasons),
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


def make_manifest(
    config: CompletionConfig,
    reports: Sequence[ShardReport],
    report: Mapping[str, Any],
    leaks: Sequence[str],
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
        artists_in_several_splits=tuple(sorted(leaks)[:MAX_LEAKS_NAMED]),
        inputs={
            "clips": report["clips"],
            "rejects": report["rejects"],
            "total": report["clips"] + report["rejects"],
        },
        rejects=report["rejects_by_reason"],
        versions=config.versions,
        fingerprint=fingerprint(shaping),
    )


def _write(folder: str, name: str, text: str) -> None:
    storage.write_atomically(storage.join(folder, name), text.encode(), scratch=folder)

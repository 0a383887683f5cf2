"""The end of a job: checks what was written, then says so in the output.

Writes the rejects, the report, the manifest and, last, the completion marker.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from pipeline.common import storage
from pipeline.common.rejects import Reject
from pipeline.job.audit import AuditResult
from pipeline.job.checks import check_audit, check_files, check_yield
from pipeline.job.config import JobConfig
from pipeline.job.report import make_report
from pipeline.representations import make_schemas
from pipeline.schema import (
    COMPLETED_FILE,
    JOB_REPORT_FILE,
    MANIFEST_FILE,
    REJECTS_FILE,
    SINGLE_LABEL,
    SPLITS,
    Manifest,
    Normalisation,
    Split,
    completion_marker,
    fingerprint,
)
from pipeline.shards import replace, runs
from pipeline.shards.result import ShardReport

#: Where the transform function is until the dataset is complete.
TRANSFORM_FOLDER = f"{storage.TEMPORARY_FOLDER}/transform"
TRANSFORM_PARTS = ("transform_fn", "transformed_metadata")
#: What of an audit's counts the manifest keeps, under `inputs` and `integrity`.
INPUTS = ("tracks", "files", "files_not_wanted", "files_not_audio")
INTEGRITY = (
    "artists",
    "artists_in_several_splits",
    "audio",
    "audio_in_several_splits",
    "audio_with_several_ids",
    "audio_with_several_genres",
)


@dataclasses.dataclass(kw_only=True, eq=False)
class CompleteDataset(beam.PTransform):
    """Ends the job.

    From the PCollections (reports, rejects, audit, normalisation, transform function),
    of which the last only has to be done, to None.
    """

    config: JobConfig

    def expand(self, inputs: tuple[Any, Any, Any, Any, Any]) -> Any:
        """Collects everything in one place; all of it is small."""
        reports, rejects, audit, normalisation, transform_function = inputs
        return (
            reports.pipeline
            | "Once" >> beam.Create([self.config])
            | "Complete"
            >> beam.Map(
                complete,
                beam.pvalue.AsList(reports),
                beam.pvalue.AsList(rejects),
                beam.pvalue.AsList(audit),
                beam.pvalue.AsList(normalisation),
                beam.pvalue.AsList(transform_function),
            )
        )


def complete(
    config: JobConfig,
    reports: Sequence[ShardReport],
    rejects: Sequence[Reject],
    audits: Sequence[AuditResult],
    normalisation: Sequence[Mapping[str, Normalisation]],
    transform_function: Sequence[Any],
) -> None:
    """Checks a dataset and writes its last files, the marker after all others.

    Args:
      config: the job.
      reports: of every shard.
      rejects: of every stage.
      audits: one.
      normalisation: one mapping, or none where nothing is normalised.
      transform_function: ignored; makes Beam wait for the transform function.

    Raises:
      IncompleteDatasetError: too many rejects, nothing to train on, or something
        that was written is not as it should be.
      SupersededError: a later run has taken over the folder.
      WriteError: the store does not take the files.
    """
    del transform_function
    dataset = config.dataset
    output = dataset.output
    [audit] = audits
    lines = "".join(reject.to_json() + "\n" for reject in sorted(rejects))
    report = make_report(reports, rejects) | {
        "command": config.command,
        "audio_with_several_genres": list(audit.labels),
        "run": dataset.run,
    }
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    with runs.completing(dataset) as done:
        if done:
            return
        _write(output, REJECTS_FILE, lines)
        _write(output, JOB_REPORT_FILE, text)
        rejected = storage.join(output, REJECTS_FILE)
        check_yield(report, config.max_reject_ratio, rejected)
        check_audit(report, audit, dataset)
        check_files(reports, dataset)
        merged: dict[str, Normalisation] = {}
        for mapping in normalisation:
            merged |= mapping
        manifest = make_manifest(config, reports, report, audit, merged)
        publish(output, manifest)
        if dataset.replaces:
            replace.replace_dataset(dataset.replaces)


def publish(output: str, manifest: Manifest) -> None:
    """Turns a folder into a dataset: manifest, then marker, and nothing else left.

    Both exist under other names before the finished shards' results go, so that
    little can go wrong, and little time passes, between the last steps.
    """
    texts = {MANIFEST_FILE: manifest.to_json()}
    texts[COMPLETED_FILE] = completion_marker(manifest, texts[MANIFEST_FILE])
    paths = {
        name: (storage.join(output, runs.UNFINISHED + name), storage.join(output, name))
        for name in texts
    }
    for name, (unfinished, path) in paths.items():
        with storage.writing(path), storage.create(unfinished) as file:
            file.write(texts[name].encode())
    transform = storage.join(output, TRANSFORM_FOLDER)
    for name in storage.list_sizes(transform):
        if name.partition("/")[0] not in TRANSFORM_PARTS:
            continue
        path = storage.join(output, *name.split("/"))
        with storage.writing(path):
            storage.make_folder(posixpath.dirname(path))
            storage.rename(storage.join(transform, *name.split("/")), path)
    # On stores without locks the file that names the run goes last.
    for folder in (storage.TEMPORARY_FOLDER, runs.PROGRESS_FOLDER):
        storage.delete_tree(storage.join(output, folder))
    for unfinished, path in paths.values():
        with storage.writing(path):
            storage.rename(unfinished, path)


def make_manifest(
    config: JobConfig,
    reports: Sequence[ShardReport],
    report: Mapping[str, Any],
    audit: AuditResult,
    normalisation: Mapping[str, Normalisation],
) -> Manifest:
    """Describes a finished dataset."""
    dataset = config.dataset
    shaping = {
        "settings": dataset.clip.to_dict(),
        "genres": list(dataset.genres),
        **({"task": dataset.task} if dataset.task != SINGLE_LABEL else {}),
        "representations": list(dataset.representations),
        "num_shards": dataset.num_shards,
        "split_rule": config.split.describe(),
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
        clip_totals=report["clips_by_split"],
        task=dataset.task,
        genre_paths=_find_paths(config),
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
        split_rule=config.split.describe(),
        split=Split(
            rule=config.split.rule,
            percent=config.split.percent if config.split.rule == "hash" else (),
        ),
        artists_in_several_splits=audit.artists,
        audio_in_several_splits=audit.audio,
        inputs={
            "clips": report["clips"],
            "rejects": report["rejects"],
            "total": report["clips"] + report["rejects"],
            **{name: audit.counts.get(name, 0) for name in INPUTS},
        },
        rejects=report["rejects_by_reason"],
        versions=config.versions,
        fingerprint=fingerprint(shaping),
        description=config.description,
        synthetic=config.synthetic,
        files={
            path: file
            for shard in sorted(reports, key=lambda r: r.shard)
            for path, file in shard.files.items()
        },
        integrity={name: audit.counts.get(name, 0) for name in INTEGRITY},
    )


def _find_paths(config: JobConfig) -> dict[str, tuple[str, ...]]:
    """Paths of the genres that are kinds of others."""
    tree = config.metadata.labels.tree
    paths = {genre: tree.find_path(genre) for genre in config.dataset.genres}
    return {genre: path for genre, path in paths.items() if len(path) > 1}


def _write(folder: str, name: str, text: str) -> None:
    storage.write_atomically(storage.join(folder, name), text.encode(), scratch=folder)

"""The end of a job: checks what was written, then says so in the output.

Writes the rejects, the report, the manifest and, last, the completion marker.
"""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.owned_kinds import DATASET
from pipeline.common.rejects import Reject
from pipeline.job.audit import AuditResult, merge
from pipeline.job.checks import check_audit, check_files, check_yield
from pipeline.job.config import JobConfig
from pipeline.job.normalisation.process import (
    ShardMoments,
    ask_analyst,
    select_schemas,
)
from pipeline.job.report import make_report
from pipeline.representations import embeddings, make_schemas
from pipeline.representations.music_model import MODELS
from pipeline.schema import (
    COMPLETED_FILE,
    JOB_REPORT_FILE,
    MANIFEST_FILE,
    MUSIC_MODEL_FILE,
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
from pipeline.shards.result import DatasetConfig, ShardReport

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
    """Ends the job: PCollections (reports, rejects, audit results, moments) to None."""

    config: JobConfig

    def expand(self, inputs: tuple[Any, Any, Any, Any]) -> Any:
        """Collects everything in one place; all of it is small."""
        return (
            tuple(
                collection | f"Part{part}" >> beam.Map(_with_part, part)
                for part, collection in enumerate(inputs)
            )
            | "Flatten" >> beam.Flatten()
            | "InOnePlace" >> beam.GroupByKey()
            | "Complete" >> beam.Map(_complete_parts, config=self.config)
        )


def _with_part(element: Any, part: int) -> tuple[int, tuple[int, Any]]:
    return 0, (part, element)


def _complete_parts(
    group: tuple[int, Iterable[tuple[int, Any]]], config: JobConfig
) -> None:
    parts: tuple[list[Any], ...] = ([], [], [], [])
    for part, element in group[1]:
        parts[part].append(element)
    reports, rejects, audits, moments = parts
    complete(config, reports, rejects, audits, moments)


def analyse_training(
    dataset: DatasetConfig, moments: ShardMoments
) -> dict[str, Normalisation]:
    """Has tft analyse what is normalised, and writes its function into the dataset."""
    names, config = dataset.representations, dataset.clip
    schemas = select_schemas(names, config)
    if not schemas:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "analyst")
        constants = ask_analyst(dataset.analyst, names, config, moments, folder)
        if constants is None:
            # Imports TensorFlow; a job without normalised arrays does without.
            from pipeline.job.normalisation.analysis import analyse

            folder = os.path.join(scratch, "here")
            constants = analyse(moments, schemas, folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                target = join(dataset.output, name)
                storage.make_folder(posixpath.dirname(target))
                storage.write_atomically(
                    target, path.read_bytes(), scratch=dataset.output
                )
    return constants


def complete(
    config: JobConfig,
    reports: Sequence[ShardReport],
    rejects: Sequence[Reject],
    audits: Sequence[AuditResult],
    moments: ShardMoments,
    *,
    analyse: Callable[
        [DatasetConfig, ShardMoments], Mapping[str, Normalisation]
    ] = analyse_training,
) -> None:
    """Checks a dataset and writes its last files, the marker after all others.

    Args:
      config: the job.
      reports: of every shard.
      rejects: of every stage.
      audits: of parts of the inputs.
      moments: of every shard.
      analyse: makes normalisation of moments, and writes the transform function.

    Raises:
      IncompleteDatasetError: too many rejects, nothing to train on, or something
        that was written is not as it should be.
      SupersededError: a later run has taken over the folder.
      WriteError: the store does not take the files.
    """
    dataset = config.dataset
    output = dataset.output
    audit = merge(audits)
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
        rejected = join(output, REJECTS_FILE)
        check_yield(report, config.max_reject_ratio, rejected)
        check_audit(report, audit, dataset)
        check_files(reports, dataset)
        normalisation = analyse(dataset, moments)
        manifest = make_manifest(config, reports, report, audit, normalisation)
        if dataset.music_weights:
            # So that what is trained on the dataset needs nothing else.
            weights = storage.read_bytes(dataset.music_weights)
            _write_bytes(output, MUSIC_MODEL_FILE, weights)
        for name, text in manifest.reader_files().items():
            _write(output, name, text)
        publish(dataset, manifest)


def publish(dataset: DatasetConfig, manifest: Manifest) -> None:
    """Turns a folder into a dataset: manifest, then marker, and nothing else left."""
    texts = {MANIFEST_FILE: manifest.to_json()}
    texts[COMPLETED_FILE] = completion_marker(manifest, texts[MANIFEST_FILE])
    replace.publish(dataset, texts, DATASET)


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
        music_model=MODELS[dataset.clip.music_model].to_dict()
        if embeddings.NAME in dataset.representations
        else {},
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
    _write_bytes(folder, name, text.encode())


def _write_bytes(folder: str, name: str, content: bytes) -> None:
    storage.write_atomically(join(folder, name), content, scratch=folder)

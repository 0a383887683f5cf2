"""The whole job as a graph: wiring only."""

from __future__ import annotations

import apache_beam as beam

from pipeline.job.audit import Audit, AuditInputs
from pipeline.job.complete import CompleteDataset
from pipeline.job.config import JobConfig
from pipeline.job.inputs import JoinTracks, MatchAudio, ReadTracks
from pipeline.job.make_shards import MakeShards


def build(
    pipeline: beam.Pipeline,
    config: JobConfig,
    gate: beam.PTransform | None = None,
) -> None:
    """Adds all steps to a pipeline; `launch.output.prepare_output` made the folder.

    All that comes from nothing comes from one element, so that runners fuse it: on a
    cluster each stage costs the start of workers, whatever little it does.

    Args:
      pipeline: gets the steps.
      config: of the job.
      gate: passes the one element on when the job may begin.
    """
    dataset = config.dataset
    start = pipeline | "Start" >> beam.Impulse()
    if gate is not None:
        start = start | gate
    tracks = start | "ReadTracks" >> ReadTracks(config=config.metadata)
    files = start | "MatchAudio" >> MatchAudio(patterns=config.audio)
    joined = (tracks, files) | "JoinTracks" >> JoinTracks(
        genres=dataset.genres,
        kind=config.metadata_kind,
        folder=config.metadata.folder,
        nearest=config.nearest,
    )
    shards = (start, joined.clips) | "MakeShards" >> MakeShards(
        config=dataset, leaks=config.leaks
    )
    rejects = (joined.rejects, shards.rejects) | "AllRejects" >> beam.Flatten()
    audit = (
        AuditInputs(
            tracks=tracks,
            files=files | "Paths" >> beam.Map(lambda file: file.path),
            not_wanted=joined.not_wanted,
            not_audio=joined.not_audio,
            labels=shards.labels,
            clips=shards.clips,
            rejects=rejects,
        )
        | "Audit" >> Audit()
    )
    _ = (
        shards.reports,
        rejects,
        audit,
        shards.moments,
    ) | "CompleteDataset" >> CompleteDataset(config=config)

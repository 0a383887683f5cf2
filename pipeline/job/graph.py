"""The whole job as a graph: wiring only."""

from __future__ import annotations

import apache_beam as beam

from pipeline.common import storage
from pipeline.job.audit import Audit, AuditInputs
from pipeline.job.complete import TRANSFORM_FOLDER, CompleteDataset
from pipeline.job.config import JobConfig
from pipeline.job.inputs import JoinTracks, MatchAudio, ReadTracks
from pipeline.job.make_shards import MakeShards
from pipeline.representations import make_schemas


def build(pipeline: beam.Pipeline, config: JobConfig, *, temporary: str = "") -> None:
    """Adds all steps to a pipeline; `launch.output.prepare_output` made the folder.

    Args:
      pipeline: gets the steps.
      config: of the job.
      temporary: folder that TensorFlow Transform makes at once; empty: in the output.
    """
    dataset = config.dataset
    tracks = pipeline | "ReadTracks" >> ReadTracks(config=config.metadata)
    files = pipeline | "MatchAudio" >> MatchAudio(pattern=config.audio)
    joined = (tracks, files) | "JoinTracks" >> JoinTracks(
        genres=dataset.genres,
        kind=config.metadata_kind,
        audio_base=dataset.audio_base,
        audio_aliases=config.metadata.audio_aliases,
        nearest=config.nearest,
    )
    shards = joined.clips | "MakeShards" >> MakeShards(
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
    schemas = make_schemas(dataset.representations, dataset.clip)
    normalised = {name: schema for name, schema in schemas.items() if schema.segments}
    if normalised:
        # Imports TensorFlow; a job without normalised arrays does without.
        from pipeline.job.normalise import AnalyzeTraining

        normalisation, transform_function = (
            shards.moments
            | "AnalyzeTraining"
            >> AnalyzeTraining(
                schemas=normalised,
                output=storage.join(dataset.output, *TRANSFORM_FOLDER.split("/")),
                temporary=temporary
                or storage.join(dataset.output, storage.TEMPORARY_FOLDER, "tft"),
            )
        )
    else:
        normalisation = pipeline | "NotNormalised" >> beam.Create([{}])
        transform_function = pipeline | "NothingToWait" >> beam.Create([None])
    _ = (
        shards.reports,
        rejects,
        audit,
        normalisation,
        transform_function,
    ) | "CompleteDataset" >> CompleteDataset(config=config)

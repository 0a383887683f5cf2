"""The labelling job as a graph: wiring, and whether every file is in one place."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference

from pipeline.inputs.join import AudioFile
from pipeline.inputs.splits import stable_hash
from pipeline.job.inputs import MatchAudio
from trainer.predict.label.complete import complete
from trainer.predict.label.config import LabelConfig
from trainer.predict.label.handler import ShardLabelHandler, SharedPredictor
from trainer.predict.label.shards import LabelledShard

_LISTED, _DONE = "listed", "done"


def build(
    pipeline: beam.Pipeline, config: LabelConfig, models: SharedPredictor
) -> None:
    """Adds all steps to a pipeline; `launch.prepare_output` made the folder.

    Args:
      pipeline: gets the steps.
      config: of the job.
      models: its models.
    """
    start = pipeline | "Start" >> beam.Impulse()
    files = start | "MatchAudio" >> MatchAudio(patterns=config.audio)
    shards = files | "LabelFiles" >> LabelFiles(config=config, models=models)
    problems = (files, shards) | "Account" >> Account()
    _ = (
        start
        | "Once" >> beam.Map(lambda _: config)
        | "Complete"
        >> beam.Map(complete, beam.pvalue.AsList(shards), beam.pvalue.AsList(problems))
    )


@dataclasses.dataclass(kw_only=True, eq=False)
class LabelFiles(beam.PTransform):
    """Names the genres of files: PCollection[AudioFile] to PCollection[LabelledShard].

    What crosses the shuffle are paths. A worker decodes, predicts and writes whole
    shards.
    """

    config: LabelConfig
    models: SharedPredictor

    def expand(self, files: Any) -> Any:
        """Groups the paths by shard and hands them to the models."""
        count = self.config.num_shards
        return (
            files
            | "KeyByShard" >> beam.Map(_key_by_shard, count)
            | "GroupByShard" >> beam.GroupByKey()
            | "ListFiles" >> beam.MapTuple(_list_files)
            | "RunInference"
            >> RunInference(
                ShardLabelHandler(self.config, self.models),
                model_identifier="genre-models",
            )
        )


def _key_by_shard(file: AudioFile, count: int) -> tuple[int, AudioFile]:
    return stable_hash(file.path) % count, file


def _list_files(shard: int, files: Iterable[AudioFile]) -> tuple[int, list[AudioFile]]:
    return shard, list(files)


class Account(beam.PTransform):
    """Files that are not in exactly one place: (files, shards) to PCollection[str]."""

    def expand(self, inputs: tuple[Any, Any]) -> Any:
        """Counts by path."""
        files, shards = inputs
        return (
            {
                _LISTED: files | "Listed" >> beam.Map(lambda file: (file.path, 1)),
                _DONE: shards | "Done" >> beam.FlatMap(_list_ends),
            }
            | "GroupByPath" >> beam.CoGroupByKey()
            | "Compare" >> beam.FlatMapTuple(_compare)
        )


def _list_ends(shard: LabelledShard) -> Iterator[tuple[str, int]]:
    paths = collections.Counter(path for path, _ in shard.songs)
    paths.update(reject.path for reject in shard.rejects)
    paths.update(shard.not_audio)
    yield from paths.items()


def _compare(path: str, counts: Mapping[str, Iterable[int]]) -> Iterator[str]:
    listed, done = sum(counts[_LISTED]), sum(counts[_DONE])
    if (listed, done) != (1, 1):
        yield f"{path}: {listed} in the inputs, {done} in the results"

"""What a job is to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.inputs.metadata import MetadataConfig
from pipeline.inputs.splits import SplitConfig
from pipeline.shards.result import DatasetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobConfig:
    """A preprocessing job.

    Attributes:
      audio: globs of audio files.
      metadata: the tracks.
      metadata_kind: `fma` or `plain`.
      split: how a track's split is found.
      dataset: what to make of the clips, and where.
      max_reject_ratio: share of audio files that may fail to decode.
      versions: of libraries and decoders.
      leaks: what to do with clips that leak from one split to another; one of
        `leaks.POLICIES`.
      description: of the corpus, for the manifest.
      synthetic: likewise.
      command: what was asked for, for the report.
      nearest: files for the messages on rows that find none, by the rows' paths.
    """

    audio: tuple[str, ...]
    metadata: MetadataConfig
    metadata_kind: str
    split: SplitConfig
    dataset: DatasetConfig
    max_reject_ratio: float
    versions: Mapping[str, str]
    leaks: str = "drop"
    description: str = ""
    synthetic: bool = False
    command: str = ""
    nearest: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def with_dataset(self, **changes: Any) -> JobConfig:
        """The same job with other values of `dataset`."""
        return dataclasses.replace(
            self, dataset=dataclasses.replace(self.dataset, **changes)
        )

"""What a labelling job is to do."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.inputs.join import AudioFile
from pipeline.launch.versions import find_versions, fingerprint_tools
from pipeline.schema import UserError, fingerprint

LABELS_VERSION = 1
LABELS_FILE = "labels.json"
LABELS_FOLDER = "labels"
#: The unit of work and of resumption: so many files a shard, up to so many shards.
FILES_A_SHARD, MOST_SHARDS = 32, 1024
#: Of few files, so many shards for the cores to share, with this many files or more.
FEW_SHARDS, LEAST_FILES = 8, 8
#: Packages that compute a model's answers.
_PREDICTING = ("keras", "scikit-learn", "tensorflow")
_TRAINER = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A labelling job.

    Attributes:
      audio: globs of audio files.
      output: folder to write to.
      replaces: folder of the completed labels whose place it takes in the end; empty
        where `output` is their own.
      models: folders of one or more models, which are averaged.
      fingerprint: of all models together.
      genres: of the models, in their order.
      thresholds: of several genres a clip, from which each is given; else nothing.
      paths: the genres with their ancestors, likewise.
      excerpts: take no more than this many of a long file.
      top: number of genres that a row names beside the first.
      by_excerpt: a row for each excerpt in place of one a file.
      embeddings: whether rows have the network's penultimate layer.
      num_shards: files of each kind, and units of work.
      tools: fingerprint of library versions and of the code.
      run: name of the run; only the last one to begin may write.
      progress_file: local file that grows by a byte a song; empty for none.
      launcher: process that workers on this machine end with; 0 for none.
      spare_cores: whether there are more cores than workers.
    """

    audio: tuple[str, ...]
    output: str
    models: tuple[str, ...]
    fingerprint: str
    genres: tuple[str, ...]
    excerpts: int
    top: int
    by_excerpt: bool = False
    embeddings: bool = False
    thresholds: tuple[float, ...] = ()
    paths: tuple[str, ...] = ()
    num_shards: int = 1
    tools: str = ""
    run: str = ""
    progress_file: str = ""
    launcher: int = 0
    spare_cores: bool = False
    replaces: str = ""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        for name in ("excerpts", "top", "num_shards"):
            value = getattr(self, name)
            if value < 1:
                raise UserError(f"--{name} must be 1 or more. Received: {value}")

    def describe(self) -> Mapping[str, Any]:
        """What shapes the rows, apart from the files."""
        return {
            "model": self.fingerprint,
            "genres": list(self.genres),
            "excerpts": self.excerpts,
            "top": self.top,
            "by_excerpt": self.by_excerpt,
            "embeddings": self.embeddings,
            "thresholds": list(self.thresholds),
            "paths": list(self.paths),
            "num_shards": self.num_shards,
            "tools": self.tools,
        }


def suggest_shards(files: int) -> int:
    """Number of shards for a number of files."""
    few = min(FEW_SHARDS, files // LEAST_FILES)
    return max(1, few, min(MOST_SHARDS, -(-files // FILES_A_SHARD)))


def fingerprint_shard(
    shard: int, files: Iterable[AudioFile], config: LabelConfig
) -> str:
    """Digest of all that shapes a shard's rows: files, options, models and versions.

    A file counts as the same while its path, size and time of modification are.
    """
    listed = [[file.path, file.size, file.modified] for file in sorted(files)]
    return fingerprint({"shard": shard, "files": listed, **config.describe()})


def fingerprint_code() -> str:
    """Digest of the code and of the libraries that decode, compute and predict."""
    versions = find_versions() | {
        name: importlib.metadata.version(name) for name in _PREDICTING
    }
    return fingerprint(
        [fingerprint_tools(versions), fingerprint_tools(versions, package=_TRAINER)]
    )

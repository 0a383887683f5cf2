"""Beam transforms: what crosses a shuffle here are paths and small rows.

Each public transform is a named composite; its DoFns are private and thin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from pipeline.inputs.archives import reading
from pipeline.inputs.audio_files import make_audio_check
from pipeline.inputs.checksums import list_audio
from pipeline.inputs.join import Join
from pipeline.inputs.metadata import MetadataConfig, Track, read_tracks
from pipeline.inputs.names import AudioFolder, audio_key
from pipeline.job.counters import count_files, count_reject


class JoinedTracks(NamedTuple):
    """Output of `JoinTracks`."""

    clips: Any  # PCollection[Clip]
    rejects: Any  # PCollection[Reject]
    not_wanted: Any  # PCollection[str], paths of files
    not_audio: Any  # PCollection[str], paths of files


@dataclasses.dataclass(kw_only=True, eq=False)
class ReadTracks(beam.PTransform):
    """Reads the metadata file: PCollection with one element to PCollection[Track]."""

    config: MetadataConfig

    def expand(self, start: Any) -> Any:
        """Streams the file in one worker."""
        return start | "Parse" >> beam.FlatMap(_read_metadata, config=self.config)


def _read_metadata(_: object, config: MetadataConfig) -> Iterator[Track]:
    with reading.read_text(config.path) as text:
        yield from read_tracks(text, config)


@dataclasses.dataclass(kw_only=True, eq=False)
class MatchAudio(beam.PTransform):
    """Lists audio files: PCollection with one element to PCollection[AudioFile]."""

    patterns: tuple[str, ...]

    def expand(self, start: Any) -> Any:
        """Matches the globs; directories are not files."""
        return start | "Match" >> beam.FlatMap(
            lambda _, patterns: list_audio(*patterns), self.patterns
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class JoinTracks(beam.PTransform):
    """Finds each track's audio: (tracks, files) to `JoinedTracks`.

    Each wanted track and each file ends as part of a clip or as a reject, except
    files of tracks that are known but not wanted, and files that no row names and
    that are no audio.

    Attributes:
      genres: ordered genre names, for the labels.
      kind: of the metadata, `fma` or `plain`.
      folder: of the audio glob.
      nearest: files for the messages on rows that find none, by the rows' paths.
    """

    genres: Sequence[str]
    kind: str
    folder: AudioFolder
    nearest: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def expand(self, inputs: tuple[Any, Any]) -> JoinedTracks:
        """Joins by key."""
        tracks, files = inputs
        kind, folder = self.kind, self.folder
        joined = (
            {
                "tracks": tracks | "KeyTracks" >> beam.Map(lambda t: (t.key, t)),
                "files": files
                | "KeyFiles"
                >> beam.Map(lambda f: (audio_key(f.path, kind, folder), f)),
            }
            | "Join" >> beam.CoGroupByKey()
            | "Pair"
            >> beam.ParDo(_PairFn(self)).with_outputs(
                "rejects", "not_wanted", "not_audio", main="clips"
            )
        )
        return JoinedTracks(
            joined.clips, joined.rejects, joined.not_wanted, joined.not_audio
        )


class _PairFn(beam.DoFn):
    def __init__(self, config: JoinTracks) -> None:
        self._labels = {genre: label for label, genre in enumerate(config.genres)}
        self._folder = config.folder
        self._kind = config.kind
        self._nearest = dict(config.nearest)

    def setup(self) -> None:
        self._join = Join(
            labels=self._labels,
            folder=self._folder,
            kind=self._kind,
            is_audio=make_audio_check(),
            nearest=self._nearest,
        )

    def process(
        self, element: tuple[str, Mapping[str, Iterable[Any]]]
    ) -> Iterator[Any]:
        _, group = element
        result = self._join.pair(list(group["tracks"]), list(group["files"]))
        yield from result.clips
        for reject in result.rejects:
            yield beam.pvalue.TaggedOutput("rejects", count_reject(reject))
        for name, paths in (
            ("not_wanted", result.not_wanted),
            ("not_audio", result.not_audio),
        ):
            count_files(name, len(paths))
            for path in paths:
                yield beam.pvalue.TaggedOutput(name, path)

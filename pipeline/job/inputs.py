"""Beam transforms: what crosses a shuffle here are paths and small rows.

Each public transform is a named composite; its DoFns are private and thin.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from pipeline.common import storage
from pipeline.inputs.join import audio_file, pair
from pipeline.inputs.metadata import MetadataConfig, Track, audio_key, read_tracks
from pipeline.job.counters import count_files_not_wanted, count_reject


class JoinedTracks(NamedTuple):
    """Output of `JoinTracks`."""

    clips: Any  # PCollection[Clip]
    rejects: Any  # PCollection[Reject]
    not_wanted: Any  # PCollection[str], paths of files


@dataclasses.dataclass(kw_only=True, eq=False)
class ReadTracks(beam.PTransform):
    """Reads the metadata file: PBegin to PCollection[Track]."""

    config: MetadataConfig

    def expand(self, begin: Any) -> Any:
        """Streams the file in one worker."""
        return (
            begin
            | "Metadata" >> beam.Create([self.config])
            | "Parse" >> beam.ParDo(_ReadTracksFn())
        )


class _ReadTracksFn(beam.DoFn):
    def process(self, config: MetadataConfig) -> Iterator[Track]:
        with (
            storage.open_patiently(config.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            yield from read_tracks(text, config)


@dataclasses.dataclass(kw_only=True, eq=False)
class MatchAudio(beam.PTransform):
    """Lists audio files: PBegin to PCollection[AudioFile]."""

    pattern: str

    def expand(self, begin: Any) -> Any:
        """Matches the glob; directories are not files."""
        return (
            begin
            | "Pattern" >> beam.Create([self.pattern])
            | "Match" >> beam.FlatMap(storage.match)
            | "Name" >> beam.Map(audio_file)
        )


@dataclasses.dataclass(kw_only=True, eq=False)
class JoinTracks(beam.PTransform):
    """Finds each track's audio: (tracks, files) to `JoinedTracks`.

    Each wanted track and each file ends as part of a clip or as a reject,
    except files of tracks that are known but not wanted.

    Attributes:
      genres: ordered genre names, for the labels.
      kind: of the metadata, `fma` or `plain`.
      audio_base: folder that relative paths start from.
    """

    genres: Sequence[str]
    kind: str
    audio_base: str

    def expand(self, inputs: tuple[Any, Any]) -> JoinedTracks:
        """Joins by key."""
        tracks, files = inputs
        kind, base = self.kind, self.audio_base
        joined = (
            {
                "tracks": tracks | "KeyTracks" >> beam.Map(lambda t: (t.key, t)),
                "files": files
                | "KeyFiles" >> beam.Map(lambda f: (audio_key(f.path, base, kind), f)),
            }
            | "Join" >> beam.CoGroupByKey()
            | "Pair"
            >> beam.ParDo(_PairFn(self.genres)).with_outputs(
                "rejects", "not_wanted", main="clips"
            )
        )
        return JoinedTracks(joined.clips, joined.rejects, joined.not_wanted)


class _PairFn(beam.DoFn):
    def __init__(self, genres: Sequence[str]) -> None:
        self._labels = {genre: label for label, genre in enumerate(genres)}

    def process(
        self, element: tuple[str, Mapping[str, Iterable[Any]]]
    ) -> Iterator[Any]:
        _, group = element
        result = pair(sorted(group["tracks"]), sorted(group["files"]), self._labels)
        count_files_not_wanted(len(result.not_wanted))
        yield from result.clips
        for reject in result.rejects:
            yield beam.pvalue.TaggedOutput("rejects", count_reject(reject))
        for path in result.not_wanted:
            yield beam.pvalue.TaggedOutput("not_wanted", path)

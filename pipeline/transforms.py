"""Beam transforms: what crosses a shuffle here are paths and small rows.

Each public transform is a named composite; its DoFns are private and thin.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.filesystem import FileMetadata

from pipeline import storage
from pipeline.clip import Clip
from pipeline.metadata import MetadataConfig, Track, audio_key, read_tracks
from pipeline.metrics import count_files_not_wanted, count_reject
from pipeline.rejects import Reason, Reject


class AudioFile(NamedTuple):
    """A file that the audio glob matched.

    Attributes:
      path: with which to open it.
      size: in bytes.
      modified: seconds since 1970; 0 where the file system does not tell.
    """

    path: str
    size: int
    modified: float = 0.0


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


def audio_file(found: FileMetadata) -> AudioFile:
    """What a file system says of a file."""
    modified = found.last_updated_in_seconds or 0.0
    return AudioFile(found.path, found.size_in_bytes, modified)


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


class Pairing(NamedTuple):
    """What becomes of the tracks and files of one key.

    Attributes:
      clips: at most one.
      rejects: of rows and of files.
      not_wanted: paths of files whose track is known but not wanted.
    """

    clips: list[Clip]
    rejects: list[Reject]
    not_wanted: list[str]


def pair(
    tracks: Sequence[Track], files: Sequence[AudioFile], labels: Mapping[str, int]
) -> Pairing:
    """Pairs the tracks and files of one key.

    The first track and the first file belong together; others are duplicates.
    """

    def reject(path: str, track_id: str, reason: Reason, message: str) -> Reject:
        return Reject(
            path=path, track_id=track_id, stage="join", reason=reason, message=message
        )

    if not tracks:
        return Pairing(
            [],
            [
                reject(file.path, "", Reason.NO_METADATA, "no metadata row names it")
                for file in files
            ],
            [],
        )
    track, *others = tracks
    rejects = [
        reject(
            other.path,
            other.track_id,
            Reason.DUPLICATE_ROW,
            f"another row names the same file ({track.path}, track {track.track_id})",
        )
        for other in others
        if other.wanted
    ]
    if not track.wanted:
        return Pairing([], rejects, [file.path for file in files])
    if not files:
        message = "no audio file matches it"
        rejects.append(reject(track.path, track.track_id, Reason.MISSING, message))
        return Pairing([], rejects, [])
    file, *copies = files
    rejects += [
        reject(
            copy.path,
            track.track_id,
            Reason.DUPLICATE_FILE,
            f"{file.path} is used for this track",
        )
        for copy in copies
    ]
    if not track.genre:
        message = "the metadata gives no genre"
        rejects.append(reject(file.path, track.track_id, Reason.NO_GENRE, message))
        return Pairing([], rejects, [])
    clip = Clip(
        track_id=track.track_id,
        artist_id=track.artist_id,
        genre=track.genre,
        label=labels[track.genre],
        split=track.split,
        path=file.path,
        size=file.size,
        modified=file.modified,
    )
    return Pairing([clip], rejects, [])

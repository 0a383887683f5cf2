"""Beam transforms: what crosses a shuffle here are paths and small rows.

Each public transform is a named composite; its DoFns are private and thin.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import threadpoolctl
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata
from apache_beam.metrics import Metrics

from pipeline import storage
from pipeline.clip import Clip, warm_up
from pipeline.metadata import MetadataConfig, Track, audio_key, read_tracks
from pipeline.rejects import Reason, Reject
from pipeline.shards import DatasetConfig, ShardReport, ShardResult, make_shard
from pipeline.spectrum import Workspace
from pipeline.splits import stable_hash

#: Namespace of the counters and distributions that the runner shows.
METRICS = "fma"


class AudioFile(NamedTuple):
    """A file that the audio glob matched, with its size in bytes."""

    path: str
    size: int


class JoinedTracks(NamedTuple):
    """Output of `JoinTracks`."""

    clips: Any  # PCollection[Clip]
    rejects: Any  # PCollection[Reject]


class Shards(NamedTuple):
    """Output of `MakeShards`."""

    reports: Any  # PCollection[ShardReport]
    rejects: Any  # PCollection[Reject]
    moments: Any  # PCollection[Mapping[str, Moments]], of training clips


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
            storage.open_for_reading(config.path) as file,
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
            | "Match" >> fileio.MatchFiles(self.pattern)
            | "Name" >> beam.Map(_audio_file)
        )


def _audio_file(found: FileMetadata) -> AudioFile:
    return AudioFile(found.path, found.size_in_bytes)


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
            >> beam.ParDo(_PairFn(self.genres)).with_outputs("rejects", main="clips")
        )
        return JoinedTracks(joined.clips, joined.rejects)


class _PairFn(beam.DoFn):
    def __init__(self, genres: Sequence[str]) -> None:
        self._labels = {genre: label for label, genre in enumerate(genres)}
        self._not_wanted = Metrics.counter(METRICS, "files_not_wanted")

    def process(
        self, element: tuple[str, Mapping[str, Iterable[Any]]]
    ) -> Iterator[Any]:
        _, group = element
        result = pair(sorted(group["tracks"]), sorted(group["files"]), self._labels)
        self._not_wanted.inc(result.not_wanted)
        yield from result.clips
        for reject in result.rejects:
            yield beam.pvalue.TaggedOutput("rejects", _counted(reject))


class Pairing(NamedTuple):
    """What becomes of the tracks and files of one key."""

    clips: list[Clip]
    rejects: list[Reject]
    not_wanted: int


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
            0,
        )
    track, *others = tracks
    rejects = [
        reject(
            other.path,
            other.track_id,
            Reason.DUPLICATE,
            f"another row names the same file ({track.path}, track {track.track_id})",
        )
        for other in others
        if other.wanted
    ]
    if not track.wanted:
        return Pairing([], rejects, len(files))
    if not files:
        message = "no audio file matches it"
        rejects.append(reject(track.path, track.track_id, Reason.MISSING, message))
        return Pairing([], rejects, 0)
    file, *copies = files
    rejects += [
        reject(
            copy.path,
            track.track_id,
            Reason.DUPLICATE,
            f"{file.path} is used for this track",
        )
        for copy in copies
    ]
    if not track.genre:
        message = "the metadata gives no genre"
        rejects.append(reject(file.path, track.track_id, Reason.NO_GENRE, message))
        return Pairing([], rejects, 0)
    clip = Clip(
        track_id=track.track_id,
        artist_id=track.artist_id,
        genre=track.genre,
        label=labels[track.genre],
        split=track.split,
        path=file.path,
        size=file.size,
    )
    return Pairing([clip], rejects, 0)


@dataclasses.dataclass(kw_only=True, eq=False)
class MakeShards(beam.PTransform):
    """Decodes, computes and writes: PCollection[Clip] to `Shards`.

    Paths are grouped by the shard that their track's id hashes to; a worker
    then makes whole shards.
    """

    config: DatasetConfig

    def expand(self, clips: Any) -> Shards:
        """Groups the paths and makes the shards, also those without a clip."""
        count = self.config.num_shards
        every_shard = clips.pipeline | "EveryShard" >> beam.Create(
            [(shard, None) for shard in range(count)]
        )
        keyed = clips | "KeyByShard" >> beam.Map(
            lambda clip: (stable_hash(clip.track_id) % count, clip)
        )
        made = (
            (every_shard, keyed)
            | "Flatten" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "MakeShard"
            >> beam.ParDo(_MakeShardFn(self.config)).with_outputs(
                "rejects", "moments", main="reports"
            )
        )
        return Shards(made.reports, made.rejects, made.moments)


class _MakeShardFn(beam.DoFn):
    """Makes whole shards with a workspace of its own."""

    def __init__(self, config: DatasetConfig) -> None:
        self._config = config

    def setup(self) -> None:
        # Beam runs one bundle a core; BLAS threads would compete with them.
        self._limits = threadpoolctl.threadpool_limits(1)
        self._workspace = Workspace()
        warm_up(self._config.representations, self._config.clip, self._workspace)

    def teardown(self) -> None:
        self._limits.restore_original_limits()

    def process(self, element: tuple[int, Iterable[Clip | None]]) -> Iterator[Any]:
        shard, clips = element
        result = make_shard(
            shard,
            [clip for clip in clips if clip is not None],
            self._config,
            self._workspace,
        )
        _count_shard(result)
        for moments in result.moments:
            yield beam.pvalue.TaggedOutput("moments", moments)
        for reject in result.rejects:
            yield beam.pvalue.TaggedOutput("rejects", _counted(reject))
        yield result.report


def _count_shard(result: ShardResult) -> None:
    report = result.report
    clips = sum(report.clips.values())
    Metrics.counter(METRICS, "clips_read").inc(clips + len(result.rejects))
    for (split, genre), count in report.clips.items():
        Metrics.counter(METRICS, f"clips_{split}_{genre}").inc(count)
    for (representation, split), count in report.records.items():
        Metrics.counter(METRICS, f"records_{representation}_{split}").inc(count)
    for name in ("decode_ms", "feature_ms"):
        distribution = Metrics.distribution(METRICS, name)
        for milliseconds in getattr(report, name):
            distribution.update(round(milliseconds))


def _counted(reject: Reject) -> Reject:
    Metrics.counter(METRICS, f"rejected_{reject.reason}").inc()
    return reject


class FindLeaks(beam.PTransform):
    """Artists in several splits: PCollection[ShardReport] to PCollection[str].

    It looks at what was written, not at what the split rule promises.
    """

    def expand(self, reports: Any) -> Any:
        """Groups the splits by artist."""
        return (
            reports
            | "Artists" >> beam.FlatMap(_artists)
            | "Splits" >> beam.GroupByKey()
            | "Several" >> beam.Filter(lambda item: len(set(item[1])) > 1)
            | "Artist" >> beam.Keys()
        )


def _artists(report: ShardReport) -> Sequence[tuple[str, str]]:
    return report.artists

"""Checks a dataset against its inputs, by id, from what was written.

Every wanted row of the metadata and every audio file must end in exactly one
place: in the records, among the rejects, or (files only) not wanted. And nothing
may be in two splits. Ids are grouped by the runner, so that no worker holds more
than those of one key.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.common.rejects import ROW_REASONS, Reason, Reject
from pipeline.inputs.assign import name_some
from pipeline.inputs.metadata import Track
from pipeline.shards.leaks import ARTIST, AUDIO, describe_group
from pipeline.shards.result import WrittenClip

#: What a result names at most.
MAX_NAMED = 20

_TRACK, _FILE, _LABEL = "track", "file", "label"
#: What an entry under a track or a file says of it.
_INPUT, _CLIP, _NOT_WANTED, _NOT_AUDIO = "input", "clip", "not wanted", "not audio"
_REJECT = "reject"
#: Rejects that take no row out of the inputs.
_WITHOUT_ROW = (Reason.NO_METADATA, Reason.DUPLICATE_FILE, Reason.AMBIGUOUS_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What an audit counted, and what is wrong.

    Attributes:
      counts: tracks, files, files_not_wanted, files_not_audio, clips, artists, audio,
        artists_in_several_splits, audio_in_several_splits, audio_with_several_ids and
        audio_with_several_genres.
      problems: sentences; a dataset with any of them is not whole.
      artists: in several splits.
      audio: in several splits; tracks in words.
      labels: of audio with several genres, also where some of it was taken out
        again; tracks in words.
    """

    counts: Mapping[str, int]
    problems: tuple[str, ...] = ()
    artists: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class AuditInputs(NamedTuple):
    """PCollections that an audit compares."""

    tracks: Any  # Track, also those not wanted
    files: Any  # paths
    not_wanted: Any  # paths
    not_audio: Any  # paths
    labels: Any  # audio, genres in words and track id of each clip that was decoded
    clips: Any  # WrittenClip
    rejects: Any  # Reject


class Audit(beam.PTransform):
    """Compares what went in with what came out: `AuditInputs` to `AuditResult`s.

    There is one for each bundle of keys; `merge` makes one of them all.
    """

    def expand(self, inputs: AuditInputs) -> Any:
        """Groups by id; only counts and a few names go on."""
        entries = (
            inputs.tracks | "Tracks" >> beam.FlatMap(enter_track),
            inputs.files
            | "Files" >> beam.Map(lambda path: (f"{_FILE}:{path}", _INPUT)),
            inputs.not_wanted
            | "NotWanted" >> beam.Map(lambda path: (f"{_FILE}:{path}", _NOT_WANTED)),
            inputs.not_audio
            | "NotAudio" >> beam.Map(lambda path: (f"{_FILE}:{path}", _NOT_AUDIO)),
            inputs.labels | "Labels" >> beam.MapTuple(enter_label),
            inputs.clips | "Clips" >> beam.FlatMap(enter_clip),
            inputs.rejects | "Rejects" >> beam.FlatMap(enter_reject),
        )
        return (
            entries
            | "Flatten" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()
            | "Check" >> beam.ParDo(_CheckFn())
        )


class _CheckFn(beam.DoFn):
    """Checks keys; of each bundle only the sum goes on."""

    def start_bundle(self) -> None:
        self._total = AuditResult(counts={})

    def process(self, element: tuple[str, Iterable[str]]) -> None:
        self._total = merge([self._total, check(*element)])

    def finish_bundle(self) -> Iterator[WindowedValue]:
        timestamp = GlobalWindow().max_timestamp()
        yield WindowedValue(self._total, timestamp, (GlobalWindow(),))


def enter_track(track: Track) -> Iterator[tuple[str, str]]:
    """A row of the metadata, if it is wanted."""
    if track.wanted:
        yield f"{_TRACK}:{track.track_id}", _INPUT


def enter_clip(clip: WrittenClip) -> Iterator[tuple[str, str]]:
    """A clip in the records: its track, file, audio and artist."""
    yield f"{_TRACK}:{clip.track_id}", _CLIP
    yield f"{_FILE}:{clip.path}", _CLIP
    yield f"{AUDIO}:{clip.audio}", f"{clip.split}:{clip.track_id}"
    if clip.artist_id:
        yield f"{ARTIST}:{clip.artist_id}", f"{clip.split}:"


def enter_label(audio: str, genre: str, track_id: str) -> tuple[str, str]:
    """What the metadata calls a recording."""
    return f"{_LABEL}:{audio}", json.dumps([genre, track_id])


def enter_reject(reject: Reject) -> Iterator[tuple[str, str]]:
    """A reject: the row, the file, or both, as its reason says."""
    if reject.reason not in _WITHOUT_ROW:
        yield f"{_TRACK}:{reject.track_id}", _REJECT
    if reject.reason not in ROW_REASONS:
        yield f"{_FILE}:{reject.path}", _REJECT


def check(key: str, entries: Iterable[str]) -> AuditResult:
    """Checks the entries under one key."""
    kind, _, name = key.partition(":")
    if kind in (_TRACK, _FILE):
        return _check_input(kind, name, collections.Counter(entries))
    if kind == _LABEL:
        return _check_labels([tuple(json.loads(entry)) for entry in entries])
    members = {(split, track_id) for split, _, track_id in map(_partition, entries)}
    leaks = len({split for split, _ in members}) > 1
    if kind == ARTIST:
        return AuditResult(
            counts={"artists": 1, "artists_in_several_splits": int(leaks)},
            artists=(name,) if leaks else (),
        )
    return AuditResult(
        counts={
            "audio": 1,
            "audio_in_several_splits": int(leaks),
            "audio_with_several_ids": int(len(members) > 1),
        },
        audio=(describe_group(list(members)),) if leaks else (),
    )


def _check_labels(labels: Iterable[tuple[str, str]]) -> AuditResult:
    """Genres and tracks of one recording."""
    ordered = sorted(set(labels))
    if len({genre for genre, _ in ordered}) < 2:
        return AuditResult(counts={"audio_with_several_genres": 0})
    first = {genre: f"{track_id} ({genre})" for genre, track_id in reversed(ordered)}
    text = name_some([first[genre] for genre in sorted(first)])
    return AuditResult(counts={"audio_with_several_genres": 1}, labels=(text,))


def _partition(entry: str) -> tuple[str, str, str]:
    return entry.partition(":")


def _check_input(kind: str, name: str, count: Mapping[str, int]) -> AuditResult:
    """A row or a file: as often in the results as in the inputs.

    Of several rows with one id, one may be in the records and others be rejects.
    """
    clips = count[_CLIP]
    ends = clips + count[_REJECT] + count[_NOT_WANTED] + count[_NOT_AUDIO]
    whole = count[_INPUT] == ends and clips <= 1
    problem = (
        f"{kind} {name}: {count[_INPUT]} in the inputs, {clips} in the records, "
        f"{ends - clips} elsewhere"
    )
    counts = {f"{kind}s": count[_INPUT]}
    if kind == _TRACK:
        counts["clips"] = clips
    else:
        counts["files_not_wanted"] = count[_NOT_WANTED]
        counts["files_not_audio"] = count[_NOT_AUDIO]
    return AuditResult(counts=counts, problems=() if whole else (problem,))


def merge(results: Iterable[AuditResult]) -> AuditResult:
    """Adds up results; of names, keeps the first in alphabetical order."""
    parts = list(results)
    counts: collections.Counter[str] = collections.Counter()
    for part in parts:
        counts.update(part.counts)
    return AuditResult(
        counts=dict(counts),
        problems=_first(part.problems for part in parts),
        artists=_first(part.artists for part in parts),
        audio=_first(part.audio for part in parts),
        labels=_first(part.labels for part in parts),
    )


def _first(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(sorted(itertools.chain.from_iterable(names))[:MAX_NAMED])

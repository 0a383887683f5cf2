"""Reads the metadata and lists the audio once, before a job starts."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from pipeline.common import storage
from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.archives import reading
from pipeline.inputs.assign import name_some
from pipeline.inputs.audio_files import make_audio_check, match_audio
from pipeline.inputs.audio_names import is_audio_name
from pipeline.inputs.join import AudioFile, Join, Pairing
from pipeline.inputs.metadata import (
    Layout,
    MetadataConfig,
    Track,
    read_layout,
    read_tracks,
)
from pipeline.inputs.names import audio_key, make_folder
from pipeline.inputs.nearest import NearestFile
from pipeline.schema import UserError

#: Rows that find no file and are told the nearest one.
MOST_NEAREST = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a job is given.

    Attributes:
      layout: of the metadata file.
      metadata: how to read it, so that each row has an id of its own.
      genres: of the wanted tracks, in alphabetical order; with `--genres`, in
        the order given.
      tracks: number of wanted tracks.
      clips: audio files of wanted tracks with a genre.
      files: number of files matched.
      paths: of all of them.
      whole_names: paths of clips whose WAV keeps the extension in its name.
      missing: number of wanted tracks without a file.
      nearest: to the first of them, the nearest file there is, by the row's path.
      without_genre: number of wanted tracks in whose genre stands what means nothing.
      contradictions: of files that several rows name, paths and genres in words.
    """

    layout: Layout
    metadata: MetadataConfig
    genres: tuple[str, ...]
    tracks: int
    clips: tuple[AudioFile, ...]
    files: int
    other_files: int = 0
    leaking_artists: int = 0
    paths: tuple[str, ...] = ()
    whole_names: frozenset[str] = frozenset()
    missing: int = 0
    nearest: Mapping[str, str] = dataclasses.field(default_factory=dict)
    without_genre: int = 0
    contradictions: tuple[str, ...] = ()


def inspect_inputs(audio: str, metadata: MetadataConfig) -> Inputs:
    """Lists the audio and reads the metadata once.

    Args:
      audio: glob.
      metadata: which tracks.

    Raises:
      UserError: there is nothing to do, or the metadata cannot be used.
    """
    files = match_audio(audio)
    with _open_metadata(metadata) as text:
        layout = read_layout(csv.reader(text), metadata)
    by_key = collections.defaultdict(list)
    base, aliases = metadata.audio_base, metadata.audio_aliases
    for file in files:
        by_key[audio_key(file.path, base, layout.kind, aliases)].append(file)
    tracks, shared = _read_by_key(metadata, by_key, layout.kind)
    if shared:
        metadata = dataclasses.replace(metadata, shared_keys=shared)
        tracks, _ = _read_by_key(metadata, by_key, layout.kind)
    wanted = [track for group in tracks.values() for track in group if track.wanted]
    genres = _order_genres(wanted, metadata)
    join = Join(
        labels={genre: label for label, genre in enumerate(genres)},
        folder=make_folder(base, aliases),
        kind=layout.kind,
        is_audio=make_audio_check(),
    )
    clips: list[AudioFile] = []
    missing: list[str] = []
    whole_names: list[str] = []
    for key, group in tracks.items():
        found = by_key.get(key, [])
        if join.is_plain_sailing(group, found):
            clips += found
            continue
        pairing = join.pair(group, found)
        clips += [
            AudioFile(clip.path, clip.size, clip.modified, crc=clip.crc)
            for clip in pairing.clips
        ]
        whole_names += [clip.path for clip in pairing.clips if clip.whole_name]
        missing += _list_missing(pairing)
    others = {file.path for file in files if is_audio_name(file.path) is not True}
    named = sum(clip.path in others for clip in clips) if others else 0
    return Inputs(
        layout=layout,
        metadata=metadata,
        genres=genres,
        tracks=len(wanted),
        clips=tuple(sorted(clips)),
        files=len(files),
        other_files=len(others) - named,
        paths=tuple(file.path for file in files),
        whole_names=frozenset(whole_names),
        leaking_artists=_count_leaking_artists(wanted),
        missing=len(missing),
        nearest=_find_nearest(missing, files, join) if layout.kind == "plain" else {},
        without_genre=sum(bool(track.no_genre) for track in wanted),
        contradictions=_find_contradictions(tracks.values()),
    )


@contextlib.contextmanager
def _open_metadata(metadata: MetadataConfig) -> Iterator[TextIO]:
    try:
        with reading.read_text(metadata.path) as text:
            yield text
    except (*storage.STORE_ERRORS, AudioError) as error:
        raise UserError(
            f"--metadata cannot be read: {error}. Received: {metadata.path}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--metadata must be UTF-8 text ({error}). Received: {metadata.path}"
        ) from error


def _read_by_key(
    metadata: MetadataConfig, files: Mapping[str, list[AudioFile]], kind: str
) -> tuple[dict[str, list[Track]], frozenset[str]]:
    """Tracks that are wanted, or may take a file, by their keys.

    And keys of rows that name several files.
    """
    tracks: dict[str, list[Track]] = {}
    folder = make_folder(metadata.audio_base, metadata.audio_aliases)
    paths: dict[str, str] = {}
    shared = set()
    with _open_metadata(metadata) as text:
        for track in read_tracks(text, metadata):
            if track.wanted or track.key in files:
                tracks.setdefault(track.key, []).append(track)
            if kind == "plain":
                first = paths.setdefault(track.key, track.path)
                if first != track.path and folder.name_row(
                    first, whole=True
                ) != folder.name_row(track.path, whole=True):
                    shared.add(track.key)
    return tracks, frozenset(shared)


def _list_missing(pairing: Pairing) -> list[str]:
    return [
        reject.path for reject in pairing.rejects if reject.reason is Reason.MISSING
    ]


def _find_nearest(
    rows: list[str], files: Iterable[AudioFile], join: Join
) -> dict[str, str]:
    """The nearest file to the first rows that find none, by their paths."""
    if not rows:
        return {}
    paths = {join.folder.name_file(file.path): file.path for file in files}
    names = NearestFile(paths)
    found = {}
    for row in rows[:MOST_NEAREST]:
        near = filter(None, map(names.find, join.folder.readings(row)))
        name = next(near, None)
        if name is not None:
            found[row] = paths[name]
    return found


def _find_contradictions(groups: Iterable[list[Track]]) -> tuple[str, ...]:
    """Names paths to which several rows give several genres."""
    found = []
    for group in groups:
        if len(group) == 1:
            continue
        genres = collections.defaultdict(set)
        for track in group:
            if track.wanted and track.genre:
                genres[track.path].add(track.genre)
        found += [
            f"{path} ({name_some(sorted(names))})"
            for path, names in sorted(genres.items())
            if len(names) > 1
        ]
    return tuple(found)


def find_similar(genres: Iterable[str]) -> tuple[str, ...]:
    """Names groups of genres with the same letters and digits."""
    groups = collections.defaultdict(list)
    for genre in genres:
        letters = "".join(filter(str.isalnum, genre.casefold()))
        groups[letters or genre].append(genre)
    return tuple(name_some(names) for names in groups.values() if len(names) > 1)


def _order_genres(tracks: list[Track], metadata: MetadataConfig) -> tuple[str, ...]:
    present = {track.genre for track in tracks if track.genre}
    unknown = [genre for genre in metadata.genres if genre not in present]
    if unknown:
        raise UserError(
            f"--genres: unknown genre {unknown[0]!r}; no track of {metadata.path} "
            f"(subset {metadata.subset}) has it."
        )
    if not present:
        nothing = next((track.no_genre for track in tracks if track.no_genre), "")
        found = f" ({nothing} stands for nothing)" * bool(nothing)
        raise UserError(
            f"{metadata.path} has no track with a genre in the subset "
            f"{metadata.subset!r}{found}; choose a larger --subset or another file."
        )
    return metadata.genres or tuple(sorted(present))


def _count_leaking_artists(tracks: Iterable[Track]) -> int:
    splits: dict[str, set[str]] = {}
    for track in tracks:
        if track.artist_id:
            splits.setdefault(track.artist_id, set()).add(track.split)
    return sum(len(found) > 1 for found in splits.values())

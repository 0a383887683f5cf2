"""Reads the metadata and lists the audio once, before a job starts."""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from pipeline.common import storage
from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.archives import reading
from pipeline.inputs.assign import name_some
from pipeline.inputs.audio_files import make_audio_check
from pipeline.inputs.audio_names import is_audio_name
from pipeline.inputs.checksums import list_audio
from pipeline.inputs.genres import (
    MOST_TREE_BYTES,
    GenreTree,
    LabelRule,
    read_tree_file,
)
from pipeline.inputs.join import AudioFile, Join
from pipeline.inputs.metadata import (
    Layout,
    MetadataConfig,
    Track,
    read_layout,
    read_tracks,
)
from pipeline.inputs.names import audio_key
from pipeline.inputs.nearest import NearestFile
from pipeline.schema import UserError, shorten
from pipeline.schema.checks import MOST_GENRE_LETTERS, MOST_GENRES

#: Rows that find no file and are told the nearest one.
MOST_NEAREST = 200
#: What else people put between genres.
_OTHER_SEPARATORS = ("|", ";", ",", "/", "\\")


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
      below_top: number of wanted tracks that have genres, though no top one.
      several: the first genre that seems to name several, and what stands between
        them; None if there is none.
      genres_file: the table of genres that was read; empty for none.
      rare: genres left out, with the number of their tracks that have a file.
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
    below_top: int = 0
    several: tuple[str, str] | None = None
    genres_file: str = ""
    rare: Mapping[str, int] = dataclasses.field(default_factory=dict)


def inspect_inputs(
    audio: Sequence[str],
    metadata: MetadataConfig,
    *,
    genres_file: str = "",
    min_tracks: int = 0,
) -> Inputs:
    """Lists the audio and reads the metadata once.

    Args:
      audio: globs.
      metadata: which tracks.
      genres_file: table of genres; empty: beside FMA's `tracks.csv`.
      min_tracks: genres with fewer are left out.

    Raises:
      UserError: there is nothing to do, or the metadata cannot be used.
    """
    files = list_audio(*audio)
    with _open_metadata(metadata) as text:
        layout = read_layout(csv.reader(text, strict=True), metadata)
    genres_file = _find_genres_file(metadata, layout, genres_file)
    if genres_file:
        tree = _read_tree(genres_file, metadata)
        labels = dataclasses.replace(metadata.labels, tree=tree)
        metadata = dataclasses.replace(metadata, labels=labels)
    by_key = collections.defaultdict(list)
    for file in files:
        by_key[audio_key(file.path, layout.kind, metadata.folder)].append(file)
    tracks, shared = _read_by_key(metadata, by_key, layout.kind)
    if shared:
        metadata = dataclasses.replace(metadata, shared_keys=shared)
        tracks, _ = _read_by_key(metadata, by_key, layout.kind)
    rare = _count_rare(tracks, by_key, min_tracks)
    if rare:
        kept = _keep_common(tracks, metadata, rare, min_tracks)
        metadata = dataclasses.replace(metadata, genres=kept)
        tracks, _ = _read_by_key(metadata, by_key, layout.kind)
    wanted = [track for group in tracks.values() for track in group if track.wanted]
    genres = _order_genres(wanted, metadata)
    _check_genres(genres)
    join = Join(
        labels={genre: label for label, genre in enumerate(genres)},
        folder=metadata.folder,
        kind=layout.kind,
        is_audio=make_audio_check(),
    )
    clips: list[AudioFile] = []
    missing: list[str] = []
    whole_names: list[str] = []
    contradictions: list[str] = []
    for key, group in tracks.items():
        found = by_key.get(key, [])
        if join.is_plain_sailing(group, found):
            clips += found
            continue
        pairing = join.pair(group, found)
        clips += [
            AudioFile(clip.path, clip.size, clip.modified, "", clip.crc, clip.sha1)
            for clip in pairing.clips
        ]
        whole_names += [clip.path for clip in pairing.clips if clip.whole_name]
        missing += [r.path for r in pairing.rejects if r.reason is Reason.MISSING]
        contradictions += pairing.contradictions
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
        contradictions=tuple(sorted(contradictions)),
        below_top=sum(track.below_top for track in wanted),
        several=find_several(genres, metadata.labels)
        if layout.kind == "plain"
        else None,
        genres_file=genres_file,
        rare=rare,
    )


def _find_genres_file(
    metadata: MetadataConfig, layout: Layout, genres_file: str
) -> str:
    """The table of genres, where labels need one or may have one; else empty."""
    if metadata.labels.several:
        if genres_file or layout.kind == "plain":
            return genres_file
        return posixpath.join(posixpath.dirname(metadata.path), "genres.csv")
    if genres_file:
        raise UserError(
            "--genres_file is for several genres a track, --labels all or leaf. "
            f"Received: {genres_file}"
        )
    return ""


def _read_tree(path: str, metadata: MetadataConfig) -> GenreTree:
    try:
        with reading.open_input(path) as file:
            data = file.read(MOST_TREE_BYTES + 1)
    except (*storage.STORE_ERRORS, AudioError) as error:
        raise UserError(
            f"--labels {metadata.labels.kind} needs the table of genres, genres.csv "
            f"beside --metadata or what --genres_file names; it cannot be read: "
            f"{error}. Received: {path}"
        ) from error
    return read_tree_file(data, path)


def _count_rare(
    tracks: Mapping[str, Sequence[Track]], files: Mapping[str, object], least: int
) -> dict[str, int]:
    """Genres with fewer tracks that have a file than they should have."""
    counts: collections.Counter[str] = collections.Counter()
    for key, group in tracks.items():
        for track in group:
            if track.wanted:
                counts.update(dict.fromkeys(track.genres, int(key in files)))
    return {genre: n for genre, n in sorted(counts.items()) if n < least}


def _keep_common(
    tracks: Mapping[str, Sequence[Track]],
    metadata: MetadataConfig,
    rare: Mapping[str, int],
    least: int,
) -> tuple[str, ...]:
    """The genres that stay where rare ones are left out, as if they were asked for."""
    wanted = [track for group in tracks.values() for track in group if track.wanted]
    kept = [genre for genre in _order_genres(wanted, metadata) if genre not in rare]
    if not kept:
        most = max(rare.values())
        raise UserError(
            f"--min_tracks leaves no genre: the largest has {most} tracks with a file. "
            f"Received: {least}"
        )
    return tuple(kept)


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
            f"--metadata must be UTF-8 text ({error}); save it as UTF-8, or unpack it "
            f"if it is compressed and no ZIP. Received: {metadata.path}"
        ) from error


def _read_by_key(
    metadata: MetadataConfig, files: Mapping[str, list[AudioFile]], kind: str
) -> tuple[dict[str, list[Track]], frozenset[str]]:
    """Tracks that are wanted, or may take a file, by their keys.

    And keys of rows that name several files.
    """
    tracks: dict[str, list[Track]] = {}
    folder = metadata.folder
    paths: dict[str, str] = {}
    shared = set()
    with _open_metadata(metadata) as text:
        for track in read_tracks(text, metadata):
            if track.wanted or track.key in files:
                tracks.setdefault(track.key, []).append(track)
            if kind == "plain":
                first = paths.setdefault(track.track_id, track.path)
                if first != track.path and folder.name_row(
                    first, whole=True
                ) != folder.name_row(track.path, whole=True):
                    shared.add(track.key)
    return tracks, frozenset(shared)


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


def _check_genres(genres: Sequence[str]) -> None:
    """Refuses what the manifest could not hold, before there is one."""
    longest = max(genres, key=len, default="")
    if len(longest) > MOST_GENRE_LETTERS:
        raise UserError(
            f"A genre of --metadata has {len(longest):,} letters; at most "
            f"{MOST_GENRE_LETTERS:,} are a name. Received: {shorten(longest)}"
        )
    if len(genres) > MOST_GENRES:
        raise UserError(
            f"--metadata has {len(genres):,} genres; a dataset has {MOST_GENRES:,} at "
            "most. Is its column genre one of genres? Choose some with --genres."
        )


def find_similar(genres: Iterable[str]) -> tuple[str, ...]:
    """Names groups of genres with the same letters and digits."""
    groups = collections.defaultdict(list)
    for genre in genres:
        letters = "".join(filter(str.isalnum, genre.casefold()))
        groups[letters or genre].append(genre)
    return tuple(name_some(names) for names in groups.values() if len(names) > 1)


def find_several(genres: Sequence[str], rule: LabelRule) -> tuple[str, str] | None:
    """The first genre that seems to name several, and what stands between them.

    What is not the rule's separator may be part of a name, and counts where one of the
    parts is a genre elsewhere, too.
    """
    for separator in dict.fromkeys((rule.separator, *_OTHER_SEPARATORS)):
        parts = {
            genre: {part.strip().casefold() for part in genre.split(separator)} - {""}
            for genre in genres
        }
        counts = collections.Counter(itertools.chain.from_iterable(parts.values()))
        for genre, found in parts.items():
            known = separator == rule.separator or any(counts[p] > 1 for p in found)
            if len(found) > 1 and known:
                return genre, separator
    return None


def _order_genres(tracks: list[Track], metadata: MetadataConfig) -> tuple[str, ...]:
    present = {genre for track in tracks for genre in track.genres}
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

"""Reads the metadata and lists the audio once, before a job starts."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable

from apache_beam.io.filesystem import BeamIOError

from pipeline.common import storage
from pipeline.inputs.join import AudioFile, audio_file
from pipeline.inputs.metadata import (
    Layout,
    MetadataConfig,
    Track,
    audio_key,
    read_layout,
    read_tracks,
)
from pipeline.schema import (
    UserError,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a job is given.

    Attributes:
      layout: of the metadata file.
      genres: of the wanted tracks, in alphabetical order; with `--genres`, in
        the order given.
      tracks: number of wanted tracks.
      clips: audio files of wanted tracks with a genre.
      files: number of audio files matched.
      paths: of all of them.
      leaking_artists: number of artists that the metadata puts into several splits.
    """

    layout: Layout
    genres: tuple[str, ...]
    tracks: int
    clips: tuple[AudioFile, ...]
    files: int
    leaking_artists: int = 0
    paths: tuple[str, ...] = ()


def inspect_inputs(audio: str, metadata: MetadataConfig) -> Inputs:
    """Lists the audio and reads the metadata once.

    Args:
      audio: glob.
      metadata: which tracks.

    Raises:
      UserError: there is nothing to do, or the metadata cannot be used.
    """
    files = match_audio(audio)
    try:
        with (
            storage.open_patiently(metadata.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            layout = read_layout(csv.reader(text), metadata)
        with (
            storage.open_patiently(metadata.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            wanted = {t.key: t for t in read_tracks(text, metadata) if t.wanted}
    except storage.STORE_ERRORS as error:
        raise UserError(
            f"--metadata cannot be read: {error}. Received: {metadata.path}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--metadata must be UTF-8 text ({error}). Received: {metadata.path}"
        ) from error
    genres = _order_genres(wanted.values(), metadata)
    base = metadata.audio_base
    clips = {
        key: file
        for file in sorted(files, reverse=True)
        if (key := audio_key(file.path, base, layout.kind)) in wanted
        and wanted[key].genre
    }
    return Inputs(
        layout=layout,
        genres=genres,
        tracks=len(wanted),
        clips=tuple(clips[key] for key in sorted(clips)),
        files=len(files),
        paths=tuple(file.path for file in files),
        leaking_artists=_count_leaking_artists(wanted.values()),
    )


def match_audio(pattern: str) -> list[AudioFile]:
    """Lists the files of a glob.

    Raises:
      UserError: there are none, or the file system is unknown.
    """
    try:
        matched = storage.match(pattern)
    except (ValueError, BeamIOError) as error:
        raise UserError(
            f"--audio cannot be matched: {error}. Received: {pattern}"
        ) from error
    if not matched:
        raise UserError(
            "--audio matches no file; give a quoted glob such as 'fma_small/**.mp3'. "
            f"Received: {pattern}"
        )
    for found in matched:
        if not found.path.isprintable() and not _is_text(found.path):
            raise UserError(
                "--audio matches a file whose name is not UTF-8 text; rename it. "
                f"Received: {found.path!r}"
            )
    return [audio_file(found) for found in matched]


def _is_text(path: str) -> bool:
    """Whether a path can be sent to a worker: it may hold bytes of no encoding."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order_genres(tracks: Iterable[Track], metadata: MetadataConfig) -> tuple[str, ...]:
    present = {track.genre for track in tracks if track.genre}
    unknown = [genre for genre in metadata.genres if genre not in present]
    if unknown:
        raise UserError(
            f"--genres: unknown genre {unknown[0]!r}; no track of {metadata.path} "
            f"(subset {metadata.subset}) has it."
        )
    if not present:
        raise UserError(
            f"{metadata.path} has no track with a genre in the subset "
            f"{metadata.subset!r}; choose a larger --subset or another file."
        )
    return metadata.genres or tuple(sorted(present))


def _count_leaking_artists(tracks: Iterable[Track]) -> int:
    splits: dict[str, set[str]] = {}
    for track in tracks:
        if track.artist_id:
            splits.setdefault(track.artist_id, set()).add(track.split)
    return sum(len(found) > 1 for found in splits.values())

"""Which audio file belongs to which row: files and tracks to clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apache_beam.io.filesystem import FileMetadata

from pipeline.common.rejects import Reason, Reject
from pipeline.inputs.metadata import Track


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Clip:
    """A track's audio file, with all that a record says beside its arrays.

    Attributes:
      track_id: unique; records are sorted by it within a shard.
      artist_id: empty where it is not known.
      genre: name.
      label: index of the genre in the manifest.
      split: one of `schema.SPLITS`.
      path: of the audio file.
      size: of the audio file in bytes.
      modified: when the file was, in seconds since 1970; 0 where not known.
    """

    track_id: str
    artist_id: str
    genre: str
    label: int
    split: str
    path: str
    size: int
    modified: float = 0.0


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


def audio_file(found: FileMetadata) -> AudioFile:
    """What a file system says of a file."""
    modified = found.last_updated_in_seconds or 0.0
    return AudioFile(found.path, found.size_in_bytes, modified)


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

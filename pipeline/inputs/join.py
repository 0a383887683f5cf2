"""Which audio file belongs to which row: files and tracks to clips."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pipeline.common.rejects import Reason, Reject
from pipeline.inputs.assign import Assigner, Assignment, name_some
from pipeline.inputs.audio_names import is_audio_name
from pipeline.inputs.metadata import Track
from pipeline.inputs.names import AudioFolder, wav_name


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Clip:
    """A track's audio file, with all that a record says beside its arrays.

    Attributes:
      track_id: unique; records are sorted by it within a shard.
      artist_id: empty where it is not known.
      labels: indices of its genres in the manifest, ascending; one in a dataset of a
        single label.
      split: one of `schema.SPLITS`.
      path: of the audio file.
      size: of the audio file in bytes.
      modified: when the file was, in seconds since 1970; 0 where not known.
      whole_name: keep the extension in the name of its WAV, which would be another
        clip's without.
      crc: CRC-32 of a file in a ZIP, in hexadecimal; else empty.
      sha1: of the file, in hexadecimal; empty where it is not known.
    """

    track_id: str
    artist_id: str
    labels: tuple[int, ...]
    split: str
    path: str
    size: int
    modified: float = 0.0
    whole_name: bool = False
    crc: str = ""
    sha1: str = ""


class AudioFile(NamedTuple):
    """A file that the audio glob matched.

    Attributes:
      path: with which to open it.
      size: in bytes.
      modified: seconds since 1970; 0 where the file system does not tell.
      problem: why it cannot be opened; empty where that is not known.
      crc: CRC-32 of a file in a ZIP, in hexadecimal; else empty.
      sha1: of the file, in hexadecimal; empty where it is not known.
    """

    path: str
    size: int
    modified: float = 0.0
    problem: str = ""
    crc: str = ""
    sha1: str = ""


class Pairing(NamedTuple):
    """What becomes of the tracks and files of one key.

    Attributes:
      clips: of wanted tracks.
      rejects: of rows and of files.
      not_wanted: paths of files whose track is known but not wanted.
      not_audio: paths of files that no row names and that are no audio.
      contradictions: rows that name one file, and their several genres, in words.
    """

    clips: list[Clip]
    rejects: list[Reject]
    not_wanted: list[str]
    not_audio: list[str]
    contradictions: list[str]


def has_audio_name(file: AudioFile) -> bool:
    """Whether a file is audio, as far as its name tells."""
    return is_audio_name(file.path) is not False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Join:
    """Rules by which the tracks and files of one key find each other.

    A plain row takes the file that it names whole; else the file that has an audio
    extension added to its name; else the one that differs in its audio extension
    alone. Where several files fit, or several rows fit a file, nobody guesses.

    Attributes:
      labels: of the genres.
      folder: of the audio glob.
      kind: of the metadata, `fma` or `plain`.
      is_audio: whether a file that no row names takes part.
      nearest: the nearest file to rows that find none, by their paths.
    """

    labels: Mapping[str, int]
    folder: AudioFolder = dataclasses.field(default_factory=AudioFolder)
    kind: str = "plain"
    is_audio: Callable[[AudioFile], bool] = has_audio_name
    nearest: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def pair(self, tracks: Sequence[Track], files: Sequence[AudioFile]) -> Pairing:
        """Pairs the tracks and files of one key, in any order.

        Each wanted track and each file ends in one place.
        """
        if self.is_plain_sailing(tracks, files):
            return Pairing([self._make_clip(tracks[0], files[0])], [], [], [], [])
        # The first row of a file takes it: one that says a genre.
        tracks = sorted(tracks, key=lambda track: (not track.genres, track))
        files = sorted(files)
        if not (tracks and files):
            found = Assignment()
        elif self.kind == "fma":
            found = self._assign_number(tracks, files)
        else:
            found = Assigner(
                self.folder,
                [track.path for track in tracks],
                [file.path for file in files],
                lambda number: self.is_audio(files[number]),
            ).assign()
        return self._conclude(tracks, files, found)

    def is_plain_sailing(
        self, tracks: Sequence[Track], files: Sequence[AudioFile]
    ) -> bool:
        """Whether there is one track, and the one file there is is what it names."""
        if not len(tracks) == len(files) == 1:
            return False
        [track], [file] = tracks, files
        return (
            track.wanted
            and bool(track.genres)
            and not file.problem
            and self.folder.name_file(file.path) == track.path
        )

    def _assign_number(
        self, tracks: Sequence[Track], files: Sequence[AudioFile]
    ) -> Assignment:
        """The number joins: the first row, and the file most like FMA's own name.

        One that cannot be read stands behind all others.
        """
        found = Assignment()
        if not tracks:
            return found
        audio = [number for number, file in enumerate(files) if self.is_audio(file)]
        path = tracks[0].path
        endings = path, f"/{path}", f"/{posixpath.basename(path)}"

        def rank(number: int) -> tuple[bool, ...]:
            file = files[number]
            return (
                bool(file.problem),
                *(not file.path.endswith(end) for end in endings[1:]),
            )

        for number in sorted(audio, key=rank):
            if 0 in found.takes:
                found.copies[number] = 0
            else:
                found.takes[0] = number
        found.repeats |= dict.fromkeys(range(1, len(tracks)), 0)
        return found

    def _conclude(
        self, tracks: Sequence[Track], files: Sequence[AudioFile], found: Assignment
    ) -> Pairing:
        """Turns an assignment into clips and rejects."""
        result = Pairing([], [], [], [], _find_contradictions(tracks, found))

        def reject(path: str, track_id: str, reason: Reason, message: str) -> None:
            result.rejects.append(
                Reject(
                    path=path,
                    track_id=track_id,
                    stage="join",
                    reason=reason,
                    message=message,
                )
            )

        for number, track in enumerate(tracks):
            if not track.wanted:
                continue
            if number in found.repeats:
                first = tracks[found.repeats[number]]
                genre = f", as {first.genre}" * (first.genres != track.genres)
                split = f", in {first.split}" * (first.split != track.split)
                message = (
                    f"another row names the same file{genre}{split} ({first.path}, "
                    f"track {first.track_id})"
                )
                reject(track.path, track.track_id, Reason.DUPLICATE_ROW, message)
            elif number in found.unclear:
                message = found.unclear[number]
                reject(track.path, track.track_id, Reason.AMBIGUOUS_ROW, message)
            elif number not in found.takes:
                message = "no audio file matches it"
                if track.path in self.nearest:
                    message += f"; the nearest is {self.nearest[track.path]}"
                reject(track.path, track.track_id, Reason.MISSING, message)
        owners = {file: track for track, file in found.takes.items()}
        clips = []
        for number, file in enumerate(files):
            if number in owners:
                track = tracks[owners[number]]
                if not track.wanted:
                    result.not_wanted.append(file.path)
                elif not track.genres:
                    message = "the metadata gives no genre"
                    if track.below_top:
                        message = (
                            "the metadata gives no top genre, but others, which "
                            "--labels all takes"
                        )
                    if track.no_genre:
                        message += f" but {track.no_genre}, which stands for nothing"
                    reject(file.path, track.track_id, Reason.NO_GENRE, message)
                elif file.problem:
                    reason = Reason.UNREADABLE
                    reject(file.path, track.track_id, reason, file.problem)
                else:
                    clips.append(self._make_clip(track, file))
            elif number in found.copies:
                track = tracks[found.copies[number]]
                if track.wanted:
                    used = files[found.takes[found.copies[number]]].path
                    message = f"{used} is used for this track"
                    reject(file.path, track.track_id, Reason.DUPLICATE_FILE, message)
                else:
                    result.not_wanted.append(file.path)
            elif number in found.candidates:
                rows = [tracks[row] for row in found.candidates[number]]
                if any(track.wanted for track in rows):
                    named = [f"{track.path} ({track.genre})" for track in rows]
                    names = name_some(named)
                    message = f"it may be the file of {names}, as may another"
                    if len(rows) > 1:
                        message = f"it may be the file of {names}"
                    reject(file.path, "", Reason.AMBIGUOUS_FILE, message)
                else:
                    result.not_wanted.append(file.path)
            elif self.is_audio(file):
                message = "no metadata row names it"
                reject(file.path, "", Reason.NO_METADATA, message)
            else:
                result.not_audio.append(file.path)
        result.clips.extend(self._name_wavs(clips))
        return result

    def _make_clip(self, track: Track, file: AudioFile) -> Clip:
        return Clip(
            track_id=track.track_id,
            artist_id=track.artist_id,
            labels=tuple(sorted(self.labels[genre] for genre in track.genres)),
            split=track.split,
            path=file.path,
            size=file.size,
            modified=file.modified,
            crc=file.crc,
            sha1=file.sha1,
        )

    def _name_wavs(self, clips: list[Clip]) -> list[Clip]:
        """WAVs of one key keep whole names where two would have one name."""
        if len(clips) < 2:
            return clips
        names = {
            wav_name(self.folder.name_file(clip.path), whole=False) for clip in clips
        }
        if len(names) == len(clips):
            return clips
        return [dataclasses.replace(clip, whole_name=True) for clip in clips]


def _find_contradictions(tracks: Sequence[Track], found: Assignment) -> list[str]:
    """Names files to which several rows give several genres, by a row's path."""
    rows = collections.defaultdict(list)
    for repeat, first in found.repeats.items():
        rows[first].append(tracks[repeat])
    contradictions = []
    for first, repeats in rows.items():
        group = [tracks[first], *repeats]
        genres = {track.genre for track in group if track.genres}
        if len(genres) > 1 and any(track.wanted for track in group):
            names = name_some(sorted(genres))
            contradictions.append(f"{tracks[first].path} ({names})")
    return contradictions

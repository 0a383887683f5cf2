"""Which tracks the demo corpus has, by whom, and which files are broken on purpose."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.common.rejects import Reason
from pipeline.demo.genres import GENRES
from pipeline.schema import SPLITS, UserError

_FIRST_TRACK_ID = 2
_LAST_TRACK_ID = 155_000
_MAX_ARTISTS = 400
_MAX_TRACKS = 24
# The pipeline rejects files under five seconds as too short.
_SHORTEST_CLIP, _LONGEST_CLIP = 6.0, 60.0


class Kind(enum.StrEnum):
    """What a file of the corpus is."""

    GOOD = "good"
    MONO = "mono"
    RATE_48K = "48_khz"
    AAC = "aac"
    TAG_ONLY = "tag_only"
    EMPTY = "empty"
    TOO_SHORT = "too_short"
    TRUNCATED = "truncated"
    SILENT = "silent"
    NOT_AUDIO = "not_audio"
    NO_GENRE = "no_genre"
    MISSING = "missing"
    UNLISTED = "unlisted"
    # A row of a larger subset: like the real fma_small, the folder lacks its file.
    OTHER_SUBSET = "other_subset"


#: The broken kinds and the reason for which the pipeline has to reject them.
BROKEN = {
    Kind.TAG_ONLY: Reason.UNDECODABLE,
    Kind.EMPTY: Reason.EMPTY,
    Kind.TOO_SHORT: Reason.TOO_SHORT,
    Kind.TRUNCATED: Reason.TRUNCATED,
    Kind.SILENT: Reason.SILENT,
    Kind.NOT_AUDIO: Reason.UNDECODABLE,
    Kind.NO_GENRE: Reason.NO_GENRE,
    Kind.MISSING: Reason.MISSING,
    Kind.UNLISTED: Reason.NO_METADATA,
}

#: Good clips in an unusual form.
ODD = (Kind.MONO, Kind.RATE_48K, Kind.AAC)

_NO_FILE = (Kind.MISSING, Kind.OTHER_SUBSET)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What to make.

    Attributes:
      output: Folder that receives ``fma_demo/`` and ``fma_metadata/``.
      seed: Another seed gives other artists and other music.
      genres: Names among fma_small's eight.
      artists_per_genre: Artists in training, validation and test; no artist is in two.
      tracks_per_artist: Clips by each of them.
      clip_seconds: Length of a clip, 6 to 60.
      workers: Processes that render; 1 renders in this one.
      broken: Whether to add broken files and unusual ones (about ten).
    """

    output: Path
    seed: int = 0
    genres: tuple[str, ...] = tuple(GENRES)
    artists_per_genre: tuple[int, int, int] = (5, 2, 4)
    tracks_per_artist: tuple[int, int, int] = (3, 2, 1)
    clip_seconds: float = 30.0
    workers: int = 1
    broken: bool = True

    def __post_init__(self) -> None:
        """Refuses what cannot be laid out."""
        artists, tracks = self.artists_per_genre, self.tracks_per_artist
        _check(self.seed >= 0, "--seed must be 0 or more", self.seed)
        _check(self.workers >= 1, "--workers must be 1 or more", self.workers)
        _check(
            _SHORTEST_CLIP <= self.clip_seconds <= _LONGEST_CLIP,
            f"--clip_seconds must be {_SHORTEST_CLIP:g} to {_LONGEST_CLIP:g}",
            f"{self.clip_seconds:g}",
        )
        names = set(self.genres)
        _check(
            0 < len(names) == len(self.genres) and names <= set(GENRES),
            f"--genres must be some of {', '.join(GENRES)}, each once",
            ",".join(self.genres),
        )
        _check(
            min(artists) >= 0 and artists[0] >= 1,
            "artists_per_genre needs one artist or more in training",
            artists,
        )
        _check(
            len(names) * sum(artists) <= _MAX_ARTISTS,
            f"at most {_MAX_ARTISTS} artists fit",
            f"artists_per_genre={artists}",
        )
        _check(
            min(tracks) >= 1 and max(tracks) <= _MAX_TRACKS,
            f"tracks_per_artist must be 1 to {_MAX_TRACKS} each",
            tracks,
        )


def _check(fits: bool, demand: str, value: object) -> None:
    if not fits:
        raise UserError(f"{demand}. Received: {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoArtist:
    """An artist's place in the corpus.

    Attributes:
      artist_id: FMA's ``artist.id``.
      genre: The genre of all of the artist's tracks.
      split: The split of all of the artist's tracks.
    """

    artist_id: int
    genre: str
    split: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoTrack:
    """A track's place in the corpus.

    Attributes:
      track_id: FMA's id; the file name is made of it.
      artist: Who plays.
      number: Number among the artist's tracks, from 1.
      kind: What its file is.
      subset: ``small`` unless the file is meant not to be there.
    """

    track_id: int
    artist: DemoArtist
    number: int
    kind: Kind = Kind.GOOD
    subset: str = "small"

    @property
    def path(self) -> str:
        """The clip's path below the audio folder, as in FMA."""
        return f"{self.track_id // 1000:03d}/{self.track_id:06d}.mp3"

    @property
    def is_good(self) -> bool:
        """Whether its clip can be used, without ffmpeg too."""
        return self.kind in (Kind.GOOD, Kind.MONO, Kind.RATE_48K)

    @property
    def has_row(self) -> bool:
        """Whether ``tracks.csv`` lists it."""
        return self.kind is not Kind.UNLISTED

    @property
    def has_file(self) -> bool:
        """Whether the audio folder contains it."""
        return self.kind not in _NO_FILE

    @property
    def genre_top(self) -> str:
        """The genre that ``tracks.csv`` states."""
        return "" if self.kind is Kind.NO_GENRE else self.artist.genre


def _plan_artists(config: DemoConfig) -> list[DemoArtist]:
    places = [
        (genre, split)
        for genre in config.genres
        for split, count in zip(SPLITS, config.artists_per_genre, strict=True)
        for _ in range(count)
    ]
    order = np.random.default_rng([config.seed, 0]).permutation(len(places))
    return [
        DemoArtist(artist_id=number, genre=places[place][0], split=places[place][1])
        for number, place in enumerate(order, 1)
    ]


def _plan_extras(
    artists: Sequence[DemoArtist], next_ids: dict[int, Iterator[int]]
) -> Iterator[DemoTrack]:
    """Yields the broken, unusual and absent tracks, spread over the artists."""
    kinds = [*BROKEN, Kind.AAC, *[Kind.OTHER_SUBSET] * 8]
    for place, kind in enumerate(kinds):
        artist = artists[place * 5 % len(artists)]
        other = kind is Kind.OTHER_SUBSET
        yield DemoTrack(
            track_id=next(next_ids[artist.artist_id]),
            artist=artist,
            number=20 + place,
            kind=kind,
            subset=("medium", "large")[place % 2] if other else "small",
        )


def _spread_ids(place: int, spacing: int) -> Iterator[int]:
    """Yields an artist's track ids: uneven steps, as if others had uploaded between."""
    track_id = _FIRST_TRACK_ID + place * spacing
    for step in (3, 5, 1, 7, 2, 4, 1, 9, 6, 2) * 6:
        yield track_id
        track_id += step


def plan_layout(config: DemoConfig) -> list[DemoTrack]:
    """Returns every track of the corpus, ordered by id.

    Ids, splits and kinds depend on the configuration alone, and each track's music
    only on the seed, its artist and its id.
    """
    artists = _plan_artists(config)
    spacing = (_LAST_TRACK_ID - _FIRST_TRACK_ID) // len(artists)
    next_ids = {
        artist.artist_id: _spread_ids(place, spacing)
        for place, artist in enumerate(artists)
    }
    tracks = [
        DemoTrack(
            track_id=next(next_ids[artist.artist_id]), artist=artist, number=number + 1
        )
        for artist in artists
        for number in range(config.tracks_per_artist[SPLITS.index(artist.split)])
    ]
    if config.broken:
        training = [
            place
            for place, track in enumerate(tracks)
            if track.artist.split == SPLITS[0]
        ]
        for place, kind in zip(training[1:], (Kind.MONO, Kind.RATE_48K), strict=False):
            tracks[place] = dataclasses.replace(tracks[place], kind=kind)
        tracks += _plan_extras(artists, next_ids)
    return sorted(tracks, key=lambda track: track.track_id)

"""Which tracks the demo corpus has, by whom, and which files are broken on purpose."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

import numpy as np

from pipeline.common.rejects import Reason
from pipeline.demo.genres import GENRES
from pipeline.schema import SPLITS, UserError

_FIRST_TRACK_ID = 2
_LAST_TRACK_ID = 155_000
_MAX_ARTISTS = 400
_MAX_TRACKS = 24


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
        seconds, genres = self.clip_seconds, self.genres
        artists, tracks = self.artists_per_genre, self.tracks_per_artist
        once = 0 < len(set(genres)) == len(genres) and {*genres} <= {*GENRES}
        fit = len(genres) * sum(artists) <= _MAX_ARTISTS
        short = 1 <= min(tracks) <= max(tracks) <= _MAX_TRACKS
        known = f"--genres must be some of {', '.join(GENRES)}, each once"
        for fits, demand, value in (
            (self.seed >= 0, "--seed must be 0 or more", self.seed),
            (self.workers >= 1, "--workers must be 1 or more", self.workers),
            (6 <= seconds <= 60, "--clip_seconds must be 6 to 60", f"{seconds:g}"),
            (once, known, ",".join(genres)),
            (artists[0] >= 1, "each genre needs an artist in training", artists),
            (min(artists) >= 0, "artists_per_genre must be 0 or more each", artists),
            (fit, f"artists_per_genre: at most {_MAX_ARTISTS} artists fit", artists),
            (short, f"tracks_per_artist must be 1 to {_MAX_TRACKS} each", tracks),
        ):
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


def plan_layout(config: DemoConfig) -> list[DemoTrack]:
    """Returns every track of the corpus, ordered by id.

    Ids, splits and kinds depend on the configuration alone, and each track's music
    only on the seed, its artist and its id.
    """
    artists = _plan_artists(config)
    spacing = (_LAST_TRACK_ID - _FIRST_TRACK_ID) // len(artists)

    def plan(place: int, number: int, kind: Kind, subset: str = "small") -> DemoTrack:
        # Steps of three, as if others had uploaded between.
        return DemoTrack(
            track_id=_FIRST_TRACK_ID + place * spacing + 3 * (number - 1),
            artist=artists[place],
            number=number,
            kind=kind,
            subset=subset,
        )

    odd = [Kind.GOOD, Kind.MONO, Kind.RATE_48K] if config.broken else []
    tracks = []
    for place, artist in enumerate(artists):
        count = config.tracks_per_artist[SPLITS.index(artist.split)]
        for number in range(1, count + 1):
            usual = artist.split != SPLITS[0] or not odd
            tracks.append(plan(place, number, Kind.GOOD if usual else odd.pop(0)))
    if config.broken:
        kinds = [*BROKEN, Kind.AAC, *[Kind.OTHER_SUBSET] * 8]
        for extra, kind in enumerate(kinds):
            other = ("medium", "large")[extra % 2]
            subset = other if kind is Kind.OTHER_SUBSET else "small"
            place = extra * 5 % len(artists)
            tracks.append(plan(place, _MAX_TRACKS + 1 + extra, kind, subset))
    return sorted(tracks, key=lambda track: track.track_id)

"""``tracks.csv`` in the genuine file's layout: three header rows, 52 columns, an index.

The columns are those of the FMA data set (Defferrard, Benzi, Vandergheynst, Bresson,
"FMA: A Dataset for Music Analysis", 2017).
"""

from __future__ import annotations

import collections
import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.demo.encode import choose_quality
from pipeline.demo.layout import DemoArtist, DemoTrack


def _words(text: str) -> list[str]:
    return text.split()


#: Top-level group to its fields, in the file's order.
COLUMNS = {
    group: _words(fields)
    for group, fields in {
        "album": "comments date_created date_released engineer favorites id "
        "information listens producer tags title tracks type",
        "artist": "active_year_begin active_year_end associated_labels bio comments "
        "date_created favorites id latitude location longitude members name "
        "related_projects tags website wikipedia_page",
        "set": "split subset",
        "track": "bit_rate comments composer date_created date_recorded duration "
        "favorites genre_top genres genres_all information interest language_code "
        "license listens lyricist number publisher tags title",
    }.items()
}

#: FMA's ids of the genres.
GENRE_IDS = {
    "Electronic": 15,
    "Experimental": 38,
    "Folk": 17,
    "Hip-Hop": 21,
    "Instrumental": 1235,
    "International": 2,
    "Pop": 10,
    "Rock": 12,
}

_FIRST_NAMES = _words(
    "Arlo Bela Cora Edda Hanne Ines Kaya Lev Mina Pavel Rosa Zora"
)
_LAST_NAMES = _words("Birch Eklund Farrow Gallo Ibsen Kestrel Marlowe Novak Quill Wren")
_ADJECTIVES = _words(
    "Amber Broken Distant Faded Hollow Jagged Late Paper Winter"
)
_NOUNS = _words("Antenna Bridge Canal Engine Ferry Garden Kite Lantern Orchard River")
_PLACES = (
    ("Lisbon", 38.7222524, -9.1393366),
    ("Accra, Ghana", 5.6037168, -0.1869644),
    ("Valparaíso, Chile", -33.047238, -71.6126885),
    ("", "", ""),
)


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def name_artist(artist: DemoArtist, seed: int) -> str:
    """Returns an artist's name."""
    rng = np.random.default_rng([seed, 5, artist.artist_id])
    if rng.random() < 0.5:
        return f"{_pick(_FIRST_NAMES, rng)} {_pick(_LAST_NAMES, rng)}"
    return f"The {_pick(_ADJECTIVES, rng)} {_pick(_NOUNS, rng)}s"


def name_track(track: DemoTrack, seed: int) -> str:
    """Returns a track's title."""
    rng = np.random.default_rng([seed, 6, track.track_id])
    title = f"{_pick(_ADJECTIVES, rng)} {_pick(_NOUNS, rng)}"
    return title if rng.random() < 0.8 else f"{title}, Part {int(rng.integers(1, 4))}"


def _date(rng: np.random.Generator) -> str:
    year, month, day = rng.integers((2009, 1, 1), (2017, 13, 29))
    return f"{year}-{month:02d}-{day:02d} 00:00:00"


def _artist_values(artist: DemoArtist, seed: int) -> dict[str, object]:
    rng = np.random.default_rng([seed, 7, artist.artist_id])
    name = name_artist(artist, seed)
    location, latitude, longitude = _PLACES[int(rng.integers(len(_PLACES)))]
    bio = ""
    if artist.artist_id % 3 == 1:
        # Like many of the real ones: HTML that spans lines and holds quotes.
        bio = (
            f"<p>{name} makes {artist.genre} and does not exist: every note was "
            f'computed.</p>\n<p>"Loud, then quiet, then loud", says nobody.</p>\n'
        )
    return {
        "bio": bio,
        "comments": int(rng.poisson(1)),
        "date_created": _date(rng),
        "favorites": int(rng.poisson(12)),
        "id": artist.artist_id,
        "latitude": latitude,
        "location": location,
        "longitude": longitude,
        "name": name,
        "tags": f"['{artist.genre.lower()}', 'synthetic']",
    }


def _album_values(artist: DemoArtist, seed: int, tracks: int) -> dict[str, object]:
    rng = np.random.default_rng([seed, 8, artist.artist_id])
    return {
        "comments": 0,
        "date_created": _date(rng),
        "date_released": _date(rng),
        "favorites": int(rng.poisson(3)),
        "id": artist.artist_id + 1000,
        "listens": int(rng.integers(100, 20_000)),
        "tags": "[]",
        "title": f"{_pick(_ADJECTIVES, rng)} {_pick(_NOUNS, rng)}",
        "tracks": tracks,
        "type": "Album",
    }


def _track_values(track: DemoTrack, seed: int) -> dict[str, object]:
    rng = np.random.default_rng([seed, 9, track.track_id])
    genres = [GENRE_IDS[track.genre_top]] if track.genre_top else []
    listens = int(rng.integers(50, 9000))
    return {
        "bit_rate": choose_quality(seed, track.artist.artist_id)[1],
        "comments": 0,
        "date_created": _date(rng),
        # Of the whole track, as in FMA; the clip is cut out of its middle.
        "duration": int(rng.integers(75, 480)),
        "favorites": int(rng.poisson(2)),
        "genre_top": track.genre_top,
        "genres": genres,
        "genres_all": genres,
        "interest": listens + int(rng.integers(0, 4000)),
        "language_code": "en",
        "license": "CC0 1.0 Universal",
        "listens": listens,
        "number": track.number,
        "tags": "[]",
        "title": name_track(track, seed),
    }


def format_tracks(tracks: Iterable[DemoTrack], seed: int) -> str:
    """Returns ``tracks.csv`` for the tracks that have a row, in their order."""
    rows = [track for track in tracks if track.has_row]
    albums = collections.Counter(track.artist.artist_id for track in rows)
    names = [(group, field) for group, fields in COLUMNS.items() for field in fields]

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *(group for group, _ in names)])
    writer.writerow(["", *(field for _, field in names)])
    writer.writerow(["track_id", *("" for _ in names)])
    for track in rows:
        values: dict[str, dict[str, object]] = {
            "album": _album_values(track.artist, seed, albums[track.artist.artist_id]),
            "artist": _artist_values(track.artist, seed),
            "set": {"split": track.artist.split, "subset": track.subset},
            "track": _track_values(track, seed),
        }
        writer.writerow(
            [track.track_id, *(values[group].get(field, "") for group, field in names)]
        )
    return text.getvalue()

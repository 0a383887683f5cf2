"""``tracks.csv`` in the genuine file's layout: three header rows, 52 columns, an index.

The columns are those of the FMA data set (Defferrard, Benzi, Vandergheynst, Bresson,
"FMA: A Dataset for Music Analysis", 2017).
"""

from __future__ import annotations

import collections
import csv
import io
from collections.abc import Iterable

import numpy as np

from pipeline.demo.encode import choose_quality
from pipeline.demo.genre_tree import list_genres
from pipeline.demo.layout import DemoArtist, DemoTrack

#: Top-level group to its fields, in the file's order.
COLUMNS = {
    group: fields.split()
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

_ADJECTIVES = ("Amber", "Broken", "Distant", "Hollow", "Jagged", "Late", "Winter")
_NOUNS = ("Antenna", "Bridge", "Canal", "Engine", "Ferry", "Garden", "Orchard", "River")


def name_artist(artist: DemoArtist, seed: int) -> str:
    """Returns an artist's name."""
    rng = np.random.default_rng([seed, 5, artist.artist_id])
    return f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}s"


def name_track(track: DemoTrack, seed: int) -> str:
    """Returns a track's title."""
    rng = np.random.default_rng([seed, 6, track.track_id])
    return f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}, Part {rng.integers(1, 9)}"


def _date(rng: np.random.Generator) -> str:
    year, month, day = rng.integers((2009, 1, 1), (2017, 13, 29))
    return f"{year}-{month:02d}-{day:02d} 00:00:00"


def _values(track: DemoTrack, seed: int, tracks: int) -> dict[str, dict[str, object]]:
    """Returns what is known of a track whose artist has so many, by group and field."""
    artist, name = track.artist, name_artist(track.artist, seed)
    album = np.random.default_rng([seed, 7, artist.artist_id])
    rng = np.random.default_rng([seed, 8, track.track_id])
    bio = ""
    if artist.artist_id % 3 == 1:
        # Like many of the real ones: HTML that spans lines and holds quotes.
        bio = (
            f"<p>{name} makes {artist.genre} and does not exist: every note was "
            f'computed.</p>\n<p>"Loud, then quiet, then loud", says nobody.</p>\n'
        )
    chosen, every = list_genres(track, seed)
    return {
        "album": {
            "date_created": _date(album),
            "id": artist.artist_id + 1_000,
            "listens": int(album.integers(9_000, 20_000)),
            "title": f"{album.choice(_ADJECTIVES)} {album.choice(_NOUNS)}",
            "tracks": tracks,
            "type": "Album",
        },
        "artist": {
            "bio": bio,
            "date_created": _date(album),
            "favorites": int(album.poisson(12)),
            "id": artist.artist_id,
            "name": name,
        },
        "set": {"split": artist.split, "subset": track.subset},
        "track": {
            "bit_rate": choose_quality(seed, artist.artist_id)[1],
            "date_created": _date(rng),
            # Of the whole track, as in FMA; the clip is cut out of its middle.
            "duration": int(rng.integers(75, 480)),
            "favorites": int(rng.poisson(2)),
            "genre_top": track.genre_top,
            "genres": chosen,
            "genres_all": every,
            "license": "CC0 1.0 Universal",
            "listens": int(rng.integers(50, 9_000)),
            "number": track.number,
            "title": name_track(track, seed),
        },
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
        values = _values(track, seed, albums[track.artist.artist_id])
        writer.writerow(
            [track.track_id, *(values[group].get(field, "") for group, field in names)]
        )
    return text.getvalue()

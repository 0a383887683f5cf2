"""Which genres a demo track has beside its top one, and the table of all of them.

They follow from what the song is drawn to be, so that they can be heard: a sub-genre by
its tempo within its genre, and the genre that it has its drums from.
"""

from __future__ import annotations

import collections
import csv
import io
from collections.abc import Iterable

from pipeline.demo.encode import draw_track
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import DemoTrack
from pipeline.demo.music import Song

#: Top genre to FMA's id, and FMA's ids and titles of its slower and faster kind.
TREE = {
    "Electronic": (15, (182, "House"), (181, "Techno")),
    "Experimental": (38, (47, "Drone"), (32, "Noise")),
    "Folk": (17, (103, "Singer-Songwriter"), (94, "Freak-Folk")),
    "Hip-Hop": (21, (811, "Hip-Hop Beats"), (539, "Rap")),
    "Instrumental": (1235, (107, "Ambient"), (18, "Soundtrack")),
    "International": (2, (79, "Reggae - Dub"), (118, "Balkan")),
    "Pop": (10, (76, "Experimental Pop"), (362, "Synth Pop")),
    "Rock": (12, (26, "Post-Rock"), (25, "Punk")),
}
PARENTS = {kind: root for root, *kinds in TREE.values() for kind, _ in kinds}


def choose_genres(genre: str, song: Song) -> list[int]:
    """Ids of a song's kind, and of the genre that its drums are borrowed from, if any.

    Args:
      genre: the top one.
      song: as it was drawn.
    """
    _, slower, faster = TREE[genre]
    low, high = GENRES[genre].tempo
    beats = 60 / song.step / 4
    chosen = [(faster if beats > (low + high) / 2 else slower)[0]]
    lenders = [name for name, style in GENRES.items() if style.drums == song.drums]
    return chosen + [TREE[name][0] for name in lenders if name != genre]


def list_genres(track: DemoTrack, seed: int) -> tuple[list[int], list[int]]:
    """FMA's `genres` and, with ancestors, `genres_all` of a track; sorted ids."""
    if not track.genre_top:
        return [], []
    song, _, _ = draw_track(track, seed)
    chosen = choose_genres(track.genre_top, song)
    parents = {PARENTS[number] for number in chosen if number in PARENTS}
    return sorted(chosen), sorted(parents | set(chosen))


def format_genres(tracks: Iterable[DemoTrack], seed: int) -> str:
    """Returns ``genres.csv`` in the genuine layout, with the number of tracks."""
    counts = collections.Counter(
        number
        for track in tracks
        if track.has_row
        for number in list_genres(track, seed)[1]
    )
    rows = [(root, 0, name, root) for name, (root, *_) in TREE.items()]
    rows += [
        (number, root, title, root)
        for root, *kinds in TREE.values()
        for number, title in kinds
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["genre_id", "#tracks", "parent", "title", "top_level"])
    for number, parent, title, top in sorted(rows):
        writer.writerow([number, counts[number], parent, title, top])
    return text.getvalue()

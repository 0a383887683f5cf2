"""Folds of clips, all clips of an artist in the same one."""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

#: Folds that hyper-parameters are chosen with.
FOLDS = 5


def fold_by_artist(
    artist_ids: Sequence[str],
    track_ids: Sequence[str],
    *,
    known: Collection[str] = (),
    folds: int = FOLDS,
) -> NDArray[np.int64]:
    """Puts clips into folds of about the same size.

    Artists are dealt out from the most clips to the fewest, each to the smallest
    fold; so the result depends on nothing but the arguments.

    Args:
      artist_ids: of each clip; a clip without artist is taken for its own.
      track_ids: of each clip.
      known: artists that a model was fitted to: their clips belong to no fold, as
        they would reward learning artists by heart.
      folds: how many.

    Returns:
      The fold of each clip, from 0, or -1 for none; all in fold 0 if `known` leaves
      no clip over. `(clips,)`
    """
    names = [
        artist or f"clip {track}"
        for artist, track in zip(artist_ids, track_ids, strict=True)
    ]
    counts = collections.Counter(name for name in names if name not in set(known))
    if not counts:
        return np.zeros(len(names), np.int64)
    sizes = [0] * min(folds, len(counts))
    fold_of: dict[str, int] = {}
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        fold_of[name] = sizes.index(min(sizes))
        sizes[fold_of[name]] += count
    return np.array([fold_of.get(name, -1) for name in names], np.int64)

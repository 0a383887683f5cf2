"""Percentile bootstrap of scores over artists, or over clips where they are unknown.

Clips of one artist resemble each other, so that 100 clips by 10 artists tell less
than 100 by as many artists: whole artists are drawn, with replacement. NumPy only.

Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapters
8 (groups) and 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.evaluation.predictions import Float64s

#: How often the artists are drawn anew.
RESAMPLES = 4000
#: Draws that are held in memory at a time.
_CHUNK = 250

Interval = tuple[float, float]


def group_clips(
    artist_ids: Sequence[str], track_ids: Sequence[str]
) -> NDArray[np.intp]:
    """Numbers the groups that clips are drawn in: `(clips,)`, from 0.

    The clips of an artist make a group; a clip without artist is one by itself.
    Groups are numbered in order of their names, so that two models' groups agree
    however their clips are ordered.

    Args:
      artist_ids: of each clip, empty where it is not known; or nothing at all.
      track_ids: of each clip.
    """
    artists = artist_ids or [""] * len(track_ids)
    names = [
        f"artist:{artist}" if artist else f"clip:{track}"
        for artist, track in zip(artists, track_ids, strict=True)
    ]
    return np.unique(names, return_inverse=True)[1].astype(np.intp)


def draw_sums(values: ArrayLike, groups: NDArray[np.intp]) -> Float64s:
    """Sums of clips' values over the groups that each draw has drawn.

    Equal numbers of groups draw the same groups, so that two models can be compared
    draw by draw.

    Args:
      values: `(clips, columns)`.
      groups: of each clip, `(clips,)`.

    Returns:
      Shape `(RESAMPLES, columns)`.
    """
    table = np.asarray(values, np.float64)
    sums = np.zeros((int(groups.max()) + 1, table.shape[1]))
    np.add.at(sums, groups, table)
    result = np.empty((RESAMPLES, table.shape[1]))
    for start, times in draw_times(groups, resamples=RESAMPLES, chunk=_CHUNK):
        result[start : start + len(times)] = times @ sums
    return result


def draw_times(
    groups: NDArray[np.intp], *, resamples: int, chunk: int
) -> Iterator[tuple[int, Float64s]]:
    """How often each group is drawn.

    Args:
      groups: of each clip, `(clips,)`.
      resamples: number of draws.
      chunk: draws at a time.

    Yields:
      The number of the first draw, and `(draws, groups)`.
    """
    count = int(groups.max()) + 1
    rng = np.random.default_rng(0)
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        choice = rng.integers(0, count, (draws, count))
        choice += np.arange(draws)[:, np.newaxis] * count
        times = np.bincount(choice.ravel(), minlength=draws * count)
        yield start, times.reshape(draws, count).astype(np.float64)


def percentile_interval(draws: Float64s) -> Interval:
    """The middle 95 % of the draws `(n,)`."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def score_intervals(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: NDArray[np.intp],
    genres: int,
) -> tuple[Interval, Interval]:
    """95 % intervals of accuracy and macro-F1.

    Args:
      labels: true genres, `(clips,)`.
      predicted: predicted genres, `(clips,)`.
      groups: see `group_clips`.
      genres: number of genres.
    """
    # All that both scores need of a draw: clips, hits and, by genre, hits, labels
    # and predictions.
    one = np.eye(genres)
    hits = labels == predicted
    ones = np.ones((len(labels), 1))
    hits_by_genre = one[labels] * hits[:, np.newaxis]
    columns = np.concatenate([ones, hits_by_genre, one[labels], one[predicted]], axis=1)
    sums = draw_sums(columns, groups)
    clips, right, true, predictions = np.split(
        sums, [1, 1 + genres, 1 + 2 * genres], axis=1
    )
    accuracy = right.sum(axis=1) / clips[:, 0]
    occurring = true + predictions
    f1 = 2 * right / np.maximum(occurring, 1)
    macro_f1 = f1.sum(axis=1) / np.count_nonzero(occurring, axis=1)
    return percentile_interval(accuracy), percentile_interval(macro_f1)


def draw_shares(hits: NDArray[np.bool_], groups: NDArray[np.intp]) -> Float64s:
    """The share of hits in each draw, `(RESAMPLES,)`.

    Args:
      hits: of each clip, `(clips,)`.
      groups: see `group_clips`.
    """
    columns = np.stack([np.ones(len(hits)), hits], axis=1)
    clips, right = draw_sums(columns, groups).T
    shares: Float64s = right / clips
    return shares

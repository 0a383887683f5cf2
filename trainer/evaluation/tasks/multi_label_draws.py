"""Bootstrap of average precision and ROC-AUC over artists, genre by genre."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from trainer.evaluation.bootstrap import Interval, draw_times, percentile_interval
from trainer.evaluation.predictions import Float64s

#: How often artists are drawn anew, unless clips times genres times draws are too many.
RESAMPLES, MOST_WORK, FEWEST_RESAMPLES = 1000, 400_000_000, 100
#: Draws that are held in memory at a time.
_CHUNK = 50


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Scores of genres in each draw of a bootstrap.

    Attributes:
      ap: average precisions, `(draws, genres)`; NaN where a genre has none.
      auc: areas under the ROC curve, likewise.
    """

    ap: Float64s
    auc: Float64s

    def genre_interval(self, genre: int) -> Interval | None:
        """Of a genre's average precision; None where no draw has one."""
        found = self.ap[:, genre]
        found = found[np.isfinite(found)]
        return percentile_interval(found) if len(found) else None


def macro_scores(scores: Float64s) -> Float64s:
    """Means over genres of `(draws, genres)`: `(draws,)`, NaN where none has any.

    Genres without a score in a draw are left out of that draw.
    """
    counts = np.isfinite(scores).sum(axis=1)
    sums = np.nansum(scores, axis=1)
    means: Float64s = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def macro_interval(scores: Float64s) -> Interval:
    """95 % percentile interval of `macro_scores`."""
    means = macro_scores(scores)
    means = means[np.isfinite(means)]
    return percentile_interval(means) if len(means) else (0.0, 0.0)


def draw_scores(
    labels: npt.NDArray[np.uint8],
    probabilities: Float64s,
    groups: npt.NDArray[np.intp],
) -> Draws:
    """Draws whole groups with replacement (see `trainer.evaluation.bootstrap`).

    A clip that is drawn several times counts so often. Equal labels and groups draw the
    same groups, so that two models can be compared draw by draw.

    Args:
      labels: `(clips, genres)`.
      probabilities: `(clips, genres)`.
      groups: of each clip, `(clips,)`.
    """
    affordable = max(MOST_WORK // labels.size, FEWEST_RESAMPLES)
    resamples = min(RESAMPLES, affordable)
    ap = np.full((resamples, labels.shape[1]), np.nan)
    auc = ap.copy()
    columns = [_sort(labels[:, g], probabilities[:, g]) for g in range(labels.shape[1])]
    for start, times in draw_times(groups, resamples=resamples, chunk=_CHUNK):
        weights = times[:, groups]
        part = slice(start, start + len(times))
        for genre, (order, positive, starts, ends) in enumerate(columns):
            if not positive.any() or positive.all():
                continue
            drawn = weights[:, order]
            hits = drawn * positive
            found = np.cumsum(hits, axis=1)
            count = np.cumsum(drawn, axis=1)
            true, false = found[:, -1], count[:, -1] - found[:, -1]
            usable = (true > 0) & (false > 0)
            precision = (found / np.maximum(count, 1))[:, ends]
            gains = (hits * precision).sum(axis=1)
            ap[part, genre] = np.where(usable, gains / np.maximum(true, 1), np.nan)
            # Of each pair of a clip that has the genre and one that has not, whether
            # the first is more probable: a half where they are equal.
            lacking = count - found
            above = np.where(starts > 0, lacking[:, starts - 1], 0)
            pairs = (hits * (false[:, None] - (above + lacking[:, ends]) / 2)).sum(1)
            area = pairs / np.maximum(true * false, 1)
            auc[part, genre] = np.where(usable, area, np.nan)
    return Draws(ap=ap, auc=auc)


def _sort(
    labels: npt.NDArray[np.uint8], probabilities: Float64s
) -> tuple[
    npt.NDArray[np.intp],
    npt.NDArray[np.bool_],
    npt.NDArray[np.intp],
    npt.NDArray[np.intp],
]:
    """Clips by descending probability, their labels, first and last of their equals."""
    order = np.argsort(-probabilities, kind="stable")
    descending = -probabilities[order]
    starts = np.searchsorted(descending, descending, side="left")
    ends = np.searchsorted(descending, descending, side="right") - 1
    return order, labels[order] > 0, starts, ends

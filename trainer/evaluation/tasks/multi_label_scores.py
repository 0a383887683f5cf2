"""How well probabilities of several genres a clip fit: average precision, ROC-AUC.

The convention of MTG-Jamendo and MARBLE: scikit-learn's scores of each genre over
clips, averaged over the genres (macro); and of all pairs of clip and genre at once
(micro). Genres that no clip of the split has, or all, have none and are left out;
reports name them.
Source: D. Bogdanov et al., The MTG-Jamendo Dataset (2019), https://github.com/MTG/
mtg-jamendo-dataset, `scripts/mediaeval/evaluate.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from trainer.evaluation.bootstrap import Interval, group_clips
from trainer.evaluation.calibration import Reliability, count_bins
from trainer.evaluation.predictions import ClipPredictions, Float64s
from trainer.evaluation.tasks.multi_label_draws import draw_scores, macro_interval

#: Bins of equal width that probabilities are counted in.
BINS = 10
#: Probabilities nearer to 0 or 1 count as this: 1 less it is a float32 too.
FLOOR = 2.0**-23


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagScores:
    """Scores of one genre among several.

    Attributes:
      genre: its name.
      path: names from its root to itself, as "Electronic > IDM".
      support: number of clips that have it.
      average_precision: of its probabilities; None where no clip has it, or all.
      average_precision_interval: 95 % bootstrap interval over artists, or over clips
        where no artist is known; of the draws that have a clip of it, and one without.
      roc_auc: as the average precision.
      threshold: from this probability on the genre is given.
      precision: share of the clips given this genre that have it; 0 if none is.
      recall: share of the clips of this genre that were given it; 0 if none has it.
      f1: harmonic mean of the two.
    """

    genre: str
    path: str
    support: int
    average_precision: float | None
    roc_auc: float | None
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision_interval: Interval | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation:
    """Scores of one split whose clips have several genres.

    Attributes:
      clips: number of clips evaluated.
      artists: number of different artists among them; 0 if none is known.
      macro_ap: mean average precision of the genres that have one.
      macro_ap_interval: 95 % bootstrap interval over artists, or over clips where no
        artist is known.
      micro_ap: average precision of all pairs of clip and genre.
      macro_auc: mean area under the ROC curve of the genres that have one.
      macro_auc_interval: as that of the average precision.
      micro_auc: likewise of all pairs.
      macro_f1: mean F1, at the thresholds, of the genres that some clip has or is
        given.
      micro_f1: F1 of all pairs.
      log_loss: mean binary cross-entropy of all pairs, in nats.
      calibration_error: see `measure_pairs`.
      accuracy: share of clips whose most probable genre is one of their own.
      prevalence: mean share of clips that have a genre, over the genres that have an
        average precision: what guessing reaches of it.
      labels_per_clip: mean number of genres.
      predicted_per_clip: mean number of genres from their thresholds on.
      genres: scores of each genre, in the dataset's order.
    """

    clips: int
    artists: int
    macro_ap: float
    macro_ap_interval: Interval
    micro_ap: float
    macro_auc: float
    micro_auc: float
    macro_f1: float
    micro_f1: float
    log_loss: float
    calibration_error: float
    accuracy: float
    prevalence: float
    labels_per_clip: float
    predicted_per_clip: float
    genres: tuple[TagScores, ...]
    macro_auc_interval: Interval = (0.0, 1.0)

    SCORE: ClassVar[str] = "macro AP"

    @property
    def score(self) -> float:
        """The macro average precision."""
        return self.macro_ap

    @property
    def score_interval(self) -> Interval:
        """Of the macro average precision."""
        return self.macro_ap_interval

    @property
    def chance(self) -> float:
        """What guessing reaches of it."""
        return self.prevalence

    @property
    def others(self) -> dict[str, float]:
        """What else a line on a model says."""
        return {"ROC-AUC": self.macro_auc, "micro AP": self.micro_ap}

    @property
    def unscored(self) -> list[str]:
        """Paths of the genres that no clip has, or all: the means leave them out."""
        return [one.path for one in self.genres if one.average_precision is None]


def evaluate(
    predictions: ClipPredictions,
    genres: Sequence[str],
    thresholds: Float64s,
    *,
    given: npt.NDArray[np.bool_] | None = None,
    paths: Sequence[str] = (),
) -> MultiLabelEvaluation:
    """Computes all scores of a split.

    Args:
      predictions: at least one clip's, with labels `(clips, genres)`.
      genres: names of the columns.
      thresholds: of each genre, `(genres,)`.
      given: whether each clip is given each genre, `(clips, genres)`, where other
        thresholds than these say so.
      paths: of each genre; their names where there are none.

    Raises:
      ValueError: there are no clips, or no labels of this kind, or not as many names
        as columns.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    if labels.shape != probabilities.shape or not len(labels):
        raise ValueError(
            "Expected labels (clips, genres) of at least one clip. Received: "
            f"{labels.shape}"
        )
    if len(genres) != labels.shape[1] or len(thresholds) != len(genres):
        raise ValueError(
            f"Expected a name and a threshold for each of {labels.shape[1]} genres. "
            f"Received: {len(genres)} and {len(thresholds)}"
        )
    support = labels.sum(axis=0, dtype=np.int64)
    scored = np.flatnonzero((support > 0) & (support < len(labels)))
    ap = {int(g): _average_precision(labels[:, g], probabilities[:, g]) for g in scored}
    auc = {int(g): _roc_auc(labels[:, g], probabilities[:, g]) for g in scored}
    if given is None:
        given = probabilities >= thresholds
    groups = group_clips(predictions.artist_ids, predictions.track_ids)
    draws = draw_scores(labels, probabilities, groups)
    hits = (given & (labels > 0)).sum(axis=0)
    f1 = 2 * hits / np.maximum(given.sum(axis=0) + support, 1)
    occurring = (given.sum(axis=0) + support) > 0
    rows = []
    for genre, name in enumerate(genres):
        rows.append(
            TagScores(
                genre=name,
                path=paths[genre] if paths else name,
                support=int(support[genre]),
                average_precision=ap.get(genre),
                roc_auc=auc.get(genre),
                threshold=float(thresholds[genre]),
                precision=float(hits[genre] / max(given[:, genre].sum(), 1)),
                recall=float(hits[genre] / max(support[genre], 1)),
                f1=float(f1[genre]),
                average_precision_interval=draws.genre_interval(genre),
            )
        )
    reliability = measure_pairs(probabilities, labels)
    pairs = labels.ravel(), probabilities.ravel()
    mixed = 0 < labels.sum() < labels.size
    best = probabilities.argmax(axis=1)
    return MultiLabelEvaluation(
        clips=len(labels),
        artists=len(set(predictions.artist_ids) - {""}),
        macro_ap=_mean(list(ap.values())),
        macro_ap_interval=macro_interval(draws.ap),
        micro_ap=_average_precision(*pairs) if mixed else 0.0,
        macro_auc=_mean(list(auc.values())),
        macro_auc_interval=macro_interval(draws.auc),
        micro_auc=_roc_auc(*pairs) if mixed else 0.0,
        macro_f1=float(f1[occurring].mean()) if occurring.any() else 0.0,
        micro_f1=float(2 * hits.sum() / max(given.sum() + labels.sum(), 1)),
        log_loss=reliability.log_loss,
        calibration_error=reliability.error,
        accuracy=float(labels[np.arange(len(labels)), best].mean()),
        prevalence=float(support[scored].mean() / len(labels)) if len(scored) else 0.0,
        labels_per_clip=float(labels.sum() / len(labels)),
        predicted_per_clip=float(given.sum() / len(labels)),
        genres=tuple(rows),
    )


def macro_ap(
    labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
) -> float:
    """Mean average precision of the genres that some clips have, and others lack.

    Args:
      labels: `(clips, genres)`.
      probabilities: `(clips, genres)`.
    """
    scored = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    return _mean(
        [_average_precision(labels[:, g], probabilities[:, g]) for g in scored]
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _average_precision(
    labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]
) -> float:
    # Takes half a second, which commands that only predict are spared.
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, probabilities))


def _roc_auc(labels: npt.NDArray[np.uint8], probabilities: Float64s) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, probabilities))


def measure_pairs(
    probabilities: Float64s, labels: npt.NDArray[np.uint8]
) -> Reliability:
    """How probabilities agree with the shares of pairs of clip and genre that hold.

    `error` is the mean distance between both over bins of equal width, weighted by
    their pairs; `clips` of a bin are pairs, `accuracy` the share that holds.

    Args:
      probabilities: `(clips, genres)`; at least one clip.
      labels: `(clips, genres)`, 0 or 1.
    """
    flat, truth = probabilities.ravel(), labels.ravel().astype(np.float64)
    loss = float(binary_losses(labels, probabilities).mean())
    return count_bins(flat, truth, BINS, loss)


def binary_losses(
    labels: npt.NDArray[np.uint8], probabilities: npt.NDArray[np.floating]
) -> Float64s:
    """Binary cross-entropies in nats, of each clip and genre."""
    p = np.clip(probabilities.astype(np.float64), FLOOR, 1 - FLOOR)
    losses: Float64s = -np.where(labels > 0, np.log(p), np.log1p(-p))
    return losses

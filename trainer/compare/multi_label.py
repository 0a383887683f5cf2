"""What a comparison shows of models of several genres a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.compare.html.markup import Markup, percent
from trainer.compare.html.tables import genre_table
from trainer.compare.view import Column, Mistake, View
from trainer.evaluation.card import list_some
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.tasks.multi_label import MultiLabelReport
from trainer.evaluation.tasks.multi_label_scores import binary_losses
from trainer.evaluation.tasks.task import scale_clips, task_of

#: Genres that a mistake names at most, of each kind.
_NAMED = 3


class MultiLabelView(View):
    """See `view.View`."""

    columns: Sequence[Column] = (
        Column(name="macro AP", brief="macro AP", value=lambda r: r.test.macro_ap),
        Column(
            name="95 % interval", brief="95 %", value=lambda r: r.test.macro_ap_interval
        ),
        Column(name="micro AP", brief="micro AP", value=lambda r: r.test.micro_ap),
        Column(name="macro ROC-AUC", brief="AUC", value=lambda r: r.test.macro_auc),
        Column(name="95 % interval", value=lambda r: r.test.macro_auc_interval),
        Column(name="micro ROC-AUC", value=lambda r: r.test.micro_auc),
        Column(name="macro-F1", brief="F1", value=lambda r: r.test.macro_f1),
        Column(name="micro-F1", value=lambda r: r.test.micro_f1),
        Column(name="log-loss", brief="loss", value=lambda r: r.test.log_loss),
        Column(name="calibration error", value=lambda r: r.test.calibration_error),
        Column(name="training macro AP", value=lambda r: r.training_macro_ap),
        Column(name="weights", form=",d", value=lambda r: r.weights),
        Column(name="seconds", brief="s", form=".1f", value=lambda r: r.train_seconds),
    )
    genre_score = "Average precision"
    said_as = "given"
    score_note = "Macro average precision on the test clips"
    table_note = (
        "Macro scores are means over genres, so that rare ones count as much as "
        "frequent ones; micro scores are of all pairs of clip and genre at once. F1 is "
        "at the thresholds that the validation split chose. Log-loss in nats and "
        "calibration error are of pairs, with the temperature. A training score far "
        "above the test's is a sign of overfitting."
    )
    calibration_note = (
        "Of all pairs of clip and genre: the share that holds, by their probability. "
        "Larger dots are more pairs."
    )

    def describe_test(self, reports: Sequence[MultiLabelReport]) -> str:
        """How many genres a clip has, and which have no score."""
        test = reports[0].test
        text = f" {test.labels_per_clip:.1f} genres a clip on average."
        if test.unscored:
            named = ", ".join(test.unscored)
            text += f" No clip has {named}, or every one: the means leave them out."
        return text

    def guesses(
        self, reports: Sequence[MultiLabelReport]
    ) -> list[tuple[str, str, float]]:
        """Chance: the mean share of clips that have a genre."""
        return [("chance", "", reports[0].test.prevalence)]

    def genre_values(self, report: MultiLabelReport) -> list[float | None]:
        """Average precision."""
        return [scores.average_precision for scores in report.test.genres]

    def json_facts(self, reports: Sequence[MultiLabelReport]) -> Mapping[str, Any]:
        """Chance, and what has no score."""
        test = reports[0].test
        return {"prevalence": test.prevalence, "unscored_genres": test.unscored}

    def find_mistakes(
        self, report: MultiLabelReport, predictions: ClipPredictions
    ) -> list[Mistake]:
        """Clips not given just their genres, those of the highest loss first."""
        task, fit = task_of(report), report.fit
        clips = scale_clips(task, predictions, fit.temperature)
        given = task.decide(clips.probabilities, fit)
        losses = binary_losses(clips.labels, clips.probabilities).mean(axis=1)
        wrong = np.flatnonzero((given != clips.labels).any(axis=1))
        names = np.array(report.genres, object)
        mistakes = []
        for row in wrong[np.argsort(-losses[wrong], kind="stable")].tolist():
            true, found = clips.labels[row] > 0, given[row] > 0
            shares = clips.probabilities[row]
            missed = list_some(names[true & ~found], _NAMED)
            mistakes.append(
                Mistake(
                    track_id=clips.track_ids[row],
                    truth=", ".join(names[true]) or "no genre",
                    said=(_name(names, shares, found) or "nothing")
                    + (f"; missed {missed}" if missed else ""),
                    certainty=float(losses[row]),
                )
            )
        return mistakes

    def headline(self, report: MultiLabelReport) -> str:
        """Its macro average precision."""
        return f"Macro average precision {report.test.macro_ap:.3f}"

    def lead(self, report: MultiLabelReport) -> str:
        """Interval and chance, and its most probable genre."""
        test = report.test
        low, high = test.macro_ap_interval
        artists = f" by {test.artists} artists" if test.artists else ""
        return (
            f"It was tested on {test.clips} clips{artists} that it has never heard "
            f"(95 % interval {low:.3f} to {high:.3f}); guessing reaches "
            f"{test.prevalence:.3f}. Its most probable genre is one of the clip's for "
            f"{percent(test.accuracy)}."
        )

    def describe_heat(self, names: Sequence[str]) -> tuple[str, str]:
        """Which genre is found best."""
        return (
            f"{names[0]} is found best, {names[-1]} worst",
            "Average precision of each genre, times 100",
        )

    def summary(self, report: MultiLabelReport) -> str:
        """Macro average precision and area under the ROC curve."""
        test = report.test
        low, high = test.macro_ap_interval
        return (
            f"macro AP {test.macro_ap:.3f} ({low:.3f} to {high:.3f}), macro ROC-AUC "
            f"{test.macro_auc:.3f}"
        )

    def blocks(self, report: MultiLabelReport) -> list[tuple[str, Markup]]:
        """Scores by genre, with thresholds."""
        test = report.test
        columns = ("Chance", "AP", "From", "To", "ROC-AUC", "Threshold")
        rows = []
        for one in sorted(test.genres, key=lambda scores: scores.path):
            low, high = one.average_precision_interval or (None, None)
            values = (one.support / test.clips, one.average_precision, low, high)
            of_threshold = (one.threshold, one.precision, one.recall, one.f1)
            rows.append((one.path, one.support, (*values, one.roc_auc, *of_threshold)))
        table = genre_table((*columns, "Precision", "Recall", "F1"), rows)
        return [("By genre, at its threshold", table)]


def _name(
    names: npt.NDArray[Any], shares: npt.NDArray[np.float64], given: npt.NDArray[Any]
) -> str:
    """Genres with their probabilities, the most probable first."""
    order = np.flatnonzero(given)
    order = order[np.argsort(-shares[order], kind="stable")]
    texts = [f"{names[genre]} {percent(float(shares[genre]))}" for genre in order]
    return list_some(texts, _NAMED)

"""What a comparison shows of models of one genre a clip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.compare.html.markup import Markup, percent
from trainer.compare.html.tables import confusion_table, genre_table
from trainer.compare.report_files import CONFUSIONS_FILE
from trainer.compare.view import Column, Mistake, View
from trainer.evaluation import plots
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report

#: What the 2020 article's repository reports for transfer learning on mel images.
ARTICLE_ACCURACY = 0.40
#: The genres that it was measured with: those of fma_small.
ARTICLE_GENRES = frozenset(
    (
        *("Electronic", "Experimental", "Folk", "Hip-Hop", "Instrumental"),
        *("International", "Pop", "Rock"),
    )
)
ARTICLE_NOTE = (
    "The 2020 article (Hermez, Cheung, Gu) reports about 40 % for transfer learning on "
    "mel images of fma_small with a random 20 % as test set. There, an artist's tracks "
    "may be in training and test, which makes a test easier."
)


class SingleLabelView(View):
    """See `view.View`."""

    columns: Sequence[Column] = (
        Column(name="accuracy", brief="accuracy", value=lambda r: r.test.accuracy),
        Column(
            name="95 % interval", brief="95 %", value=lambda r: r.test.accuracy_interval
        ),
        Column(name="macro-F1", brief="F1", value=lambda r: r.test.macro_f1),
        Column(name="95 % interval", value=lambda r: r.test.macro_f1_interval),
        Column(name="top-3", brief="top-3", value=lambda r: r.test.top_3),
        Column(name="log-loss", brief="loss", value=lambda r: r.test.log_loss),
        Column(name="calibration error", value=lambda r: r.test.calibration_error),
        Column(
            name="calibrated",
            value=lambda r: r.calibration and r.calibration.after.error,
        ),
        Column(
            name="training accuracy", brief="train", value=lambda r: r.training_accuracy
        ),
        Column(name="weights", form=",d", value=lambda r: r.weights),
        Column(name="seconds", brief="s", form=".1f", value=lambda r: r.train_seconds),
    )
    genre_score = "F1"
    captions: Mapping[str, str] = {CONFUSIONS_FILE: "Confusion matrices"}
    said_as = "taken for"
    score_note = "Share of test clips named right"
    table_note = (
        "Top-3: the genre is among the three most probable. Log-loss in nats, lower is "
        "better. Calibration error: mean distance between what a model claims and how "
        "often it is right, as the model is and after temperature scaling (calibrated; "
        "fitted to the validation split). A training accuracy far above the test's is "
        "a sign of overfitting."
    )
    calibration_note = "Larger dots are more clips."

    def guesses(self, reports: Sequence[Report]) -> list[tuple[str, str, float]]:
        """Chance, the most frequent genre, and the article where it fits."""
        test = reports[0].test
        rows = [("chance", "", test.chance_accuracy)]
        if test.majority_accuracy > test.chance_accuracy:
            rows.append(("most frequent genre", "", test.majority_accuracy))
        if _article_fits(reports):
            rows.append(("2020 article", "mel", ARTICLE_ACCURACY))
        return rows

    def genre_values(self, report: Report) -> list[float | None]:
        """F1."""
        return [scores.f1 for scores in report.test.genres]

    def notes(self, reports: Sequence[Report]) -> list[str]:
        """What the article reports, and how that compares."""
        even = math.log(len(reports[0].test.genres))
        guess = f"The log-loss of an even guess is {even:.2f}."
        if not _article_fits(reports):
            text = f"{ARTICLE_NOTE} It did not measure the same thing as this report."
            return [guess, text]
        mel = next(r for r in reports if r.representation == "mel")
        low, high = mel.test.accuracy_interval
        several = "artists" if mel.shared_artists else "no artist"
        return [
            guess,
            f"{ARTICLE_NOTE} {mel.model} on mel images reaches "
            f"{mel.test.accuracy:.0%} here ({low:.0%} to {high:.0%}), with {several} "
            "in several splits.",
        ]

    def json_facts(self, reports: Sequence[Report]) -> Mapping[str, Any]:
        """Chance and the article."""
        test = reports[0].test
        return {
            "chance_accuracy": test.chance_accuracy,
            "majority_accuracy": test.majority_accuracy,
            "article": {
                "accuracy": ARTICLE_ACCURACY,
                "same_genres_and_representation": _article_fits(reports),
                "note": ARTICLE_NOTE,
            },
        }

    def pictures(
        self, reports: Sequence[Report], labels: Sequence[str]
    ) -> dict[str, bytes]:
        """Confusion matrices."""
        evaluations = [report.test for report in reports]
        return {CONFUSIONS_FILE: plots.confusions_png(evaluations, labels)}

    def find_mistakes(
        self, report: Report, predictions: ClipPredictions
    ) -> list[Mistake]:
        """Those first whose true genre got the least probability."""
        genres = report.genres
        rows = np.arange(len(predictions.labels))
        true = predictions.probabilities[rows, predictions.labels]
        wrong = rows[predictions.predicted != predictions.labels]
        mistakes = []
        for row in wrong[np.argsort(true[wrong], kind="stable")].tolist():
            guess = int(predictions.predicted[row])
            share = float(predictions.probabilities[row, guess])
            mistakes.append(
                Mistake(
                    track_id=predictions.track_ids[row],
                    truth=genres[predictions.labels[row]],
                    said=f"{genres[guess]} {percent(share)}",
                    certainty=share,
                )
            )
        return mistakes

    def headline(self, report: Report) -> str:
        """Its accuracy."""
        return f"{percent(report.test.accuracy)} of unheard clips named right"

    def lead(self, report: Report) -> str:
        """Hits of clips, and what guessing reaches."""
        test = report.test
        low, high = test.accuracy_interval
        artists = f" by {test.artists} artists" if test.artists else ""
        return (
            f"It names the right genre for {round(test.accuracy * test.clips)} of "
            f"{test.clips} test clips{artists} that it has never heard (95 % interval "
            f"{percent(low)} to {percent(high)}). Guessing among {len(test.genres)} "
            f"genres is right for {percent(test.chance_accuracy)}."
        )

    def heat(self, report: Report) -> list[float | None]:
        """Recall."""
        return [scores.recall for scores in report.test.genres]

    def describe_heat(self, names: Sequence[str]) -> tuple[str, str]:
        """Which genre is recognised best."""
        return (
            f"{names[0]} is recognised best, {names[-1]} worst",
            "Of 100 test clips of a genre, so many are recognised",
        )

    def summary(self, report: Report) -> str:
        """Accuracy and macro-F1."""
        low, high = report.test.accuracy_interval
        return (
            f"{percent(report.test.accuracy)} right ({percent(low)} to "
            f"{percent(high)}), macro-F1 {report.test.macro_f1:.2f}"
        )

    def blocks(self, report: Report) -> list[tuple[str, Markup]]:
        """Confusion matrix, and scores by genre."""
        rows = [
            (s.genre, s.support, (s.precision, s.recall, s.f1))
            for s in report.test.genres
        ]
        return [
            ("Confusion matrix", confusion_table(report.test)),
            ("By genre", genre_table(("Precision", "Recall", "F1"), rows)),
        ]


def _article_fits(reports: Sequence[Report]) -> bool:
    """Whether the article measured the same thing: these genres, real music."""
    return (
        set(reports[0].genres) == ARTICLE_GENRES
        and not reports[0].synthetic
        and any(report.representation == "mel" for report in reports)
    )

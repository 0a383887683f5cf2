"""One genre a clip: softmax, cross-entropy, accuracy and macro-F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.common.plain_text import markdown
from trainer.evaluation.bootstrap import draw_shares
from trainer.evaluation.calibration import (
    FLOOR,
    MIN_CLIPS,
    Fit,
    Reliability,
    apply_temperature,
    fit_temperature,
    log_loss,
    logarithms,
    measure_reliability,
)
from trainer.evaluation.card import CardParts, describe_interval
from trainer.evaluation.predictions import ClipPredictions, Float64s, Labels
from trainer.evaluation.report import CONFUSION_FILE, Report
from trainer.evaluation.scores import Evaluation, GenreScores, evaluate

#: Probability below which the loss of a record is no longer counted higher, Keras'.
EPSILON = 1e-7


class SingleLabel:
    """See `task.Task`; labels are int64 `(n,)`."""

    activation = "softmax"
    bias = None
    score_name = Evaluation.SCORE
    label_column = "genre"
    report_class = Report
    scale = staticmethod(apply_temperature)

    def losses(self, labels: Any, probabilities: Any) -> Any:
        """Cross-entropies."""
        import keras

        return keras.losses.sparse_categorical_crossentropy(labels, probabilities)

    def objectives(self, labels: Any, probabilities: Any, smoothing: float) -> Any:
        """Cross-entropies, of smoothed labels where that is asked for."""
        import keras

        if not smoothing:
            return self.losses(labels, probabilities)
        one_hot = keras.ops.one_hot(labels, probabilities.shape[-1])
        return keras.losses.categorical_crossentropy(
            one_hot, probabilities, label_smoothing=smoothing
        )

    def hits(self, labels: Any, probabilities: Any) -> Any:
        """Whether the most probable genre is the record's."""
        from keras import ops

        return ops.cast(ops.argmax(probabilities, axis=-1), labels.dtype) == labels

    def measure(self, labels: Labels, probabilities: Labels) -> tuple[float, float]:
        """Sums of `losses` and `hits`."""
        of_labels = probabilities[np.arange(len(labels)), labels]
        clipped = np.clip(of_labels.astype(np.float64), EPSILON, 1.0)
        hits = np.count_nonzero(probabilities.argmax(axis=1) == labels)
        return float(-np.log(clipped).sum()), float(hits)

    def scale_tensor(self, probabilities: Any, temperature: float) -> Any:
        """The same of a tensor."""
        from keras import ops

        return ops.softmax(ops.log(ops.maximum(probabilities, FLOOR)) / temperature)

    def fit(
        self,
        clips: ClipPredictions | None,
        genres: int,  # noqa: ARG002
    ) -> Fit:
        """The temperature of the least log-loss."""
        if clips is None or len(clips.labels) < MIN_CLIPS:
            return Fit()
        scores = logarithms(clips.probabilities)
        return Fit(
            temperature=fit_temperature(scores, clips.labels), clips=len(clips.labels)
        )

    def measure_reliability(self, clips: ClipPredictions) -> Reliability:
        """How the most probable genre's probability and hits agree."""
        return measure_reliability(clips.probabilities, clips.labels)

    def evaluate(
        self,
        raw: ClipPredictions,
        scaled: ClipPredictions,  # noqa: ARG002
        decided: Labels,  # noqa: ARG002
        fit: Fit,  # noqa: ARG002
        paths: Mapping[str, str],
    ) -> Evaluation:
        """Of the probabilities as the model gives them."""
        return evaluate(raw, tuple(paths))

    def score(self, labels: Labels, probabilities: npt.NDArray[np.floating]) -> float:
        """The accuracy; a clip without numbers is none that was named right."""
        usable = np.isfinite(probabilities).all(axis=1)
        return float(np.mean(usable & (probabilities.argmax(axis=1) == labels)))

    def choice_loss(self, labels: Labels, probabilities: Float64s) -> float:
        """The log-loss."""
        return log_loss(probabilities, labels)

    def draw_scores(
        self, clips: ClipPredictions, groups: npt.NDArray[np.intp]
    ) -> Float64s:
        """Accuracies."""
        return draw_shares(clips.predicted == clips.labels, groups)

    def decide(
        self,
        probabilities: Float64s,
        fit: Fit,  # noqa: ARG002
    ) -> Labels:
        """The most probable genre, int64 `(clips,)`."""
        best: Labels = probabilities.argmax(axis=1).astype(np.int64)
        return best

    def label_cells(self, labels: Labels, genres: Sequence[str]) -> list[str]:
        """The genre's name."""
        return [genres[label] for label in labels.tolist()]

    def parse_cells(self, cells: Sequence[str], genres: Sequence[str]) -> Labels:
        """Indices, int64 `(clips,)`."""
        places = {genre: label for label, genre in enumerate(genres)}
        return np.array([places[cell] for cell in cells], np.int64)

    def draw(self, report: Report) -> dict[str, bytes]:
        """The confusion matrix, as a file by name."""
        from trainer.evaluation import plots  # Prediction does without Matplotlib.

        title = f"{report.model} on {report.representation}"
        return {CONFUSION_FILE: plots.confusion_png(report.test, title)}

    def make_card_parts(self, report: Report) -> CardParts:
        """What the model card says of this task."""
        test = report.test
        low, high = test.accuracy_interval
        return CardParts(
            use=f"Names the genre of a music recording, one of {len(test.genres)}: "
            + ", ".join(markdown(scores.genre) for scores in test.genres)
            + ". It always names one of them, also for speech, silence or a genre that "
            "it has never heard.",
            scores=(
                ("accuracy", f"{test.accuracy:.3f}"),
                (describe_interval(report), f"{low:.3f} to {high:.3f}"),
                ("macro-F1", f"{test.macro_f1:.3f}"),
                ("genre among the first three", f"{test.top_3:.3f}"),
                ("log-loss (nats)", f"{test.log_loss:.3f}"),
                ("calibration error", f"{test.calibration_error:.3f}"),
                (
                    "always naming the most frequent genre",
                    f"{test.majority_accuracy:.3f}",
                ),
            ),
            header=("genre", "precision", "recall", "F1", "test clips"),
            rows=[_make_row(scores) for scores in test.genres],
            limits=_find_limits(report),
            caveat="Genres are labels that artists chose for themselves; the borders "
            "between them are vague, and so is the best accuracy that can be reached.",
        )


def _make_row(scores: GenreScores) -> list[str]:
    numbers = (scores.precision, scores.recall, scores.f1)
    cells = [f"{number:.3f}" for number in numbers]
    return [markdown(scores.genre), *cells, str(scores.support)]


def _find_limits(report: Report) -> list[str]:
    test = report.test
    limits = []
    if test.accuracy_interval[0] <= test.majority_accuracy:
        limits.append(
            "Its accuracy cannot be told from that of always naming the most frequent "
            "genre."
        )
    unknown = [s.genre for s in test.genres if s.support and not s.recall]
    if unknown:
        limits.append(f"Not one test clip of {', '.join(unknown)} was recognised.")
    return limits

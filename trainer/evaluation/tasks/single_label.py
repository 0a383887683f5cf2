"""One genre a clip: softmax, cross-entropy, accuracy and macro-F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import CONFUSION_FILE, Report
from trainer.evaluation.scores import Evaluation, evaluate
from trainer.evaluation.tasks.single_label_card import make_card_parts

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
    make_card_parts = staticmethod(make_card_parts)

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

    def measure(
        self, labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]
    ) -> tuple[float, float]:
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
        decided: npt.NDArray[Any],  # noqa: ARG002
        fit: Fit,  # noqa: ARG002
        paths: Mapping[str, str],
    ) -> Evaluation:
        """Of the probabilities as the model gives them."""
        return evaluate(raw, tuple(paths))

    def score(
        self, labels: npt.NDArray[Any], probabilities: npt.NDArray[np.floating]
    ) -> float:
        """The accuracy; a clip without numbers is none that was named right."""
        usable = np.isfinite(probabilities).all(axis=1)
        return float(np.mean(usable & (probabilities.argmax(axis=1) == labels)))

    def choice_loss(
        self, labels: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]
    ) -> float:
        """The log-loss."""
        return log_loss(probabilities, labels)

    def draw_scores(
        self, clips: ClipPredictions, groups: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """Accuracies."""
        return draw_shares(clips.predicted == clips.labels, groups, seed=0)

    def decide(
        self,
        probabilities: npt.NDArray[np.float64],
        fit: Fit,  # noqa: ARG002
    ) -> npt.NDArray[Any]:
        """The most probable genre, int64 `(clips,)`."""
        best: npt.NDArray[Any] = probabilities.argmax(axis=1).astype(np.int64)
        return best

    def label_cells(self, labels: npt.NDArray[Any], genres: Sequence[str]) -> list[str]:
        """The genre's name."""
        return [genres[label] for label in labels.tolist()]

    def parse_cells(
        self, cells: Sequence[str], genres: Sequence[str]
    ) -> npt.NDArray[Any]:
        """Indices, int64 `(clips,)`."""
        places = {genre: label for label, genre in enumerate(genres)}
        return np.array([places[cell] for cell in cells], np.int64)

    def draw(self, report: Report) -> dict[str, bytes]:
        """The confusion matrix, as a file by name."""
        from trainer.evaluation import plots  # Prediction does without Matplotlib.

        title = f"{report.model} on {report.representation}"
        return {CONFUSION_FILE: plots.confusion_png(report.test, title)}

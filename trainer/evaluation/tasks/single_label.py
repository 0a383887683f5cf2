"""One genre a clip: softmax, cross-entropy, accuracy and macro-F1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.schema import Manifest
from trainer.evaluation.calibration import apply_temperature
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report, make_report

#: Probability below which the loss of a record is no longer counted higher, Keras'.
EPSILON = 1e-7


class SingleLabel:
    """See `task.Task`; labels are int64 `(n,)`."""

    activation = "softmax"
    bias = None

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

    def make_report(
        self,
        manifest: Manifest,
        predictions: Mapping[str, ClipPredictions],
        **facts: Any,
    ) -> Report:
        """See `report.make_report`."""
        return make_report(manifest, predictions, **facts)

    def scale(
        self, probabilities: npt.NDArray[np.float64], temperature: float
    ) -> npt.NDArray[np.float64]:
        """Softmax of the logarithms over the temperature."""
        return apply_temperature(probabilities, temperature)


def describe(report: Report) -> str:
    """One line on how good the model is."""
    low, high = report.test.accuracy_interval
    return (
        f"test accuracy {report.test.accuracy:.3f} by clip (95 %: {low:.3f} to "
        f"{high:.3f}, chance {report.test.chance_accuracy:.3f}), macro F1 "
        f"{report.test.macro_f1:.3f}, {report.train_seconds:.1f} s"
    )

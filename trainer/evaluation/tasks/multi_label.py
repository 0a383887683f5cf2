"""Several genres a clip: sigmoids, binary cross-entropy, average precision.

Rare genres are what is hard. The last layer begins with the genres' log-odds, so that
no step is spent on learning that most are rare; and a clip that has a genre weighs
sqrt((1 - p) / p) as much as one that has not, where p is the genre's share of training
clips. Weights alone would make probabilities too high by just that factor; the logits
in the loss are shifted by its logarithm, which takes it out again (A. K. Menon et al.,
Long-tail learning via logit adjustment (2021), https://arxiv.org/abs/2007.07314).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.schema import Manifest
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import find_versions
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.tasks.several_scores import FLOOR, binary_losses, evaluate
from trainer.evaluation.tasks.thresholds import (
    apply_temperature,
    calibrate,
    choose_thresholds,
    scale,
)

#: No genre weighs more.
MOST_WEIGHT = 10.0


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """See `task.Task`; labels are uint8 `(n, genres)`.

    Attributes:
      prevalence: share of the training clips that have each genre, between 0 and 1.
    """

    prevalence: tuple[float, ...]

    activation = "sigmoid"

    @classmethod
    def of(cls, manifest: Manifest) -> MultiLabel:
        """The task of a dataset; half a clip is added to what has none, or all."""
        total = manifest.clip_totals.get("training", 0)
        counts = manifest.clips.get("training", {})
        return cls(
            tuple(
                (counts.get(genre, 0) + 0.5) / (total + 1) for genre in manifest.genres
            )
        )

    @property
    def bias(self) -> tuple[float, ...]:
        """The log-odds of the genres."""
        p = np.array(self.prevalence)
        return tuple(np.log(p / (1 - p)).tolist())

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """What a clip that has a genre weighs; the others weigh 1: `(genres,)`."""
        p = np.array(self.prevalence)
        weights = np.clip(np.sqrt((1 - p) / p), 1, MOST_WEIGHT)
        return np.asarray(weights, np.float32)

    def losses(self, labels: Any, probabilities: Any) -> Any:
        """Binary cross-entropies, the mean over genres."""
        from keras import ops

        truth = ops.cast(labels, "float32")
        p = ops.clip(ops.cast(probabilities, "float32"), FLOOR, 1 - FLOOR)
        losses = truth * ops.log(p) + (1 - truth) * ops.log1p(-p)
        return -ops.mean(losses, axis=-1)

    def objectives(self, labels: Any, probabilities: Any, smoothing: float) -> Any:
        """The same, with weights; smoothed labels lie nearer to the prevalences."""
        from keras import ops

        truth = ops.cast(labels, "float32")
        if smoothing:
            prior = ops.convert_to_tensor(np.array(self.prevalence, np.float32))
            truth = (1 - smoothing) * truth + smoothing * prior
        weights = ops.convert_to_tensor(self.weights)
        p = ops.clip(ops.cast(probabilities, "float32"), FLOOR, 1 - FLOOR)
        logits = ops.log(p) - ops.log1p(-p) + ops.log(weights)
        return ops.mean(
            weights * truth * ops.softplus(-logits)
            + (1 - truth) * ops.softplus(logits),
            axis=-1,
        )

    def hits(self, labels: Any, probabilities: Any) -> Any:
        """Whether the most probable genre is one of the record's."""
        from keras import ops

        best = ops.argmax(probabilities, axis=-1)
        return ops.take_along_axis(labels, best[:, None], axis=-1)[:, 0] > 0

    def measure(
        self, labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]
    ) -> tuple[float, float]:
        """Sums of `losses` and `hits`."""
        losses = binary_losses(labels, probabilities).mean(axis=1)
        best = probabilities.argmax(axis=1)
        hits = labels[np.arange(len(labels)), best] > 0
        return float(losses.sum()), float(np.count_nonzero(hits))

    def make_report(
        self,
        manifest: Manifest,
        predictions: Mapping[str, ClipPredictions],
        **facts: Any,
    ) -> MultiLabelReport:
        """Fits temperature and thresholds to the validation split, judges by the test.

        Args:
          manifest: of the dataset.
          predictions: by split; those of the test split must not be empty.
          **facts: of the report, as for `report.make_report`.
        """
        used = {split: clips for split, clips in predictions.items() if clips.track_ids}
        calibration = calibrate(used.get("validation"), used["test"])
        temperature = 1.0 if calibration is None else calibration.temperature
        scaled = {split: scale(clips, temperature) for split, clips in used.items()}
        thresholds = choose_thresholds(scaled.get("validation"), len(manifest.genres))
        paths = [" > ".join(manifest.genre_path(genre)) for genre in manifest.genres]
        scores = {
            split: evaluate(clips, manifest.genres, thresholds, paths=paths)
            for split, clips in scaled.items()
            if split != "training"
        }
        notes = list(facts.pop("notes", ()))
        if "validation" not in used:
            notes.append(
                "No validation clips: every genre is given from a probability of "
                f"{thresholds[0]:g} on."
            )
        shared = manifest.artists_in_several_splits
        if shared:
            notes.append(
                f"Splits share artists, {', '.join(shared)}: scores are too high."
            )
        training_ap = None
        if "training" in scaled:
            training_ap = evaluate(
                scaled["training"], manifest.genres, thresholds, resamples=0
            ).macro_ap
        return MultiLabelReport(
            clips=dict(manifest.clip_totals),
            test=scores["test"],
            validation=scores.get("validation"),
            training_macro_ap=training_ap,
            calibration=calibration,
            description=manifest.description,
            synthetic=manifest.synthetic,
            fingerprint=manifest.fingerprint,
            split_rule=manifest.split_rule,
            shared_artists=tuple(shared),
            versions=find_versions(),
            notes=tuple(notes),
            **facts,
        )

    def scale(
        self, probabilities: npt.NDArray[np.float64], temperature: float
    ) -> npt.NDArray[np.float64]:
        """Log-odds over the temperature."""
        return apply_temperature(probabilities, temperature)


def describe(report: MultiLabelReport) -> str:
    """One line on how good the model is."""
    test = report.test
    low, high = test.macro_ap_interval
    return (
        f"test macro AP {test.macro_ap:.3f} (95 %: {low:.3f} to {high:.3f}, chance "
        f"{test.prevalence:.3f}), ROC-AUC {test.macro_auc:.3f}, micro AP "
        f"{test.micro_ap:.3f}, {report.train_seconds:.1f} s"
    )

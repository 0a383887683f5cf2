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
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.common.plain_text import markdown
from pipeline.schema import MULTI_LABEL, Manifest
from trainer.evaluation.calibration import Fit, Reliability
from trainer.evaluation.card import CardParts, describe_interval
from trainer.evaluation.predictions import ClipPredictions, Float64s, Labels
from trainer.evaluation.report import AP_FILE, ModelReport
from trainer.evaluation.tasks.multi_label_draws import draw_scores, macro_scores
from trainer.evaluation.tasks.multi_label_scores import (
    FLOOR,
    MultiLabelEvaluation,
    TagScores,
    binary_losses,
    evaluate,
    macro_ap,
    measure_pairs,
)
from trainer.evaluation.tasks.thresholds import (
    DEFAULT,
    apply_temperature,
    fit_temperature_and_thresholds,
)

#: No genre weighs more.
MOST_WEIGHT = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelReport(ModelReport):
    """Of a model of several genres a clip; see `ModelReport`.

    Attributes:
      test: of probabilities with the temperature.
      validation: of the split to which temperature and thresholds are fitted.
      training_macro_ap: macro average precision on the training split.
    """

    TRAINING_SCORE: ClassVar[str] = "training_macro_ap"

    task: str = MULTI_LABEL
    test: MultiLabelEvaluation
    validation: MultiLabelEvaluation | None
    training_macro_ap: float | None

    def check(self) -> None:
        """See `ModelReport.check`."""
        super().check()
        if self.task != MULTI_LABEL:
            raise ValueError(f"the task is {self.task!r:.40}")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """From which probability on each genre is given."""
        return tuple(scores.threshold for scores in self.test.genres)


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """See `task.Task`; labels are uint8 `(n, genres)`.

    Attributes:
      prevalence: share of the training clips that have each genre, between 0 and 1;
        nothing to judge alone.
    """

    prevalence: tuple[float, ...] = ()

    activation = "sigmoid"
    score_name = MultiLabelEvaluation.SCORE
    label_column = "genres"
    report_class = MultiLabelReport
    scale = staticmethod(apply_temperature)
    fit = staticmethod(fit_temperature_and_thresholds)

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

    def measure(self, labels: Labels, probabilities: Labels) -> tuple[float, float]:
        """Sums of `losses` and `hits`."""
        losses = binary_losses(labels, probabilities).mean(axis=1)
        best = probabilities.argmax(axis=1)
        hits = labels[np.arange(len(labels)), best] > 0
        return float(losses.sum()), float(np.count_nonzero(hits))

    def scale_tensor(self, probabilities: Any, temperature: float) -> Any:
        """The same of a tensor."""
        from keras import ops

        p = ops.clip(probabilities, FLOOR, 1 - FLOOR)
        # Neither LiteRT nor ONNX has log1p.
        return ops.sigmoid((ops.log(p) - ops.log(1 - p)) / temperature)

    def measure_reliability(self, clips: ClipPredictions) -> Reliability:
        """How probabilities and the shares of pairs that hold agree."""
        return measure_pairs(clips.probabilities, clips.labels)

    def evaluate(
        self,
        raw: ClipPredictions,  # noqa: ARG002
        scaled: ClipPredictions,
        decided: Labels,
        fit: Fit,
        paths: Mapping[str, str],
    ) -> MultiLabelEvaluation:
        """Of the probabilities with the temperature."""
        return evaluate(
            scaled,
            tuple(paths),
            _thresholds(fit, len(paths)),
            given=decided > 0,
            paths=tuple(paths.values()),
        )

    def score(self, labels: Labels, probabilities: npt.NDArray[np.floating]) -> float:
        """Macro average precision; a clip without numbers has nothing."""
        return macro_ap(labels, np.nan_to_num(probabilities, nan=0.0))

    def choice_loss(self, labels: Labels, probabilities: Float64s) -> float:
        """What the macro average precision lacks of 1."""
        return 1 - macro_ap(labels, probabilities)

    def draw_scores(
        self, clips: ClipPredictions, groups: npt.NDArray[np.intp]
    ) -> Float64s:
        """Macro average precisions."""
        draws = draw_scores(clips.labels, clips.probabilities, groups)
        return macro_scores(draws.ap)

    def decide(self, probabilities: Float64s, fit: Fit) -> Labels:
        """1 for what reaches its threshold, uint8 `(clips, genres)`."""
        least = _thresholds(fit, probabilities.shape[1])
        return (probabilities >= least).astype(np.uint8)

    def label_cells(self, labels: Labels, genres: Sequence[str]) -> list[str]:
        """The genres' names as a JSON list."""
        names = [[genres[g] for g in np.flatnonzero(row).tolist()] for row in labels]
        return [json.dumps(of_clip, ensure_ascii=False) for of_clip in names]

    def parse_cells(self, cells: Sequence[str], genres: Sequence[str]) -> Labels:
        """uint8 `(clips, genres)`."""
        places = {genre: label for label, genre in enumerate(genres)}
        labels = np.zeros((len(cells), len(genres)), np.uint8)
        for number, cell in enumerate(cells):
            for genre in json.loads(cell):
                labels[number, places[genre]] = 1
        return labels

    def draw(self, report: MultiLabelReport) -> dict[str, bytes]:
        """Each genre's average precision, as a file by name."""
        from trainer.evaluation import plots  # Prediction does without Matplotlib.

        test = report.test
        bars = [
            (one.path, one.support, one.average_precision)
            for one in test.genres
            if one.average_precision is not None
        ]
        title = f"{report.model} on {report.representation}"
        title += f": macro AP {test.macro_ap:.3f}"
        return {AP_FILE: plots.average_precision_png(bars, test.clips, title)}

    def make_card_parts(self, report: MultiLabelReport) -> CardParts:
        """What the model card says of this task."""
        test = report.test
        low, high = test.macro_ap_interval
        auc_low, auc_high = test.macro_auc_interval
        interval = describe_interval(report)
        limits = []
        if test.unscored:
            limits.append(
                f"No test clip has {', '.join(test.unscored)}, or every one has: the "
                "means leave these genres out."
            )
        if test.macro_ap_interval[0] <= test.prevalence:
            limits.append("Its macro average precision cannot be told from chance.")
        return CardParts(
            use=f"Gives a music recording each of {len(test.genres)} genres whose "
            "probability reaches the genre's threshold; several, or none.",
            clips=f"; a test clip has {test.labels_per_clip:.1f} genres on average",
            scores=(
                ("macro average precision", f"{test.macro_ap:.3f}"),
                (interval, f"{low:.3f} to {high:.3f}"),
                ("chance: mean share of clips of a genre", f"{test.prevalence:.3f}"),
                ("micro average precision", f"{test.micro_ap:.3f}"),
                ("macro ROC-AUC", f"{test.macro_auc:.3f}"),
                (interval, f"{auc_low:.3f} to {auc_high:.3f}"),
                ("micro ROC-AUC", f"{test.micro_auc:.3f}"),
                ("macro-F1 at the thresholds", f"{test.macro_f1:.3f}"),
                ("micro-F1 at the thresholds", f"{test.micro_f1:.3f}"),
                ("most probable genre is one of the clip's", f"{test.accuracy:.3f}"),
                ("log-loss (nats, mean over genres)", f"{test.log_loss:.3f}"),
                ("calibration error", f"{test.calibration_error:.3f}"),
            ),
            header=(
                "genre",
                "AP",
                "95 % interval",
                "ROC-AUC",
                "threshold",
                "precision",
                "recall",
                "F1",
                "test clips",
            ),
            rows=[
                _make_row(scores)
                for scores in sorted(test.genres, key=lambda one: one.path)
            ],
            limits=limits,
            caveat="Genres are labels that artists chose for themselves, and not all "
            "that fit: a genre that a clip lacks may be right all the same.",
        )


def _make_row(scores: TagScores) -> list[str]:
    interval = scores.average_precision_interval
    return [
        markdown(scores.path),
        _format(scores.average_precision),
        "-" if interval is None else "{:.3f} to {:.3f}".format(*interval),
        _format(scores.roc_auc),
        *map(_format, (scores.threshold, scores.precision, scores.recall, scores.f1)),
        str(scores.support),
    ]


def _format(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _thresholds(fit: Fit, genres: int) -> Float64s:
    return np.full(genres, DEFAULT) if fit.thresholds is None else fit.thresholds

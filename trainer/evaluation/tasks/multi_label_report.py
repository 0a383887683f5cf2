"""`report.json` of a model of several genres a clip."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.schema import MULTI_LABEL
from trainer.evaluation.report import ModelReport, check_range
from trainer.evaluation.tasks.multi_label_scores import MultiLabelEvaluation


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
        for evaluation in filter(None, (self.test, self.validation)):
            _check_shares(vars(evaluation))
            check_range("clips", evaluation.clips - 1)
            for scores in evaluation.genres:
                _check_shares(vars(scores))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """From which probability on each genre is given."""
        return tuple(scores.threshold for scores in self.test.genres)


#: Numbers that may be over 1.
_COUNTS = (
    "clips",
    "artists",
    "support",
    "log_loss",
    "labels_per_clip",
    "predicted_per_clip",
)


def _check_shares(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, int | float):
                check_range(name, number, math.inf if name in _COUNTS else 1)

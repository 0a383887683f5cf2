"""`report.json` of a model of several genres a clip."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pipeline.schema import MULTI_LABEL
from trainer.evaluation.report import ModelReport
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

    @property
    def thresholds(self) -> tuple[float, ...]:
        """From which probability on each genre is given."""
        return tuple(scores.threshold for scores in self.test.genres)

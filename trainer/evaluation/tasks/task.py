"""What a manifest's `task` decides, and which task a dataset has: asked only here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.schema import MULTI_LABEL, Manifest
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report
from trainer.evaluation.tasks import multi_label, single_label
from trainer.evaluation.tasks.several_report import MultiLabelReport
from trainer.evaluation.typed_json import parse_json

AnyReport = Report | MultiLabelReport


class Task(Protocol):
    """How records are learnt, and how predictions of clips are judged."""

    @property
    def activation(self) -> str:
        """Of the last layer, which has an output for each genre."""

    @property
    def bias(self) -> tuple[float, ...] | None:
        """What the last layer's offsets begin with; None for zeros."""

    def losses(self, labels: Any, probabilities: Any) -> Any:
        """Losses of records as they are told: tensors `(n, ...)` to `(n,)`."""

    def objectives(self, labels: Any, probabilities: Any, smoothing: float) -> Any:
        """What is minimised: tensors `(n, ...)` to `(n,)`."""

    def hits(self, labels: Any, probabilities: Any) -> Any:
        """Whether the most probable genre is one of the record's: `(n,)`, boolean."""

    def measure(
        self, labels: npt.NDArray[Any], probabilities: npt.NDArray[Any]
    ) -> tuple[float, float]:
        """Sums of `losses` and `hits` over records in memory."""

    def make_report(
        self,
        manifest: Manifest,
        predictions: Mapping[str, ClipPredictions],
        **facts: Any,
    ) -> AnyReport:
        """Judges a model's predictions, by split; facts as `report.make_report`'s."""

    def scale(
        self, probabilities: npt.NDArray[np.float64], temperature: float
    ) -> npt.NDArray[np.float64]:
        """Probabilities `(..., genres)` with the temperature of a calibration."""


def find_task(manifest: Manifest) -> Task:
    """The task of a dataset, or of a model's manifest."""
    if manifest.task == MULTI_LABEL:
        return multi_label.MultiLabel.of(manifest)
    return single_label.SingleLabel()


def describe_report(report: AnyReport) -> str:
    """One line on how good a model is."""
    if isinstance(report, MultiLabelReport):
        return multi_label.describe(report)
    return single_label.describe(report)


def parse_report(text: str | bytes, *, source: str) -> AnyReport:
    """Reads `report.json`, of either task.

    Raises:
      UserError: it is none.
    """
    if _find_report_task(text) == MULTI_LABEL:
        return MultiLabelReport.from_json(text, source=source)
    return Report.from_json(text, source=source)


def _find_report_task(text: str | bytes) -> str | None:
    """What a report says of its task; one of a single label says nothing."""
    with contextlib.suppress(ValueError, AttributeError):
        task = parse_json(text).get("task")
        return task if isinstance(task, str) else None
    return None

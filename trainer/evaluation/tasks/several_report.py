"""`report.json` of a model of several genres a clip."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from pipeline.schema import MULTI_LABEL, UserError
from trainer.evaluation.calibration import Calibration, check_temperature
from trainer.evaluation.report import (
    REPORT_VERSION,
)
from trainer.evaluation.tasks.several_scores import MultiLabelEvaluation
from trainer.evaluation.typed_json import parse_json, to_dataclass


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelReport:
    """How a model was trained, and how well it does; see `report.Report`.

    Attributes:
      test: scores of the test split, of probabilities with the temperature.
      validation: of the validation split, to which the thresholds are fitted.
      training_macro_ap: macro average precision on the training split.
    """

    name: str
    model: str
    representation: str
    parameters: Mapping[str, Any]
    clips: Mapping[str, int]
    test: MultiLabelEvaluation
    validation: MultiLabelEvaluation | None
    training_macro_ap: float | None
    train_seconds: float
    fingerprint: str
    task: str = MULTI_LABEL
    weights: int | None = None
    calibration: Calibration | None = None
    data: str = ""
    description: str = ""
    synthetic: bool = False
    split_rule: str = ""
    shared_artists: tuple[str, ...] = ()
    command: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialises with stable key order."""
        raw = {"report_version": REPORT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(raw, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> MultiLabelReport:
        """Parses a report.

        Raises:
          UserError: the text is no report of this kind and version.
        """
        try:
            raw = parse_json(text)
            version = raw.pop("report_version", None)
            if version != REPORT_VERSION or raw.get("task") != MULTI_LABEL:
                raise ValueError(f"version {version!r:.40}, {raw.get('task')!r:.40}")
            report: MultiLabelReport = to_dataclass(cls, raw)
            report.check()
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{source} does not hold a report of several genres a clip ({error}); "
                "train the model again or remove its folder."
            ) from error
        return report

    def check(self) -> None:
        """Refuses numbers that no training gives.

        Raises:
          ValueError: names the first of them.
        """
        for evaluation in filter(None, (self.test, self.validation)):
            _check_shares(vars(evaluation))
            names = [scores.genre for scores in evaluation.genres]
            if not names or len(set(names)) < len(names) or evaluation.clips < 1:
                raise ValueError("genres must be different names, at least one")
            for scores in evaluation.genres:
                _check_shares(vars(scores))
        if self.calibration is not None:
            check_temperature(self.calibration.temperature)

    @property
    def genres(self) -> tuple[str, ...]:
        """Names of the genres, in the dataset's order."""
        return tuple(scores.genre for scores in self.test.genres)

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
        if not isinstance(value, int | float):
            continue
        high = math.inf if name in _COUNTS else 1
        if not -1e-9 <= value <= high + 1e-9:
            raise ValueError(f"{name} must be from 0 to {high}. Received: {value:g}")

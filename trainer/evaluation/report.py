"""Writes and reads what is known about a trained model: `report.json` and beside it.

A report folder holds

    report.json       how the model was trained and how well it does
    predictions.csv   each test clip's genre or genres, prediction and probabilities
    validation.csv    the same of the validation clips
    confusion.png     the test split's confusion matrix; of several genres a clip
                      average_precision.png, that of each genre over its prevalence
    model_card.md     the same for people
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from pipeline.schema import SINGLE_LABEL, UserError, begins_synthetic
from trainer.evaluation.calibration import Calibration, Fit, check_temperature
from trainer.evaluation.scores import Evaluation
from trainer.evaluation.typed_json import parse_json, to_dataclass

REPORT_VERSION = 2

#: Files of a model folder, as all that write and read one call them.
MODEL_FILE = "model.keras"
REPORT_FILE = "report.json"
HISTORY_FILE = "history.json"
PREDICTIONS_FILE = "predictions.csv"
VALIDATION_FILE = "validation.csv"
CONFUSION_FILE = "confusion.png"
AP_FILE = "average_precision.png"
CARD_FILE = "model_card.md"

#: Libraries whose versions decide what a model becomes.
LIBRARIES = ("tensorflow", "keras", "numpy", "scikit-learn", "scipy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelReport:
    """How a model was trained, and how well it does: what both tasks have.

    Attributes:
      name: the model's folder, unique among the models compared.
      model: name for people, e.g. "RBF SVM".
      representation: what the model was trained on.
      parameters: how it was trained; JSON values only.
      weights: number of the model's weights, where it has any to count.
      clips: number of clips by split.
      test: scores of the test split.
      validation: scores of the validation split, where there is one.
      calibration: what temperature scaling does, where there are validation clips
        to fit it to.
      train_seconds: wall time of training, the choice of parameters included.
      data: the dataset's folder.
      description: the dataset's own words on where it comes from.
      synthetic: nobody recorded the music, says the dataset.
      fingerprint: the dataset's, see `pipeline.schema.Manifest`.
      split_rule: the dataset's sentence on how clips were assigned to splits.
      shared_artists: artists whose clips the splits share; a leak if not empty.
      command: what trains the same model.
      versions: of Python and the libraries.
      notes: sentences that a reader of the numbers has to know.
      music_model: the manifest's facts on the network that made the embeddings, where
        the model reads these.
    """

    #: The field that holds the score on the training split.
    TRAINING_SCORE: ClassVar[str]

    name: str
    model: str
    representation: str
    parameters: Mapping[str, Any]
    clips: Mapping[str, int]
    test: Any
    validation: Any
    train_seconds: float
    fingerprint: str
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
    music_model: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def training_score(self) -> float | None:
        """Far above the test's, it shows overfitting."""
        score: float | None = getattr(self, self.TRAINING_SCORE)
        return score

    @property
    def genres(self) -> tuple[str, ...]:
        """Names of the genres, in the dataset's order."""
        return tuple(scores.genre for scores in self.test.genres)

    @property
    def paths(self) -> dict[str, str]:
        """Names from each genre's root to itself ("Electronic > IDM"), by its name."""
        return {scores.genre: scores.path for scores in self.test.genres}

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """Of several genres a clip, from which each is given."""
        return None

    @property
    def fit(self) -> Fit:
        """What was fitted to clips that the model did not hear."""
        calibration, thresholds = self.calibration, self.thresholds
        return Fit(
            temperature=None if calibration is None else calibration.temperature,
            clips=0 if calibration is None else calibration.clips,
            thresholds=None if thresholds is None else np.array(thresholds),
        )

    def to_json(self) -> str:
        """Serialises with stable key order."""
        raw = {"report_version": REPORT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(raw, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str) -> Self:
        """Parses a report.

        Args:
          text: content of a `report.json`.
          source: path named in errors.

        Raises:
          UserError: the text is no report of this task, or one of another version.
        """
        advice = "train the model again or remove its folder."
        try:
            raw = parse_json(text)
        except ValueError as error:
            raise UserError(
                f"{source} is not valid JSON ({error}); {advice}"
            ) from error
        version = raw.pop("report_version", None) if isinstance(raw, dict) else None
        if version != REPORT_VERSION:
            raise UserError(
                f"{source} has report version {version!r:.40}, this version reads "
                f"{REPORT_VERSION}; {advice}"
            )
        raw.setdefault("synthetic", begins_synthetic(raw.get("description")))
        try:
            report: Self = to_dataclass(cls, raw)
            report.check()
        except ValueError as error:
            raise UserError(
                f"{source} does not hold a report ({error}); {advice}"
            ) from error
        return report

    def check(self) -> None:
        """Refuses numbers that no training gives.

        Raises:
          ValueError: names the first of them.
        """
        for evaluation in filter(None, (self.test, self.validation)):
            names = [scores.genre for scores in evaluation.genres]
            if not names or len(set(names)) < len(names):
                raise ValueError("genres must be different names, at least one")
            check_range("clips", evaluation.clips - 1)
            for scores in (evaluation, *evaluation.genres):
                _check_numbers(scores)
        check_range(self.TRAINING_SCORE, self.training_score, 1)
        check_range("train_seconds", self.train_seconds)
        check_range("weights", self.weights)
        for split, clips in self.clips.items():
            check_range(f"clips.{split:.40}", clips)
        calibration = self.calibration
        if calibration is not None:
            check_temperature(calibration.temperature)
            check_range("calibration.clips", calibration.clips)
            for reliability in (calibration.before, calibration.after):
                if not reliability.bins:
                    raise ValueError("calibration has no bins")
                for numbers in (reliability, *reliability.bins):
                    _check_numbers(numbers)
                for bin_ in reliability.bins:
                    check_range("bins.clips", bin_.clips - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(ModelReport):
    """Of a model of one genre a clip; see `ModelReport`.

    Attributes:
      training_accuracy: accuracy on the training split.
    """

    TRAINING_SCORE: ClassVar[str] = "training_accuracy"
    task: ClassVar[str] = SINGLE_LABEL

    test: Evaluation
    validation: Evaluation | None
    training_accuracy: float | None

    def check(self) -> None:
        """See `ModelReport.check`."""
        super().check()
        for evaluation in filter(None, (self.test, self.validation)):
            counts = [count for row in evaluation.confusion for count in row]
            support = [scores.support for scores in evaluation.genres]
            if (
                [len(row) for row in evaluation.confusion]
                != [len(support)] * len(support)
                or min(counts) < 0
                or sum(counts) != evaluation.clips
                or [sum(row) for row in evaluation.confusion] != support
            ):
                raise ValueError(
                    f"confusion must count {evaluation.clips} clips of {len(support)} "
                    "genres"
                )


#: Numbers of scores that may be over 1.
_COUNTS = frozenset(
    ("clips", "artists", "support", "log_loss", "labels_per_clip", "predicted_per_clip")
)


def _check_numbers(scores: Any) -> None:
    """Refuses numbers of a dataclass of scores that are no shares, and no counts."""
    for name, value in vars(scores).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float):
                check_range(name, number, math.inf if name in _COUNTS else 1)


def check_range(name: str, value: float | None, high: float = math.inf) -> None:
    """Refuses a number that is negative, or over a limit.

    Raises:
      ValueError: names it.
    """
    # Sums of floats may be a little more than 1.
    if value is not None and not -1e-9 <= value <= high + 1e-9:
        limits = "0 or more" if high == math.inf else f"from 0 to {high:g}"
        raise ValueError(f"{name} must be {limits}. Received: {value:g}")


def find_versions() -> dict[str, str]:
    """Versions of Python and of `LIBRARIES`."""
    return {"python": platform.python_version(), **find_library_versions()}


def find_library_versions() -> dict[str, str]:
    """Versions of `LIBRARIES`, as far as they are installed."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

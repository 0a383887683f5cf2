"""What a comparison shows of a task: columns, sentences, what a mistake is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from trainer.compare.html.markup import Markup
from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.predictions import ClipPredictions

Value = float | Interval | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table of models.

    Attributes:
      name: its heading.
      value: what it holds of a model's report.
      form: of numbers.
      brief: its heading on the terminal; None where it is left out there.
    """

    name: str
    value: Callable[[Any], Value]
    form: str = ".3f"
    brief: str | None = None

    def show(self, report: Any) -> str:
        """The cell of a model, as text."""
        value = self.value(report)
        if isinstance(value, tuple):
            return "{:.3f}-{:.3f}".format(*value)
        return "" if value is None else format(value, self.form)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mistake:
    """A clip that a model gets wrong.

    Attributes:
      track_id: its id.
      truth: its genre or genres.
      said: what the model says instead, with probabilities.
      certainty: the surer, the higher.
    """

    track_id: str
    truth: str
    said: str
    certainty: float


class View(Protocol):
    """What differs between the tasks; all else is said in one way."""

    columns: Sequence[Column]
    #: Heading of the scores by genre in Markdown.
    genre_score: str
    #: Words for the files of `pictures`.
    captions: Mapping[str, str] = {}
    #: What stands before `Mistake.said`.
    said_as: str
    #: Sentences of the page.
    score_note: str
    table_note: str
    calibration_note: str

    def describe_test(self, reports: Sequence[Any]) -> str:  # noqa: ARG002
        """What there is to say of the test clips beside their number."""
        return ""

    def guesses(self, reports: Sequence[Any]) -> list[tuple[str, str, float]]:
        """What needs no model: name, representation, score."""

    def genre_values(self, report: Any) -> list[float | None]:
        """Scores of the genres, in the dataset's order."""

    def notes(self, reports: Sequence[Any]) -> list[str]:  # noqa: ARG002
        """Sentences that stand below the scores."""
        return []

    def json_facts(self, reports: Sequence[Any]) -> Mapping[str, Any]:
        """What numbers of the task stand beside those of the models."""

    def pictures(
        self,
        reports: Sequence[Any],  # noqa: ARG002
        labels: Sequence[str],  # noqa: ARG002
    ) -> dict[str, bytes]:
        """Files beside the report, by name; each model has a label."""
        return {}

    def find_mistakes(self, report: Any, predictions: ClipPredictions) -> list[Mistake]:
        """What a model gets wrong, the worst first."""

    def headline(self, report: Any) -> str:
        """The best model's result in a line."""

    def lead(self, report: Any) -> str:
        """The same in sentences, of which the first begins with "It"."""

    def heat(self, report: Any) -> list[float | None]:
        """What the page shows of each genre and model, from 0 to 1."""
        return self.genre_values(report)

    def describe_heat(self, names: Sequence[str]) -> tuple[str, str]:
        """Its heading and its caption; names of the genres, the best first."""

    def summary(self, report: Any) -> str:
        """A model in a line."""

    def blocks(self, report: Any) -> list[tuple[str, Markup]]:
        """Tables of a model, by their headings."""

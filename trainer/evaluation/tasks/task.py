"""What a manifest's `task` decides, and which task a dataset has: asked only here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.schema import EMBEDDINGS, MULTI_LABEL, Manifest
from trainer.evaluation.calibration import Calibration, Fit, Reliability
from trainer.evaluation.card import CardParts
from trainer.evaluation.predictions import (
    ClipPredictions,
    Float64s,
    Labels,
    concatenate,
)
from trainer.evaluation.report import Report, find_versions
from trainer.evaluation.tasks.multi_label import MultiLabel, MultiLabelReport
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.thresholds import DEFAULT_NOTE
from trainer.evaluation.typed_json import parse_json

AnyReport = Report | MultiLabelReport


class Task(Protocol):
    """How records are learnt, and how predictions of clips are judged.

    Attributes:
      activation: of the last layer, which has an output for each genre.
      bias: what the last layer's offsets begin with; None for zeros.
      score_name: of what models are ranked by.
      label_column: of files of predictions.
      report_class: of `report.json`.
    """

    activation: str
    score_name: str
    label_column: str
    report_class: type[Any]

    @property
    def bias(self) -> tuple[float, ...] | None: ...  # noqa: D102

    def losses(self, labels: Any, probabilities: Any) -> Any:
        """Losses of records as they are told: tensors `(n, ...)` to `(n,)`."""

    def objectives(self, labels: Any, probabilities: Any, smoothing: float) -> Any:
        """What is minimised: tensors `(n, ...)` to `(n,)`."""

    def hits(self, labels: Any, probabilities: Any) -> Any:
        """Whether the most probable genre is one of the record's: `(n,)`, boolean."""

    def measure(self, labels: Labels, probabilities: Labels) -> tuple[float, float]:
        """Sums of `losses` and `hits` over records in memory."""

    def scale(self, probabilities: Float64s, temperature: float) -> Float64s:
        """Probabilities `(..., genres)` with the temperature of a calibration."""

    def scale_tensor(self, probabilities: Any, temperature: float) -> Any:
        """The same of a float32 tensor, in a graph."""

    def fit(self, clips: ClipPredictions | None, genres: int) -> Fit:
        """What is fitted to clips that the model did not hear; of none, defaults."""

    def measure_reliability(self, clips: ClipPredictions) -> Reliability:
        """How far probabilities can be believed."""

    def evaluate(
        self,
        raw: ClipPredictions,
        scaled: ClipPredictions,
        decided: Labels,
        fit: Fit,
        paths: Mapping[str, str],
    ) -> Any:
        """Scores of clips.

        Args:
          raw: probabilities as the model gives them.
          scaled: with the temperature.
          decided: what `decide` gives each clip.
          fit: what the model is kept with.
          paths: of each genre, by its name, in the dataset's order.
        """

    def score(self, labels: Labels, probabilities: npt.NDArray[np.floating]) -> float:
        """What models are ranked by, from 0 to 1; probabilities may be no numbers."""

    def choice_loss(self, labels: Labels, probabilities: Float64s) -> float:
        """What the members of an ensemble are chosen by: the lower, the better."""

    def draw_scores(
        self, clips: ClipPredictions, groups: npt.NDArray[np.intp]
    ) -> Float64s:
        """What models are ranked by, in each draw of groups: `(draws,)`.

        The same draws for equal groups (see `bootstrap.group_clips`), so that models
        are compared draw by draw; NaN where a draw has no score.
        """

    def decide(self, probabilities: Float64s, fit: Fit) -> Labels:
        """What clips are given, in the form of labels, of scaled probabilities."""

    def label_cells(self, labels: Labels, genres: Sequence[str]) -> list[str]:
        """Labels of clips as the cells of a table."""

    def parse_cells(self, cells: Sequence[str], genres: Sequence[str]) -> Labels:
        """Labels from what `label_cells` wrote.

        Raises:
          ValueError: a cell is not what it writes.
          KeyError: there is no such genre.
        """

    def draw(self, report: Any) -> dict[str, bytes]:
        """Pictures that lie beside a report, by name."""

    def make_card_parts(self, report: Any) -> CardParts:
        """What the model card says of this task alone."""


def find_task(manifest: Manifest) -> Task:
    """The task of a dataset, or of a model's manifest."""
    if manifest.task == MULTI_LABEL:
        return MultiLabel.of(manifest)
    return SingleLabel()


def task_of(report: AnyReport) -> Task:
    """The task that a report is about, to judge by."""
    return MultiLabel() if report.task == MULTI_LABEL else SingleLabel()


def scale_clips(
    task: Task, clips: ClipPredictions, temperature: float | None
) -> ClipPredictions:
    """Predictions with the temperature of a calibration; None for none."""
    if temperature is None:
        return clips
    probabilities = task.scale(clips.probabilities, temperature)
    return dataclasses.replace(clips, probabilities=probabilities)


def judge(
    task: Task,
    parts: Sequence[ClipPredictions],
    fits: Sequence[Fit],
    kept: Fit,
    paths: Mapping[str, str],
) -> tuple[Any, Calibration | None]:
    """Scores clips, each part with what was fitted to others.

    Args:
      task: says how.
      parts: predictions as the models give them.
      fits: what to scale and to decide each part by, fitted to none of its clips.
      kept: what the model is kept with.
      paths: of each genre, by its name, in the dataset's order.
    """
    scaled = [
        scale_clips(task, part, fit.temperature)
        for part, fit in zip(parts, fits, strict=True)
    ]
    decided = [
        task.decide(part.probabilities, fit)
        for part, fit in zip(scaled, fits, strict=True)
    ]
    raw, all_scaled = concatenate(parts), concatenate(scaled)
    evaluation = task.evaluate(raw, all_scaled, np.concatenate(decided), kept, paths)
    if kept.temperature is None or any(fit.temperature is None for fit in fits):
        return evaluation, None
    return evaluation, Calibration(
        temperature=kept.temperature,
        clips=kept.clips,
        before=task.measure_reliability(raw),
        after=task.measure_reliability(all_scaled),
    )


def decide(clips: ClipPredictions, report: AnyReport) -> Labels:
    """What a model gives clips, in the form of labels.

    Args:
      clips: predictions as the model gives them.
      report: of the model.
    """
    task, fit = task_of(report), report.fit
    scaled = scale_clips(task, clips, fit.temperature)
    return task.decide(scaled.probabilities, fit)


def make_report(
    manifest: Manifest,
    predictions: Mapping[str, ClipPredictions],
    *,
    representation: str,
    notes: Sequence[str] = (),
    **facts: Any,
) -> AnyReport:
    """Evaluates a trained model on all splits that it has predictions of.

    Temperature and thresholds are fitted to the validation split.

    Args:
      manifest: of the dataset.
      predictions: by split; those of the test split must not be empty.
      representation: see `ModelReport`.
      notes: likewise.
      **facts: likewise: name, model, parameters, train_seconds and what else is known.
    """
    task = find_task(manifest)
    paths = {genre: " > ".join(manifest.genre_path(genre)) for genre in manifest.genres}
    used = {split: clips for split, clips in predictions.items() if clips.track_ids}
    fit = task.fit(used.get("validation"), len(paths))
    scores = {
        split: judge(task, [used[split]], [fit], fit, paths)
        for split in ("test", "validation")
        if split in used
    }
    test, calibration = scores["test"]
    validation, _ = scores.get("validation", (None, None))
    notes = [*notes]
    if fit.thresholds is not None and validation is None:
        notes.append(DEFAULT_NOTE)
    shared = manifest.artists_in_several_splits
    if shared:
        notes.append(f"Splits share artists, {', '.join(shared)}: scores are too high.")
    training = None
    if "training" in used:
        training = task.score(used["training"].labels, used["training"].probabilities)
    report: AnyReport = task.report_class(
        **facts,
        **{task.report_class.TRAINING_SCORE: training},
        representation=representation,
        clips=dict(manifest.clip_totals),
        test=test,
        validation=validation,
        calibration=calibration,
        description=manifest.description,
        synthetic=manifest.synthetic,
        fingerprint=manifest.fingerprint,
        split_rule=manifest.split_rule,
        shared_artists=tuple(shared),
        versions=find_versions(),
        notes=tuple(notes),
        music_model=manifest.music_model if representation == EMBEDDINGS else {},
    )
    return report


def describe_report(report: AnyReport) -> str:
    """One line on how good a model is."""
    test = report.test
    low, high = test.score_interval
    others = ", ".join(f"{name} {value:.3f}" for name, value in test.others.items())
    return (
        f"test {test.SCORE} {test.score:.3f} by clip (95 %: {low:.3f} to {high:.3f}, "
        f"chance {test.chance:.3f}), {others}, {report.train_seconds:.1f} s"
    )


def parse_report(text: str | bytes, *, source: str) -> AnyReport:
    """Reads `report.json`, of either task.

    Raises:
      UserError: it is none.
    """
    task = None
    with contextlib.suppress(ValueError, AttributeError):
        # A report of a single label says nothing of its task.
        task = parse_json(text).get("task")
    kind = MultiLabelReport if task == MULTI_LABEL else Report
    report: AnyReport = kind.from_json(text, source=source)
    return report

"""The model card: what somebody has to know who is handed a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.common.plain_text import code_span, markdown
from trainer.evaluation.report import ModelReport

_NO_DESCRIPTION = "The dataset carries no description of its own."
#: Below this many test clips of a genre its scores are hints.
FEW_CLIPS = 20
#: Genres that a sentence names.
MOST_NAMES = 10
#: A training score that is higher than the test's by more tells of overfitting.
OVERFITTING = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardParts:
    """What a card says of one task alone.

    Attributes:
      use: what the model does, in sentences; Markdown.
      clips: more on the clips, behind their numbers.
      scores: rows of the table of scores: name, value.
      header: columns of the table of genres, all of numbers but the first.
      rows: its rows.
      limits: sentences on where the model must not be trusted.
      caveat: what its labels are worth.
    """

    use: str
    scores: Sequence[tuple[str, str]]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    limits: Sequence[str]
    caveat: str
    clips: str = ""


def format_card(report: ModelReport, parts: CardParts) -> str:
    """Markdown: data, scores, limits and licence of one model."""
    lines = [
        *_first_lines(report),
        "## Use",
        "",
        parts.use,
        "",
        f"It reads the representation {code_span(report.representation)} of 30 s of "
        "audio. "
        + (
            "`./launch.sh predict` makes it from an audio file; so does the "
            "SavedModel of `./launch.sh export` for `mel`, `windows` and "
            "`embeddings`."
            if "trainable_weights" in report.parameters
            else "`./launch.sh predict` makes it from an audio file."
            if report.weights is not None
            else "This model is measured only: it was not kept."
        ),
        "",
        "## Data",
        "",
        f"* {markdown(report.description) or _NO_DESCRIPTION}",
        "* Clips: "
        + ", ".join(
            f"{count} {markdown(split)}" for split, count in report.clips.items()
        )
        + f"{parts.clips}.",
        f"* Split: {markdown(report.split_rule.rstrip('.')) or 'not recorded'}.",
        f"* Dataset fingerprint: {code_span(report.fingerprint)}",
        "",
        *_music_model(report),
        "## Scores on the test split",
        "",
        "| score | value |",
        "|---|---:|",
        *(f"| {name} | {value} |" for name, value in parts.scores),
        "",
        *_calibration(report),
        f"| {' | '.join(parts.header)} |",
        "|---|" + "---:|" * (len(parts.header) - 1),
        *(f"| {' | '.join(row)} |" for row in parts.rows),
        "",
        "## Limits",
        "",
        *(f"* {markdown(limit)}" for limit in find_limits(report, parts)),
        "",
        *_training(report),
        "## Licence",
        "",
        *_licence(report),
        "",
    ]
    return "\n".join(lines)


def describe_interval(report: ModelReport) -> str:
    """What a row of the table of scores says of the interval."""
    test = report.test
    groups = f"over {test.artists} artists" if test.artists else "over clips"
    return f"95 % interval, bootstrap {groups}"


def _training(report: ModelReport) -> list[str]:
    weights = f", {report.weights:,} weights" if report.weights else ""
    facts = {"Parameters": report.parameters, "Versions": report.versions}
    return [
        "## Training",
        "",
        f"* {report.train_seconds:.1f} s{weights}.",
        *([f"* {code_span(report.command)}"] if report.command else []),
        *(
            f"* {title}: "
            + ", ".join(markdown(f"{name} {value}") for name, value in values.items())
            + "."
            for title, values in facts.items()
        ),
        "",
    ]


def name_score(score: str) -> str:
    """Key of a validation score ("macro AP") among the facts of an exported file."""
    return f"validation_{score.lower().replace(' ', '_')}"


def format_exports(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: the exported files of a model.

    Args:
      files: descriptions by name, see `trainer.export.files`.
    """
    lines = [
        "## Exported files",
        "",
        "| file | weights | largest difference of a test clip's probability "
        "| validation accuracy (of several genres a clip, macro AP), before and in "
        "the file |",
        "|---|---|---:|---:|",
    ]
    for name, facts in files.items():
        clips, difference = facts["test_clips"], facts.get("largest_difference")
        key = name_score(facts.get("score_name", "accuracy"))
        before = facts.get(key)
        near = "not measured" if difference is None else f"{difference:.1g}"
        cells = [
            code_span(name),
            facts["quantize"] or "float32",
            f"{near} ({clips} clips)",
            "the same"
            if before is None
            else f"{before:.3f}, {facts[f'{key}_quantized']:.3f} "
            f"({facts['validation_clips']} clips)",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _first_lines(report: ModelReport) -> list[str]:
    title = f"# {markdown(report.model)} on {markdown(report.representation)}"
    if report.synthetic:
        return [
            "> **Trained on synthetic demo music.** The scores say that everything "
            "works, and nothing about real recordings.",
            "",
            title,
            "",
        ]
    return [title, ""]


def _music_model(report: ModelReport) -> list[str]:
    facts = report.music_model
    if not facts:
        return []
    # An ensemble's folder has nothing but the shares of its members.
    owners = "its members" if "members" in report.parameters else "the model"
    words = {name: markdown(text.rstrip(".")) for name, text in facts.items()}
    return [
        "## Music model",
        "",
        f"It reads what the network {words['name']} makes of the audio; that network's "
        f"weights lie beside {owners}, in `music_model.npz`.",
        "",
        f"* Trained on {words['trained_on']}.",
        f"* {words['overlap']}.",
        f"* Published as {words['source']}; licence {words['licence']}; SHA-256 of its "
        f"weights {code_span(facts['sha256'])}.",
        "",
    ]


def _calibration(report: ModelReport) -> list[str]:
    calibration = report.calibration
    if calibration is None:
        return [
            "Probabilities are as the model gives them: there were too few validation "
            "clips to calibrate them.",
            "",
        ]
    return [
        f"With temperature {calibration.temperature:.2f} (fitted to "
        f"{calibration.clips} validation clips; prediction and export apply it), the "
        f"log-loss is {calibration.after.log_loss:.3f} and the calibration error "
        f"{calibration.after.error:.3f}.",
        "",
    ]


def find_limits(report: ModelReport, parts: CardParts) -> Sequence[str]:
    """Sentences on where the model must not be trusted, from the run's own facts."""
    test = report.test
    limits = []
    if report.synthetic:
        limits.append("It has never heard real music.")
    few = [scores.path for scores in test.genres if scores.support < FEW_CLIPS]
    if few:
        limits.append(
            f"Fewer than {FEW_CLIPS} test clips of {list_some(few, MOST_NAMES)}: the "
            "scores of these genres are hints."
        )
    if not test.artists:
        limits.append(
            "Artists are not known: an artist's songs may be in training and test, "
            "which makes scores too high."
        )
    limits.extend(parts.limits)
    training = report.training_score
    if training is not None and training - test.score > OVERFITTING:
        limits.append(
            f"It overfits: {test.SCORE} {training:.3f} in training, {test.score:.3f} "
            "in the test."
        )
    return [*limits, *report.notes, parts.caveat]


def list_some(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _licence(report: ModelReport) -> list[str]:
    if report.synthetic:
        return ["The demo corpus is synthetic and free of rights (CC0)."]
    return [
        "The model holds no audio, but was made from it, under that audio's terms. For "
        "the Free Music Archive: its metadata are CC BY 4.0; each track has the "
        "Creative Commons licence that its artist chose, many of them for "
        "non-commercial use only. `tracks.csv` names each track's (`track`, `license`)."
    ]

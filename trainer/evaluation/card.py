"""The model card: what somebody has to know who is handed a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.common.plain_text import code_span, markdown

if TYPE_CHECKING:
    from trainer.evaluation.report import Report
    from trainer.evaluation.scores import GenreScores
    from trainer.evaluation.tasks.several_report import MultiLabelReport

_NO_DESCRIPTION = "The dataset carries no description of its own."
#: Below this many test clips of a genre its scores are hints.
FEW_CLIPS = 20


def format_card(report: Report) -> str:
    """Markdown: data, scores, limits and licence of one model."""
    test = report.test
    low, high = test.accuracy_interval
    groups = f"over {test.artists} artists" if test.artists else "over clips"
    lines = [
        *_first_lines(report),
        "## Use",
        "",
        f"Names the genre of a music recording, one of {len(test.genres)}: "
        + ", ".join(markdown(scores.genre) for scores in test.genres)
        + ". It always names one of them, also for speech, silence or a genre that it "
        "has never heard.",
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
        + ".",
        f"* Split: {markdown(report.split_rule.rstrip('.')) or 'not recorded'}.",
        f"* Dataset fingerprint: {code_span(report.fingerprint)}",
        "",
        *_music_model(report.music_model),
        "## Scores on the test split",
        "",
        "| score | value |",
        "|---|---:|",
        f"| accuracy | {test.accuracy:.3f} |",
        f"| 95 % interval, bootstrap {groups} | {low:.3f} to {high:.3f} |",
        f"| macro-F1 | {test.macro_f1:.3f} |",
        f"| genre among the first three | {test.top_3:.3f} |",
        f"| log-loss (nats) | {test.log_loss:.3f} |",
        f"| calibration error | {test.calibration_error:.3f} |",
        f"| always naming the most frequent genre | {test.majority_accuracy:.3f} |",
        "",
        *_calibration(report),
        "| genre | precision | recall | F1 | test clips |",
        "|---|---:|---:|---:|---:|",
        *(_genre_row(scores) for scores in test.genres),
        "",
        "## Limits",
        "",
        *(f"* {markdown(limit)}" for limit in find_limits(report)),
        "",
        *format_training(report),
        "## Licence",
        "",
        *_licence(report),
        "",
    ]
    return "\n".join(lines)


def format_training(report: Report | MultiLabelReport) -> list[str]:
    """Lines on how a model was made."""
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


def format_exports(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: the exported files of a model.

    Args:
      files: descriptions by name, see `trainer.export.files`.
    """
    lines = [
        "## Exported files",
        "",
        "| file | weights | largest difference of a test clip's probability "
        "| validation accuracy, before and in the file |",
        "|---|---|---:|---:|",
    ]
    for name, facts in files.items():
        clips, difference = facts["test_clips"], facts.get("largest_difference")
        before = facts.get("validation_accuracy")
        near = "not measured" if difference is None else f"{difference:.1g}"
        cells = [
            code_span(name),
            facts["quantize"] or "float32",
            f"{near} ({clips} clips)",
            "the same"
            if before is None
            else f"{before:.3f}, {facts['validation_accuracy_quantized']:.3f} "
            f"({facts['validation_clips']} clips)",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _first_lines(report: Report) -> list[str]:
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


def _music_model(facts: Mapping[str, str]) -> list[str]:
    if not facts:
        return []
    words = {name: markdown(text.rstrip(".")) for name, text in facts.items()}
    return [
        "## Music model",
        "",
        f"It reads what the network {words['name']} makes of the audio; that network's "
        "weights lie beside the model, in `music_model.npz`.",
        "",
        f"* Trained on {words['trained_on']}.",
        f"* {words['overlap']}.",
        f"* Published as {words['source']}; licence {words['licence']}; SHA-256 of its "
        f"weights {code_span(facts['sha256'])}.",
        "",
    ]


def _calibration(report: Report) -> list[str]:
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


def _genre_row(scores: GenreScores) -> str:
    numbers = (scores.precision, scores.recall, scores.f1)
    cells = [f"{number:.3f}" for number in numbers]
    return f"| {markdown(scores.genre)} | {' | '.join(cells)} | {scores.support} |"


def find_limits(report: Report) -> Sequence[str]:
    """Sentences on where the model must not be trusted, from the run's own facts."""
    test = report.test
    limits = []
    if report.synthetic:
        limits.append("It has never heard real music.")
    few = [scores.genre for scores in test.genres if scores.support < FEW_CLIPS]
    if few:
        limits.append(
            f"Fewer than {FEW_CLIPS} test clips of {', '.join(few)}: the scores of "
            "these genres are hints."
        )
    if not test.artists:
        limits.append(
            "Artists are not known: an artist's songs may be in training and test, "
            "which makes scores too high."
        )
    if test.accuracy_interval[0] <= test.majority_accuracy:
        limits.append(
            "Its accuracy cannot be told from that of always naming the most frequent "
            "genre."
        )
    unknown = [s.genre for s in test.genres if s.support and not s.recall]
    if unknown:
        limits.append(f"Not one test clip of {', '.join(unknown)} was recognised.")
    gap = (report.training_accuracy or 0) - test.accuracy
    if gap > 0.1:
        limits.append(
            f"It overfits: accuracy {report.training_accuracy:.3f} in training, "
            f"{test.accuracy:.3f} in the test."
        )
    limits.extend(report.notes)
    limits.append(
        "Genres are labels that artists chose for themselves; the borders between "
        "them are vague, and so is the best accuracy that can be reached."
    )
    return limits


def _licence(report: Report) -> list[str]:
    if report.synthetic:
        return ["The demo corpus is synthetic and free of rights (CC0)."]
    return [
        "The model holds no audio, but was made from it, under that audio's terms. For "
        "the Free Music Archive: its metadata are CC BY 4.0; each track has the "
        "Creative Commons licence that its artist chose, many of them for "
        "non-commercial use only. `tracks.csv` names each track's (`track`, `license`)."
    ]

"""What the model card of one genre a clip says."""

from __future__ import annotations

from pipeline.common.plain_text import markdown
from trainer.evaluation.card import CardParts, describe_interval
from trainer.evaluation.report import Report
from trainer.evaluation.scores import GenreScores


def make_card_parts(report: Report) -> CardParts:
    """See `CardParts`."""
    test = report.test
    low, high = test.accuracy_interval
    return CardParts(
        use=f"Names the genre of a music recording, one of {len(test.genres)}: "
        + ", ".join(markdown(scores.genre) for scores in test.genres)
        + ". It always names one of them, also for speech, silence or a genre that it "
        "has never heard.",
        scores=(
            ("accuracy", f"{test.accuracy:.3f}"),
            (describe_interval(report), f"{low:.3f} to {high:.3f}"),
            ("macro-F1", f"{test.macro_f1:.3f}"),
            ("genre among the first three", f"{test.top_3:.3f}"),
            ("log-loss (nats)", f"{test.log_loss:.3f}"),
            ("calibration error", f"{test.calibration_error:.3f}"),
            ("always naming the most frequent genre", f"{test.majority_accuracy:.3f}"),
        ),
        header=("genre", "precision", "recall", "F1", "test clips"),
        rows=[_make_row(scores) for scores in test.genres],
        limits=_find_limits(report),
        caveat="Genres are labels that artists chose for themselves; the borders "
        "between them are vague, and so is the best accuracy that can be reached.",
    )


def _make_row(scores: GenreScores) -> list[str]:
    numbers = (scores.precision, scores.recall, scores.f1)
    cells = [f"{number:.3f}" for number in numbers]
    return [markdown(scores.genre), *cells, str(scores.support)]


def _find_limits(report: Report) -> list[str]:
    test = report.test
    limits = []
    if test.accuracy_interval[0] <= test.majority_accuracy:
        limits.append(
            "Its accuracy cannot be told from that of always naming the most frequent "
            "genre."
        )
    unknown = [s.genre for s in test.genres if s.support and not s.recall]
    if unknown:
        limits.append(f"Not one test clip of {', '.join(unknown)} was recognised.")
    return limits

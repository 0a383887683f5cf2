"""What the model card of several genres a clip says."""

from __future__ import annotations

from pipeline.common.plain_text import markdown
from trainer.evaluation.card import CardParts, describe_interval
from trainer.evaluation.tasks.multi_label_report import MultiLabelReport
from trainer.evaluation.tasks.multi_label_scores import TagScores


def make_card_parts(report: MultiLabelReport) -> CardParts:
    """See `CardParts`."""
    test = report.test
    low, high = test.macro_ap_interval
    auc_low, auc_high = test.macro_auc_interval
    interval = describe_interval(report)
    limits = []
    if test.unscored:
        limits.append(
            f"No test clip has {', '.join(test.unscored)}, or every one has: the means "
            "leave these genres out."
        )
    if test.macro_ap_interval[0] <= test.prevalence:
        limits.append("Its macro average precision cannot be told from chance.")
    return CardParts(
        use=f"Gives a music recording each of {len(test.genres)} genres whose "
        "probability reaches the genre's threshold; several, or none.",
        clips=f"; a test clip has {test.labels_per_clip:.1f} genres on average",
        scores=(
            ("macro average precision", f"{test.macro_ap:.3f}"),
            (interval, f"{low:.3f} to {high:.3f}"),
            ("chance: mean share of clips of a genre", f"{test.prevalence:.3f}"),
            ("micro average precision", f"{test.micro_ap:.3f}"),
            ("macro ROC-AUC", f"{test.macro_auc:.3f}"),
            (interval, f"{auc_low:.3f} to {auc_high:.3f}"),
            ("micro ROC-AUC", f"{test.micro_auc:.3f}"),
            ("macro-F1 at the thresholds", f"{test.macro_f1:.3f}"),
            ("micro-F1 at the thresholds", f"{test.micro_f1:.3f}"),
            ("most probable genre is one of the clip's", f"{test.accuracy:.3f}"),
            ("log-loss (nats, mean over genres)", f"{test.log_loss:.3f}"),
            ("calibration error", f"{test.calibration_error:.3f}"),
        ),
        header=(
            "genre",
            "AP",
            "95 % interval",
            "ROC-AUC",
            "threshold",
            "precision",
            "recall",
            "F1",
            "test clips",
        ),
        rows=[
            _make_row(scores)
            for scores in sorted(test.genres, key=lambda one: one.path)
        ],
        limits=limits,
        caveat="Genres are labels that artists chose for themselves, and not all that "
        "fit: a genre that a clip lacks may be right all the same.",
    )


def _make_row(scores: TagScores) -> list[str]:
    interval = scores.average_precision_interval
    return [
        markdown(scores.path),
        _format(scores.average_precision),
        "-" if interval is None else "{:.3f} to {:.3f}".format(*interval),
        _format(scores.roc_auc),
        *map(_format, (scores.threshold, scores.precision, scores.recall, scores.f1)),
        str(scores.support),
    ]


def _format(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"

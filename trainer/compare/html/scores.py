"""The report's parts on all models together: scores, and recall by genre."""

from __future__ import annotations

import math

from trainer.compare.comparison import (
    ARTICLE_ACCURACY,
    Comparison,
    describe_article,
    describe_noise,
    describe_use,
)
from trainer.compare.html.charts import Bar, interval_chart, percent
from trainer.compare.html.markup import (
    Markup,
    cell,
    element,
    header,
    scrolling,
    section,
)
from trainer.compare.html.models import model_link
from trainer.evaluation.card import FEW_CLIPS


def comparison_section(comparison: Comparison) -> Markup:
    """Accuracies as a chart, then all scores as a table."""
    reports = comparison.reports
    test = reports[0].test
    bars = [
        Bar(
            name=title,
            detail=report.representation,
            value=report.test.accuracy,
            interval=report.test.accuracy_interval,
            close=comparison.within_noise(number),
            link=model_link(report),
        )
        for number, (title, report) in enumerate(
            zip(comparison.titles, reports, strict=True)
        )
    ]
    groups = "artists" if test.artists else "clips"
    return section(
        "comparison",
        "How good are the models?",
        element(
            "p",
            f"Share of {test.clips} test clips named right, with 95 % intervals "
            f"(bootstrap over {groups}). Filled: the best, and what is within noise of "
            f"it. The dotted line is guessing, {percent(test.chance_accuracy)}.",
            class_="muted",
        ),
        interval_chart(bars, test.chance_accuracy),
        element("p", describe_noise(comparison), class_="note")
        if len(reports) > 1
        else "",
        element("p", describe_use(comparison), class_="note"),
        scrolling("Scores of all models", _score_table(comparison)),
        element(
            "p",
            "Top-3: the genre is among the three most probable. Log-loss in nats, "
            "lower is better; an even guess has "
            f"{math.log(len(test.genres)):.2f}. Calibration error: mean distance "
            "between what a model claims and how often it is right, as the model is "
            "and after temperature scaling (fitted to the validation split). A "
            "training accuracy far above the test's is a sign of overfitting.",
            class_="note",
        ),
        element("p", describe_article(comparison), class_="note"),
    )


def _score_table(comparison: Comparison) -> Markup:
    columns = [
        header("Model", text=True),
        header("Reads", text=True),
        header("Accuracy"),
        header("95 % interval"),
        header("Macro-F1"),
        header("Top-3"),
        header("Log-loss"),
        header("Calibration error"),
        header("…scaled"),
        header("Training accuracy"),
        header("Weights"),
        header("Seconds"),
    ]
    rows = []
    for number, (title, report) in enumerate(
        zip(comparison.titles, comparison.reports, strict=True)
    ):
        test, calibration = report.test, report.calibration
        low, high = test.accuracy_interval
        f1_low, f1_high = test.macro_f1_interval
        link = element("a", title, href=f"#{model_link(report)}")
        rows.append(
            element(
                "tr",
                element("th", link, scope="row", data_value=title),
                element(
                    "td",
                    report.representation,
                    class_="text",
                    data_value=report.representation,
                ),
                cell(test.accuracy),
                element("td", f"{low:.3f} – {high:.3f}", data_value=low),
                cell(
                    test.macro_f1, title=f"95 % interval {f1_low:.3f} – {f1_high:.3f}"
                ),
                cell(test.top_3),
                cell(test.log_loss),
                cell(test.calibration_error),
                cell(calibration.after.error if calibration else None),
                cell(report.training_accuracy),
                cell(report.weights, form=",d"),
                cell(report.train_seconds, form=".1f"),
                class_="close" if comparison.within_noise(number) else None,
            )
        )
    test = comparison.reports[0].test
    guesses = [("Guessing", test.chance_accuracy)]
    guesses.append(("Most frequent genre", test.majority_accuracy))
    if comparison.article_comparable:
        guesses.append(("2020 article, mel images", ARTICLE_ACCURACY))
    for name, accuracy in guesses:
        empty = [element("td") for _ in range(len(columns) - 3)]
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                element("td"),
                cell(accuracy),
                *empty,
                class_="base",
            )
        )
    return element(
        "table",
        element("caption", "Scores on the test split; press a heading to sort"),
        element("thead", element("tr", *columns)),
        element("tbody", *rows),
        class_="sortable scores",
    )


def genres_section(comparison: Comparison) -> Markup:
    """Which genres each model recognises."""
    genres = comparison.reports[0].test.genres
    means = [
        sum(report.test.genres[index].recall for report in comparison.reports)
        / len(comparison.reports)
        for index in range(len(genres))
    ]
    order = sorted(range(len(genres)), key=lambda index: -means[index])
    columns = [
        element(
            "th",
            element(
                "div", f"{genres[i].genre} ({genres[i].support})", class_="upright"
            ),
            scope="col",
        )
        for i in order
    ]
    rows = []
    for title, report in zip(comparison.titles, comparison.reports, strict=True):
        cells = [
            element(
                "td",
                f"{100 * report.test.genres[i].recall:.0f}",
                style=f"--share:{report.test.genres[i].recall:.3f}",
            )
            for i in order
        ]
        name = element("th", f"{title}, {report.representation}", scope="row")
        rows.append(element("tr", name, *cells))
    few = min(scores.support for scores in genres)
    hint = f" Some genres have only {few} test clips." if few < FEW_CLIPS else ""
    best, worst = genres[order[0]].genre, genres[order[-1]].genre
    return section(
        "genres",
        f"{best} is recognised best, {worst} worst",
        scrolling(
            "Recall by model and genre",
            element(
                "table",
                element(
                    "caption",
                    "Of 100 test clips of a genre, so many are recognised; in "
                    f"brackets, the number of test clips.{hint}",
                ),
                element(
                    "thead",
                    element(
                        "tr",
                        element("th", "Model", scope="col", class_="corner"),
                        *columns,
                    ),
                ),
                element("tbody", *rows),
                class_="heat",
            ),
        ),
    )

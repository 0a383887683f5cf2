"""Tables of one model: its scores by genre, and its confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.compare.html.markup import Markup, bar_cell, cell, element, header, table
from trainer.evaluation.scores import Evaluation

#: Of each genre: its name, number of test clips, and a score for each column.
Row = tuple[str, int, Sequence[float | None]]


def confusion_table(evaluation: Evaluation) -> Markup:
    """The confusion matrix as a table, shaded by the share of the true genre."""
    genres = [scores.genre for scores in evaluation.genres]
    columns = [
        element("th", element("div", genre, class_="upright"), scope="col")
        for genre in genres
    ]
    rows = []
    for row, (genre, counts) in enumerate(
        zip(genres, evaluation.confusion, strict=True)
    ):
        total = max(sum(counts), 1)
        cells = []
        for column, count in enumerate(counts):
            share = count / total
            classes = ["hit"] * (row == column) + ["none"] * (count == 0)
            cells.append(
                element(
                    "td",
                    count,
                    class_=" ".join(classes) or None,
                    style=f"--share:{share:.3f}",
                )
            )
        rows.append(element("tr", element("th", genre, scope="row"), *cells))
    corner = element("th", "true ↓ named →", scope="col", class_="corner")
    caption = "Test clips by true genre (row) and named genre (column)"
    return table([corner, *columns], rows, caption=caption, class_="heat")


def genre_table(columns: Sequence[str], rows: Sequence[Row]) -> Markup:
    """Scores of each genre, sortable; the last column, an F1, is drawn too."""
    lines = []
    for genre, support, values in rows:
        last = values[-1] or 0.0
        lines.append(
            element(
                "tr",
                element("th", genre, scope="row", data_value=genre),
                cell(support, form="d"),
                *map(cell, values[:-1]),
                bar_cell(f"{last:.3f}", last, last),
            )
        )
    names = [header("Genre", text=True), header("Clips"), *map(header, columns)]
    return table(names, lines, class_="sortable scores")

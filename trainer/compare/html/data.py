"""The page's part on the dataset: counts, rejects, and what clips look like."""

from __future__ import annotations

from pipeline.schema import SPLITS, Manifest
from trainer.compare.html.facts import DataFacts, Pictures
from trainer.compare.html.markup import (
    Markup,
    bar_cell,
    cell,
    element,
    header,
    scrolling,
    section,
    table,
)


def data_section(facts: DataFacts) -> Markup:
    """The whole part."""
    manifest = facts.manifest
    total = sum(manifest.clip_totals.values())
    return section(
        "data",
        f"{total:,} clips of {len(manifest.genres)} genres",
        *([element("p", manifest.description)] if manifest.description else []),
        element("p", _describe_artists(facts)),
        scrolling("Clips by genre and split", _clip_table(manifest)),
        *_rejects(manifest),
        *_gallery(facts.pictures),
    )


def _describe_artists(facts: DataFacts) -> str:
    rule = facts.manifest.split_rule.rstrip(".")
    if not facts.artists:
        return f"Split: {rule}. Artists are not known."
    counts = ", ".join(f"{facts.artists.get(split, 0)} in {split}" for split in SPLITS)
    if facts.shared_artists:
        return (
            f"Split: {rule}. Artists: {counts}; {facts.shared_artists} of them are in "
            "more than one split, so that scores are too high."
        )
    return f"Split: {rule}. Artists: {counts}; none is in two splits."


def _clip_table(manifest: Manifest) -> Markup:
    rows = []
    totals = {
        genre: sum(manifest.clips[split].get(genre, 0) for split in SPLITS)
        for genre in manifest.genres
    }
    most = max([*totals.values(), 1])
    paths = {genre: " > ".join(manifest.genre_path(genre)) for genre in manifest.genres}
    for genre in sorted(manifest.genres, key=lambda genre: paths[genre]):
        rows.append(
            element(
                "tr",
                element("th", paths[genre], scope="row", data_value=paths[genre]),
                *(cell(manifest.clips[s].get(genre, 0), form=",d") for s in SPLITS),
                bar_cell(f"{totals[genre]:,}", totals[genre] / most, totals[genre]),
            )
        )
    sums = [manifest.clip_totals.get(split, 0) for split in SPLITS]
    rows.append(
        element(
            "tr",
            element("th", "All clips", scope="row"),
            *(cell(count, form=",d") for count in (*sums, sum(sums))),
            class_="base",
        )
    )
    columns = [header("Genre", text=True), *map(header, (*SPLITS, "all"))]
    return table(columns, rows, caption="Clips by genre and split", class_="sortable")


def _rejects(manifest: Manifest) -> list[Markup]:
    count = manifest.inputs.get("rejects", sum(manifest.rejects.values()))
    if not count:
        return [element("p", "No input was rejected.")]
    rows = [
        element(
            "tr",
            element("th", reason.replace("_", " "), scope="row", data_value=reason),
            cell(number, form=",d"),
        )
        for reason, number in sorted(
            manifest.rejects.items(), key=lambda item: -item[1]
        )
    ]
    return [
        element("h3", f"{count:,} inputs were rejected"),
        scrolling(
            "Rejects by reason",
            table(
                [header("Reason", text=True), header("Inputs")],
                rows,
                caption="Each is named in the dataset's rejects file",
                class_="sortable",
            ),
        ),
    ]


def _gallery(examples: Pictures) -> list[Markup]:
    if not any(examples.values()):
        return []
    cards = [
        element(
            "li",
            element("h3", genre),
            *(
                element("figure", picture, element("figcaption", name))
                for name, picture in pictures.items()
            ),
            class_="card",
        )
        for genre, pictures in examples.items()
        if pictures
    ]
    return [
        element("h3", "One clip of each genre, as the models see it"),
        element("ul", *cards, class_="cards gallery"),
    ]

"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence

from pipeline.common.owned_kinds import OWNER
from trainer.compare.comparison import Comparison
from trainer.compare.html.data import data_section
from trainer.compare.html.facts import DataFacts
from trainer.compare.html.hard_clips import HardClip, Media, clips_section
from trainer.compare.html.markup import Markup, element, join, section
from trainer.compare.html.models import models_section
from trainer.compare.html.scores import comparison_section, genres_section
from trainer.evaluation.tasks.task import AnyReport

#: Test clips in all, below which the page warns.
FEW_TEST_CLIPS = 200


def format_page(
    comparison: Comparison,
    *,
    data: DataFacts | None = None,
    hard_clips: Sequence[HardClip] = (),
    media: Media | None = None,
    command: str = "",
    created: str = "",
) -> str:
    """Makes the whole page.

    Args:
      comparison: the models.
      data: what is known about the dataset, where it could be read.
      hard_clips: clips to show, see `find_hard_clips`.
      media: their pictures and sounds.
      command: what makes this page again.
      created: date.
    """
    media = media or Media()
    parts = {
        "Comparison": comparison_section(comparison),
        "Genres": genres_section(comparison),
        "Models": models_section(comparison, hard_clips),
        **(
            {"Hardest clips": clips_section(hard_clips, media, comparison.view.said_as)}
            if hard_clips
            else {}
        ),
        **({"Data": data_section(data)} if data else {}),
        "How it was made": _provenance_section(comparison, data, command),
    }
    links = [
        element("li", element("a", name, href=f"#{_find_identity(part)}"))
        for name, part in parts.items()
    ]
    style, script = _read("report.css"), _read("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=OWNER),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", "Genre classifiers compared"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the results", class_="skip", href="#main"),
        element(
            "header",
            *_opening(comparison),
            element("nav", element("ul", *links), aria_label="Parts of this page"),
        ),
        element("main", *parts.values(), id="main"),
        element("footer", element("p", f"FMA genre classifiers. {created}".strip())),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _find_identity(part: Markup) -> str:
    """The `id` of a section."""
    found = re.match(r'<section id="([^"]*)"', part)
    if found is None:
        raise ValueError(f"Expected a section. Received: {part[:80]}")
    return found[1]


def _read(name: str) -> str:
    folder = importlib.resources.files("trainer.compare.html") / "web"
    return (folder / name).read_text(encoding="utf-8")


def _opening(comparison: Comparison) -> list[Markup]:
    """The result in one line, then in three sentences, then the doubts."""
    best, title = comparison.reports[0], comparison.entries[0].title
    count, others = len(comparison.entries), len(comparison.others)
    lead: list[object] = [element("strong", f"{title} on {best.representation}")]
    if count > 1:
        lead.append(f" is the best of {count} models.")
    lead.append(f" {comparison.view.lead(best)}")
    if count > 1:
        lead.append(
            f" {_count(others)} within noise of it."
            if others
            else " No other is within noise of it."
        )
    return [
        element("h1", comparison.view.headline(best)),
        element("p", *lead, class_="lead"),
        *(element("p", doubt, class_="warning") for doubt in find_doubts(best)),
    ]


def _count(others: int) -> str:
    return "1 other is" if others == 1 else f"{others} others are"


def find_doubts(best: AnyReport) -> list[str]:
    """Reasons not to believe the numbers as they stand."""
    doubts = []
    if best.synthetic:
        doubts.append(
            "Synthetic demo music: the numbers say that everything works, and nothing "
            "about real recordings."
        )
    if best.shared_artists:
        named = ", ".join(best.shared_artists)
        doubts.append(f"Splits share artists ({named}): all scores are too high.")
    elif not best.test.artists:
        doubts.append(
            "Artists are not known: one's songs may be in training and in the test, "
            "which makes scores too high."
        )
    if best.test.clips < FEW_TEST_CLIPS:
        doubts.append(
            f"Only {best.test.clips} test clips: the intervals are wide, and most "
            "differences between models mean nothing."
        )
    return doubts


def _provenance_section(
    comparison: Comparison, data: DataFacts | None, command: str
) -> Markup:
    """Fingerprint, split, versions and commands."""
    first = comparison.reports[0]
    commands = [report.command for report in comparison.reports if report.command]
    if data and data.command:
        commands.insert(0, data.command)
    if command:
        commands.append(command)
    unique = list(dict.fromkeys(commands))
    seeds = sorted(
        {
            str(r.parameters["seed"])
            for r in comparison.reports
            if "seed" in r.parameters
        }
    )
    versions = dict(data.manifest.versions) if data else {}
    trained = next((r.versions for r in comparison.reports if r.versions), {})
    pairs = {
        "Dataset fingerprint": element("code", first.fingerprint),
        "Split": first.split_rule or "not recorded",
        "Seeds": ", ".join(seeds) or "none: these models have no randomness",
        "Trained with": _versions(trained) or "not recorded",
        **({"Preprocessed with": _versions(versions)} if versions else {}),
    }
    terms = join(
        join([element("dt", key), element("dd", value)]) for key, value in pairs.items()
    )
    return section(
        "provenance",
        "How it was made",
        element("dl", terms),
        *(
            [
                element("p", "These commands make the same again:"),
                element("pre", element("code", "\n".join(unique)), tabindex="0"),
            ]
            if unique
            else []
        ),
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))

"""The page's part on how its numbers came about."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.compare.comparison import Comparison
from trainer.compare.html.facts import DataFacts
from trainer.compare.html.markup import Markup, element, join, section


def provenance_section(
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
    versions = dict(data.versions) if data else {}
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

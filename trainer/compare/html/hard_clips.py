"""The page's part on the clips that models get most wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.compare.comparison import Comparison
from trainer.compare.html.charts import percent
from trainer.compare.html.markup import Markup, element, identify, section
from trainer.evaluation.predictions import ClipPredictions

#: Clips that are listed for each model, and shown in all.
WORST_CLIPS = 3
SHOWN_CLIPS = 24


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Media:
    """What the page shows and plays of clips: `data:` addresses by track id."""

    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sounds: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardClip:
    """A test clip that models get very wrong.

    Attributes:
      track_id: its id.
      genre: the true one.
      wrong: name, predicted genre and its probability of the models that are
        surest of their mistake.
      wrong_count: number of models that are wrong about it.
      models: number of all models.
    """

    track_id: str
    genre: str
    wrong: tuple[tuple[str, str, float], ...]
    wrong_count: int
    models: int


def find_worst(predictions: ClipPredictions, count: int) -> list[int]:
    """Clips whose true genre got the least probability, of those predicted wrong."""
    rows = np.arange(len(predictions.labels))
    true = predictions.probabilities[rows, predictions.labels]
    wrong = rows[predictions.predicted != predictions.labels]
    worst: list[int] = wrong[np.argsort(true[wrong], kind="stable")][:count].tolist()
    return worst


def find_hard_clips(comparison: Comparison) -> list[HardClip]:
    """The worst clips of all models, those first that most models list."""
    listed: Counter[str] = Counter()
    wrong: dict[str, list[tuple[str, str, float]]] = {}
    genre_of: dict[str, str] = {}
    results = [
        (f"{title}, {result.report.representation}", result.predictions)
        for title, result in zip(comparison.titles, comparison.results, strict=True)
        if result.predictions is not None
    ]
    genres = [scores.genre for scores in comparison.reports[0].test.genres]
    for title, predictions in results:
        for row in find_worst(predictions, WORST_CLIPS):
            listed[predictions.track_ids[row]] += 1
        missed = np.flatnonzero(predictions.predicted != predictions.labels)
        for row in missed.tolist():
            track = predictions.track_ids[row]
            guess = int(predictions.predicted[row])
            share = float(predictions.probabilities[row, guess])
            wrong.setdefault(track, []).append((title, genres[guess], share))
            genre_of[track] = genres[predictions.labels[row]]
    chosen = sorted(listed, key=lambda track: (-listed[track], track))[:SHOWN_CLIPS]
    return [
        HardClip(
            track_id=track,
            genre=genre_of[track],
            wrong=tuple(sorted(wrong[track], key=lambda mistake: -mistake[2])[:5]),
            wrong_count=len(wrong[track]),
            models=len(results),
        )
        for track in chosen
    ]


def clip_link(track_id: str) -> str:
    """Id of a clip's card."""
    return f"clip-{identify(track_id)}"


def clips_section(clips: Sequence[HardClip], media: Media) -> Markup:
    """A card for each clip."""
    cards = []
    for clip in clips:
        image, sound = media.images.get(clip.track_id), media.sounds.get(clip.track_id)
        wrong = [
            element(
                "li",
                element("span", title),
                element("span", f"{genre} {percent(share)}"),
            )
            for title, genre, share in clip.wrong
        ]
        cards.append(
            element(
                "li",
                element("h3", f"{clip.genre}: track {clip.track_id}"),
                element(
                    "img",
                    src=image,
                    alt=f"Mel image of track {clip.track_id}: 30 s from left to right, "
                    "low sounds at the bottom",
                    width=224,
                    height=224,
                )
                if image
                else "",
                element(
                    "audio",
                    controls=True,
                    preload="none",
                    src=sound,
                    aria_label=f"Track {clip.track_id}, {clip.genre}",
                )
                if sound
                else "",
                element(
                    "p",
                    f"Wrong: {clip.wrong_count} of {clip.models} models",
                    class_="note",
                ),
                element("ul", *wrong),
                class_="card",
                id=clip_link(clip.track_id),
            )
        )
    return section(
        "clips",
        "The clips that models get most wrong",
        element(
            "p",
            "Each with its true genre, and what models took it for instead. Listen "
            "before you blame the model: labels are their artists' own."
            if media.sounds
            else "Each with its true genre, and what models took it for instead. With "
            "--audio FOLDER, the report also plays them.",
            class_="muted",
        ),
        element("ul", *cards, class_="cards"),
    )

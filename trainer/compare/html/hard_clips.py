"""The page's part on the clips that models get most wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.compare.comparison import Comparison
from trainer.compare.html.markup import Markup, element, identify, section
from trainer.compare.view import Mistake

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
      truth: its genre or genres.
      wrong: name of the models that are surest of their mistake, and what they say.
      wrong_count: number of models that are wrong about it.
      models: number of all models.
    """

    track_id: str
    truth: str
    wrong: tuple[tuple[str, str], ...]
    wrong_count: int
    models: int


def find_hard_clips(comparison: Comparison) -> list[HardClip]:
    """The worst clips of all models, those first that most models list."""
    listed: Counter[str] = Counter()
    wrong: dict[str, list[tuple[str, Mistake]]] = {}
    models = 0
    for entry in comparison.entries:
        predictions = entry.result.predictions
        if predictions is None:
            continue
        models += 1
        mistakes = comparison.view.find_mistakes(entry.report, predictions)
        for mistake in mistakes:
            wrong.setdefault(mistake.track_id, []).append((entry.label, mistake))
        listed.update(mistake.track_id for mistake in mistakes[:WORST_CLIPS])
    chosen = sorted(listed, key=lambda track: (-listed[track], track))[:SHOWN_CLIPS]
    clips = []
    for track in chosen:
        surest = sorted(wrong[track], key=lambda pair: -pair[1].certainty)
        clips.append(
            HardClip(
                track_id=track,
                truth=surest[0][1].truth,
                wrong=tuple((title, mistake.said) for title, mistake in surest[:5]),
                wrong_count=len(surest),
                models=models,
            )
        )
    return clips


def clip_link(track_id: str) -> str:
    """Id of a clip's card."""
    return f"clip-{identify(track_id)}"


def clips_section(clips: Sequence[HardClip], media: Media, said_as: str) -> Markup:
    """A card for each clip; `said_as` stands before what models say of it."""
    cards = []
    for clip in clips:
        image, sound = media.images.get(clip.track_id), media.sounds.get(clip.track_id)
        wrong = [
            element("li", element("span", title), element("span", said))
            for title, said in clip.wrong
        ]
        cards.append(
            element(
                "li",
                element("h3", f"{clip.truth}: track {clip.track_id}"),
                element(
                    "img",
                    src=image,
                    alt=f"Mel image of track {clip.track_id}: the clip from left to "
                    "right, low sounds at the bottom",
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
                    aria_label=f"Track {clip.track_id}, {clip.truth}",
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
            f"Each with what it is, and what it was {said_as} instead. "
            + (
                "Listen before you blame the model: labels are their artists' own."
                if media.sounds
                else "With --audio FOLDER, the report also plays them."
            ),
            class_="muted",
        ),
        element("ul", *cards, class_="cards"),
    )

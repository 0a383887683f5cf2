"""From a style to an artist, and from an artist to the plan of one track."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.demo.drums import Kit
from pipeline.demo.figures import Song
from pipeline.demo.genres import GENRES, NEIGHBOURS
from pipeline.demo.grooves import Groove
from pipeline.demo.styles import Part, Range, Style

_ROLES = ("bass", "harmony", "lead", "texture")
#: How likely a role plays in a section of `SECTION_BARS` bars.
_PRESENCE = (0.9, 0.96, 0.75, 0.7)
_DRUMS_PRESENCE = 0.92
_SECTION_BARS = 4
_MAX_SECTIONS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """How a recording sounds as a whole; the fields are those of `Style`."""

    brightness: float
    treble: float
    bass_shelf: float
    room: float
    wetness: float
    hiss: float
    crackle: float
    drive: float
    width: float
    loudness: float
    swells: float
    pump: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artist:
    """What stays the same from one track of an artist to the next."""

    genre: str
    style: Style
    tempo: float
    tonic: float
    kit: Kit | None
    favourites: tuple[int, ...]
    mix: Mix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voice:
    """A part with the bars in which it plays.

    Attributes:
      part: The part.
      sections: Whether it plays in each section of `section_bars` bars, cyclically.
      pan: -1 (left) to 1 (right).
    """

    part: Part
    sections: tuple[bool, ...]
    pan: float

    def plays(self, bar: int) -> bool:
        """Returns whether the part plays in this bar."""
        return self.sections[bar // _SECTION_BARS % len(self.sections)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a track but its samples.

    Attributes:
      song: Tempo, meter, harmony.
      groove: What the drums play; None without drums.
      kit: The drums.
      drum_level: dB in the mix.
      drum_sections: As in `Voice`.
      voices: The pitched parts.
      loose: Standard deviation of the timing in seconds.
      mix: The recording's sound.
      start_bar: Where in the song the clip begins, in bars, fractions allowed.
    """

    song: Song
    groove: Groove | None
    kit: Kit | None
    drum_level: float
    drum_sections: tuple[bool, ...]
    voices: tuple[Voice, ...]
    loose: float
    mix: Mix
    start_bar: float

    def drums_play(self, bar: int) -> bool:
        """Returns whether the drums play in this bar."""
        return self.drum_sections[bar // _SECTION_BARS % len(self.drum_sections)]


def _draw(limits: Range, rng: np.random.Generator) -> float:
    return float(rng.uniform(*limits))


def make_artist(genre: str, index: int, rng: np.random.Generator) -> Artist:
    """Draws the artist number `index` of a genre; numbers cycle through the styles."""
    styles = GENRES[genre]
    style = styles[index % len(styles)]
    mix = Mix(
        brightness=_draw(style.brightness, rng),
        treble=_draw(style.treble, rng),
        bass_shelf=_draw(style.bass_shelf, rng),
        room=_draw(style.room, rng),
        wetness=_draw(style.wetness, rng),
        hiss=_draw(style.hiss, rng),
        crackle=style.crackle * float(rng.uniform(0, 1)),
        drive=_draw(style.drive, rng),
        width=_draw(style.width, rng),
        loudness=_draw(style.loudness, rng),
        swells=_draw(style.swells, rng),
        pump=style.pump,
    )
    return Artist(
        genre=genre,
        style=style,
        tempo=_draw(style.tempo, rng),
        tonic=float(rng.integers(52, 64)),
        kit=style.kits[int(rng.integers(len(style.kits)))] if style.kits else None,
        favourites=tuple(int(choice) for choice in rng.integers(0, 60, len(_ROLES))),
        mix=mix,
    )


def _sections(presence: float, rng: np.random.Generator) -> tuple[bool, ...]:
    return tuple(bool(plays) for plays in rng.random(_MAX_SECTIONS) < presence)


def _choose(
    parts: tuple[Part, ...], favourite: int, rng: np.random.Generator
) -> Part | None:
    if not parts:
        return None
    if rng.random() < 0.6:
        return parts[favourite % len(parts)]
    return parts[int(rng.integers(len(parts)))]


def _neighbour(artist: Artist, rng: np.random.Generator) -> Style | None:
    # Grooves and patterns fit only where the bars have the same grid.
    candidates = [
        style
        for genre in NEIGHBOURS[artist.genre]
        for style in GENRES[genre]
        if style.steps == artist.style.steps
    ]
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def plan_track(artist: Artist, borrowing: float, rng: np.random.Generator) -> Plan:
    """Draws one track of an artist.

    Args:
      artist: The artist.
      borrowing: Chance for each role that a neighbouring genre's style provides it.
      rng: The track's generator.

    Returns:
      The plan.
    """
    style = artist.style
    song = Song(
        tempo=artist.tempo * float(rng.uniform(0.93, 1.07)),
        beats=style.beats,
        steps=style.steps,
        swing=_draw(style.swing, rng),
        tonic=artist.tonic + float(rng.integers(-4, 5)),
        scale=style.scales[int(rng.integers(len(style.scales)))],
        progression=style.progressions[int(rng.integers(len(style.progressions)))],
    )

    def source() -> Style:
        if rng.random() < borrowing:
            return _neighbour(artist, rng) or style
        return style

    voices = []
    for role, favourite, chance, presence in zip(
        _ROLES, artist.favourites, style.chances, _PRESENCE, strict=True
    ):
        part = _choose(getattr(source(), role), favourite, rng)
        pan = float(rng.uniform(-0.5, 0.5)) if role in ("harmony", "texture") else 0.0
        sections = _sections(presence, rng)
        if part is not None and rng.random() < chance:
            voices.append(Voice(part=part, sections=sections, pan=pan))
    if not voices:
        voices.append(
            Voice(part=style.harmony[0], sections=_sections(1.0, rng), pan=0.0)
        )

    drummer = source()
    kit = artist.kit if drummer is style else (drummer.kits or (artist.kit,))[0]
    groove = None
    if drummer.grooves and kit is not None and rng.random() < style.drums:
        groove = drummer.grooves[int(rng.integers(len(drummer.grooves)))]

    mix = dataclasses.replace(
        artist.mix,
        brightness=float(
            np.clip(artist.mix.brightness + rng.normal(0, 0.06), 0.02, 1.0)
        ),
        treble=artist.mix.treble + float(rng.normal(0, 0.7)),
        wetness=artist.mix.wetness * float(rng.uniform(0.7, 1.3)),
        loudness=min(artist.mix.loudness + float(rng.normal(0, 0.8)), -13.0),
    )
    return Plan(
        song=song,
        groove=groove,
        kit=kit,
        drum_level=style.drum_level,
        drum_sections=_sections(_DRUMS_PRESENCE, rng),
        voices=tuple(voices),
        loose=style.loose,
        mix=mix,
        start_bar=float(rng.uniform(1, 9)),
    )

"""Figures: how an instrument turns a song's harmony into notes, a bar at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pipeline.demo.grooves import read_pattern


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """What all parts of a track agree on.

    Attributes:
      tempo: Beats a minute.
      beats: Beats a bar.
      steps: Grid steps a bar; patterns are written on this grid.
      swing: Delay of every second step, in steps (0 is straight, 0.33 a shuffle).
      tonic: MIDI number of the tonic in the middle octave.
      scale: Semitones of one octave above the tonic; fractions are microtones.
      progression: Scale degree of the chord in each bar, repeated.
    """

    tempo: float
    beats: int
    steps: int
    swing: float
    tonic: float
    scale: tuple[float, ...]
    progression: tuple[int, ...]

    @property
    def bar_seconds(self) -> float:
        """Length of a bar."""
        return 60.0 / self.tempo * self.beats

    @property
    def step_seconds(self) -> float:
        """Length of a grid step."""
        return self.bar_seconds / self.steps

    def chord(self, bar: int) -> int:
        """Returns the scale degree under bar `bar`."""
        return self.progression[bar % len(self.progression)]

    def pitch(self, degree: int) -> float:
        """Returns the MIDI number of a scale degree (0 is the tonic)."""
        octave, index = divmod(degree, len(self.scale))
        return self.tonic + 12 * octave + self.scale[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """One note of a bar.

    Attributes:
      step: Start on the bar's grid.
      length: Length in steps.
      degree: Scale degree.
      velocity: Loudness, 0 to 1.
      delay: Extra seconds before the start (a strum's strings follow each other).
    """

    step: float
    length: float
    degree: int
    velocity: float = 0.8
    delay: float = 0.0


Figure: TypeAlias = Callable[[Song, int, np.random.Generator], list[Note]]


def _triad(song: Song, bar: int) -> tuple[int, int, int]:
    root = song.chord(bar)
    # Every second degree of a heptatonic scale; five-note scales are wider already.
    return root, root + 2, root + 4


def sustain(song: Song, bar: int, _rng: np.random.Generator) -> list[Note]:
    """The bar's chord, held."""
    return [
        Note(step=0, length=song.steps, degree=degree, velocity=0.7)
        for degree in _triad(song, bar)
    ]


def drone(song: Song, _bar: int, _rng: np.random.Generator) -> list[Note]:
    """Tonic and fifth, whatever the harmony does."""
    fifth = min(
        range(len(song.scale)), key=lambda degree: abs(song.scale[degree] - 7.0)
    )
    return [
        Note(step=0, length=song.steps, degree=0, velocity=0.8),
        Note(step=song.steps / 2, length=song.steps / 2, degree=fifth, velocity=0.6),
    ]


def strum(
    song: Song,
    bar: int,
    rng: np.random.Generator,
    *,
    pattern: str,
    spread: float = 0.012,
    full: bool = True,
) -> list[Note]:
    """The chord on each hit of the pattern, its strings `spread` seconds apart."""
    hits = [hit for hit in read_pattern(pattern) if hit[0] < song.steps]
    starts = [step for step, _ in hits] + [song.steps]
    root, third, fifth = _triad(song, bar)
    degrees = [root, third, fifth]
    if full:
        degrees += [root + len(song.scale), third + len(song.scale)]
    notes = []
    for index, (step, velocity) in enumerate(hits):
        order = degrees if index % 2 == 0 else degrees[::-1]
        notes += [
            Note(
                step=step,
                length=starts[index + 1] - step,
                degree=degree,
                velocity=velocity * rng.uniform(0.8, 1.0),
                delay=spread * string,
            )
            for string, degree in enumerate(order)
        ]
    return notes


def arpeggio(
    song: Song,
    bar: int,
    _rng: np.random.Generator,
    *,
    order: tuple[int, ...],
    every: int = 2,
    length: float = 3,
) -> list[Note]:
    """The chord's notes one after another.

    Args:
      song: The song.
      bar: Bar number.
      order: Indices into (root, third, fifth, root', third', fifth', ...).
      every: Steps between notes.
      length: Steps that each note lasts.
    """
    triad = _triad(song, bar)
    notes = []
    for index, step in enumerate(range(0, song.steps, every)):
        octave, position = divmod(order[index % len(order)], 3)
        notes.append(
            Note(
                step=step,
                length=length,
                degree=triad[position] + octave * len(song.scale),
                velocity=0.9 if index % 4 == 0 else 0.65,
            )
        )
    return notes


def pulse(
    song: Song,
    bar: int,
    _rng: np.random.Generator,
    *,
    pattern: str,
    offsets: tuple[int, ...] = (0,),
    hold: float = 1.0,
) -> list[Note]:
    """The chord's root on a pattern: bass lines and chugging guitars.

    Args:
      song: The song.
      bar: Bar number.
      pattern: Hits, as in `drums.read_pattern`.
      offsets: Degrees added to the root, note by note.
      hold: Share of the time to the next note that a note is held.
    """
    hits = [hit for hit in read_pattern(pattern) if hit[0] < song.steps]
    starts = [step for step, _ in hits] + [song.steps]
    return [
        Note(
            step=step,
            length=(starts[index + 1] - step) * hold,
            degree=song.chord(bar) + offsets[index % len(offsets)],
            velocity=velocity,
        )
        for index, (step, velocity) in enumerate(hits)
    ]


def walk(song: Song, bar: int, rng: np.random.Generator) -> list[Note]:
    """A bass that walks from this bar's root to the next one's."""
    start, goal = song.chord(bar), song.chord(bar + 1)
    every = song.steps // song.beats
    path = np.linspace(start, goal, song.beats, endpoint=False)
    path[1:] += rng.integers(-1, 2, song.beats - 1)
    return [
        Note(step=beat * every, length=every, degree=round(degree), velocity=0.8)
        for beat, degree in enumerate(path)
    ]


def melody(
    song: Song,
    bar: int,
    rng: np.random.Generator,
    *,
    density: float,
    leap: int = 2,
    grid: int = 2,
) -> list[Note]:
    """A line that wanders around the chord and rests at times.

    Args:
      song: The song.
      bar: Bar number.
      rng: The same generator state gives the same motif on another chord.
      density: Chance of a note on each grid point.
      leap: Largest step between neighbouring notes, in degrees.
      grid: Steps between possible notes.
    """
    positions = [
        step
        for step in range(0, song.steps, grid)
        if rng.random() < density * (1.25 if step % 4 == 0 else 0.8)
    ]
    degree = song.chord(bar) + int(rng.choice([0, 2, 4]))
    notes = []
    for step, following in itertools.pairwise([*positions, song.steps]):
        length = min(following - step, 2 * song.steps // song.beats)
        notes.append(
            Note(
                step=step,
                length=length * rng.uniform(0.7, 1.0),
                degree=degree,
                velocity=rng.uniform(0.6, 1.0),
            )
        )
        degree += int(rng.integers(-leap, leap + 1))
        degree = max(-3, min(degree, 10))
    return notes


def syllables(
    song: Song, _bar: int, rng: np.random.Generator, *, density: float = 0.75
) -> list[Note]:
    """Fast talk on one note, with a breath now and then."""
    breath = int(rng.integers(song.steps // 2, song.steps + 4))
    return [
        Note(
            step=step,
            length=1.2,
            degree=0,
            velocity=1.0 if step % 4 == 0 else rng.uniform(0.55, 0.9),
        )
        for step in range(song.steps)
        if step not in (breath, breath + 1) and rng.random() < density
    ]


def scatter(
    song: Song,
    _bar: int,
    rng: np.random.Generator,
    *,
    count: float,
    reach: int = 12,
    length: float = 3,
) -> list[Note]:
    """About `count` notes a bar anywhere in time and pitch: no grid, no harmony."""
    return [
        Note(
            step=rng.uniform(0, song.steps),
            length=length * rng.uniform(0.4, 2.0),
            degree=int(rng.integers(-reach, reach + 1)),
            velocity=rng.uniform(0.2, 1.0),
        )
        for _ in range(int(rng.poisson(count)))
    ]


def swell(
    song: Song,
    _bar: int,
    rng: np.random.Generator,
    *,
    chance: float = 0.8,
    reach: int = 5,
    bars: float = 1.3,
) -> list[Note]:
    """At most one long note a bar."""
    if rng.random() > chance:
        return []
    return [
        Note(
            step=rng.uniform(0, song.steps / 3),
            length=song.steps * bars,
            degree=int(rng.integers(-reach, reach + 1)),
            velocity=rng.uniform(0.4, 1.0),
        )
    ]

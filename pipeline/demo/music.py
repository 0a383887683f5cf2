"""Clips of the eight genres, drawn from what each may sound like.

An artist is a point in the genre's ranges, with some traits of other genres: the
overlap is meant. A track lies near its artist.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from pipeline.demo.genres import GENRES, Range, Style
from pipeline.demo.sound import (
    SAMPLE_RATE,
    Drum,
    Samples,
    Timbre,
    add,
    decibels_to_gain,
    filtered_noise,
    hit,
    measure_rms,
    tone,
)

#: Chance of each trait of an artist, and of a track, to be another genre's.
ARTIST_BORROWING = 0.09
TRACK_BORROWING = 0.04
#: Standard deviation of the tracks around their artist, as a share of a range.
TRACK_SPREAD = 0.1

_STEPS = 16
# MP3 overshoots.
_CEILING = 0.45
_VELOCITIES = {"X": 1.0, "x": 0.5, ".": 0.0}

#: (sound, first sample, gain) each; a note may begin before the clip.
_Notes: TypeAlias = Iterator[tuple[Samples, int, float]]
#: (timbre, grid)
_Part: TypeAlias = tuple[Timbre, str]
#: First sample of each step, shape (bars, 16); the clip begins within the first bar.
_Onsets: TypeAlias = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """What a track is drawn to sound like; most fields are as in `Style`.

    Attributes:
      density: Chance of a note on each step of the melody.
      step: Seconds of a sixteenth.
      swing: Delay of every second step, in steps.
      tonic: MIDI pitch, 48 to 59.
      levels: dB of bass, chords, lead and drums in the mix.
      room: Level of the echoes, 0 to 1.
    """

    step: float
    swing: float
    tonic: int
    scale: tuple[int, ...]
    bass: _Part
    chords: _Part
    lead: Timbre
    density: float
    drums: tuple[tuple[Drum, str], ...]
    levels: tuple[float, ...]
    cutoff: float
    noise: float
    loudness: float
    room: float

    def frequency(self, degree: int) -> float:
        """Returns the Hz of a degree of the scale; 0 is the tonic."""
        octave, place = divmod(degree, len(self.scale))
        pitch = self.tonic + 12 * octave + self.scale[place]
        return float(440 * 2 ** ((pitch - 69) / 12))


def _borrow(style: Style, chance: float, rng: Generator) -> Style:
    """Replaces each field, at this chance, by that of any genre."""
    lenders = list(GENRES.values())
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Style):
        lender = lenders[int(rng.integers(len(lenders)))]
        if rng.random() < chance:
            values[field.name] = getattr(lender, field.name)
    return dataclasses.replace(style, **values)


def draw_song(genre: str, artist: Generator, track: Generator) -> Song:
    """Draws a track.

    Args:
      genre: One of `GENRES`.
      artist: In the same state for every track of the artist.
      track: The track's own.
    """
    style = _borrow(GENRES[genre], ARTIST_BORROWING, artist)
    style = _borrow(style, TRACK_BORROWING, track)

    def place() -> float:
        place = artist.random() + track.normal(0, TRACK_SPREAD)
        return float(np.clip(place, 0, 0.999))

    def within(limits: Range) -> float:
        low, high = limits
        return low + (high - low) * place()

    timbres, chord_grid = style.chords
    leads, density = style.leads
    return Song(
        step=60 / within(style.tempo) / 4,
        swing=within((0.0, 0.3)),
        tonic=int(within((48, 60))),
        scale=style.scales[int(place() * len(style.scales))],
        bass=style.bass,
        chords=(timbres[int(place() * len(timbres))], chord_grid),
        lead=leads[int(place() * len(leads))],
        density=within(density),
        drums=style.drums,
        levels=tuple(map(within, ((-5, 3), (-5, 3), (-5, 3), style.drum_level))),
        cutoff=style.cutoff[0] * (style.cutoff[1] / style.cutoff[0]) ** place(),
        noise=within(style.noise),
        loudness=within(style.loudness),
        room=within((0.05, 0.5)),
    )


def _lay_out(song: Song, count: int, rng: Generator) -> _Onsets:
    """Returns where the steps lie in a clip that begins in the middle of a bar."""
    start = rng.uniform(0, _STEPS)
    bars = int((start + count / SAMPLE_RATE / song.step) / _STEPS) + 1
    steps = np.arange(bars * _STEPS).reshape(bars, _STEPS)
    seconds = (steps + song.swing * (steps % 2) - start) * song.step
    return np.round(seconds * SAMPLE_RATE).astype(np.int64)


def _choose_bars(onsets: _Onsets, chance: float, rng: Generator) -> list[int]:
    """Returns the bars of a part that rests in some sections of four bars."""
    sections = rng.random(len(onsets) // 4 + 1) < chance
    return [bar for bar in range(len(onsets)) if sections[bar // 4]]


def _play_grid(
    grid: str, sounds: Sequence[Samples], onsets: _Onsets, rng: Generator
) -> _Notes:
    """Plays each bar's sound, they take turns, wherever the grid says so."""
    for bar in _choose_bars(onsets, 0.88, rng):
        for onset, mark in zip(onsets[bar], grid, strict=True):
            if gain := _VELOCITIES[mark] * rng.uniform(0.8, 1.0):
                yield sounds[bar % len(sounds)], int(onset), gain


def _play_chords(
    song: Song, part: _Part, chords: list[list[float]], onsets: _Onsets, rng: Generator
) -> _Notes:
    """Plays a bar of each chord, given in Hz, in turn."""
    timbre, grid = part
    # Until the next note, at the longest; after its last step the grid comes round.
    steps = max(len(rest) + 1 for rest in (grid * 2).upper().split("X")[1:-1])
    seconds = steps * song.step
    sounds = [tone(timbre, chord, seconds, song.cutoff, rng) for chord in chords]
    return _play_grid(grid, sounds, onsets, rng)


def _play_lead(
    song: Song, roots: Sequence[int], onsets: _Onsets, rng: Generator
) -> _Notes:
    """Plays a motif of two bars again and again, moved to each bar's chord."""
    # At least one note.
    steps = np.union1d(np.flatnonzero(rng.random(2 * _STEPS) < song.density), [4])
    degrees = np.clip(np.cumsum(rng.integers(-2, 3, len(steps))), -4, 6)
    lengths = np.minimum(np.diff(steps, append=2 * _STEPS), 6)
    sounds: dict[tuple[int, int], Samples] = {}
    for bar in _choose_bars(onsets, 0.75, rng):
        for step, degree, length in zip(steps, degrees, lengths, strict=True):
            if step // _STEPS != bar % 2:
                continue
            key = (int(degree) + roots[bar % len(roots)], int(length))
            if key not in sounds:
                seconds = key[1] * song.step
                frequency = 2 * song.frequency(key[0])
                sounds[key] = tone(song.lead, [frequency], seconds, song.cutoff, rng)
            yield sounds[key], int(onsets[bar, step % _STEPS]), rng.uniform(0.7, 1.0)


def render(song: Song, count: int, rng: Generator) -> Samples:
    """Plays a song.

    Args:
      song: What is played.
      count: Samples a channel.
      rng: The track's generator.

    Returns:
      Stereo samples, shape (2, count), peak at most 0.45.
    """
    onsets = _lay_out(song, count, rng)
    roots = [0, *(int(root) for root in rng.integers(1, len(song.scale), 3))]
    lows = [[song.frequency(root) / 2] for root in roots]
    triads = [[song.frequency(root + k) for k in (0, 2, 4)] for root in roots]
    drums = (
        _play_grid(grid, [hit(drum, rng) for _ in range(3)], onsets, rng)
        for drum, grid in song.drums
    )
    parts = (
        _play_chords(song, song.bass, lows, onsets, rng),
        _play_chords(song, song.chords, triads, onsets, rng),
        _play_lead(song, roots, onsets, rng),
        itertools.chain.from_iterable(drums),
    )
    mix = np.zeros((2, count), dtype=np.float32)
    # The chords are rather on the left, the lead is rather on the right.
    for notes, level, pan in zip(parts, song.levels, (0, -0.2, 0.2, 0), strict=True):
        part = np.zeros(count, dtype=np.float32)
        for sound, onset, velocity in notes:
            add(part, sound, onset, velocity)
        part *= np.float32(decibels_to_gain(level) / max(measure_rms(part), 0.02))
        mix += part * np.array([[1 - pan], [1 + pan]], dtype=np.float32)
    return _finish(mix, song, rng)


def _finish(mix: Samples, song: Song, rng: Generator) -> Samples:
    """Adds echoes and hiss, and sets the loudness below the ceiling; changes `mix`."""
    # Three echoes; each comes from the other side.
    for seconds in (0.031, 0.083, 0.171):
        delay = round(seconds * SAMPLE_RATE)
        mix[:, delay:] += mix[::-1, :-delay] * np.float32(song.room / 2)
    mix /= np.float32(max(measure_rms(mix), 1e-4))
    # Two seconds of hiss, repeated: nobody hears the loop, and it is cheap.
    hiss = filtered_noise(2 * SAMPLE_RATE, (500.0, 10_000.0), rng)
    hiss *= np.float32(decibels_to_gain(song.noise))
    mix += np.stack([np.resize(side, mix.shape[1]) for side in (hiss, hiss[::-1])])
    mix *= np.float32(decibels_to_gain(song.loudness) / measure_rms(mix) / _CEILING)
    return np.tanh(mix, out=mix) * np.float32(_CEILING)

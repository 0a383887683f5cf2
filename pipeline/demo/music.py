"""The eight genres of fma_small as ranges, and the clips that are drawn from them.

A genre is a tempo range, scales, timbres, a drum grid and noise. An artist draws from
them, and takes some traits from a neighbouring genre: the overlap is meant. Tracks vary
a little around their artist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

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

#: (lowest, highest): a value is drawn between the two.
Range: TypeAlias = tuple[float, float]

#: Chance of each trait of an artist, and of a track, to be a neighbouring genre's.
ARTIST_BORROWING = 0.12
TRACK_BORROWING = 0.06

_STEPS = 16  # of a bar of four beats
_SECTION_BARS = 4
# MP3 overshoots.
_CEILING = 0.45

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_MIXOLYDIAN = (0, 2, 4, 5, 7, 9, 10)
_HIJAZ = (0, 1, 4, 5, 7, 8, 10)
_PENTATONIC = (0, 3, 5, 7, 10)
_WHOLE_TONE = (0, 2, 4, 6, 8, 10)

_SAW = Timbre(tilt=1.0, detune=14.0)
_SQUARE = Timbre(tilt=1.0, even=0.0)
_SUB = Timbre(tilt=3.0, detune=0.0)
_PAD = Timbre(tilt=1.5, attack=0.25, detune=10.0)
_BELL = Timbre(tilt=4.0, index=3.0, ratio=3.5, decay=2.5)
_CLANG = Timbre(tilt=3.0, index=6.0, ratio=1.41, decay=5.0, attack=0.05)
_PIANO = Timbre(tilt=2.0, index=0.7, decay=2.5, detune=2.0)
_GUITAR = Timbre(tilt=1.3, decay=1.4, detune=1.0)
_LUTE = Timbre(tilt=0.9, even=0.5, decay=0.8, detune=5.0)
_REED = Timbre(tilt=1.2, even=0.25, attack=0.04, vibrato=30.0)
_FLUTE = Timbre(tilt=2.8, attack=0.07, vibrato=15.0, detune=1.0)
_STRINGS = Timbre(tilt=1.4, attack=0.15, vibrato=12.0, detune=8.0)
_VOICE = Timbre(tilt=1.7, attack=0.05, vibrato=35.0, detune=6.0)
_FUZZ = Timbre(tilt=1.0, drive=5.0, detune=4.0)
_ORGAN = Timbre(tilt=1.9, even=0.8, vibrato=8.0)
_BASS = Timbre(tilt=1.6, decay=2.0, detune=0.0)

_KICK = Drum(frequency=50, sweep=2.0, noise=0.04, decay=0.3)
_BOOM = Drum(frequency=42, sweep=1.5, noise=0.02, decay=0.6)
_SNARE = Drum(frequency=185, sweep=0.5, noise=0.7, band=(900, 8_000), decay=0.22)
_CLAP = Drum(band=(900, 3_500), decay=0.18)
_HAT = Drum(band=(7_000, 14_000), decay=0.07)
_CYMBAL = Drum(band=(3_500, 13_000), decay=0.5)
_SHAKER = Drum(band=(4_000, 9_000), decay=0.1)
_HAND = Drum(frequency=190, sweep=0.7, noise=0.15, band=(500, 3_000), decay=0.2)
_RIM = Drum(frequency=420, sweep=0.3, noise=0.4, band=(1_500, 5_000), decay=0.06)
_BRUSH = Drum(band=(1_500, 6_000), decay=0.3)
_SCRAPE = Drum(frequency=90, sweep=3.0, noise=0.6, band=(300, 6_000), decay=1.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """The habits of a genre.

    A grid is a bar of 16 characters: "X" a loud note, "x" a soft one, "." none.

    Attributes:
      tempo: Beats a minute.
      swing: Delay of every second step, in steps.
      scales: Semitones above the tonic.
      bass: Timbre and grid.
      chords: Timbres.
      chord_grid: When chords are struck.
      leads: Timbres.
      density: Chance of a melody's note on each step.
      drums: (drum, grid, dB).
      drum_level: dB in the mix; "drumless" is very low.
      cutoff: Hz above which every timbre falls off.
      noise: Level of the hiss in dB below the music.
      hiss_band: Hz.
      loudness: RMS in dB below full scale.
      drive: Saturation of the whole mix.
    """

    tempo: Range
    swing: Range = (0.0, 0.1)
    scales: tuple[tuple[int, ...], ...]
    bass: Timbre
    bass_grid: str
    chords: tuple[Timbre, ...]
    chord_grid: str
    leads: tuple[Timbre, ...]
    density: Range
    drums: tuple[tuple[Drum, str, float], ...]
    drum_level: Range
    cutoff: Range
    noise: Range
    hiss_band: tuple[float, float] = (500.0, 10_000.0)
    loudness: Range
    drive: Range


#: Genre name (as in FMA's ``track.genre_top``) to its habits.
GENRES: Mapping[str, Style] = MappingProxyType(
    {
        "Electronic": Style(
            tempo=(116, 140),
            scales=(_MINOR,),
            bass=_SAW,
            bass_grid="..x...x...x...x.",
            chords=(_PAD, _SAW),
            chord_grid="X..x..x...x..x..",
            leads=(_SQUARE, _BELL, _SAW),
            density=(0.3, 0.6),
            drums=(
                (_KICK, "X...X...X...X...", 0),
                (_HAT, "..X...X...X...Xx", -10),
                (_CLAP, "....X.......X...", -6),
            ),
            drum_level=(-1, 4),
            cutoff=(1_500, 6_000),
            noise=(-60, -40),
            loudness=(-17, -13),
            drive=(0.2, 0.8),
        ),
        "Experimental": Style(
            tempo=(45, 150),
            swing=(0.0, 0.6),
            scales=(_WHOLE_TONE, _HIJAZ),
            bass=_CLANG,
            bass_grid="X...............",
            chords=(_CLANG, _PAD),
            chord_grid="X.........x.....",
            leads=(_CLANG, _BELL, _SQUARE),
            density=(0.05, 0.3),
            drums=((_SCRAPE, "X......x.....x..", 0), (_RIM, "..x.x......x..xx", -6)),
            drum_level=(-20, 0),
            cutoff=(600, 9_000),
            noise=(-26, -6),
            loudness=(-26, -16),
            drive=(0.0, 1.5),
        ),
        "Folk": Style(
            tempo=(78, 124),
            scales=(_MAJOR, _MIXOLYDIAN),
            bass=_GUITAR,
            bass_grid="X.......X.......",
            chords=(_GUITAR,),
            chord_grid="X.x.x.x.X.x.x.x.",
            leads=(_VOICE, _FLUTE, _GUITAR),
            density=(0.15, 0.4),
            drums=((_HAND, "X.......X.......", 0), (_SHAKER, "x.x.x.x.x.x.x.x.", -12)),
            drum_level=(-30, -8),
            cutoff=(1_200, 4_000),
            noise=(-50, -30),
            loudness=(-24, -18),
            drive=(0.0, 0.3),
        ),
        "Hip-Hop": Style(
            tempo=(74, 100),
            swing=(0.15, 0.45),
            scales=(_PENTATONIC, _MINOR),
            bass=_SUB,
            bass_grid="X..x......x..x..",
            chords=(_PIANO, _ORGAN),
            chord_grid="X.......x.......",
            leads=(_VOICE, _PIANO, _BELL),
            density=(0.1, 0.5),
            drums=(
                (_BOOM, "X..x......X..x..", 1),
                (_SNARE, "....X.......X...", -3),
                (_HAT, "x.x.x.x.x.x.x.xx", -12),
            ),
            drum_level=(0, 5),
            cutoff=(700, 2_500),
            noise=(-40, -24),
            loudness=(-18, -14),
            drive=(0.2, 0.8),
        ),
        "Instrumental": Style(
            tempo=(54, 96),
            scales=(_MAJOR, _MINOR),
            bass=_STRINGS,
            bass_grid="X...............",
            chords=(_STRINGS, _PIANO),
            chord_grid="X.....x.X...x...",
            leads=(_PIANO, _STRINGS, _FLUTE),
            density=(0.1, 0.35),
            drums=((_BRUSH, "....x.......x...", -4), (_CYMBAL, "X...............", -8)),
            drum_level=(-30, -10),
            cutoff=(700, 2_600),
            noise=(-54, -34),
            loudness=(-26, -19),
            drive=(0.0, 0.3),
        ),
        "International": Style(
            tempo=(92, 128),
            scales=(_HIJAZ, _PENTATONIC),
            bass=_BASS,
            bass_grid="X..X..X...x.x...",
            chords=(_LUTE, _ORGAN),
            chord_grid="..x..x..x..x..x.",
            leads=(_REED, _LUTE, _FLUTE),
            density=(0.4, 0.7),
            drums=(
                (_HAND, "X..xx.X.x..xX.x.", 0),
                (_SHAKER, "X.xxX.xxX.xxX.xx", -9),
                (_RIM, "X..X..X...X.X...", -8),
            ),
            drum_level=(-4, 3),
            cutoff=(1_400, 4_500),
            noise=(-46, -30),
            loudness=(-21, -15),
            drive=(0.0, 0.5),
        ),
        "Pop": Style(
            tempo=(96, 128),
            scales=(_MAJOR,),
            bass=_BASS,
            bass_grid="X.x.X.x.X.x.X.x.",
            chords=(_SAW, _PIANO, _ORGAN),
            chord_grid="X...x...X...x...",
            leads=(_VOICE, _SAW, _BELL),
            density=(0.25, 0.5),
            drums=(
                (_KICK, "X.....x.X.......", 0),
                (_SNARE, "....X.......X...", -2),
                (_HAT, "x.x.x.x.x.x.x.x.", -12),
            ),
            drum_level=(-3, 2),
            cutoff=(2_000, 6_000),
            noise=(-60, -44),
            loudness=(-17, -13),
            drive=(0.2, 0.8),
        ),
        "Rock": Style(
            tempo=(108, 164),
            scales=(_PENTATONIC, _MIXOLYDIAN),
            bass=_FUZZ,
            bass_grid="X.X.X.X.X.X.X.X.",
            chords=(_FUZZ,),
            chord_grid="X.x.x.x.X.x.xxx.",
            leads=(_FUZZ, _VOICE, _ORGAN),
            density=(0.15, 0.45),
            drums=(
                (_KICK, "X.....X.X.x.....", 0),
                (_SNARE, "....X.......X..x", 0),
                (_CYMBAL, "X...X...X...X...", -9),
            ),
            drum_level=(-3, 3),
            cutoff=(1_800, 6_000),
            noise=(-40, -26),
            loudness=(-16, -12),
            drive=(0.8, 2.0),
        ),
    }
)

#: Genres of which an artist may borrow.
NEIGHBOURS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Electronic": ("Pop", "Hip-Hop", "Experimental"),
        "Experimental": ("Electronic", "Rock", "Instrumental"),
        "Folk": ("International", "Pop", "Instrumental"),
        "Hip-Hop": ("Electronic", "Pop", "International"),
        "Instrumental": ("Folk", "Experimental", "Rock"),
        "International": ("Folk", "Hip-Hop", "Electronic"),
        "Pop": ("Electronic", "Rock", "Folk"),
        "Rock": ("Pop", "Experimental", "Instrumental"),
    }
)

#: What is borrowed together.
_TRAITS = (
    ("tempo", "swing"),
    ("scales",),
    ("bass", "bass_grid"),
    ("chords", "chord_grid"),
    ("leads", "density"),
    ("drums", "drum_level"),
    ("cutoff",),
    ("noise", "hiss_band"),
    ("loudness", "drive"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Song:
    """What is drawn from a style: an artist's habits or one track.

    Attributes:
      style: With what was borrowed.
      tempo: Beats a minute.
      swing: As in `Style`.
      tonic: MIDI pitch, 48 to 59.
      scale: Semitones above it.
      chords: Timbre.
      lead: Timbre.
      density: As in `Style`.
      levels: dB of bass, chords and lead.
      drum_level: dB.
      cutoff: Hz.
      noise: dB below the music.
      loudness: dB below full scale.
      drive: Saturation.
      room: Level of the echoes, 0 to 1.
    """

    style: Style
    tempo: float
    swing: float
    tonic: int
    scale: tuple[int, ...]
    chords: Timbre
    lead: Timbre
    density: float
    levels: tuple[float, float, float]
    drum_level: float
    cutoff: float
    noise: float
    loudness: float
    drive: float
    room: float


def _borrow(
    genre: str, style: Style, chance: float, rng: np.random.Generator
) -> Style:
    """Replaces each trait, at this chance, by that of a neighbouring genre."""
    for trait in _TRAITS:
        lender = GENRES[NEIGHBOURS[genre][rng.integers(len(NEIGHBOURS[genre]))]]
        if rng.random() < chance:
            values = {name: getattr(lender, name) for name in trait}
            style = dataclasses.replace(style, **values)
    return style


def draw_song(
    genre: str, artist: np.random.Generator, track: np.random.Generator
) -> Song:
    """Draws a track: its artist's habits, and what this track does otherwise.

    Args:
      genre: One of `GENRES`.
      artist: In the same state for every track of the artist.
      track: The track's own.
    """
    style = _borrow(genre, GENRES[genre], ARTIST_BORROWING, artist)
    style = _borrow(genre, style, TRACK_BORROWING, track)

    def place() -> float:
        # Where in a range the artist is at home, and the track near by.
        return float(np.clip(artist.random() + track.normal(0, 0.1), 0, 0.999))

    def within(limits: Range) -> float:
        low, high = limits
        return low + (high - low) * place()

    def among(count: int) -> int:
        return int(place() * count)

    return Song(
        style=style,
        tempo=within(style.tempo),
        swing=within(style.swing),
        tonic=48 + among(12),
        scale=style.scales[among(len(style.scales))],
        chords=style.chords[among(len(style.chords))],
        lead=style.leads[among(len(style.leads))],
        density=within(style.density),
        levels=(within((-5, 3)), within((-5, 3)), within((-5, 3))),
        drum_level=within(style.drum_level),
        cutoff=style.cutoff[0] * (style.cutoff[1] / style.cutoff[0]) ** place(),
        noise=within(style.noise),
        loudness=within(style.loudness),
        drive=within(style.drive),
        room=within((0.05, 0.5)),
    )


def _frequency(song: Song, degree: int) -> float:
    """Returns the Hz of a degree of the song's scale; 0 is the tonic."""
    octave, place = divmod(degree, len(song.scale))
    pitch = song.tonic + 12 * octave + song.scale[place]
    return float(440 * 2 ** ((pitch - 69) / 12))


def _velocity(mark: str) -> float:
    return {"X": 1.0, "x": 0.5}.get(mark, 0.0)


class _Clock:
    """Where bars and steps lie in a clip that begins in the middle of a bar."""

    def __init__(self, song: Song, count: int, rng: np.random.Generator) -> None:
        self._song = song
        self._step = 60 / song.tempo / 4
        self._start = rng.uniform(1, 2)
        seconds = count / SAMPLE_RATE
        self.bars = range(int(self._start + seconds / self._step / _STEPS) + 1)

    def sample(self, bar: int, step: int) -> int:
        """Returns the sample at which a step begins; it may lie before the clip."""
        swung = step + self._song.swing * (step % 2)
        bars = bar + swung / _STEPS - self._start
        return round(bars * _STEPS * self._step * SAMPLE_RATE)

    def seconds(self, steps: float) -> float:
        """Returns the length of some steps."""
        return steps * self._step

    def playing(self, chance: float, rng: np.random.Generator) -> list[int]:
        """Returns the bars of a part that rests in some sections."""
        sections = rng.random(len(self.bars) // _SECTION_BARS + 1) < chance
        return [bar for bar in self.bars if sections[bar // _SECTION_BARS]]


def _play_grid(
    song: Song,
    clock: _Clock,
    grid: str,
    sounds: list[Samples],
    count: int,
    rng: np.random.Generator,
) -> Samples:
    """Plays each bar's sound (they take turns) wherever the grid says so."""
    part = np.zeros(count, dtype=np.float32)
    for bar in clock.playing(0.88, rng):
        for step, mark in enumerate(grid):
            if gain := _velocity(mark) * rng.uniform(0.8, 1.0):
                add(part, sounds[bar % len(sounds)], clock.sample(bar, step), gain)
    return part


def _longest_gap(grid: str) -> int:
    """Returns the steps from a note to the next, at most; the grid comes round."""
    return max(len(rest) + 1 for rest in (grid * 2).upper().split("X")[1:-1])


def _play_lead(
    song: Song,
    clock: _Clock,
    roots: list[int],
    count: int,
    rng: np.random.Generator,
) -> Samples:
    """Plays a motif of two bars again and again, moved to each bar's chord."""
    part = np.zeros(count, dtype=np.float32)
    steps = np.flatnonzero(rng.random(2 * _STEPS) < song.density)
    if not len(steps):
        return part
    degrees = np.clip(np.cumsum(rng.integers(-2, 3, len(steps))), -4, 6)
    lengths = np.minimum(np.diff(steps, append=2 * _STEPS), 6)
    notes: dict[tuple[int, int], Samples] = {}
    for bar in clock.playing(0.75, rng):
        for step, degree, length in zip(steps, degrees, lengths, strict=True):
            if step // _STEPS != bar % 2:
                continue
            key = (int(degree) + roots[bar % len(roots)], int(length))
            if key not in notes:
                frequency = 2 * _frequency(song, key[0])
                notes[key] = tone(
                    song.lead, [frequency], clock.seconds(key[1]), song.cutoff, rng
                )
            add(part, notes[key], clock.sample(bar, int(step) % _STEPS), rng.uniform(0.7, 1))
    return part


def _level(part: Samples, decibels: float) -> Samples:
    """Brings a part's RMS to a level below 1; silence stays silent."""
    return part * np.float32(decibels_to_gain(decibels) / max(measure_rms(part), 0.02))


def render(song: Song, count: int, rng: np.random.Generator) -> Samples:
    """Plays a song.

    Args:
      song: What is played.
      count: Samples a channel.
      rng: The track's generator.

    Returns:
      Stereo samples, shape (2, count), peak at most 0.45.
    """
    style, clock = song.style, _Clock(song, count, rng)
    roots = [0, *(int(root) for root in rng.integers(1, len(song.scale), 3))]
    length = clock.seconds(_longest_gap(style.bass_grid))
    low = [
        tone(style.bass, [_frequency(song, root) / 2], length, song.cutoff, rng)
        for root in roots
    ]
    length = clock.seconds(_longest_gap(style.chord_grid))
    triads = [
        tone(
            song.chords,
            [_frequency(song, root + third) for third in (0, 2, 4)],
            length,
            song.cutoff,
            rng,
        )
        for root in roots
    ]
    bass = _play_grid(song, clock, style.bass_grid, low, count, rng)
    chords = _play_grid(song, clock, style.chord_grid, triads, count, rng)
    lead = _play_lead(song, clock, roots, count, rng)
    drums = np.zeros(count, dtype=np.float32)
    for drum, grid, decibels in style.drums:
        hits = [hit(drum, rng) * np.float32(decibels_to_gain(decibels)) for _ in "abc"]
        drums += _play_grid(song, clock, grid, hits, count, rng)
    parts = (bass, chords, lead)
    bass, chords, lead = map(_level, parts, song.levels)
    middle = bass + _level(drums, song.drum_level)
    mix = np.stack([middle + 0.8 * chords + 0.5 * lead, middle + 0.5 * chords + 0.8 * lead])
    return _finish(mix, song, rng)


def _finish(mix: Samples, song: Song, rng: np.random.Generator) -> Samples:
    """Adds echoes and hiss, saturates, and sets the loudness below the ceiling."""
    # Three echoes; each comes from the other side.
    for seconds in (0.031, 0.083, 0.171):
        delay = round(seconds * SAMPLE_RATE)
        mix[:, delay:] += mix[::-1, :-delay] * np.float32(song.room / 2)
    mix /= np.float32(max(measure_rms(mix), 1e-4))
    # Two seconds of hiss, repeated: nobody hears the loop, and it is cheap.
    hiss = filtered_noise(2 * SAMPLE_RATE, song.style.hiss_band, rng)
    hiss *= np.float32(decibels_to_gain(song.noise))
    mix += np.stack([np.resize(hiss, mix.shape[1]), np.resize(hiss[::-1], mix.shape[1])])
    mix *= np.float32(0.3 * (1 + song.drive))
    np.tanh(mix, out=mix)
    loudness = decibels_to_gain(song.loudness)
    mix *= np.float32(loudness / measure_rms(mix))
    return _CEILING * np.tanh(mix / np.float32(_CEILING))

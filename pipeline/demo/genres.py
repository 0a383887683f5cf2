"""The eight genres of fma_small: what each may sound like."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from pipeline.demo.sound import Drum, Timbre

#: (lowest, highest): a value is drawn between the two.
Range: TypeAlias = tuple[float, float]

_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
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
_SNARE = Drum(
    level=-2, frequency=185, sweep=0.5, noise=0.7, band=(900, 8_000), decay=0.22
)
_CLAP = Drum(level=-4, band=(900, 3_500), decay=0.18)
_HAT = Drum(level=-11, band=(7_000, 14_000), decay=0.07)
_CRASH = Drum(frequency=185, noise=0.8, band=(1_000, 12_000), decay=0.35)
_CYMBAL = Drum(level=-9, band=(3_500, 13_000), decay=0.5)
_SHAKER = Drum(level=-10, band=(4_000, 9_000), decay=0.1)
_HAND = Drum(frequency=190, sweep=0.7, noise=0.15, band=(500, 3_000), decay=0.2)
_RIM = Drum(
    level=-7, frequency=420, sweep=0.3, noise=0.4, band=(1_500, 5_000), decay=0.06
)
_BRUSH = Drum(level=-4, band=(1_500, 6_000), decay=0.3)
_SCRAPE = Drum(frequency=90, sweep=3.0, noise=0.6, band=(300, 6_000), decay=1.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """The habits of a genre.

    A grid is a bar of 16 steps, four beats: "X" a loud note, "x" a soft one, "." none.

    Attributes:
      tempo: Beats a minute.
      scales: Semitones above the tonic, one scale or several.
      bass: (timbre, grid).
      chords: (timbres, grid).
      leads: (timbres, chance of a note on each step) of the melody.
      drums: (drum, grid) each.
      drum_level: dB of all of them in the mix.
      cutoff: Hz above which every timbre falls off.
      noise: Level of the hiss in dB relative to the music.
      loudness: RMS in dB below full scale.
    """

    tempo: Range
    scales: tuple[tuple[int, ...], ...]
    bass: tuple[Timbre, str]
    chords: tuple[tuple[Timbre, ...], str]
    leads: tuple[tuple[Timbre, ...], Range]
    drums: tuple[tuple[Drum, str], ...]
    drum_level: Range
    cutoff: Range
    noise: Range
    loudness: Range


#: Genre name (as in FMA's ``track.genre_top``) to its habits.
GENRES = {
    "Electronic": Style(
        tempo=(116, 140),
        scales=(_MINOR,),
        bass=(_SAW, "..x...x...x...x."),
        chords=((_PAD, _SAW), "X..x..x...x..x.."),
        leads=((_SQUARE, _BELL, _SAW), (0.3, 0.6)),
        drums=((_KICK, "X...X...X...X..."), (_HAT, "..X...X...X...Xx")),
        drum_level=(-1, 4),
        cutoff=(1_500, 6_000),
        noise=(-60, -40),
        loudness=(-17, -13),
    ),
    "Experimental": Style(
        tempo=(45, 150),
        scales=(_WHOLE_TONE, _HIJAZ),
        bass=(_CLANG, "X..............."),
        chords=((_CLANG, _PAD), "X.........x....."),
        leads=((_CLANG, _BELL, _SQUARE), (0.05, 0.3)),
        drums=((_SCRAPE, "X......x.....x.."), (_RIM, "..x.x......x..xx")),
        drum_level=(-20, 0),
        cutoff=(600, 9_000),
        noise=(-26, -6),
        loudness=(-26, -16),
    ),
    "Folk": Style(
        tempo=(78, 124),
        scales=(_MAJOR,),
        bass=(_GUITAR, "X.......X......."),
        chords=((_GUITAR,), "X.x.x.x.X.x.x.x."),
        leads=((_VOICE, _FLUTE, _GUITAR), (0.15, 0.4)),
        drums=((_HAND, "X.......X......."), (_SHAKER, "x.x.x.x.x.x.x.x.")),
        drum_level=(-30, -8),
        cutoff=(1_200, 4_000),
        noise=(-50, -30),
        loudness=(-24, -18),
    ),
    "Hip-Hop": Style(
        tempo=(74, 100),
        scales=(_PENTATONIC, _MINOR),
        bass=(_SUB, "X..x......x..x.."),
        chords=((_PIANO, _ORGAN), "X.......x......."),
        leads=((_VOICE, _PIANO, _BELL), (0.1, 0.5)),
        drums=((_BOOM, "X..x......X..x.."), (_SNARE, "....X.......X...")),
        drum_level=(0, 5),
        cutoff=(700, 2_500),
        noise=(-40, -24),
        loudness=(-18, -14),
    ),
    "Instrumental": Style(
        tempo=(54, 96),
        scales=(_MAJOR, _MINOR),
        bass=(_STRINGS, "X..............."),
        chords=((_STRINGS, _PIANO), "X.....x.X...x..."),
        leads=((_PIANO, _STRINGS, _FLUTE), (0.1, 0.35)),
        drums=((_BRUSH, "....x.......x..."), (_CYMBAL, "X...............")),
        drum_level=(-30, -10),
        cutoff=(700, 2_600),
        noise=(-54, -34),
        loudness=(-26, -19),
    ),
    "International": Style(
        tempo=(92, 128),
        scales=(_HIJAZ, _PENTATONIC),
        bass=(_BASS, "X..X..X...x.x..."),
        chords=((_LUTE, _ORGAN), "..x..x..x..x..x."),
        leads=((_REED, _LUTE, _FLUTE), (0.4, 0.7)),
        drums=((_HAND, "X..xx.X.x..xX.x."), (_SHAKER, "X.xxX.xxX.xxX.xx")),
        drum_level=(-4, 3),
        cutoff=(1_400, 4_500),
        noise=(-46, -30),
        loudness=(-21, -15),
    ),
    "Pop": Style(
        tempo=(96, 128),
        scales=(_MAJOR,),
        bass=(_BASS, "X.x.X.x.X.x.X.x."),
        chords=((_SAW, _PIANO, _ORGAN), "X...x...X...x..."),
        leads=((_VOICE, _SAW, _BELL), (0.25, 0.5)),
        drums=((_KICK, "X.....x.X......."), (_CLAP, "....X.......X...")),
        drum_level=(-3, 2),
        cutoff=(2_000, 6_000),
        noise=(-60, -44),
        loudness=(-17, -13),
    ),
    "Rock": Style(
        tempo=(108, 164),
        scales=(_PENTATONIC,),
        bass=(_FUZZ, "X.X.X.X.X.X.X.X."),
        chords=((_FUZZ,), "X.x.x.x.X.x.xxx."),
        leads=((_FUZZ, _VOICE, _ORGAN), (0.15, 0.45)),
        drums=((_KICK, "X.....X.X.x....."), (_CRASH, "x...X...x...X...")),
        drum_level=(-3, 3),
        cutoff=(1_800, 6_000),
        noise=(-40, -26),
        loudness=(-16, -12),
    ),
}

"""What a style of music is made of; the styles themselves are in `genres`."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from pipeline.demo.drums import Kit
from pipeline.demo.figures import Figure
from pipeline.demo.grooves import Groove
from pipeline.demo.synth import Instrument

#: (lowest, highest): a value is drawn between the two.
Range: TypeAlias = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Part:
    """An instrument and what it plays.

    Attributes:
      play: The instrument.
      figure: The notes.
      octave: Octaves above the song's tonic.
      level: dB in the mix, relative to the other parts.
      send: Share that goes into the room, relative to the style's wetness.
      wide: Whether each ear hears its own rendering.
      motif: Bars after which the figure's random choices repeat.
      takes: Renderings of the same note to choose from (syllables, noises).
    """

    play: Instrument
    figure: Figure
    octave: int = 0
    level: float = 0.0
    send: float = 1.0
    wide: bool = False
    motif: int = 4
    takes: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """The habits of a style; artists and tracks are drawn from it.

    Attributes:
      tempo: Beats a minute.
      beats: Beats a bar.
      steps: Grid steps a bar; the grooves are written on this grid.
      swing: Delay of every second step, in steps.
      loose: Standard deviation of the players' timing in seconds.
      scales: Semitones above the tonic.
      progressions: Chords as scale degrees, a bar each.
      grooves: Drum patterns; none for a style without drums.
      kits: Drum kits.
      drums: Chance that a track has drums.
      drum_level: dB in the mix.
      bass: Parts for the bass.
      harmony: Parts for the chords.
      lead: Parts for the melody.
      texture: Parts for the background.
      chances: That a track has bass, harmony, lead and texture.
      brightness: Of the instruments, 0 to 1.
      treble: Shelf above 3 kHz in dB, the whole mix.
      bass_shelf: Shelf below 160 Hz in dB, the whole mix.
      room: Reverberation time in seconds.
      wetness: Level of the room, 0 to 1.
      hiss: Noise floor in dB below full scale.
      crackle: Vinyl clicks a second.
      drive: Saturation of the whole mix; 0 is none.
      width: Stereo width; 0 is mono, 1 as panned.
      loudness: RMS level in dB below full scale.
      swells: Depth in dB of slow changes of level.
      pump: Whether the bass drum ducks the other parts.
    """

    tempo: Range
    beats: int = 4
    steps: int = 16
    swing: Range = (0.0, 0.0)
    loose: float = 0.004
    scales: tuple[tuple[float, ...], ...]
    progressions: tuple[tuple[int, ...], ...]
    grooves: tuple[Groove, ...] = ()
    kits: tuple[Kit, ...] = ()
    drums: float = 1.0
    drum_level: float = 0.0
    bass: tuple[Part, ...] = ()
    harmony: tuple[Part, ...] = ()
    lead: tuple[Part, ...] = ()
    texture: tuple[Part, ...] = ()
    chances: tuple[float, float, float, float] = (0.95, 0.95, 0.7, 0.5)
    brightness: Range = (0.3, 0.7)
    treble: Range = (-2.0, 2.0)
    bass_shelf: Range = (-2.0, 2.0)
    room: Range = (0.6, 1.2)
    wetness: Range = (0.1, 0.25)
    hiss: Range = (-78.0, -65.0)
    crackle: float = 0.0
    drive: Range = (0.0, 0.5)
    width: Range = (0.6, 1.0)
    loudness: Range = (-19.0, -15.0)
    swells: Range = (0.0, 1.5)
    pump: bool = False

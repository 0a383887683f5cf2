"""The plugged-in genres: Electronic, Hip-Hop, Pop and Rock."""

from __future__ import annotations

import dataclasses

from pipeline.demo import drums as d
from pipeline.demo import grooves as g
from pipeline.demo import parts as p
from pipeline.demo.harmony import (
    DORIAN,
    MAJOR,
    MINOR,
    MINOR_PENTATONIC,
    MIXOLYDIAN,
    PHRYGIAN,
)
from pipeline.demo.styles import Style

_HOUSE = Style(
    tempo=(118, 130),
    loose=0.0,
    scales=(MINOR, DORIAN),
    progressions=((0, 0, 5, 6), (0, 3, 0, 4), (0, 5, 2, 6)),
    grooves=(g.FOUR_ON_THE_FLOOR,),
    kits=(d.CLUB_KIT,),
    drum_level=2,
    bass=(p.HOUSE_BASS, p.OCTAVE_BASS),
    harmony=(p.PLUCKED_CHORDS, p.PAD, p.OFFBEAT_STABS),
    lead=(p.TRANCE_LEAD, p.SYNTH_ARPEGGIO),
    texture=(p.RISING_NOISE, p.DRONE_PAD),
    brightness=(0.5, 0.95),
    treble=(0, 4),
    bass_shelf=(0, 4),
    room=(0.8, 1.8),
    wetness=(0.1, 0.3),
    hiss=(-90, -80),
    drive=(0.3, 1.2),
    width=(0.8, 1.0),
    loudness=(-17, -13),
    pump=True,
)
_TECHNO = dataclasses.replace(
    _HOUSE,
    tempo=(126, 142),
    scales=(PHRYGIAN, MINOR),
    progressions=((0,), (0, 0, 0, 1)),
    grooves=(g.TECHNO, g.FOUR_ON_THE_FLOOR),
    bass=(p.ACID_LINE,),
    harmony=(p.PLUCKED_CHORDS, p.OFFBEAT_STABS),
    lead=(p.SYNTH_ARPEGGIO, p.SQUARE_TUNE),
    chances=(1.0, 0.6, 0.6, 0.7),
)
_DRUM_AND_BASS = dataclasses.replace(
    _HOUSE,
    tempo=(160, 176),
    scales=(MINOR, PHRYGIAN),
    progressions=((0, 0, 5, 5), (0, 0, 0, 6)),
    grooves=(g.DRUM_AND_BASS, g.BROKEN_BEAT),
    kits=(d.POP_KIT, d.CLUB_KIT),
    drum_level=3,
    bass=(p.ROLLING_BASS, p.SUB_LINE),
    harmony=(p.PAD, p.OFFBEAT_STABS),
    bass_shelf=(2, 5),
    pump=False,
)

_BOOM_BAP = Style(
    tempo=(82, 98),
    swing=(0.12, 0.32),
    loose=0.008,
    scales=(MINOR, DORIAN),
    progressions=((0, 0, 3, 3), (0, 5), (0, 3, 4, 3)),
    grooves=(g.BOOM_BAP, g.LAZY_BOOM_BAP),
    kits=(d.ACOUSTIC_KIT, d.POP_KIT),
    drum_level=3,
    bass=(p.UPRIGHT_LOOP, p.SUB_LINE),
    harmony=(p.PIANO_LOOP, p.TINE_CHORDS, p.STRINGS),
    lead=(p.RAP,),
    texture=(p.SAMPLED_FLUTE, p.SAMPLED_BELLS),
    chances=(1.0, 0.8, 0.85, 0.4),
    brightness=(0.2, 0.6),
    treble=(-5, 0),
    bass_shelf=(2, 6),
    room=(0.4, 0.8),
    wetness=(0.04, 0.12),
    hiss=(-62, -50),
    crackle=6,
    drive=(0.5, 1.5),
    width=(0.3, 0.7),
    loudness=(-17, -13),
)
_TRAP = dataclasses.replace(
    _BOOM_BAP,
    tempo=(132, 148),
    swing=(0, 0.04),
    loose=0.0,
    scales=(MINOR, PHRYGIAN),
    progressions=((0, 0, 5, 5), (0, 1)),
    grooves=(g.TRAP,),
    kits=(d.DEEP_KIT,),
    bass=(p.SUB_LONG, p.SUB_LINE),
    harmony=(p.TINE_CHORDS, p.PAD, p.CHOIR),
    lead=(p.RAP_SPARSE, p.RAP),
    texture=(p.SAMPLED_BELLS, p.SAMPLED_FLUTE),
    brightness=(0.4, 0.8),
    treble=(-2, 3),
    bass_shelf=(4, 8),
    wetness=(0.08, 0.2),
    hiss=(-85, -75),
    crackle=0,
)

_SYNTH_POP = Style(
    tempo=(100, 126),
    scales=(MAJOR,),
    progressions=((0, 4, 5, 3), (5, 3, 0, 4), (0, 3, 4, 4)),
    grooves=(g.DISCO_POP, g.BACKBEAT),
    kits=(d.POP_KIT, d.CLUB_KIT),
    bass=(p.OCTAVE_BASS, p.POP_BASS),
    harmony=(p.POP_STABS, p.PLUCKED_CHORDS, p.HIGH_PAD),
    lead=(p.SUNG, p.SUNG_HIGH),
    texture=(p.SYNTH_ARPEGGIO, p.HIGH_PAD),
    chances=(0.95, 0.95, 0.9, 0.6),
    brightness=(0.5, 0.85),
    treble=(1, 5),
    bass_shelf=(-1, 2),
    room=(0.7, 1.4),
    wetness=(0.12, 0.25),
    hiss=(-88, -75),
    drive=(0.3, 1.0),
    loudness=(-17, -13),
)
_PIANO_POP = dataclasses.replace(
    _SYNTH_POP,
    tempo=(72, 108),
    loose=0.006,
    grooves=(g.BALLAD, g.BACKBEAT, g.SNAP_POP),
    kits=(d.POP_KIT, d.ACOUSTIC_KIT),
    drums=0.85,
    drum_level=-2,
    bass=(p.SOFT_BASS, p.POP_BASS, p.MELODIC_BASS),
    harmony=(p.PIANO_EIGHTHS, p.TINE_CHORDS, p.PIANO_ROLLED),
    texture=(p.STRINGS, p.CHOIR),
    treble=(0, 3),
    loudness=(-20, -15),
)
_GUITAR_POP = dataclasses.replace(
    _SYNTH_POP,
    tempo=(104, 138),
    loose=0.006,
    grooves=(g.BACKBEAT, g.DISCO_POP),
    kits=(d.ACOUSTIC_KIT, d.POP_KIT),
    bass=(p.MELODIC_BASS, p.ROCK_BASS),
    harmony=(p.CLEAN_STRUM, p.CLEAN_ARPEGGIO, p.STRUMMED_STEEL),
    texture=(p.ORGAN_CHORDS, p.HIGH_PAD),
)

_ROCK = Style(
    tempo=(108, 146),
    loose=0.007,
    scales=(MIXOLYDIAN, MINOR, MAJOR),
    progressions=((0, 6, 3, 0), (0, 3, 4, 3), (0, 5, 3, 4)),
    grooves=(g.BACKBEAT, g.DRIVING, g.TOM_ROCK),
    kits=(d.ACOUSTIC_KIT, d.RIDE_KIT),
    drum_level=1,
    bass=(p.ROCK_BASS, p.MELODIC_BASS),
    harmony=(p.POWER_EIGHTHS, p.POWER_SUSTAINED, p.CRUNCH_STRUM),
    lead=(p.SHOUTED, p.GUITAR_SOLO, p.GUITAR_LICKS),
    texture=(p.ORGAN_CHORDS, p.HOWLS),
    chances=(1.0, 1.0, 0.65, 0.25),
    brightness=(0.4, 0.8),
    treble=(-2, 2),
    bass_shelf=(-2, 2),
    room=(0.5, 1.2),
    wetness=(0.06, 0.18),
    hiss=(-68, -55),
    drive=(0.8, 2.0),
    width=(0.7, 1.0),
    loudness=(-16, -12),
)
_PUNK = dataclasses.replace(
    _ROCK,
    tempo=(160, 200),
    scales=(MAJOR, MINOR_PENTATONIC),
    grooves=(g.PUNK, g.DRIVING),
    harmony=(p.POWER_EIGHTHS,),
    lead=(p.SHOUTED,),
    texture=(p.HOWLS,),
    treble=(-4, 1),
    hiss=(-60, -48),
    width=(0.2, 0.7),
)
_METAL = dataclasses.replace(
    _ROCK,
    tempo=(120, 170),
    scales=(PHRYGIAN, MINOR),
    progressions=((0, 0, 1, 0), (0, 5, 6, 0)),
    grooves=(g.BLAST, g.DRIVING),
    harmony=(p.POWER_GALLOP, p.POWER_SUSTAINED),
    lead=(p.GUITAR_SOLO, p.SHOUTED),
    bass_shelf=(1, 4),
)

ELECTRONIC = (_HOUSE, _TECHNO, _DRUM_AND_BASS)
HIP_HOP = (_BOOM_BAP, _TRAP)
POP = (_SYNTH_POP, _PIANO_POP, _GUITAR_POP)
ROCK = (_ROCK, _PUNK, _METAL)

"""Ready-made parts, an instrument with its figure each, that the styles combine."""

from __future__ import annotations

import functools

from pipeline.demo import acoustic, strings, synthesizers, voices
from pipeline.demo import figures as f
from pipeline.demo.styles import Part

_of = functools.partial
_chop = _of(f.strum, spread=0.0, full=False)

# Bass.
HOUSE_BASS = Part(
    synthesizers.square_bass,
    _of(f.pulse, pattern="..x...x...x...x.", hold=0.8),
    -2,
    send=0.1,
)
ACID_LINE = Part(
    synthesizers.acid_bass,
    _of(f.pulse, pattern="x.xxx.x.xx.xx.xx", offsets=(0, 7, 0, 0, 4), hold=0.7),
    -2,
    send=0.2,
)
ROLLING_BASS = Part(
    synthesizers.acid_bass,
    _of(f.pulse, pattern="X.....x...x..x..", hold=0.95),
    -2,
    send=0.1,
)
SUB_LINE = Part(
    synthesizers.sub_bass, _of(f.pulse, pattern="X.....x...x....."), -2, 3, send=0.0
)
SUB_LONG = Part(
    synthesizers.sub_bass, _of(f.pulse, pattern="X.........x....."), -2, 3, send=0.0
)
UPRIGHT_LOOP = Part(
    strings.upright_bass,
    _of(f.pulse, pattern="X..x..x...x.x...", offsets=(0, 0, 4, 2, 0)),
    -2,
    send=0.2,
)
UPRIGHT_WALK = Part(strings.upright_bass, f.walk, -2, send=0.3)
ROOT_FIFTH = Part(
    strings.upright_bass, _of(f.pulse, pattern="X.......x.......", offsets=(0, 4)), -2
)
WALTZ_BASS = Part(strings.upright_bass, _of(f.pulse, pattern="X..........."), -2)
ROCK_BASS = Part(
    strings.picked_bass, _of(f.pulse, pattern="x.x.x.x.x.x.x.x."), -2, send=0.1
)
MELODIC_BASS = Part(
    strings.picked_bass,
    _of(f.pulse, pattern="X..x..x.x...x.x.", offsets=(0, 0, 4, 0, 2, 4)),
    -2,
    send=0.1,
)
OCTAVE_BASS = Part(
    synthesizers.square_bass,
    _of(f.pulse, pattern="x.x.x.x.x.x.x.x.", offsets=(0, 7), hold=0.7),
    -2,
    send=0.1,
)
POP_BASS = Part(
    synthesizers.square_bass,
    _of(f.pulse, pattern="X..x..x.X..x..x.", hold=0.9),
    -2,
    send=0.1,
)
SOFT_BASS = Part(strings.upright_bass, _of(f.pulse, pattern="X.......o......."), -2)
TUMBAO = Part(
    strings.picked_bass, _of(f.pulse, pattern="...x..x....x..x.", offsets=(4, 0)), -2
)
AFRO_BASS = Part(
    strings.picked_bass, _of(f.pulse, pattern="X..x.x..x.x.", offsets=(0, 4, 2, 0)), -2
)
DRONE_BASS = Part(
    synthesizers.sub_bass, _of(f.swell, reach=2, bars=1.0), -2, send=0.3, motif=64
)

# Chords.
PAD = Part(synthesizers.warm_pad, f.sustain, 0, -2, wide=True)
HIGH_PAD = Part(synthesizers.warm_pad, f.sustain, 1, -5, wide=True)
PLUCKED_CHORDS = Part(
    synthesizers.synth_pluck, _of(_chop, pattern="x..x..x..x..x.x."), wide=True
)
OFFBEAT_STABS = Part(
    synthesizers.saw_lead, _of(_chop, pattern="..X...X...X...X."), 0, -3, wide=True
)
POP_STABS = Part(
    synthesizers.saw_lead, _of(_chop, pattern="X..x..x.....x..."), 0, -3, wide=True
)
TINE_CHORDS = Part(
    acoustic.electric_piano, _of(_chop, pattern="X.....x...x....."), 0, -1
)
TINE_HELD = Part(acoustic.electric_piano, f.sustain)
PIANO_LOOP = Part(acoustic.piano, _of(_chop, pattern="X...x..x..x....."), 0, -1)
PIANO_EIGHTHS = Part(acoustic.piano, _of(_chop, pattern="x.x.x.x.x.x.x.x."), 0)
PIANO_ARPEGGIO = Part(
    acoustic.piano, _of(f.arpeggio, order=(0, 2, 4, 2, 3, 2), length=6)
)
PIANO_ROLLED = Part(
    acoustic.piano, _of(f.strum, pattern="X.......o.......", spread=0.03)
)
PIANO_WALTZ = Part(acoustic.piano, _of(_chop, pattern="....x...x..."))
MONTUNO = Part(acoustic.piano, _of(_chop, pattern="x.xx.xx.x.xx.xx."), 1)
ORGAN_CHORDS = Part(acoustic.organ, f.sustain, 0, -3)
ORGAN_CHOP = Part(acoustic.organ, _of(_chop, pattern="..x...x...x...x."), 0, -2)
FINGERPICKED_STEEL = Part(
    strings.steel_guitar, _of(f.arpeggio, order=(0, 3, 2, 4, 1, 3, 2, 5), length=7), -1
)
FINGERPICKED_NYLON = Part(
    strings.nylon_guitar, _of(f.arpeggio, order=(0, 4, 2, 3, 1, 4, 2, 3), length=6), -1
)
STRUMMED_STEEL = Part(
    strings.steel_guitar, _of(f.strum, pattern="X...x.xo..xox.xo"), -1
)
STRUMMED_NYLON = Part(
    strings.nylon_guitar, _of(f.strum, pattern="X..x..x.x..x..x."), -1
)
WALTZ_GUITAR = Part(strings.steel_guitar, _of(f.strum, pattern="X...x...x.o."), -1)
BANJO_ROLL = Part(
    strings.banjo,
    _of(f.arpeggio, order=(0, 2, 4, 1, 2, 4, 3, 2), every=1, length=2),
    0,
    -2,
)
POWER_EIGHTHS = Part(
    strings.power_chord,
    _of(f.pulse, pattern="X.x.x.x.X.x.x.x.", hold=0.85),
    -1,
    2,
    0.5,
    wide=True,
)
POWER_SUSTAINED = Part(
    strings.power_chord, _of(f.pulse, pattern="X.......X.....x."), -1, 2, 0.6, wide=True
)
POWER_GALLOP = Part(
    strings.power_chord,
    _of(f.pulse, pattern="x.xxx.xxx.xxx.xx", hold=0.6),
    -1,
    2,
    0.3,
    wide=True,
)
CRUNCH_STRUM = Part(
    strings.crunch_guitar,
    _of(f.strum, pattern="X..xx.x.X..xx.xo", spread=0.006, full=False),
    -1,
    1,
    0.6,
    wide=True,
)
CLEAN_STRUM = Part(
    strings.clean_electric,
    _of(f.strum, pattern="x.xxx.xxx.xxx.xx", spread=0.008),
    -1,
    wide=True,
)
CLEAN_ARPEGGIO = Part(
    strings.clean_electric,
    _of(f.arpeggio, order=(0, 2, 3, 4, 3, 2), length=6),
    0,
    wide=True,
)
SKANK = Part(strings.clean_electric, _of(_chop, pattern="..X...X...X...X."), 0)
STRINGS = Part(acoustic.string_section, f.sustain, 0, -2, wide=True)
CHOIR = Part(voices.choir, f.sustain, 0, -5, 1.5, wide=True)
KORA_PATTERN = Part(
    strings.kora,
    _of(f.arpeggio, order=(0, 3, 4, 2, 5, 3, 1, 4, 2), every=1, length=4),
    0,
)
KALIMBA_PATTERN = Part(
    acoustic.kalimba, _of(f.arpeggio, order=(3, 0, 4, 2, 5, 1), every=1, length=2), 1
)
MARIMBA_PATTERN = Part(
    acoustic.marimba, _of(f.arpeggio, order=(0, 2, 3, 5, 4, 2, 1), every=1, length=2), 0
)

# Melody.
TRANCE_LEAD = Part(synthesizers.saw_lead, _of(f.melody, density=0.6, grid=1), 1, -4)
SYNTH_ARPEGGIO = Part(
    synthesizers.synth_pluck,
    _of(f.arpeggio, order=(0, 1, 2, 3, 2, 1), every=1, length=1),
    1,
    -3,
    wide=True,
)
SQUARE_TUNE = Part(synthesizers.square_lead, _of(f.melody, density=0.5), 1, -4)
SUNG = Part(voices.singer, _of(f.melody, density=0.55), 0, 2, takes=4)
SUNG_LOW = Part(voices.singer, _of(f.melody, density=0.45), -1, 2, 0.7, takes=4)
SUNG_HIGH = Part(voices.singer, _of(f.melody, density=0.6), 1, 1, takes=4)
CHANT = Part(
    voices.singer, _of(f.melody, density=0.5, leap=1), 0, 1, wide=True, takes=4
)
SHOUTED = Part(voices.singer, _of(f.melody, density=0.7, leap=1), 0, 1, 0.6, takes=4)
RAP = Part(voices.rapper, f.syllables, -1, 4, 0.3, takes=12)
RAP_SPARSE = Part(voices.rapper, _of(f.syllables, density=0.5), -1, 4, 0.5, takes=12)
SAMPLED_FLUTE = Part(acoustic.flute, _of(f.melody, density=0.3), 1, -4)
SAMPLED_BELLS = Part(acoustic.bell, _of(f.melody, density=0.3), 1, -5)
FLUTE_TUNE = Part(acoustic.flute, _of(f.melody, density=0.5), 1, -1)
FIDDLE_TUNE = Part(acoustic.fiddle, _of(f.melody, density=0.7), 1, -2)
ACCORDION_TUNE = Part(acoustic.accordion, _of(f.melody, density=0.6), 0, -3)
GUITAR_SOLO = Part(
    strings.fuzz_lead, _of(f.melody, density=0.75, leap=3, grid=1), 1, -1, 0.8
)
GUITAR_LICKS = Part(strings.crunch_guitar, _of(f.melody, density=0.5, leap=2), 1, -2)
CLEAN_TUNE = Part(strings.clean_electric, _of(f.melody, density=0.4), 1, -1, 1.3)
PIANO_TUNE = Part(acoustic.piano, _of(f.melody, density=0.5), 1, 0)
BELL_TUNE = Part(acoustic.bell, _of(f.melody, density=0.3), 1, -3, 1.5)
OUD_TUNE = Part(strings.oud, _of(f.melody, density=0.85, leap=1, grid=1), -1, 2)
SITAR_TUNE = Part(strings.sitar, _of(f.melody, density=0.8, leap=1, grid=1), 0, 2)
KORA_TUNE = Part(strings.kora, _of(f.melody, density=0.8, grid=1), 1, 0)
STEEL_DRUM_TUNE = Part(acoustic.steel_drum, _of(f.melody, density=0.7), 1, 0)
STRING_TUNE = Part(
    acoustic.string_section, _of(f.melody, density=0.3), 1, -1, wide=True
)

# Background.
RISING_NOISE = Part(
    synthesizers.noise_swell, _of(f.swell, chance=0.4), 2, -10, wide=True, motif=64
)
DRONE_PAD = Part(synthesizers.warm_pad, f.drone, 0, -8, wide=True)
TANPURA = Part(strings.sitar, f.drone, -1, -4, wide=True)
HARMONIUM = Part(acoustic.harmonium, f.drone, 0, -6)
AIR = Part(
    synthesizers.noise_swell, _of(f.swell, chance=0.7), 1, -14, wide=True, motif=64
)
SCATTERED_BELLS = Part(
    acoustic.bell, _of(f.scatter, count=2.0), 1, -6, 1.5, wide=True, motif=64
)
BURSTS = Part(
    synthesizers.noise_burst,
    _of(f.scatter, count=3.0),
    0,
    0,
    wide=True,
    motif=64,
    takes=4,
)
GLITCHES = Part(
    synthesizers.glitch, _of(f.scatter, count=6.0), 1, 0, wide=True, motif=64, takes=4
)
RING_DRONES = Part(
    synthesizers.ring_drone, _of(f.swell, bars=1.6), -1, 0, 1.3, wide=True, motif=64
)
NOISE_WAVES = Part(
    synthesizers.noise_swell, _of(f.swell, reach=12), 0, 0, wide=True, motif=64
)
HOWLS = Part(synthesizers.feedback, _of(f.swell, chance=0.6), 0, -1, 1.2, motif=64)
STRAY_PIANO = Part(
    acoustic.piano, _of(f.scatter, count=4.0, reach=14, length=5), 0, 1, 1.4, motif=64
)
STRAY_STRINGS = Part(
    strings.oud, _of(f.scatter, count=7.0, reach=14), 0, 0, 1.2, wide=True, motif=64
)
STRAY_VOICES = Part(
    voices.singer,
    _of(f.scatter, count=2.0, reach=6, length=8),
    0,
    0,
    1.6,
    wide=True,
    motif=64,
    takes=4,
)

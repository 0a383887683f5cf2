"""Pitched instruments: each turns (frequency, seconds, brightness, rng) into one note.

`frequency` is in Hz, `seconds` is how long the note is held (the sound may ring on),
`brightness` runs from 0 (dull) to 1 (piercing). Levels are only roughly equal: the
mixer measures every part and sets its level.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Samples

Instrument: TypeAlias = Callable[[float, float, float, np.random.Generator], Samples]


def _string(
    frequency: float,
    seconds: float,
    brightness: float,
    rng: np.random.Generator,
    *,
    edge: float,
    ring: float,
    position: float = 0.2,
) -> Samples:
    sound = synth.pluck_string(
        frequency,
        min(seconds + 0.6, ring),
        rng,
        brightness=min(1.0, max(0.0, edge + 0.4 * (brightness - 0.5))),
        sustain=ring * (220 / frequency) ** 0.35,
        position=position,
    )
    held = synth.count_samples(seconds)
    if len(sound) > held:
        sound[held:] *= synth.decay(len(sound) - held, 0.6)
    return synth.soften_edges(sound, 0.002)


nylon_guitar: Instrument = functools.partial(_string, edge=0.45, ring=2.2)
steel_guitar: Instrument = functools.partial(_string, edge=0.8, ring=3.0, position=0.12)
banjo: Instrument = functools.partial(_string, edge=0.95, ring=0.7, position=0.06)
kora: Instrument = functools.partial(_string, edge=0.7, ring=1.6, position=0.3)
oud: Instrument = functools.partial(_string, edge=0.6, ring=0.9, position=0.1)
upright_bass: Instrument = functools.partial(_string, edge=0.15, ring=1.2, position=0.3)
picked_bass: Instrument = functools.partial(_string, edge=0.6, ring=2.5, position=0.15)


def sitar(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A bright string over a buzzing bridge, with a bend into the note."""
    sound = _string(
        frequency, seconds, brightness, rng, edge=0.95, ring=2.6, position=0.07
    )
    buzz = np.tanh(sound * 6) - np.tanh(sound * 2)
    return (sound + np.float32(0.8) * buzz).astype(np.float32)


def piano(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Two strings a hair apart, bright at the hammer and duller as they ring."""
    ring = 4.5 * (220 / frequency) ** 0.4
    count = synth.count_samples(min(seconds + 0.25, ring))
    cutoff = 500 + 2500 * brightness
    dull = synth.saw_table(frequency, cutoff * 0.6 + frequency)
    bright = synth.saw_table(frequency, cutoff * 2.5 + 2 * frequency)
    spread = 1 + 0.0008 * rng.uniform(0.5, 1.5)
    phase = rng.random()
    ringing = synth.oscillate(dull, frequency, count) + synth.oscillate(
        dull, frequency * spread, count, phase
    )
    struck = synth.oscillate(bright, frequency, count) * synth.decay(count, 0.9)
    sound = (ringing * np.float32(0.6) + struck) * synth.decay(count, ring)
    held = synth.count_samples(seconds)
    if count > held:
        sound[held:] *= synth.decay(count - held, 0.3)
    knock = min(count, synth.count_samples(0.02))
    sound[:knock] += synth.white_noise(knock, rng) * synth.decay(knock, 0.02)
    return synth.soften_edges(sound, 0.002)


def electric_piano(
    frequency: float, seconds: float, brightness: float, _rng: np.random.Generator
) -> Samples:
    """A tine piano: frequency modulation whose index decays (Chowning 1973)."""
    count = synth.count_samples(seconds + 0.2)
    angle = np.arange(count, dtype=np.float64) * (
        2 * math.pi * frequency / synth.SAMPLE_RATE
    )
    angle = (angle % (2 * math.pi)).astype(np.float32)
    index = (0.6 + 1.8 * brightness) * synth.decay(count, 1.6)
    tine = np.sin(14 * angle) * synth.decay(count, 0.25) * np.float32(0.12)
    body = np.sin(angle + index * np.sin(angle))
    release = synth.hold(seconds, attack=0.003, release=0.2)[:count]
    sound = (body + tine) * synth.decay(count, 5.0) * release * np.float32(0.3)
    return np.asarray(sound, dtype=np.float32)


def organ(
    frequency: float, seconds: float, brightness: float, _rng: np.random.Generator
) -> Samples:
    """Drawbars with a rotating speaker's tremolo."""
    bars = np.zeros(12)
    bars[[0, 1, 2, 3, 5, 7]] = [1, 0.8, 0.6, 0.4 * brightness + 0.1, 0.3, brightness]
    table = synth.build_table(bars[: len(synth.partial_frequencies(frequency))])
    envelope = synth.hold(seconds, attack=0.01, release=0.06)
    curve = synth.vibrato(frequency, len(envelope), cents=9, rate=6.3)
    return synth.oscillate(table, curve, len(envelope)) * envelope


def _unison(
    table: Samples,
    frequency: float,
    count: int,
    rng: np.random.Generator,
    *,
    voices: int,
    cents: float,
) -> Samples:
    total = np.zeros(count, dtype=np.float32)
    for offset in np.linspace(-cents, cents, voices):
        detuned = frequency * 2 ** ((offset + rng.normal(0, 1)) / 1200)
        total += synth.oscillate(table, detuned, count, rng.random())
    return total / np.float32(math.sqrt(voices))


def warm_pad(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Three slow, filtered saws."""
    envelope = synth.hold(seconds, attack=0.5, release=0.7)
    table = synth.saw_table(frequency, 350 + 1500 * brightness)
    return _unison(table, frequency, len(envelope), rng, voices=3, cents=9) * envelope


def string_section(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Bowed strings: saws with vibrato and rosin noise."""
    envelope = synth.hold(seconds, attack=0.22, release=0.4)
    count = len(envelope)
    table = synth.saw_table(frequency, 1200 + 2500 * brightness)
    total = np.zeros(count, dtype=np.float32)
    for rate in (4.6, 5.4):
        curve = synth.vibrato(frequency, count, cents=14, rate=rate, phase=rng.random())
        total += synth.oscillate(table, curve, count, rng.random())
    return total * envelope * np.float32(0.7)


def fiddle(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """One bowed string with body resonances."""
    envelope = synth.hold(seconds, attack=0.06, release=0.08)
    count = len(envelope)
    table = synth.formant_table(
        frequency,
        ((480, 200, 1.0), (1100, 400, 0.7), (2800, 1500, 0.4 + brightness)),
        1.0,
    )
    curve = synth.vibrato(frequency, count, cents=22, rate=5.6, phase=rng.random())
    return synth.oscillate(table, curve, count) * envelope


def accordion(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Two reeds, tuned apart enough to beat."""
    envelope = synth.hold(seconds, attack=0.05, release=0.05)
    table = synth.saw_table(frequency, 2500 + 3000 * brightness, odd_only=True)
    return _unison(table, frequency, len(envelope), rng, voices=2, cents=12) * envelope


def harmonium(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A bellows drone."""
    envelope = synth.hold(seconds, attack=0.3, release=0.4)
    table = synth.saw_table(frequency, 1000 + 1500 * brightness)
    return _unison(table, frequency, len(envelope), rng, voices=2, cents=4) * envelope


def flute(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A breathy, nearly pure tone."""
    envelope = synth.hold(seconds, attack=0.07, release=0.1)
    count = len(envelope)
    table = synth.build_table([1, 0.35 * brightness + 0.1, 0.12, 0.04 * brightness])
    curve = synth.vibrato(frequency, count, cents=18, rate=5.0, phase=rng.random())
    breath = synth.band_pass(
        synth.white_noise(count, rng), frequency, min(frequency * 4, 12_000)
    )
    return (synth.oscillate(table, curve, count) + breath * np.float32(0.25)) * envelope


def _filter_sweep(
    frequency: float,
    seconds: float,
    rng: np.random.Generator,
    *,
    low: float,
    high: float,
    sweep: float,
    square: bool,
    cents: float = 0.0,
    release: float = 0.08,
) -> Samples:
    envelope = synth.hold(seconds, attack=0.004, release=release)
    count = len(envelope)
    opened = synth.saw_table(frequency, high, odd_only=square)
    closed = synth.saw_table(frequency, low, odd_only=square)
    amount = synth.decay(count, sweep)
    detuned = frequency * 2 ** (cents / 1200)
    sound = synth.oscillate(closed, frequency, count) * (1 - amount)
    sound += synth.oscillate(opened, detuned, count, rng.random()) * amount
    return sound * envelope


def synth_pluck(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A saw whose filter snaps shut."""
    sound = _filter_sweep(
        frequency,
        seconds,
        rng,
        low=300 + 300 * brightness,
        high=2500 + 6000 * brightness,
        sweep=0.35,
        square=False,
        cents=7,
        release=0.2,
    )
    return sound * synth.decay(len(sound), 1.5)


def saw_lead(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Five detuned saws, wide open."""
    envelope = synth.hold(seconds, attack=0.01, release=0.15)
    table = synth.saw_table(frequency, 3000 + 8000 * brightness)
    return _unison(table, frequency, len(envelope), rng, voices=5, cents=14) * envelope


def square_lead(
    frequency: float, seconds: float, brightness: float, _rng: np.random.Generator
) -> Samples:
    """A hollow computer-game lead."""
    envelope = synth.hold(seconds, attack=0.005, release=0.05)
    count = len(envelope)
    table = synth.saw_table(frequency, 2000 + 7000 * brightness, odd_only=True)
    curve = synth.vibrato(frequency, count, cents=10, rate=5.5)
    return synth.oscillate(table, curve, count) * envelope


def acid_bass(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A saw bass with a sharp filter sweep."""
    sound = _filter_sweep(
        frequency,
        seconds,
        rng,
        low=180,
        high=900 + 3500 * brightness,
        sweep=0.3,
        square=False,
    )
    return np.tanh(sound * 3) * np.float32(0.3)


def square_bass(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A round synthesiser bass."""
    return _filter_sweep(
        frequency,
        seconds,
        rng,
        low=200,
        high=500 + 900 * brightness,
        sweep=0.5,
        square=True,
    )


def sub_bass(
    frequency: float, seconds: float, brightness: float, _rng: np.random.Generator
) -> Samples:
    """A long, falling sine with a little grit: the bass drum that became a bass."""
    envelope = synth.hold(seconds, attack=0.004, release=0.15)
    count = len(envelope)
    curve = frequency * (1 + 1.2 * synth.decay(count, 0.12).astype(np.float64))
    tone = synth.oscillate(synth.build_table([1.0]), curve, count)
    gritty = np.tanh(tone * np.float32(2 + 5 * brightness)) * np.float32(0.4)
    return np.asarray(gritty * synth.decay(count, 3.0) * envelope, dtype=np.float32)


def _amplifier(
    frequency: float,
    seconds: float,
    brightness: float,
    rng: np.random.Generator,
    *,
    intervals: tuple[float, ...],
    drive: float,
    release: float,
) -> Samples:
    envelope = synth.hold(seconds, attack=0.003, release=release)
    count = len(envelope)
    total = np.zeros(count, dtype=np.float32)
    for ratio in intervals:
        table = synth.saw_table(frequency * ratio, 3500)
        detuned = frequency * ratio * 2 ** (rng.normal(0, 2.5) / 1200)
        total += synth.oscillate(table, detuned, count, rng.random())
    total *= synth.decay(count, 6.0) / np.float32(math.sqrt(len(intervals)))
    return synth.distort(total, drive, 2800 + 2500 * brightness) * envelope


power_chord: Instrument = functools.partial(
    _amplifier, intervals=(1.0, 1.5, 2.0), drive=9.0, release=0.05
)
fuzz_lead: Instrument = functools.partial(
    _amplifier, intervals=(1.0, 1.005), drive=16.0, release=0.15
)
crunch_guitar: Instrument = functools.partial(
    _amplifier, intervals=(1.0, 2.0), drive=3.0, release=0.1
)


def clean_electric(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """An electric guitar through a barely driven amplifier."""
    sound = _string(
        frequency, seconds, brightness, rng, edge=0.65, ring=3.5, position=0.25
    )
    return synth.distort(sound, 2.0, 3500 + 2000 * brightness)


def _modulated(
    frequency: float,
    _seconds: float,
    brightness: float,
    _rng: np.random.Generator,
    *,
    ratio: float,
    index: float,
    ring: float,
) -> Samples:
    count = synth.count_samples(ring)
    time = np.arange(count, dtype=np.float64) * (2 * math.pi / synth.SAMPLE_RATE)
    carrier = (time * frequency % (2 * math.pi)).astype(np.float32)
    modulator = (time * frequency * ratio % (2 * math.pi)).astype(np.float32)
    depth = index * (0.4 + 1.2 * brightness) * synth.decay(count, ring * 0.6)
    sound = np.sin(carrier + depth * np.sin(modulator)) * synth.decay(count, ring)
    return synth.soften_edges((sound * 0.3).astype(np.float32), 0.001)


bell: Instrument = functools.partial(_modulated, ratio=3.53, index=2.2, ring=3.0)
kalimba: Instrument = functools.partial(_modulated, ratio=5.4, index=0.5, ring=0.7)
marimba: Instrument = functools.partial(_modulated, ratio=4.0, index=0.3, ring=0.45)
steel_drum: Instrument = functools.partial(_modulated, ratio=2.01, index=0.9, ring=0.6)

# (centre Hz, bandwidth Hz, gain): a, e, i, o, u of a textbook adult voice.
_VOWELS = (
    ((730.0, 110.0, 1.0), (1090.0, 120.0, 0.6), (2440.0, 200.0, 0.25)),
    ((530.0, 90.0, 1.0), (1840.0, 150.0, 0.45), (2480.0, 200.0, 0.3)),
    ((280.0, 70.0, 1.0), (2250.0, 180.0, 0.35), (2950.0, 250.0, 0.3)),
    ((570.0, 90.0, 1.0), (840.0, 100.0, 0.6), (2410.0, 200.0, 0.12)),
    ((310.0, 70.0, 1.0), (870.0, 100.0, 0.4), (2250.0, 200.0, 0.08)),
)


def _hiss(count: int, rng: np.random.Generator) -> Samples:
    noise = synth.white_noise(count, rng)
    return (noise - synth.low_pass(noise, 4500)) * synth.decay(count, 0.12)


def singer(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A sung syllable: sometimes a consonant, then a vowel with vibrato."""
    envelope = synth.hold(seconds * 0.95, attack=0.05, release=0.08)
    count = len(envelope)
    vowel = _VOWELS[int(rng.integers(len(_VOWELS)))]
    table = synth.formant_table(frequency, vowel, 1.5 - 0.6 * brightness)
    scoop = 1 - 0.04 * synth.decay(count, 0.25).astype(np.float64)
    curve = scoop * synth.vibrato(frequency, count, cents=25, rate=5.5)
    sound = synth.oscillate(table, curve, count) * envelope
    if rng.random() < 0.5:
        head = min(count, synth.count_samples(0.07))
        sound[:head] += _hiss(head, rng) * np.float32(0.5 + brightness)
    return sound


def choir(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Several voices on one vowel."""
    envelope = synth.hold(seconds, attack=0.35, release=0.5)
    vowel = _VOWELS[int(rng.choice([0, 3, 4]))]
    table = synth.formant_table(frequency, vowel, 1.5 - 0.5 * brightness)
    return _unison(table, frequency, len(envelope), rng, voices=4, cents=16) * envelope


def rapper(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A spoken syllable: a consonant, a short vowel, and a pitch that falls."""
    envelope = synth.hold(min(seconds, 0.22) * 0.8, attack=0.015, release=0.04)
    count = len(envelope)
    spoken = frequency * 2 ** (rng.normal(0, 2.0) / 12)
    vowel = _VOWELS[int(rng.integers(len(_VOWELS)))]
    table = synth.formant_table(spoken, vowel, 1.1 - 0.4 * brightness)
    curve = spoken * np.linspace(1.06, 0.9, count)
    sound = synth.oscillate(table, curve, count) * envelope
    head = min(count, synth.count_samples(0.05))
    sound[:head] += _hiss(head, rng) * np.float32(rng.uniform(0, 1.5))
    return sound


def noise_swell(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A band of noise around the pitch that comes and goes."""
    envelope = synth.hold(seconds, attack=seconds * 0.5, release=seconds * 0.4)
    low = frequency * (1 + brightness)
    high = min(low * (2 + 6 * brightness), 15_000.0)
    return synth.band_pass(synth.white_noise(len(envelope), rng), low, high) * envelope


def noise_burst(
    _frequency: float, seconds: float, _brightness: float, rng: np.random.Generator
) -> Samples:
    """A short, crushed burst: every sample is held for a while."""
    count = synth.count_samples(min(seconds, 0.4))
    every = int(rng.integers(2, 40))
    coarse = synth.white_noise(count // every + 1, rng)
    sound = np.repeat(coarse, every)[:count] * synth.decay(count, 0.8)
    return synth.soften_edges(sound)


def ring_drone(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Two tones multiplied (ring modulation): inharmonic and slowly beating."""
    envelope = synth.hold(seconds, attack=0.8, release=1.0)
    count = len(envelope)
    table = synth.saw_table(frequency, 500 + 4000 * brightness)
    other = frequency * rng.uniform(1.1, 3.9)
    first = synth.oscillate(table, frequency, count)
    second = synth.oscillate(synth.build_table([1.0]), other, count)
    wobble = synth.oscillate(synth.build_table([1.0]), rng.uniform(0.2, 6), count)
    return first * second * 5 * envelope * (1 + 2 * wobble)


def glitch(
    frequency: float, _seconds: float, _brightness: float, rng: np.random.Generator
) -> Samples:
    """A fragment of a tone, stuttered."""
    grain = synth.count_samples(rng.uniform(0.008, 0.06))
    pitch = frequency * 2 ** rng.uniform(-1, 2)
    table = synth.saw_table(pitch, 8000, odd_only=bool(rng.random() < 0.5))
    fragment = synth.soften_edges(
        synth.oscillate(
            table, pitch * np.linspace(1, rng.uniform(0.3, 2), grain), grain
        )
    )
    return np.tile(fragment, int(rng.integers(2, 9)))


def feedback(
    frequency: float, seconds: float, _brightness: float, _rng: np.random.Generator
) -> Samples:
    """A howling, overdriven tone that climbs to its octave."""
    envelope = synth.hold(seconds, attack=seconds * 0.4, release=0.3)
    count = len(envelope)
    curve = synth.vibrato(frequency, count, cents=30, rate=3.1)
    low = synth.oscillate(synth.saw_table(frequency, 2500), curve, count)
    high = synth.oscillate(synth.saw_table(frequency * 2, 5000), curve * 2, count)
    climb = np.linspace(0, 1, count, dtype=np.float32)
    return synth.distort(low * (1 - climb) + high * climb, 18.0, 6000) * envelope

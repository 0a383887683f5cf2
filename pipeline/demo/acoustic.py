"""Keyboards, bows, reeds, pipes and bars. See `synth.Instrument`."""

from __future__ import annotations

import functools
import math

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Instrument, Samples


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
    return (
        synth.unison(table, frequency, len(envelope), rng, voices=2, cents=12)
        * envelope
    )


def harmonium(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A bellows drone."""
    envelope = synth.hold(seconds, attack=0.3, release=0.4)
    table = synth.saw_table(frequency, 1000 + 1500 * brightness)
    return (
        synth.unison(table, frequency, len(envelope), rng, voices=2, cents=4) * envelope
    )


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

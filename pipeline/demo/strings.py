"""Plucked strings and guitars, with their amplifiers. See `synth.Instrument`."""

from __future__ import annotations

import functools
import math

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Instrument, Samples


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


nylon_guitar: Instrument = functools.partial(_string, edge=0.35, ring=2.2)
steel_guitar: Instrument = functools.partial(_string, edge=0.7, ring=3.0, position=0.12)
banjo: Instrument = functools.partial(_string, edge=0.95, ring=0.7, position=0.06)
kora: Instrument = functools.partial(_string, edge=0.7, ring=1.6, position=0.3)
oud: Instrument = functools.partial(_string, edge=0.6, ring=0.9, position=0.1)
upright_bass: Instrument = functools.partial(_string, edge=0.15, ring=1.2, position=0.3)
picked_bass: Instrument = functools.partial(_string, edge=0.6, ring=2.5, position=0.15)


def sitar(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """A bright string over a buzzing bridge."""
    sound = _string(
        frequency, seconds, brightness, rng, edge=0.95, ring=2.6, position=0.07
    )
    buzz = np.tanh(sound * 6) - np.tanh(sound * 2)
    return (sound + np.float32(0.8) * buzz).astype(np.float32)


def clean_electric(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """An electric guitar through a barely driven amplifier."""
    sound = _string(
        frequency, seconds, brightness, rng, edge=0.65, ring=3.5, position=0.25
    )
    return synth.distort(sound, 2.0, 3500 + 2000 * brightness)


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

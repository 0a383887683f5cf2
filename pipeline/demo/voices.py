"""Voices: sung, hummed and spoken. See `synth.Instrument`."""

from __future__ import annotations

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Samples

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
    return (
        synth.unison(table, frequency, len(envelope), rng, voices=4, cents=16)
        * envelope
    )


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

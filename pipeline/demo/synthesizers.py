"""Pads, leads and basses from a synthesiser, and its noises. See `synth.Instrument`."""

from __future__ import annotations

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Samples


def warm_pad(
    frequency: float, seconds: float, brightness: float, rng: np.random.Generator
) -> Samples:
    """Three slow, filtered saws."""
    envelope = synth.hold(seconds, attack=0.5, release=0.7)
    table = synth.saw_table(frequency, 350 + 1500 * brightness)
    return (
        synth.unison(table, frequency, len(envelope), rng, voices=3, cents=9) * envelope
    )


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
    return (
        synth.unison(table, frequency, len(envelope), rng, voices=5, cents=14)
        * envelope
    )


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

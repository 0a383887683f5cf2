"""Drums: single hits and the kits they belong to."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pipeline.demo import synth
from pipeline.demo.synth import Samples

#: One hit from (brightness 0 to 1, rng).
Drum: TypeAlias = Callable[[float, np.random.Generator], Samples]


def _falling_tone(
    count: int, *, start: float, end: float, fall: float, ring: float
) -> Samples:
    curve = end + (start - end) * synth.decay(count, fall).astype(np.float64)
    angle = 2 * math.pi * np.cumsum(curve) / synth.SAMPLE_RATE
    return (np.sin(angle) * synth.decay(count, ring)).astype(np.float32)


def _kick(
    brightness: float,
    rng: np.random.Generator,
    *,
    start: float,
    end: float,
    fall: float,
    ring: float,
    click: float,
) -> Samples:
    count = synth.count_samples(ring)
    sound = _falling_tone(count, start=start, end=end, fall=fall, ring=ring)
    head = synth.count_samples(0.006)
    sound[:head] += synth.white_noise(head, rng) * np.float32(click * (1 + brightness))
    return synth.soften_edges(np.tanh(sound * np.float32(1.6)), 0.001)


deep_kick: Drum = functools.partial(
    _kick, start=140, end=46, fall=0.12, ring=0.8, click=0.2
)
punchy_kick: Drum = functools.partial(
    _kick, start=260, end=52, fall=0.09, ring=0.34, click=1.0
)
acoustic_kick: Drum = functools.partial(
    _kick, start=150, end=62, fall=0.06, ring=0.22, click=1.4
)


def _struck_noise(
    brightness: float,
    rng: np.random.Generator,
    *,
    low: float,
    high: float,
    ring: float,
    tone: float = 0.0,
    tone_level: float = 0.0,
) -> Samples:
    count = synth.count_samples(ring)
    top = min(high * (0.7 + 0.8 * brightness), 18_000.0)
    sound = synth.band_pass(synth.white_noise(count, rng), low, top)
    sound = sound * synth.decay(count, ring) * 3
    if tone_level:
        body = _falling_tone(
            count, start=tone * 1.4, end=tone, fall=0.05, ring=ring * 0.6
        )
        sound = sound + body * np.float32(tone_level)
    return synth.soften_edges(sound.astype(np.float32), 0.0008)


acoustic_snare: Drum = functools.partial(
    _struck_noise, low=300, high=9000, ring=0.24, tone=190, tone_level=0.5
)
machine_snare: Drum = functools.partial(
    _struck_noise, low=900, high=12000, ring=0.2, tone=220, tone_level=0.35
)
brush: Drum = functools.partial(_struck_noise, low=1500, high=7000, ring=0.18)
closed_hat: Drum = functools.partial(_struck_noise, low=7500, high=15000, ring=0.06)
open_hat: Drum = functools.partial(_struck_noise, low=6500, high=15000, ring=0.4)
ride: Drum = functools.partial(
    _struck_noise, low=4500, high=13000, ring=0.7, tone=3900, tone_level=0.06
)
crash: Drum = functools.partial(_struck_noise, low=2500, high=15000, ring=1.6)
shaker: Drum = functools.partial(_struck_noise, low=4500, high=10000, ring=0.09)
rim: Drum = functools.partial(
    _struck_noise, low=1500, high=6000, ring=0.05, tone=1650, tone_level=0.6
)
stomp: Drum = functools.partial(
    _struck_noise, low=60, high=500, ring=0.18, tone=75, tone_level=0.8
)


def clap(brightness: float, rng: np.random.Generator) -> Samples:
    """Several hands, not quite together."""
    count = synth.count_samples(0.26)
    sound = np.zeros(count, dtype=np.float32)
    for delay in (0.0, 0.011, 0.023):
        hand = _struck_noise(brightness, rng, low=900, high=6000, ring=0.2)
        start = int(delay * synth.SAMPLE_RATE)
        stop = min(count, start + len(hand))
        sound[start:stop] += hand[: stop - start] * np.float32(0.6)
    return sound


def cowbell(brightness: float, _rng: np.random.Generator) -> Samples:
    """Two squares a bad fifth apart."""
    count = synth.count_samples(0.25)
    sound = np.zeros(count, dtype=np.float32)
    for frequency in (562.0, 845.0):
        table = synth.saw_table(frequency, 3000 + 5000 * brightness, odd_only=True)
        sound += synth.oscillate(table, frequency, count)
    return synth.soften_edges(sound * synth.decay(count, 0.3), 0.001)


def _skin(
    brightness: float,
    rng: np.random.Generator,
    *,
    pitch: float,
    ring: float,
    slap: float,
    bend: float = 1.15,
) -> Samples:
    count = synth.count_samples(ring)
    sound = _falling_tone(
        count, start=pitch * bend, end=pitch, fall=ring * 0.5, ring=ring
    )
    sound += np.float32(0.4) * _falling_tone(
        count, start=pitch * 2.4, end=pitch * 2.3, fall=0.05, ring=ring * 0.4
    )
    head = min(count, synth.count_samples(0.03))
    noise = synth.band_pass(synth.white_noise(head, rng), 700, 7000)
    sound[:head] += (
        noise * synth.decay(head, 0.03) * np.float32(slap * (2 + 4 * brightness))
    )
    return synth.soften_edges(sound, 0.001)


low_conga: Drum = functools.partial(_skin, pitch=165, ring=0.35, slap=0.3)
high_conga: Drum = functools.partial(_skin, pitch=250, ring=0.25, slap=0.7)
djembe: Drum = functools.partial(_skin, pitch=95, ring=0.4, slap=0.5)
darbuka_dum: Drum = functools.partial(_skin, pitch=110, ring=0.3, slap=0.3)
darbuka_tek: Drum = functools.partial(_skin, pitch=520, ring=0.09, slap=1.6)
tabla_low: Drum = functools.partial(_skin, pitch=82, ring=0.5, slap=0.2, bend=0.6)
tabla_high: Drum = functools.partial(_skin, pitch=370, ring=0.4, slap=0.6, bend=1.0)
tom: Drum = functools.partial(_skin, pitch=120, ring=0.45, slap=0.4)
woodblock: Drum = functools.partial(_skin, pitch=900, ring=0.08, slap=0.6)


def scrap_metal(brightness: float, rng: np.random.Generator) -> Samples:
    """Something found in a yard: random inharmonic partials."""
    ring = float(rng.uniform(0.2, 1.2))
    count = synth.count_samples(ring)
    sound = np.zeros(count, dtype=np.float32)
    for frequency in rng.uniform(200, 2000 + 5000 * brightness, 6):
        sound += _falling_tone(
            count,
            start=frequency,
            end=frequency,
            fall=1.0,
            ring=ring * rng.uniform(0.3, 1),
        )
    return synth.soften_edges(sound / np.float32(2.5), 0.001)


def static_burst(brightness: float, rng: np.random.Generator) -> Samples:
    """A gate opened on noise, shut without a tail."""
    count = synth.count_samples(float(rng.uniform(0.02, 0.2)))
    low = float(rng.uniform(200, 4000))
    noise = synth.white_noise(count, rng)
    return synth.soften_edges(
        synth.band_pass(noise, low, min(low * (2 + 3 * brightness), 16_000.0)) * 3
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kit:
    """Which drum answers to which line of a groove."""

    low: Drum
    mid: Drum
    high: Drum
    ring: Drum
    extra: Drum


ACOUSTIC_KIT = Kit(
    low=acoustic_kick, mid=acoustic_snare, high=closed_hat, ring=crash, extra=tom
)
RIDE_KIT = Kit(low=acoustic_kick, mid=acoustic_snare, high=ride, ring=crash, extra=rim)
BRUSH_KIT = Kit(low=stomp, mid=brush, high=shaker, ring=ride, extra=rim)
DEEP_KIT = Kit(low=deep_kick, mid=clap, high=closed_hat, ring=open_hat, extra=rim)
CLUB_KIT = Kit(low=punchy_kick, mid=clap, high=closed_hat, ring=open_hat, extra=cowbell)
POP_KIT = Kit(
    low=punchy_kick, mid=machine_snare, high=closed_hat, ring=open_hat, extra=shaker
)
CONGA_KIT = Kit(
    low=low_conga, mid=high_conga, high=shaker, ring=cowbell, extra=woodblock
)
DJEMBE_KIT = Kit(low=djembe, mid=high_conga, high=shaker, ring=cowbell, extra=woodblock)
DARBUKA_KIT = Kit(
    low=darbuka_dum, mid=darbuka_tek, high=shaker, ring=open_hat, extra=darbuka_tek
)
TABLA_KIT = Kit(
    low=tabla_low, mid=tabla_high, high=tabla_high, ring=shaker, extra=woodblock
)
SCRAP_KIT = Kit(
    low=djembe, mid=scrap_metal, high=static_burst, ring=scrap_metal, extra=static_burst
)
STATIC_KIT = Kit(
    low=deep_kick, mid=static_burst, high=closed_hat, ring=static_burst, extra=rim
)

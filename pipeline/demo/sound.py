"""Sound from numbers: tones, drum hits and noise, mono at 44.1 kHz."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

SAMPLE_RATE = 44_100

Samples: TypeAlias = npt.NDArray[np.float32]

# Long enough that a truncated (not interpolated) look-up stays inaudible.
_TABLE_SIZE = 4_096
_HIGHEST_PARTIAL_HZ = 16_000.0
_RELEASE_SECONDS = 0.04


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timbre:
    """How a pitched instrument sounds.

    Attributes:
      tilt: Partial number k has the amplitude k ** -tilt; 1 is a saw, 3 nearly a sine.
      even: Share that is left of the even partials; 0 is a square or a clarinet.
      index: Phase modulation at a note's beginning, in radians.
      ratio: Frequency of the modulation as a multiple of the note's.
      attack: Seconds until full level.
      decay: Seconds in which a note loses 60 dB.
      detune: Cents between the two oscillators.
      vibrato: Depth in cents.
      drive: Gain in front of a saturation.
    """

    tilt: float
    even: float = 1.0
    index: float = 0.0
    ratio: float = 1.0
    attack: float = 0.004
    decay: float = 6.0
    detune: float = 3.0
    vibrato: float = 0.0
    drive: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drum:
    """How a drum sounds.

    Attributes:
      frequency: Of the membrane in Hz, once it has settled.
      sweep: Octaves by which it starts higher.
      noise: Share of noise, 0 to 1.
      band: Limits of the noise in Hz.
      decay: Seconds in which a hit loses 60 dB.
      level: dB in the kit.
    """

    frequency: float = 200.0
    sweep: float = 0.0
    noise: float = 1.0
    band: tuple[float, float] = (1_000.0, 9_000.0)
    decay: float = 0.2
    level: float = 0.0


def measure_rms(samples: Samples) -> float:
    """Returns the root mean square of all values."""
    # No BLAS: its sum's order, and so the last bit, may depend on the thread count.
    return math.sqrt(float(np.mean(np.square(samples))))


def decibels_to_gain(decibels: float) -> float:
    """Returns the factor for an amplitude."""
    return float(10 ** (decibels / 20))


def _make_table(timbre: Timbre, frequency: float, cutoff: float) -> Samples:
    """Returns one period, RMS 1, behind a 12 dB/octave low-pass at `cutoff` Hz."""
    count = max(int(_HIGHEST_PARTIAL_HZ / frequency), 1)
    numbers = np.arange(1.0, count + 1)
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
    spectrum[1 : count + 1] = numbers**-timbre.tilt * -1j
    spectrum[1 : count + 1] /= 1 + np.square(numbers * frequency / cutoff)
    spectrum[2::2] *= timbre.even
    table = np.fft.irfft(spectrum, _TABLE_SIZE).astype(np.float32)
    return table / np.float32(measure_rms(table))


def tone(
    timbre: Timbre,
    frequencies: Sequence[float],
    seconds: float,
    cutoff: float,
    rng: Generator,
) -> Samples:
    """Plays a note or a chord.

    Args:
      timbre: The instrument.
      frequencies: Hz of the notes, which sound together.
      seconds: How long they are held; a short release follows.
      cutoff: Hz above which partials fall off.
      rng: Draws the oscillators' phases.

    Returns:
      The sound, RMS about 1 at its loudest.
    """
    count = round((seconds + _RELEASE_SECONDS) * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    fade = np.exp(-math.log(1000) / timbre.decay * time)
    sound = np.zeros(count, dtype=np.float32)
    # Two of the same pitch would only cancel each other.
    detunings = (-timbre.detune / 2, timbre.detune / 2) if timbre.detune else (0.0,)
    for frequency in frequencies:
        table = _make_table(timbre, frequency, cutoff)
        periods = frequency * time
        if timbre.vibrato:
            # The integral of a frequency that wavers 5.5 times a second.
            depth = frequency * timbre.vibrato * math.log(2) / 1200
            periods += depth / (2 * math.pi * 5.5) * np.sin(2 * math.pi * 5.5 * time)
        if timbre.index:
            modulator = np.sin(2 * math.pi * timbre.ratio * frequency * time)
            periods += timbre.index / (2 * math.pi) * fade**2 * modulator
        for cents in detunings:
            places = periods * 2 ** (cents / 1200) + rng.random()
            sound += table[(places * _TABLE_SIZE).astype(np.int64) % _TABLE_SIZE]
    sound *= np.float32(1 / math.sqrt(len(detunings) * len(frequencies)))
    if timbre.drive:
        sound = np.tanh(sound * np.float32(timbre.drive))
    ends = np.minimum(time / timbre.attack, (time[-1] - time) / _RELEASE_SECONDS)
    sound *= (fade * np.minimum(ends, 1)).astype(np.float32)
    return sound


def filtered_noise(count: int, band: tuple[float, float], rng: Generator) -> Samples:
    """Returns noise, RMS 1, that falls by 24 dB/octave outside a band in Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 1.0)
    low, high = band
    spectrum /= (1 + (low / frequencies) ** 4) * (1 + (frequencies / high) ** 4)
    noise = np.fft.irfft(spectrum, count).astype(np.float32)
    return noise / np.float32(measure_rms(noise))


def hit(drum: Drum, rng: Generator) -> Samples:
    """Plays a drum once; RMS about 1, before its level, at its loudest."""
    count = round(drum.decay * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    fade = np.exp(-math.log(1000) / drum.decay * time)
    # The membrane comes down to its frequency with a time constant of 30 ms.
    pitch = drum.frequency * 2 ** (drum.sweep * np.exp(-time / 0.03))
    membrane = np.sin(2 * math.pi * np.cumsum(pitch) / SAMPLE_RATE) * math.sqrt(2)
    noise = filtered_noise(count, drum.band, rng)
    sound = (1 - drum.noise) * membrane + drum.noise * noise
    sound *= fade * np.minimum(time / 0.001, 1) * decibels_to_gain(drum.level)
    return sound.astype(np.float32)


def add(mix: Samples, sound: Samples, start: int, gain: float) -> None:
    """Adds a sound, in place, that may begin before the mix or end after it."""
    skip = max(0, -start)
    start = max(0, start)
    stop = min(len(mix), start + len(sound) - skip)
    if stop > start:
        mix[start:stop] += sound[skip : skip + stop - start] * np.float32(gain)

"""Sound from numbers: oscillators, envelopes, plucked strings, filters, reverb.

Everything works on mono ``float32`` arrays at 44.1 kHz and is vectorised: a clip of
thirty seconds has to be rendered in less time than its MP3 encoding takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal

SAMPLE_RATE = 44_100

Samples: TypeAlias = npt.NDArray[np.float32]
#: One note from (frequency in Hz, seconds that it is held, brightness from 0 (dull) to
#: 1 (piercing), rng). The sound may ring on. Levels are only roughly equal: the mixer
#: measures every part and sets its level.
Instrument: TypeAlias = Callable[[float, float, float, np.random.Generator], Samples]

#: Frequencies in Hz: where exact pitch matters, single precision is not enough.
Curve: TypeAlias = npt.NDArray[np.float64]

# Long enough that a truncated (not interpolated) look-up stays inaudible.
_TABLE_SIZE = 8_192
_HIGHEST_PARTIAL_HZ = 17_000.0
_MAX_PARTIALS = 320
_NOTE_RMS = 0.2


def count_samples(seconds: float) -> int:
    """Returns the number of samples in `seconds`, at least one."""
    return max(1, round(seconds * SAMPLE_RATE))


def measure_rms(samples: Samples) -> float:
    """Returns the root mean square of all values."""
    # No BLAS: its sum's order, and so the last bit, may depend on the thread count.
    return math.sqrt(float(np.mean(np.square(samples))))


def partial_frequencies(frequency: float) -> Curve:
    """Returns the harmonics of `frequency` (Hz) that may sound without aliasing."""
    count = int(_HIGHEST_PARTIAL_HZ / frequency)
    return np.arange(1.0, min(max(count, 1), _MAX_PARTIALS) + 1) * np.float64(frequency)


def build_table(amplitudes: Sequence[float] | Curve) -> Samples:
    """Returns one period, RMS 0.2, of the harmonic sound with these amplitudes."""
    spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex64)
    spectrum[1 : len(amplitudes) + 1] = -1j * np.asarray(amplitudes)
    table = np.asarray(scipy.fft.irfft(spectrum, _TABLE_SIZE), dtype=np.float32)
    return table * np.float32(_NOTE_RMS / max(measure_rms(table), 1e-12))


def saw_table(frequency: float, cutoff: float, *, odd_only: bool = False) -> Samples:
    """Returns a saw (or square) table behind a 12 dB/octave low-pass at `cutoff` Hz."""
    partials = partial_frequencies(frequency)
    amplitudes: Curve = frequency / partials / (1 + np.square(partials / cutoff))
    if odd_only:
        amplitudes[1::2] = 0
    return build_table(amplitudes)


def formant_table(
    frequency: float, formants: tuple[tuple[float, float, float], ...], tilt: float
) -> Samples:
    """Returns a voiced sound.

    Args:
      frequency: Fundamental in Hz.
      formants: (centre Hz, bandwidth Hz, gain) of each resonance.
      tilt: Exponent of the glottal source's fall with frequency (2 is a soft voice).
    """
    partials = partial_frequencies(frequency)
    source = np.power(frequency / partials, tilt)
    shape: Curve = np.full_like(partials, 0.01)
    for centre, bandwidth, gain in formants:
        shape += gain / (1 + np.square((partials - centre) / (bandwidth / 2)))
    return build_table(source * shape)


def oscillate(
    table: Samples,
    frequency: float | Curve,
    count: int,
    phase: float = 0.0,
) -> Samples:
    """Plays a table.

    Args:
      table: One period, from `build_table`.
      frequency: Hz, constant or one value a sample.
      count: Samples wanted.
      phase: Start, in periods.

    Returns:
      `count` samples.
    """
    if isinstance(frequency, np.ndarray):
        periods: Curve = np.cumsum(frequency[:count], dtype=np.float64)
    else:
        periods = np.arange(count, dtype=np.float64) * frequency
    indices = ((periods / SAMPLE_RATE + phase) * _TABLE_SIZE).astype(np.int64) & (
        _TABLE_SIZE - 1
    )
    played: Samples = table[indices]
    return played


def unison(
    table: Samples,
    frequency: float,
    count: int,
    rng: np.random.Generator,
    *,
    voices: int,
    cents: float,
) -> Samples:
    """Plays a table several times, up to `cents` apart, at the level of one."""
    total = np.zeros(count, dtype=np.float32)
    for offset in np.linspace(-cents, cents, voices):
        detuned = frequency * 2 ** ((offset + rng.normal(0, 1)) / 1200)
        total += oscillate(table, detuned, count, rng.random())
    return total / np.float32(math.sqrt(voices))


def vibrato(
    frequency: float, count: int, *, cents: float, rate: float, phase: float = 0.0
) -> Curve:
    """Returns a frequency curve (Hz) that wavers by `cents`, setting in gradually."""
    seconds = np.arange(count, dtype=np.float32) / np.float32(SAMPLE_RATE)
    depth = np.minimum(seconds / np.float32(0.4), 1)
    wave = np.sin(np.float32(2 * math.pi) * (rate * seconds + np.float32(phase)))
    # 2 ** (c / 1200) is 1 + c ln(2) / 1200 to a hundredth of a cent for small c.
    bend = cents * math.log(2) / 1200
    bends = (np.float32(bend) * depth * wave).astype(np.float64)
    curve: Curve = frequency * (1 + bends)
    return curve


def decay(count: int, seconds: float) -> Samples:
    """Returns an exponential from 1 that loses 60 dB in `seconds`."""
    rate = math.log(1000) / (seconds * SAMPLE_RATE)
    exponent = np.arange(count, dtype=np.float32) * np.float32(-rate)
    np.exp(exponent, out=exponent)
    return exponent


def hold(seconds: float, *, attack: float, release: float) -> Samples:
    """Returns a linear attack, a plateau up to `seconds`, then a linear release."""
    count = count_samples(seconds + release)
    return np.interp(
        np.arange(count) / SAMPLE_RATE,
        [0, attack, max(seconds, attack), max(seconds, attack) + release],
        [0, 1, 1, 0],
    ).astype(np.float32)


def soften_edges(samples: Samples, fade: float = 0.004) -> Samples:
    """Returns the samples with short linear fades, so that nothing clicks."""
    count = min(count_samples(fade), len(samples) // 2)
    faded = samples.copy()
    ramp = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)
    faded[:count] *= ramp
    faded[len(faded) - count :] *= ramp[::-1]
    return faded


def white_noise(count: int, rng: np.random.Generator) -> Samples:
    """Returns Gaussian noise of RMS 0.2."""
    return rng.standard_normal(count, dtype=np.float32) * np.float32(_NOTE_RMS)


def pluck_string(
    frequency: float,
    seconds: float,
    rng: np.random.Generator,
    *,
    brightness: float,
    sustain: float,
    position: float = 0.2,
) -> Samples:
    """Plucks a string (Karplus and Strong 1983, with a fractional delay).

    Args:
      frequency: Pitch in Hz, up to about 4 kHz.
      seconds: Length of the result.
      rng: Source of the pluck's noise.
      brightness: 0 (felt) to 1 (steel and plectrum).
      sustain: Seconds in which the fundamental loses 60 dB.
      position: Where along the string it is plucked, 0 to 0.5.

    Returns:
      The string's sound, peak near 1.
    """
    count = count_samples(seconds)
    period = SAMPLE_RATE / frequency
    # A three-tap smoother delays by one sample, linear interpolation by the fraction.
    delay = int(period) - 1
    fraction = period - int(period)
    loss = 10 ** (-3 / (sustain * frequency))
    smoothing = 0.22 * (1 - brightness) + 0.01
    smoother = np.array([smoothing, 1 - 2 * smoothing, smoothing])
    taps = (loss * np.convolve(smoother, [1 - fraction, fraction])).astype(np.float32)

    burst = rng.uniform(-1, 1, delay + 4).astype(np.float32)
    keep = np.float32(0.15 + 0.8 * brightness)
    burst = scipy.signal.lfilter([keep], [1, keep - 1], burst).astype(np.float32)
    burst -= np.roll(burst, max(1, int(period * position)))
    burst -= burst.mean()
    burst /= max(float(np.abs(burst).max()), 1e-6)

    line = np.zeros(count + delay + 4, dtype=np.float32)
    line[: delay + 4] = burst
    for start in range(delay + 4, len(line), delay):
        stop = min(start + delay, len(line))
        past = line[start - delay - 3 : stop - delay]
        line[start:stop] = np.convolve(past, taps, "valid")
    return soften_edges(line[:count], 0.002)


def low_pass(samples: Samples, cutoff: float) -> Samples:
    """Returns the samples behind a one-pole low-pass at `cutoff` Hz."""
    keep = 1 - math.exp(-2 * math.pi * cutoff / SAMPLE_RATE)
    coefficients = np.float32(keep), np.float32(keep - 1)
    filtered = scipy.signal.lfilter(
        np.array(coefficients[:1]), np.array([1, coefficients[1]], np.float32), samples
    )
    return np.asarray(filtered, dtype=np.float32)


def band_pass(samples: Samples, low: float, high: float) -> Samples:
    """Returns the samples between two frequencies (Hz), second-order Butterworth."""
    b, a = scipy.signal.butter(1, [low, high], "bandpass", fs=SAMPLE_RATE)
    filtered = scipy.signal.lfilter(b.astype(np.float32), a.astype(np.float32), samples)
    return np.asarray(filtered, dtype=np.float32)


def distort(samples: Samples, drive: float, cabinet: float) -> Samples:
    """Returns the samples through a valve-like curve and a loudspeaker.

    Args:
      samples: Input of RMS near 0.2.
      drive: Gain before the curve; 2 is warm, 20 is fuzz.
      cabinet: The loudspeaker's upper limit in Hz.
    """
    # The small offset makes the curve asymmetric, which adds even harmonics.
    shaped = np.tanh(samples * np.float32(drive) + np.float32(0.2)) - np.float32(
        math.tanh(0.2)
    )
    return low_pass(low_pass(shaped, cabinet), cabinet) * np.float32(0.4)


def _comb(samples: Samples, delay: int, feedback: float) -> Samples:
    # 1 / (1 - g z^-D) = (1 + g z^-D) (1 + g^2 z^-2D) (1 + g^4 z^-4D) ...: a few passes
    # over whole arrays instead of a loop over samples.
    result = samples.copy()
    gain = feedback
    while gain > 1e-3 and delay < len(result):
        result[delay:] += result[:-delay] * np.float32(gain)
        delay, gain = 2 * delay, gain * gain
    return result


def _diffuse(samples: Samples, delay: int, gain: float) -> Samples:
    # An all-pass, (-g + z^-D) / (1 - g z^-D): a comb, then its feed-forward half.
    echoed = _comb(samples, delay, gain)
    result = echoed * np.float32(-gain)
    result[delay:] += echoed[:-delay]
    return result


# Nearly coprime delays in samples at half the rate; the right ear's differ, which
# makes the width.
_COMB_DELAYS = ((778, 809, 745, 711), (790, 820, 757, 722))
_DIFFUSER_DELAYS = (113, 278)


def reverberate(samples: Samples, seconds: float, damping: float) -> Samples:
    """Puts mono samples into a room (Schroeder 1962: combs, then all-passes).

    Args:
      samples: What the room hears, shape (n,).
      seconds: Time to lose 60 dB.
      damping: Upper limit of the room's sound in Hz.

    Returns:
      The room alone, shape (2, n).
    """
    # A damped room has little above 10 kHz: half the rate is enough for it.
    source = low_pass(samples, damping)[::2]
    room = np.empty((2, len(samples)), dtype=np.float32)
    for channel, delays in enumerate(_COMB_DELAYS):
        echoes = np.zeros_like(source)
        for delay in delays:
            feedback = 10 ** (-3 * 2 * delay / SAMPLE_RATE / seconds)
            echoes += _comb(source, delay, feedback)
        for delay in _DIFFUSER_DELAYS:
            echoes = _diffuse(echoes, delay, 0.6)
        room[channel, ::2] = echoes
        between = room[channel, 1::2]
        between[:] = echoes[: len(between)]
        following = echoes[1 : len(between) + 1]
        between[: len(following)] += following
        between *= np.float32(0.5)
    return room


def shelve(samples: Samples, low_gain: float, high_gain: float) -> Samples:
    """Returns the samples with the bass (160 Hz) and the treble (3 kHz) changed.

    Args:
      samples: Shape (..., n).
      low_gain: Factor of what is well below 160 Hz.
      high_gain: Factor of what is well above 3 kHz.
    """
    # 1 + (low_gain - 1) L(z) + (high_gain - 1) (1 - H(z)), L and H one-pole low-passes.
    keep_low, keep_high = (
        1 - math.exp(-2 * math.pi * cutoff / SAMPLE_RATE) for cutoff in (160.0, 3000.0)
    )
    low, high = np.array([1, keep_low - 1]), np.array([1, keep_high - 1])
    numerator = (
        high_gain * np.convolve(low, high)
        + (low_gain - 1) * keep_low * np.append(high, 0)
        - (high_gain - 1) * keep_high * np.append(low, 0)
    )
    filtered = scipy.signal.lfilter(
        numerator.astype(np.float32),
        np.convolve(low, high).astype(np.float32),
        samples,
    )
    return np.asarray(filtered, dtype=np.float32)

"""From the plan of a track to its stereo samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from pipeline.demo import synth
from pipeline.demo.arrange import Plan, Voice
from pipeline.demo.drums import Drum
from pipeline.demo.figures import Note
from pipeline.demo.grooves import read_pattern
from pipeline.demo.synth import Samples

# Level of every part before its own `level`; the mix is brought to its loudness last.
_PART_RMS = 0.1
_DRUM_LEVELS = {"low": 1.0, "mid": 0.8, "high": 0.28, "ring": 0.35, "extra": 0.4}
_DRUM_PANS = {"low": 0.0, "mid": 0.05, "high": 0.35, "ring": -0.3, "extra": -0.45}
# Low-pass and coarse quantisation make an MP3 overshoot, by half and more.
_CEILING = 0.45


def _gain(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _pan_gains(pan: float) -> tuple[float, float]:
    angle = (pan + 1) * math.pi / 4
    return math.cos(angle) * math.sqrt(2), math.sin(angle) * math.sqrt(2)


def _add(target: Samples, sound: Samples, start: int, gain: float) -> None:
    """Adds a sound that may begin before the clip or end after it."""
    skip = max(0, -start)
    start = max(0, start)
    stop = min(len(target), start + len(sound) - skip)
    if stop > start:
        target[start:stop] += sound[skip : skip + stop - start] * np.float32(gain)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clock:
    """Where the plan's bars and steps lie in the clip, in samples."""

    plan: Plan
    count: int

    def bars(self) -> Iterator[int]:
        # Two bars before the clip: their notes may still be ringing.
        first = max(0, int(self.plan.start_bar) - 2)
        seconds = self.count / synth.SAMPLE_RATE
        last = int(self.plan.start_bar + seconds / self.plan.song.bar_seconds) + 1
        return iter(range(first, last + 1))

    def sample(self, bar: int, step: float, delay: float) -> int:
        song = self.plan.song
        swung = step + (song.swing if step % 2 == 1 else 0.0)
        bars = bar - self.plan.start_bar + swung / song.steps
        return round((bars * song.bar_seconds + delay) * synth.SAMPLE_RATE)


def _note_frequency(plan: Plan, voice: Voice, note: Note) -> float:
    pitch = plan.song.pitch(note.degree) + 12 * voice.part.octave
    return float(np.clip(440.0 * 2 ** ((pitch - 69) / 12), 27.5, 3000.0))


def _render_voice(clock: _Clock, voice: Voice, seed: list[int]) -> Samples:
    """Plays a part; shape (1, n), or (2, n) if it is wide."""
    plan, part = clock.plan, voice.part
    channels = 2 if part.wide else 1
    buffer = np.zeros((channels, clock.count), dtype=np.float32)
    # Notes come back all the time; each is rendered once a channel and take.
    notes: dict[tuple[int, float, int, int], Samples] = {}
    rng = np.random.default_rng([*seed, 0])
    for bar in clock.bars():
        if not voice.plays(bar):
            continue
        motif = np.random.default_rng([*seed, 1, bar % part.motif])
        for note in part.figure(plan.song, bar, motif):
            length = max(round(note.length * 2) / 2, 0.5)
            take = int(rng.integers(part.takes))
            delay = note.delay + float(rng.normal(0, plan.loose))
            start = clock.sample(bar, note.step, delay)
            if start >= clock.count:
                continue
            for channel in range(channels):
                key = (note.degree, length, take, channel)
                if key not in notes:
                    notes[key] = part.play(
                        _note_frequency(plan, voice, note),
                        length * plan.song.step_seconds,
                        plan.mix.brightness,
                        rng,
                    )
                _add(
                    buffer[channel],
                    notes[key],
                    start + channel * 90,
                    note.velocity,
                )
    return buffer


def _render_drums(clock: _Clock, seed: list[int]) -> Samples:
    """Plays the groove; shape (2, n)."""
    plan = clock.plan
    buffer = np.zeros((2, clock.count), dtype=np.float32)
    if plan.groove is None or plan.kit is None:
        return buffer
    rng = np.random.default_rng([*seed, 0])
    for line, level in _DRUM_LEVELS.items():
        pattern: str = getattr(plan.groove, line)
        drum: Drum = getattr(plan.kit, line)
        if not pattern:
            continue
        hits = [drum(plan.mix.brightness, rng) for _ in range(3)]
        pans = _pan_gains(_DRUM_PANS[line])
        bars_in_pattern = len(pattern) // plan.song.steps
        steps = list(read_pattern(pattern))
        for bar in clock.bars():
            if not plan.drums_play(bar):
                continue
            first = bar % bars_in_pattern * plan.song.steps
            for step, velocity in steps:
                if not first <= step < first + plan.song.steps:
                    continue
                start = clock.sample(
                    bar, step - first, float(rng.normal(0, plan.loose * 0.7))
                )
                loud = velocity * level * rng.uniform(0.85, 1.0)
                hit = hits[int(rng.integers(3))]
                for channel, gain in zip(buffer, pans, strict=True):
                    _add(channel, hit, start, loud * gain)
    return buffer


def _level(buffer: Samples, level: float) -> float:
    """Returns the gain that brings the sounding half of a part to its level."""
    # RMS over the loudest blocks, so that rests do not count as quiet playing.
    blocks = buffer[:, : buffer.shape[1] // 4410 * 4410].reshape(len(buffer), -1, 4410)
    powers = np.sort(np.mean(np.square(blocks), axis=(0, 2)))
    rms = float(np.sqrt(powers[len(powers) // 2 :].mean())) if len(powers) else 0.0
    return _gain(level) * _PART_RMS / max(rms, 0.01)


def _interpolate(clock: _Clock, knots: synth.Curve, values: synth.Curve) -> Samples:
    """Returns a slow curve, one value a sample, from values at times in seconds."""
    times = np.arange(clock.count, dtype=np.float32) / synth.SAMPLE_RATE
    return np.interp(times, knots, values).astype(np.float32)


def _pump(clock: _Clock) -> Samples:
    """Returns a gain that dips on every beat."""
    song = clock.plan.song
    beat = song.bar_seconds / song.beats
    first = -(clock.plan.start_bar * song.beats % 1.0) * beat
    beats = first + beat * np.arange(clock.count / synth.SAMPLE_RATE / beat + 2)
    knots = np.stack([beats, beats + 0.45 * beat, beats + 0.99 * beat], axis=1)
    return _interpolate(clock, knots.ravel(), np.tile([0.35, 1, 1], len(beats)))


def _swell(clock: _Clock, decibels: float, rng: np.random.Generator) -> Samples:
    """Returns a gain that slowly rises and falls by `decibels`."""
    times = np.arange(0, clock.count / synth.SAMPLE_RATE + 0.1, 0.05)
    wave = np.sin(times * rng.uniform(0.2, 0.7) + rng.uniform(0, 2 * math.pi))
    return _interpolate(clock, times, 10 ** ((wave - 1) * decibels / 40))


def _add_noise_floor(mix: Samples, plan: Plan, rng: np.random.Generator) -> None:
    count = mix.shape[1]
    # Three seconds of hiss, repeated: nobody hears the loop, and it is cheap.
    loop = min(count, 3 * synth.SAMPLE_RATE)
    hiss = rng.standard_normal((2, loop), dtype=np.float32) * np.float32(
        _gain(plan.mix.hiss)
    )
    for start in range(0, count, loop):
        stop = min(count, start + loop)
        mix[:, start:stop] += hiss[:, : stop - start]
    clicks = rng.poisson(plan.mix.crackle * count / synth.SAMPLE_RATE)
    for position in rng.integers(0, count, clicks):
        length = int(rng.integers(4, 40))
        click = synth.white_noise(length, rng) * synth.decay(length, 0.001)
        for channel in mix:
            _add(channel, click, int(position), rng.uniform(0.1, 0.6))


def _finish(mix: Samples, clock: _Clock, rng: np.random.Generator) -> Samples:
    """Equalises, narrows, sets the loudness and keeps the peaks under the ceiling."""
    sound = clock.plan.mix
    mix = synth.shelve(mix, _gain(sound.bass_shelf), _gain(sound.treble))
    mix *= _swell(clock, sound.swells, rng)
    loudness = _gain(sound.loudness)
    level = loudness / max(synth.measure_rms(mix), 1e-4) * (1 + sound.drive) / _CEILING
    # Each ear hears its own channel and, in a narrow mix, some of the other.
    own, other = level * (1 + sound.width) / 2, level * (1 - sound.width) / 2
    mix = mix * np.float32(own) + mix[::-1] * np.float32(other)
    np.tanh(mix, out=mix)
    # Saturation makes quiet passages louder: back to the loudness, never above it.
    mix *= min(loudness / max(synth.measure_rms(mix), 1e-4), _CEILING)
    _add_noise_floor(mix, clock.plan, rng)
    return np.clip(mix, -_CEILING - 0.04, _CEILING + 0.04, out=mix)


def render_track(plan: Plan, count: int, seed: list[int]) -> Samples:
    """Renders a plan.

    Args:
      plan: The track.
      count: Samples a channel.
      seed: Entropy of everything that is random in the rendering.

    Returns:
      Stereo samples, shape (2, count), peak at most 0.49.
    """
    clock = _Clock(plan=plan, count=count)
    mix = np.zeros((2, count), dtype=np.float32)
    send = np.zeros(count, dtype=np.float32)
    for number, voice in enumerate(plan.voices):
        buffer = _render_voice(clock, voice, [*seed, 2 + number])
        level = _level(buffer, voice.part.level)
        gains = (1.0, 1.0) if voice.part.wide else _pan_gains(voice.pan)
        for channel, gain in enumerate(gains):
            mix[channel] += buffer[channel % len(buffer)] * np.float32(level * gain)
        for take in buffer:
            send += take * np.float32(level * voice.part.send / len(buffer))
    if plan.mix.pump and plan.groove is not None:
        mix *= _pump(clock)
    drums = _render_drums(clock, [*seed, 1])
    if plan.groove is not None:
        drums *= np.float32(_level(drums, plan.drum_level))
        mix += drums
        send += drums[0] * np.float32(0.35)
    room = synth.reverberate(send, plan.mix.room, 3000 + 5000 * plan.mix.brightness)
    mix += room * np.float32(plan.mix.wetness * 0.5)
    return _finish(mix, clock, np.random.default_rng([*seed, 0]))

"""The demo corpus's sounds, and whether its genres are worth telling apart."""

import dataclasses

import librosa
import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.demo import music
from pipeline.demo.corpus import make_corpus
from pipeline.demo.encode import render_clip
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import DemoConfig, Kind, plan_layout
from pipeline.demo.music import Song, draw_song, render
from pipeline.demo.sound import (
    SAMPLE_RATE,
    Drum,
    Timbre,
    add,
    decibels_to_gain,
    filtered_noise,
    hit,
    tone,
)

PLAIN = Timbre(tilt=1.0, detune=0.0, decay=1000.0)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def measure_spectrum(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and amplitudes."""
    amplitudes = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 19))
    return np.fft.rfftfreq(1 << 19, 1 / SAMPLE_RATE), amplitudes


def measure_partials(samples: np.ndarray, frequency: float, count: int) -> np.ndarray:
    """Amplitudes of the harmonics, the first as 1."""
    frequencies, amplitudes = measure_spectrum(samples)
    partials = [
        amplitudes[np.abs(frequencies - number * frequency) < 5].max()
        for number in range(1, count + 1)
    ]
    return np.array(partials) / partials[0]


def measure_centroid(samples: np.ndarray) -> float:
    frequencies, amplitudes = measure_spectrum(samples)
    return float(np.average(frequencies, weights=amplitudes))


@pytest.mark.parametrize("frequency", [55.0, 220.0, 439.3, 1760.0])
def test_a_tone_is_in_tune(frequency):
    sound = tone(PLAIN, [frequency], 1.0, 20_000, generator(1))
    frequencies, amplitudes = measure_spectrum(sound)
    assert frequencies[np.argmax(amplitudes)] == pytest.approx(frequency, abs=0.3)


def test_partials_fall_as_the_timbre_says():
    saw = tone(PLAIN, [200.0], 1.0, 1e9, generator(1))
    assert measure_partials(saw, 200, 6) == pytest.approx(1 / np.arange(1, 7), abs=0.01)
    square = tone(dataclasses.replace(PLAIN, even=0.0), [200], 1.0, 1e9, generator(1))
    assert measure_partials(square, 200, 6)[1::2].max() < 0.01
    # At its cutoff, a low-pass of 12 dB an octave takes off half.
    dull = tone(PLAIN, [200.0], 1.0, 400.0, generator(1))
    assert measure_partials(dull, 200, 2)[1] == pytest.approx(0.25 / 0.8, abs=0.01)


def test_no_partial_lies_above_the_limit():
    sound = tone(PLAIN, [2500.0], 1.0, 1e9, generator(1))
    frequencies, amplitudes = measure_spectrum(sound)
    assert amplitudes[frequencies > 16_500].max() < 0.01 * amplitudes.max()


def test_a_tone_decays_as_asked():
    sound = tone(dataclasses.replace(PLAIN, decay=2.0), [220], 2, 4_000, generator(1))
    early, late = (np.std(sound[at : at + 8820]) for at in (8820, 8820 + SAMPLE_RATE))
    # 60 dB in two seconds are 30 dB in one.
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=0.5)


def test_modulation_adds_partials_that_are_not_harmonics():
    bell = dataclasses.replace(PLAIN, tilt=9.0, index=2.0, ratio=1.41)
    frequencies, amplitudes = measure_spectrum(tone(bell, [500], 1, 1e9, generator(1)))
    side = np.abs(frequencies - 500 * 2.41) < 5
    assert amplitudes[side].max() > 0.1 * amplitudes.max()


def test_tones_begin_and_end_without_a_click():
    for genre in GENRES.values():
        for timbre in (genre.bass[0], *genre.chords[0], *genre.leads[0]):
            sound = tone(timbre, [110.0, 165.0], 0.3, 3_000, generator(1))
            assert sound.dtype == np.float32
            assert abs(sound[0]) < 0.05
            assert abs(sound[-1]) < 0.01
            assert 0.02 < np.abs(sound).max() < 6


def test_noise_lies_in_its_band():
    noise = filtered_noise(SAMPLE_RATE, (2_000, 4_000), generator(1))
    frequencies, amplitudes = measure_spectrum(noise)
    power = np.square(amplitudes)
    inside = (frequencies > 1_500) & (frequencies < 5_300)
    assert power[inside].sum() > 0.9 * power.sum()
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_a_bass_drum_falls_to_its_pitch():
    drum = Drum(frequency=60, sweep=2.0, noise=0.0, decay=1.0)
    frequencies, amplitudes = measure_spectrum(hit(drum, generator(1))[8820:])
    assert frequencies[np.argmax(amplitudes)] == pytest.approx(60, abs=3)
    quiet = hit(dataclasses.replace(drum, level=-20.0), generator(1))
    assert quiet.max() == pytest.approx(hit(drum, generator(1)).max() / 10, rel=1e-5)


@pytest.mark.parametrize(
    ("start", "expected"),
    [(1, [0, 1, 2, 3]), (-1, [2, 3, 0, 0]), (3, [0, 0, 0, 1]), (9, [0] * 4)],
)
def test_sounds_may_cross_the_ends(start, expected):
    mix = np.zeros(4, dtype=np.float32)
    add(mix, np.array([1, 2, 3], dtype=np.float32), start, 1.0)
    assert mix.tolist() == expected
    add(mix, np.zeros(3, dtype=np.float32), -5, 1.0)
    assert mix.tolist() == expected


def draw(genre: str, artist: int, track: int) -> Song:
    return draw_song(genre, generator(artist), generator(track))


@pytest.fixture
def _pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody borrows."""
    monkeypatch.setattr(music, "ARTIST_BORROWING", 0.0)
    monkeypatch.setattr(music, "TRACK_BORROWING", 0.0)


def test_every_grid_is_a_bar():
    for style in GENRES.values():
        for _, grid in (style.bass, style.chords, *style.drums):
            assert len(grid) == 16
            assert set(grid) <= set("Xx.")
            assert "X" in grid.upper()


@pytest.mark.usefixtures("_pure")
def test_songs_lie_in_their_genre():
    for genre, style in GENRES.items():
        for seed in range(10):
            song = draw(genre, seed, seed)
            tempo = 60 / song.step / 4
            assert style.tempo[0] <= tempo <= style.tempo[1]
            assert style.cutoff[0] <= song.cutoff <= style.cutoff[1]
            assert style.noise[0] <= song.noise <= style.noise[1]
            assert song.scale in style.scales
            assert song.lead in style.leads[0]
            assert song.drums == style.drums


def test_some_traits_are_borrowed():
    songs = [draw("Folk", seed, seed) for seed in range(200)]
    pure = np.mean([song.drums == GENRES["Folk"].drums for song in songs])
    assert 0.75 < pure < 0.97


def test_artists_keep_their_sound():
    def spread(songs: list[Song]) -> float:
        return float(np.std([np.log(song.cutoff) for song in songs]))

    one = [draw("Rock", 1, track) for track in range(100, 120)]
    many = [draw("Rock", artist, 100) for artist in range(20)]
    assert len({song.step for song in one}) > 15
    assert spread(one) < 0.7 * spread(many)


def test_pitches_follow_the_scale():
    song = dataclasses.replace(draw("Folk", 1, 1), tonic=57, scale=(0, 2, 4, 7, 9))
    assert song.frequency(0) == pytest.approx(220)
    assert song.frequency(5) == pytest.approx(440)
    assert song.frequency(-1) == pytest.approx(110 * 2 ** (9 / 12))


@pytest.mark.parametrize("tempo", [96.0, 118.0, 140.0])
def test_drums_beat_in_tempo(tempo):
    song = dataclasses.replace(
        draw("Electronic", 0, 0),
        step=60 / tempo / 4,
        drums=GENRES["Electronic"].drums,
        levels=(-90.0, -90.0, -90.0, 0.0),
        noise=-90.0,
        room=0.0,
    )
    samples = render(song, 20 * SAMPLE_RATE, generator(4)).mean(axis=0)
    low = np.abs(samples[: len(samples) // 441 * 441]).reshape(-1, 441).max(axis=1)
    low -= low.mean()
    correlation = np.correlate(low, low, "full")[len(low) :]
    beat = (25 + np.argmax(correlation[25:80]) + 1) / 100
    assert 60 / beat == pytest.approx(tempo, rel=0.02)


def test_noise_is_as_loud_as_drawn():
    song = dataclasses.replace(draw("Folk", 1, 1), loudness=-30.0, noise=60.0)
    samples = render(song, SAMPLE_RATE * 3, generator(1))
    assert samples.std() == pytest.approx(decibels_to_gain(-30), rel=0.05)
    _, amplitudes = measure_spectrum(samples[0])
    # Hardly anything but hiss: no frequency stands out.
    assert amplitudes.max() < 12 * np.sqrt(np.mean(np.square(amplitudes)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Five clips a genre, each by another artist; mono."""
    config = DemoConfig(
        output=tmp_path_factory.mktemp("unused"),
        artists_per_genre=(5, 0, 0),
        tracks_per_artist=(1, 1, 1),
        broken=False,
    )
    rendered: dict[str, list[np.ndarray]] = {}
    for track in plan_layout(config):
        samples = render_clip(track, 0, 6.0)
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 0.45001
        rendered.setdefault(track.artist.genre, []).append(samples.mean(axis=0))
    return rendered


def test_genres_differ_in_brightness(clips):
    brightness = {
        genre: np.median([measure_centroid(samples) for samples in renderings])
        for genre, renderings in clips.items()
    }
    assert brightness["Rock"] > 1.3 * brightness["Instrumental"]


def test_genres_differ_in_noise(clips):
    def measure_flatness(samples: np.ndarray) -> float:
        frequencies, amplitudes = measure_spectrum(samples)
        band = amplitudes[(frequencies > 1_000) & (frequencies < 8_000)]
        return float(np.exp(np.mean(np.log(band))) / np.mean(band))

    flatness = {
        genre: np.median([measure_flatness(samples) for samples in renderings])
        for genre, renderings in clips.items()
    }
    assert flatness["Experimental"] > 1.2 * flatness["Pop"]
    assert flatness["Experimental"] > 1.2 * flatness["Electronic"]


def test_genres_differ_in_loudness(clips):
    loudness = {
        genre: np.median([samples.std() for samples in renderings])
        for genre, renderings in clips.items()
    }
    assert loudness["Rock"] > 1.5 * loudness["Instrumental"]
    assert loudness["Pop"] > 1.2 * loudness["Folk"]


@pytest.mark.slow
def test_genres_are_neither_trivial_nor_hopeless(tmp_path):
    """Simple models on clip statistics, tested on artists they have not heard."""
    config = DemoConfig(output=tmp_path, clip_seconds=10.0, workers=2)
    make_corpus(config)
    vectors, genres, training = [], [], []
    for track in plan_layout(config):
        if track.kind is not Kind.GOOD:
            continue
        path = tmp_path / "fma_demo" / track.path
        samples, rate = soundfile.read(path, dtype="float32")
        mfcc = librosa.feature.mfcc(y=samples.mean(axis=1), sr=rate)
        vectors.append(np.concatenate([mfcc.mean(axis=1), mfcc.std(axis=1)]))
        genres.append(track.artist.genre)
        training.append(track.artist.split == "training")
    seen = np.array(training)
    features, labels = np.array(vectors), np.array(genres)
    for model in (GaussianNB(), LogisticRegression(C=0.1, max_iter=500)):
        fitted = make_pipeline(StandardScaler(), model).fit(
            features[seen], labels[seen]
        )
        accuracy = fitted.score(features[~seen], labels[~seen])
        assert 0.35 < accuracy < 0.9

"""The demo corpus's synthesiser, and whether its genres are worth telling apart."""

import dataclasses

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.demo import synth
from pipeline.demo.arrange import make_artist, plan_track
from pipeline.demo.corpus import make_corpus
from pipeline.demo.encode import render_clip
from pipeline.demo.figures import Song, arpeggio, drone, melody, pulse, strum
from pipeline.demo.genres import GENRES, NEIGHBOURS
from pipeline.demo.grooves import Groove, read_pattern
from pipeline.demo.harmony import HIJAZ, MAJOR
from pipeline.demo.layout import DemoConfig, Kind, plan_layout
from pipeline.demo.render import render_track
from pipeline.demo.synth import SAMPLE_RATE

SONG = Song(
    tempo=120,
    beats=4,
    steps=16,
    swing=0.0,
    tonic=60,
    scale=MAJOR,
    progression=(0, 3),
)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def measure_pitch(samples: np.ndarray, expected: float) -> float:
    """Strongest frequency within a semitone of the expected one."""
    size = 1 << 20
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    near = np.abs(np.log2(frequencies[1:] / expected)) < 1 / 12
    return float(frequencies[1:][near][np.argmax(spectrum[1:][near])])


@pytest.mark.parametrize("frequency", [82.4, 220.0, 439.3, 987.8, 1760.0])
def test_plucked_string_is_in_tune(frequency):
    sound = synth.pluck_string(
        frequency, 1.5, generator(1), brightness=0.6, sustain=3.0
    )
    cents = 1200 * np.log2(measure_pitch(sound, frequency) / frequency)
    assert abs(cents) < 4


def test_plucked_string_decays_as_asked():
    sound = synth.pluck_string(220.0, 2.0, generator(1), brightness=0.9, sustain=2.0)
    low = synth.low_pass(sound, 300)
    early, late = (np.std(low[at : at + 8820]) for at in (8820, 8820 + 44_100))
    # 60 dB in two seconds are 30 dB in one.
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=4)


def test_brightness_makes_strings_brighter():
    dull, bright = (
        synth.pluck_string(220.0, 1.0, generator(1), brightness=b, sustain=2.0)
        for b in (0.1, 0.9)
    )
    assert measure_centroid(bright) > 1.4 * measure_centroid(dull)


def measure_centroid(samples: np.ndarray) -> float:
    return float(librosa.feature.spectral_centroid(y=samples, sr=SAMPLE_RATE).mean())


@pytest.mark.parametrize("frequency", [55.0, 440.0, 2500.0])
def test_saw_has_no_partial_above_the_limit(frequency):
    table = synth.saw_table(frequency, 20_000)
    amplitudes = np.abs(np.fft.rfft(table))
    allowed = len(synth.partial_frequencies(frequency))
    assert allowed * frequency <= 17_000
    assert amplitudes[allowed + 1 :].max() < 1e-4 * amplitudes.max()
    assert np.sqrt(np.mean(table**2)) == pytest.approx(0.2, rel=1e-4)


def test_oscillator_plays_the_pitch():
    table = synth.build_table([1.0, 0.5])
    assert measure_pitch(synth.oscillate(table, 333.0, 44_100), 333.0) == pytest.approx(
        333.0, abs=0.1
    )


def test_shelve_equals_its_definition():
    noise = synth.white_noise(20_000, generator(2))
    low = synth.low_pass(noise, 160)
    high = noise - synth.low_pass(noise, 3000)
    expected = noise + (2.0 - 1) * low + (0.5 - 1) * high
    assert np.allclose(synth.shelve(noise, 2.0, 0.5), expected, atol=1e-4)


def test_low_pass_equals_scipy():
    noise = synth.white_noise(5000, generator(3))
    keep = 1 - np.exp(-2 * np.pi * 1000 / SAMPLE_RATE)
    expected = scipy.signal.lfilter([keep], [1, keep - 1], noise.astype(np.float64))
    assert np.allclose(synth.low_pass(noise, 1000), expected, atol=1e-6)


def test_room_dies_away_in_its_time():
    click = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    click[0] = 1
    room = synth.reverberate(click, 1.0, 20_000)
    early = np.std(room[:, 4410:13_230])
    late = np.std(room[:, 4410 + 22_050 : 13_230 + 22_050])
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=5)
    assert np.corrcoef(room)[0, 1] < 0.9


def test_song_pitches():
    assert SONG.pitch(0) == 60
    assert SONG.pitch(7) == 72
    assert SONG.pitch(-1) == 59
    assert SONG.bar_seconds == 2.0


def test_figures_follow_the_chord():
    on_tonic = pulse(SONG, 0, generator(0), pattern="X.......x.......")
    assert [(note.step, note.length, note.degree) for note in on_tonic] == [
        (0, 8, 0),
        (8, 8, 0),
    ]
    assert {n.degree for n in pulse(SONG, 1, generator(0), pattern="X...")} == {3}
    rising = arpeggio(SONG, 0, generator(0), order=(0, 1, 2, 3), every=4)
    assert [note.degree for note in rising] == [0, 2, 4, 7]
    strummed = strum(SONG, 0, generator(0), pattern="X...............")
    assert [note.degree for note in strummed] == [0, 2, 4, 7, 9]
    assert strummed[1].delay > strummed[0].delay
    hijaz = dataclasses.replace(SONG, scale=HIJAZ)
    assert {hijaz.pitch(note.degree) for note in drone(hijaz, 0, generator(0))} == {
        60,
        67,
    }


def test_melody_repeats_its_motif_on_another_chord():
    first = melody(SONG, 0, generator(5), density=0.6)
    second = melody(SONG, 1, generator(5), density=0.6)
    assert [note.step for note in first] == [note.step for note in second]
    assert first[0].degree + 3 == second[0].degree


def test_patterns():
    assert list(read_pattern("X..o")) == [(0, 1.0), (3, 0.4)]


def test_every_part_and_groove_fits_its_style():
    for styles in GENRES.values():
        for style in styles:
            for groove in style.grooves:
                for line in dataclasses.fields(Groove):
                    assert len(getattr(groove, line.name)) % style.steps == 0
            for part in style.bass + style.harmony + style.lead + style.texture:
                pattern = getattr(part.figure, "keywords", {}).get("pattern")
                assert pattern is None or len(pattern) == style.steps
            assert style.harmony


def test_neighbours_are_other_genres():
    assert set(NEIGHBOURS) == set(GENRES)
    for genre, neighbours in NEIGHBOURS.items():
        assert set(neighbours) <= set(GENRES) - {genre}


def test_four_on_the_floor_beats_in_tempo():
    artist = make_artist("Electronic", 0, generator(0))
    plan = plan_track(artist, 0.0, generator(3))
    always = (True,)
    plan = dataclasses.replace(plan, voices=(), drum_sections=always)
    samples = render_track(plan, 10 * SAMPLE_RATE, [1]).mean(axis=0)
    low = np.abs(synth.low_pass(samples, 100))
    envelope = low[: len(low) // 441 * 441].reshape(-1, 441).mean(axis=1)
    envelope -= envelope.mean()
    correlation = np.correlate(envelope, envelope, "full")[len(envelope) :]
    beat = (20 + np.argmax(correlation[20:80]) + 1) / 100
    assert 60 / beat == pytest.approx(plan.song.tempo, rel=0.03)


def test_borrowing_brings_parts_from_elsewhere():
    artist = make_artist("Folk", 0, generator(0))
    own = artist.style.harmony + artist.style.lead + artist.style.texture
    own += artist.style.bass

    def is_pure(borrowing: float, seed: int) -> bool:
        plan = plan_track(artist, borrowing, generator(seed))
        return all(voice.part in own for voice in plan.voices)

    assert all(is_pure(0.0, seed) for seed in range(30))
    assert not all(is_pure(0.5, seed) for seed in range(30))


def test_artists_keep_their_sound():
    first, second = (make_artist("Rock", 0, generator(seed)) for seed in (1, 2))
    plans = [plan_track(first, 0.1, generator(seed)) for seed in range(6)]
    tempos = [plan.song.tempo for plan in plans]
    assert max(tempos) / min(tempos) < 1.16
    assert len(set(tempos)) == 6
    assert first.mix != second.mix


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Four clips a genre, each by another artist; mono."""
    config = DemoConfig(
        output=tmp_path_factory.mktemp("unused"),
        artists_per_genre=(4, 0, 0),
        tracks_per_artist=(1, 1, 1),
        broken=False,
    )
    rendered: dict[str, list[np.ndarray]] = {}
    for track in plan_layout(config):
        samples = render_clip(track, 0, 6.0)
        assert samples.dtype == np.float32
        assert np.abs(samples).max() <= 0.49001
        rendered.setdefault(track.artist.genre, []).append(samples.mean(axis=0))
    return rendered


def test_genres_differ_in_brightness(clips):
    brightness = {
        genre: np.mean([measure_centroid(samples) for samples in own])
        for genre, own in clips.items()
    }
    assert brightness["Rock"] > 1.3 * brightness["Instrumental"]
    assert brightness["Rock"] > 1.3 * brightness["Hip-Hop"]


def test_genres_differ_in_dynamics(clips):
    def crest(samples: np.ndarray) -> float:
        return float(np.abs(samples).max() / samples.std())

    crests = {genre: np.mean([crest(x) for x in own]) for genre, own in clips.items()}
    loudness = {genre: np.mean([x.std() for x in own]) for genre, own in clips.items()}
    assert loudness["Rock"] > 1.5 * loudness["Instrumental"]
    assert crests["Folk"] > crests["Rock"]


def test_genres_differ_in_tempo():
    def mean_tempo(genre: str) -> float:
        artists = (make_artist(genre, k, generator(k)) for k in range(12))
        return float(np.mean([artist.tempo for artist in artists]))

    assert mean_tempo("Electronic") > 1.5 * mean_tempo("Instrumental")
    assert mean_tempo("Rock") > 1.2 * mean_tempo("Folk")


@pytest.mark.slow
def test_genres_are_neither_trivial_nor_hopeless(tmp_path):
    """Simple models on clip statistics, tested on artists they have not heard."""
    config = DemoConfig(output=tmp_path, clip_seconds=10.0, workers=2)
    corpus = make_corpus(config)
    vectors, genres, training = [], [], []
    for track in plan_layout(config):
        if track.kind is not Kind.GOOD:
            continue
        samples, rate = soundfile.read(corpus.audio_dir / track.path, dtype="float32")
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

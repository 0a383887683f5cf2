import io

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.rejects import AudioError
from pipeline.decoding import ffmpeg
from pipeline.decoding.waveform import (
    Waveform,
    downmix,
    fit_length,
    load_waveform,
    resample,
)
from tests.support.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    find_marker,
    make_id3,
    make_markers,
    make_sine,
)

LENIENT = ClipConfig(min_duration=0.5)


def load(data: bytes, config: ClipConfig = LENIENT) -> Waveform:
    return load_waveform(io.BytesIO(data), config)


# Parts


@given(
    frames=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.just(2)),
        elements=st.floats(-4, 4, width=32),
    )
)
def test_downmix_of_stereo_is_numpys_mean_to_the_bit(frames):
    np.testing.assert_array_equal(downmix(frames), np.mean(frames, axis=1))


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_downmix_of_any_number_of_channels(channels):
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (1_000, channels)).astype(np.float32)
    mono = downmix(frames)
    assert mono.dtype == np.float32
    assert mono.flags.c_contiguous
    np.testing.assert_array_equal(mono, np.mean(frames, axis=1))


def test_downmix_leaves_its_input_alone():
    frames = np.ones((4, 2), np.float32)
    downmix(frames)[:] = 7
    np.testing.assert_array_equal(frames, 1)


def test_longer_waveforms_are_cropped():
    samples = np.arange(CLIP_SAMPLES + 1152, dtype=np.float32)
    np.testing.assert_array_equal(fit_length(samples), samples[:CLIP_SAMPLES])


def test_a_waveform_of_the_right_length_is_kept():
    samples = np.arange(CLIP_SAMPLES, dtype=np.float32)
    np.testing.assert_array_equal(fit_length(samples), samples)


@pytest.mark.parametrize("missing", [1, 1152, 4 * 1152])
def test_a_little_short_ones_are_padded(missing):
    samples = np.ones(CLIP_SAMPLES - missing, np.float32)
    fitted = fit_length(samples)
    assert fitted.shape == (CLIP_SAMPLES,)
    assert fitted.dtype == np.float32
    np.testing.assert_array_equal(fitted[:-missing], 1)
    np.testing.assert_array_equal(fitted[-missing:], 0)


@pytest.mark.parametrize("length", [1, 44_100, CLIP_SAMPLES - 4 * 1152 - 1])
def test_much_shorter_ones_are_repeated(length):
    samples = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit_length(samples)
    assert fitted.dtype == np.float32
    position = np.arange(CLIP_SAMPLES)
    np.testing.assert_array_equal(fitted, samples[position % length])


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000, 96_000])
def test_resampling_keeps_a_tone(rate):
    tone = resample(make_sine(1_000, 2.0, rate)[:, 0], rate)
    assert tone.dtype == np.float32
    assert abs(len(tone) - 2 * RATE) <= 1
    inner = slice(4_000, -4_000)
    np.testing.assert_allclose(
        tone[inner], make_sine(1_000, 2.0)[: len(tone), 0][inner], atol=1e-3
    )


def test_nothing_is_resampled_at_the_clips_own_rate():
    samples = make_sine(1_000, 0.1)[:, 0]
    assert resample(samples, RATE) is samples


# What decodes


def test_the_genuine_clip(genuine_path):
    waveform = load_waveform(io.BytesIO(genuine_path.read_bytes()), ClipConfig())
    expected, _ = soundfile.read(genuine_path, dtype="float32")
    assert waveform.decoder == "libsndfile"
    assert len(expected) == CLIP_SAMPLES
    np.testing.assert_array_equal(waveform.samples, expected.mean(axis=1))


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_formats(music, music_files, kind):
    waveform = load(music_files[kind])
    assert waveform.decoder == "libsndfile"
    assert waveform.samples.shape == (CLIP_SAMPLES,)
    assert waveform.samples.dtype == np.float32
    expected = music.mean(axis=1)[:CLIP_SAMPLES]
    error = np.sqrt(np.mean((waveform.samples - expected) ** 2) / np.mean(expected**2))
    assert error < {"wav": 1e-3, "flac": 1e-3, "ogg": 0.4, "mp3": 0.4}[kind]


def test_a_file_need_not_be_at_its_beginning(music_files):
    file = io.BytesIO(music_files["flac"])
    expected = load_waveform(file, ClipConfig()).samples
    file.seek(777)
    np.testing.assert_array_equal(load_waveform(file, ClipConfig()).samples, expected)


def test_tags_and_extensions_do_not_matter(music_mp3):
    expected = load(music_mp3).samples
    tagged = load(make_id3(200_000) + music_mp3).samples
    np.testing.assert_array_equal(tagged, expected)


@pytest.mark.parametrize(
    ("rate", "channels"), [(48_000, 2), (22_050, 1), (8_000, 1), (96_000, 1)]
)
def test_other_rates_and_channels(rate, channels):
    sine = np.repeat(make_sine(440, 7.0, rate), channels, axis=1)
    samples = load(encode(sine, rate, "FLAC")).samples
    decoded, _ = soundfile.read(
        io.BytesIO(encode(sine, rate, "FLAC")), dtype="float32", always_2d=True
    )
    resampled = soxr.resample(decoded[:, 0], rate, RATE, quality="HQ")
    np.testing.assert_array_equal(samples, np.resize(resampled, CLIP_SAMPLES))


def test_six_channels():
    rng = np.random.default_rng(0)
    frames = rng.uniform(-0.5, 0.5, (6 * RATE, 6)).astype(np.float32)
    samples = load(encode(frames, kind="WAV", subtype="FLOAT")).samples
    np.testing.assert_array_equal(samples[: len(frames)], frames.mean(axis=1))


def test_loud_music_peaks_above_full_scale():
    # As MP3s of it do; 16 bits would clip.
    loud = 3 * make_sine(440, 6.0)
    samples = load(encode(loud, kind="WAV", subtype="FLOAT")).samples
    np.testing.assert_array_equal(samples[: len(loud)], loud[:, 0])


@pytest.mark.parametrize("seconds", [29.9, 30.1, 30.9])
def test_up_to_31_seconds_a_file_starts_at_its_start(seconds):
    rng = np.random.default_rng(0)
    frames = rng.integers(-9_000, 9_000, (round(seconds * RATE), 1), np.int16)
    samples = load(encode(frames, kind="WAV")).samples
    expected = np.float32(frames[:CLIP_SAMPLES, 0] / 32768)
    np.testing.assert_array_equal(samples[: len(expected)], expected)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("excerpt", ["middle", "start"])
@pytest.mark.parametrize("rate", [RATE, 8_000])
def test_of_long_files_thirty_seconds_are_used_to_the_sample(kind, excerpt, rate):
    rng = np.random.default_rng(0)
    frames = rng.integers(-9_000, 9_000, (77 * rate + 3, 2), np.int16)
    samples = load(encode(frames, rate, kind), ClipConfig(excerpt=excerpt)).samples
    start = (len(frames) - 30 * rate) // 2 if excerpt == "middle" else 0
    part = np.float32(frames[start : start + 30 * rate] / 32768).mean(axis=1)
    expected = part if rate == RATE else soxr.resample(part, rate, RATE, quality="HQ")
    np.testing.assert_array_equal(samples, expected[:CLIP_SAMPLES])


@pytest.fixture(scope="module")
def long_mp3s() -> dict[str, bytes]:
    """Two minutes of marker tones; noise makes the second half of VBR larger."""
    markers = make_markers(120)
    uneven = markers.copy()
    noise = np.random.default_rng(0).standard_normal((60 * RATE, 1))
    uneven[60 * RATE :] = 0.6 * uneven[60 * RATE :] + 0.1 * noise
    bare = ("-write_xing", "0")
    return {
        "CBR": encode_with_ffmpeg(uneven, "-b:a", "64k"),
        "CBR without Xing": encode_with_ffmpeg(uneven, "-b:a", "64k", *bare),
        "VBR": encode_with_ffmpeg(uneven, "-q:a", "5"),
        "VBR without Xing": encode_with_ffmpeg(markers, "-q:a", "5", *bare),
        "VBR by LAME": make_id3(100_000) + encode(uneven),
    }


@pytest.mark.parametrize("excerpt", ["middle", "start"])
@pytest.mark.parametrize(
    "kind",
    ["CBR", "CBR without Xing", "VBR", "VBR without Xing", "VBR by LAME"],
)
def test_of_long_mp3s_thirty_seconds_are_used(long_mp3s, kind, excerpt):
    waveform = load(long_mp3s[kind], ClipConfig(excerpt=excerpt))
    assert waveform.decoder == "libsndfile"
    # FMA's clips are the middle 30 s: 45 to 75.
    start = {"middle": 45, "start": 0}[excerpt]
    tolerance = 2.5 if kind == "VBR without Xing" else 1.0
    for second in (0.2, 10, 20, 29):
        found = find_marker(waveform.samples[round(second * RATE) :])
        assert found == pytest.approx(start + second, abs=tolerance)


@pytest.mark.parametrize("options", [["-b:a", "64k"], ["-q:a", "5"]])
def test_without_a_xing_header_a_clip_decodes_to_its_full_length(options):
    bare = encode_with_ffmpeg(make_markers(30), *options, "-write_xing", "0")
    samples = load(bare).samples
    for second in range(30):
        found = find_marker(samples[round((second + 0.2) * RATE) :])
        assert found == pytest.approx(second, abs=0.1)


@pytest.mark.parametrize("extension", ["m4a", "webm"])
def test_what_libsndfile_does_not_know_ffmpeg_decodes(music, extension):
    data = encode_with_ffmpeg(music, extension=extension)
    waveform = load(data)
    assert waveform.decoder == "ffmpeg"
    expected = music.mean(axis=1)[:CLIP_SAMPLES]
    part = waveform.samples[10_000:50_000]
    lag = np.argmax(np.correlate(expected[9_000:59_000], part))
    assert abs(lag - 1_000) < 1_200  # AAC's encoder delay may remain
    correlation = np.corrcoef(expected[9_000 + lag : 49_000 + lag], part)
    assert correlation[0, 1] > 0.9


def test_of_what_ffmpeg_decodes_the_middle_is_used():
    aac = encode_with_ffmpeg(make_markers(90), extension="m4a")
    for excerpt, start in (("middle", 30), ("start", 0)):
        samples = load(aac, ClipConfig(excerpt=excerpt)).samples
        found = find_marker(samples[round(10.2 * RATE) :])
        assert found == pytest.approx(start + 10, abs=0.1)


def test_the_end_of_a_slightly_truncated_clip_is_not_missed(music_mp3):
    waveform = load(music_mp3[: int(0.98 * len(music_mp3))])
    intact = load(music_mp3).samples
    np.testing.assert_allclose(
        waveform.samples[:1_000_000], intact[:1_000_000], atol=2e-3
    )


def test_of_two_partial_decodings_the_longer_is_used(music_mp3, monkeypatch):
    def decode_less(file, place):
        return [ffmpeg.Decoding(np.ones((RATE, 1), np.int32), RATE, 0.0, (), RATE)]

    monkeypatch.setattr(ffmpeg, "decode_parts", decode_less)
    waveform = load(music_mp3[: int(0.98 * len(music_mp3))])
    assert waveform.decoder == "libsndfile"


@pytest.mark.parametrize("seconds", [7.0, 40.0])
def test_a_waveform_knows_the_length_of_its_file(seconds):
    waveform = load(encode(make_sine(440, seconds), kind="FLAC"))
    assert waveform.seconds == pytest.approx(seconds)


def test_what_reading_raises_is_not_taken_for_damage(music_files):
    class FailingFile(io.BytesIO):
        def readinto(self, buffer: object, /) -> int:
            if self.tell() > 1_000_000:
                raise OSError("the store is gone")
            return super().readinto(buffer)

    with pytest.raises(OSError, match="the store is gone"):
        load_waveform(FailingFile(music_files["wav"]), LENIENT)


def test_libsndfile_may_seek_before_the_beginning(music_files, capfd):
    with pytest.raises(AudioError):
        load(encode(make_sine(440, 6.0), kind="AIFF")[:30])
    assert "Traceback" not in capfd.readouterr().err

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import ffmpeg, mp3, mpeg
from pipeline.decoding.waveform import MAX_PEAK, Waveform, load_waveform
from tests.support.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    make_hole,
    make_id3,
    make_sine,
)


def load(data: bytes, config: ClipConfig) -> Waveform:
    return load_waveform(io.BytesIO(data), config)


def reject(data: bytes, config: ClipConfig | None = None) -> tuple[Reason, str]:
    with pytest.raises(AudioError) as caught:
        load(data, config or ClipConfig())
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return caught.value.reason, message


def flip_bytes(data: bytes, count: int, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    damaged = bytearray(data)
    for position in rng.integers(2_000, len(data), count):
        damaged[position] = rng.integers(256)
    return bytes(damaged)


def test_no_bytes():
    assert reject(b"") == (Reason.EMPTY, "has no bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"Not Found\n" * 50,
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\0",
        bytes(100_000),
        np.random.default_rng(0).bytes(100_000),
        make_id3(500),
        make_id3(10_000_000)[:5_000],
    ],
    ids=["text", "html", "byte", "zeros", "random", "tag", "lying tag"],
)
def test_no_audio(data):
    reason, message = reject(data)
    assert reason == Reason.UNDECODABLE
    assert message.startswith("no decoder takes it for audio: libsndfile says: ")
    assert "ffmpeg says: " in message
    assert "Invalid data" in message


def test_the_first_bytes_of_an_mp3(genuine_mp3):
    assert reject(genuine_mp3[:300])[0] == Reason.UNDECODABLE


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_truncated_mp3(genuine_mp3, share):
    reason, message = reject(genuine_mp3[: int(share * len(genuine_mp3))])
    assert reason == Reason.TRUNCATED
    seconds = float(message.split()[1])
    assert seconds == pytest.approx(share * 29.99, abs=0.1)
    assert message.endswith(" s of the announced 29.99 s")


def test_a_truncated_flac(music_files):
    data = music_files["flac"]
    reason, message = reject(data[: len(data) // 2])
    assert reason == Reason.TRUNCATED
    assert message.endswith(" s of the announced 30.00 s can be decoded")


def test_a_truncated_flac_without_ffmpeg(music_files, without_ffmpeg):
    data = music_files["flac"]
    assert reject(data[: len(data) // 2])[0] in (Reason.TRUNCATED, Reason.UNDECODABLE)


@pytest.fixture
def without_ffmpeg(monkeypatch) -> None:
    def fail(file, place):
        raise ffmpeg.FfmpegError("no such decoder")

    monkeypatch.setattr(ffmpeg, "decode_parts", fail)


@pytest.fixture(scope="module")
def bare_mp3(music) -> bytes:
    """Without Xing header and LAME tag, and so without a checksum."""
    return encode_with_ffmpeg(
        music, "-b:a", "128k", "-write_xing", "0", "-id3v2_version", "0"
    )


@pytest.mark.parametrize("count", [1, 3_000])
def test_flipped_bytes(genuine_mp3, count):
    for seed in range(3):
        damaged = flip_bytes(genuine_mp3, count, seed)
        assert damaged != genuine_mp3
        reason, message = reject(damaged)
        assert reason == Reason.CHECKSUM
        assert "the checksum in its LAME tag" in message


def halve_gain(data: bytes) -> bytes:
    """Makes a stereo MP3 6 dB quieter without decoding it, as mp3gain does.

    In MPEG-1's side information, the global gain of two granules and two channels
    lies 21 bits into blocks of 59 bits, after 20 bits; four steps are 6 dB.
    """
    stream = mp3.read_stream(io.BytesIO(data))
    edited = bytearray(data)
    position = stream.audio
    while (frame := mpeg.parse_frame(data, position)) is not None:
        bits = int.from_bytes(data[position + 4 : position + 36], "big")
        for block in range(4):
            shift = 256 - (20 + 59 * block + 21) - 8
            if (bits >> shift) & 0xFF >= 4:
                bits -= 4 << shift
        edited[position + 4 : position + 36] = bits.to_bytes(32, "big")
        position += frame.size
    return bytes(edited)


def test_an_mp3_that_was_edited_without_decoding(music_mp3):
    edited = halve_gain(music_mp3)
    reason, message = reject(edited)
    assert reason == Reason.CHECKSUM
    assert "--ignore_checksums" in message
    found = load(edited, ClipConfig(ignore_checksums=True)).samples
    expected = load(music_mp3, ClipConfig()).samples / 2
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_checksums_the_order_of_frames_is_still_checked(music_mp3):
    config = ClipConfig(ignore_checksums=True)
    assert reject(make_hole(music_mp3, 3_000), config)[0] == Reason.CORRUPT


def test_a_flac_with_another_md5(music_files):
    data = bytearray(music_files["flac"])
    data[30] ^= 1
    reason, message = reject(bytes(data))
    assert reason == Reason.CHECKSUM
    assert "--ignore_checksums" in message
    found = load(bytes(data), ClipConfig(ignore_checksums=True))
    expected = load(music_files["flac"], ClipConfig())
    np.testing.assert_array_equal(found.samples, expected.samples)


def test_a_small_hole_in_a_stream_without_checksum(bare_mp3):
    reason, message = reject(make_hole(bare_mp3, 3_000))
    assert (reason, message) == (
        Reason.CORRUPT,
        "the chain of its frames breaks once",
    )


def test_flipped_bytes_of_a_stream_without_checksum(bare_mp3):
    for seed in range(3):
        reason, message = reject(flip_bytes(bare_mp3, 3_000, seed))
        assert reason == Reason.CORRUPT
        assert message.startswith("the chain of its frames breaks ")


def test_a_large_hole(genuine_mp3):
    assert reject(make_hole(genuine_mp3, 200_000))[0] == Reason.CHECKSUM


def test_many_errors_of_ffmpeg(music):
    # AAC as such knows neither its length nor a checksum.
    aac = encode_with_ffmpeg(music, extension="aac")
    load(aac, ClipConfig())
    reason, message = reject(flip_bytes(aac, 20))
    assert reason == Reason.CORRUPT
    assert message.startswith("ffmpeg reports errors in it (")
    assert "; the first: " in message


@pytest.mark.parametrize("rate", [1, 3_999, 192_001, 400_000_000])
def test_sample_rates_that_no_music_has(rate):
    data = bytearray(encode(make_sine(440, 6.0), kind="WAV"))
    data[24:28] = rate.to_bytes(4, "little")
    reason, message = reject(bytes(data))
    assert reason == Reason.SAMPLE_RATE
    assert message.startswith(f"has {rate:,} samples a second")


@pytest.mark.parametrize("channels", [9, 200])
def test_more_channels_than_music_has(channels):
    frames = np.zeros((8_000, channels), np.float32)
    reason, message = reject(encode(frames, 8_000, "WAV"))
    assert reason == Reason.CHANNELS
    assert message.startswith(f"has {channels} channels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [slice(500, 501), slice(None)])
def test_values_that_are_not_finite(value, where):
    samples = make_sine(440, 6.0)
    samples[where] = value
    reason, message = reject(encode(samples, kind="WAV", subtype="FLOAT"))
    assert reason == Reason.NOT_FINITE
    assert message == "has samples that are no finite numbers"


def test_a_wav_with_another_full_scale():
    integers = 32768 * make_sine(440, 6.0)
    reason, message = reject(encode(integers, kind="WAV", subtype="FLOAT"))
    assert reason == Reason.TOO_LOUD
    assert message == "peaks at 1.64e+04 times full scale"


@pytest.mark.parametrize("kind", ["MP3", "WAV", "FLAC", "OGG"])
def test_a_second_and_a_half(kind):
    data = encode(make_sine(440, 1.6), kind=kind)
    reason, message = reject(data)
    assert reason == Reason.TOO_SHORT
    assert (
        message
        == "lasts 1.60 s; at least 5 s are needed (--min_duration of preprocess)"
    )
    assert load(data, ClipConfig(min_duration=1.5)).samples.any()


def test_no_frames():
    reason, message = reject(encode(np.zeros((0, 2), np.float32), kind="WAV"))
    assert reason == Reason.TOO_SHORT
    assert message.startswith("lasts 0.00 s")


@pytest.mark.parametrize("kind", ["MP3", "WAV"])
def test_silence(kind):
    reason, message = reject(encode(np.zeros((6 * RATE, 2), np.float32), kind=kind))
    assert (reason, message) == (
        Reason.SILENT,
        "is silent (its peak is 0.0e+00)",
    )


def test_the_limit_of_silence():
    tone = make_sine(440, 6.0)  # peaks at 0.5
    quiet = encode(1.9e-4 * tone, kind="WAV", subtype="FLOAT")
    assert reject(quiet) == (Reason.SILENT, "is silent (its peak is 9.5e-05)")
    assert load(
        encode(2.1e-4 * tone, kind="WAV", subtype="FLOAT"), ClipConfig()
    ).samples.any()


def test_channels_that_cancel_out():
    tone = make_sine(440, 6.0)
    opposed = encode(np.concatenate([tone, -tone], axis=1), kind="WAV", subtype="FLOAT")
    reason, message = reject(opposed)
    assert reason == Reason.CANCELS
    assert message.endswith("mixed down, 100% of it is at 0.0% of its level")


@pytest.mark.parametrize(("share", "good"), [(0.1, True), (0.5, False), (0.9, False)])
def test_channels_that_cancel_out_for_a_while(share, good):
    left = make_sine(440, 6.0)
    right = left.copy()
    right[: round(share * len(left))] *= -1
    data = encode(np.concatenate([left, right], axis=1), kind="WAV")
    if good:
        load(data, ClipConfig())
        return
    reason, message = reject(data)
    assert reason == Reason.CANCELS
    assert f"{share:.0%} of it is at 0.0%" in message


def test_what_is_quiet_does_not_count_as_lost():
    left = make_sine(440, 6.0)
    left[: 4 * RATE] *= 0.01
    right = left.copy()
    right[: 4 * RATE] *= -1
    load(encode(np.concatenate([left, right], axis=1), kind="WAV"), ClipConfig())


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_headers_are_rejected_or_decode(data, damageable, monkeypatch_ffmpeg):
    content = bytearray(damageable[data.draw(st.sampled_from(sorted(damageable)))])
    changes = st.tuples(st.integers(0, 120), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, min_size=1, max_size=8)):
        content[position] = value
    end = data.draw(st.sampled_from([None, 60, 200, len(content) // 2]))
    try:
        waveform = load(bytes(content[:end]), ClipConfig())
    except AudioError:
        return
    assert waveform.samples.shape == (CLIP_SAMPLES,)
    assert np.isfinite(waveform.samples).all()
    assert np.abs(waveform.samples).max() < 2 * MAX_PEAK


@pytest.fixture(scope="module")
def damageable() -> dict[str, bytes]:
    sound = make_sine(440, 6.0, 8_000)
    files = {
        kind: encode(sound, 8_000, kind) for kind in ("WAV", "FLAC", "AIFF", "MP3")
    }
    return files | {"float": encode(sound, 8_000, "WAV", subtype="FLOAT")}


@pytest.fixture(scope="module")
def monkeypatch_ffmpeg():
    """Starting ffmpeg for each example would take a minute."""

    def fail(file, place):
        raise ffmpeg.FfmpegError("not asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffmpeg, "decode_parts", fail)
        yield

"""What serving computes in the graph is what the pipeline computes for training."""

import io

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf

from pipeline.common.clip_config import ClipConfig
from pipeline.decoding.waveform import load_waveform
from pipeline.representations import compute_representations
from pipeline.representations.spectrum import Workspace
from tests.support.audio_files import RATE, encode, make_music, make_sine
from trainer.export import graph_audio

CONFIG = ClipConfig(windows_per_clip=3)


@pytest.fixture(scope="module")
def decode():
    return tf.function(
        graph_audio.decode_wav, input_signature=[tf.TensorSpec((), tf.string)]
    )


@pytest.fixture(scope="module")
def represent():
    """From a WAV's bytes to the clip, mel image and windows, all in one graph."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def compute(data):
        clip = graph_audio.make_clip(*graph_audio.decode_wav(data), CONFIG)
        return (
            clip,
            graph_audio.make_mel_image(clip, CONFIG),
            graph_audio.cut_windows(clip, CONFIG),
        )

    return compute


@pytest.fixture(scope="module")
def resample():
    return tf.function(
        graph_audio.resample,
        input_signature=[
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int32),
        ],
    )


@pytest.mark.parametrize("rate", graph_audio.RATES)
def test_resampling_is_soxrs(resample, rate):
    rng = np.random.default_rng(rate)
    for count in (rate, rate + 77):
        samples = 0.2 * rng.standard_normal(count, np.float32)
        expected = soxr.resample(samples, rate, RATE, quality="HQ")
        found = resample(samples, rate).numpy()
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, atol=3e-6)


SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_wav_samples_are_libsndfiles(decode, kind, subtype):
    music = make_music(1.0, 22_050)
    content = encode(music, 22_050, kind, subtype=subtype)
    expected, rate = soundfile.read(
        io.BytesIO(content), dtype="float32", always_2d=True
    )
    found, found_rate = decode(content)
    assert found_rate == rate
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_other_chunks_are_skipped_and_streams_read_to_their_end(decode):
    content = encode(make_sine(440, 0.5), kind="WAV", subtype="PCM_16")
    start = content.index(b"data")
    # An odd chunk is padded by a byte that its size does not count.
    odd = content[:start] + b"LIST\x03\x00\x00\x00abc\x00" + content[start:]
    expected = decode(content)[0]
    np.testing.assert_array_equal(decode(odd)[0], expected)
    endless = content[: start + 4] + b"\xff\xff\xff\xff" + content[start + 8 :]
    np.testing.assert_array_equal(decode(endless)[0], expected)
    np.testing.assert_array_equal(decode(endless + b"\x00")[0], expected)


#: What `files` makes.
NAMES = (
    "clip",
    "24 bit, 48 kHz",
    "22 kHz mono, 15 s, repeated",
    "32 kHz, a little short, padded",
    "8 kHz, long",
    "three channels, long",
    "quiet",
)


@pytest.fixture(scope="module")
def files():
    stereo = make_music(30.0)
    return {
        "clip": encode(stereo, kind="WAV"),
        "24 bit, 48 kHz": encode(
            make_music(30.0, 48_000, seed=1), 48_000, "WAV", subtype="PCM_24"
        ),
        "22 kHz mono, 15 s, repeated": encode(
            make_music(15.0, 22_050, seed=2)[:, :1], 22_050, "WAV"
        ),
        "32 kHz, a little short, padded": encode(
            make_music(29.93, 32_000, seed=3), 32_000, "WAV", subtype="FLOAT"
        ),
        "8 kHz, long": encode(
            make_music(47.3, 8_000, seed=4)[:, :1], 8_000, "WAV", subtype="PCM_U8"
        ),
        "three channels, long": encode(
            np.concatenate([make_music(31.5, seed=5)] * 2, axis=1)[:, :3], kind="WAV"
        ),
        "quiet": encode(0.001 * stereo, kind="WAV", subtype="FLOAT"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_makes_the_pipelines_records(represent, files, name):
    content = files[name]
    samples = load_waveform(io.BytesIO(content), CONFIG).samples
    arrays = compute_representations(samples, ["mel", "windows"], CONFIG, Workspace())
    clip, mel, windows = (array.numpy() for array in represent(content))
    np.testing.assert_allclose(clip, samples, atol=3e-6)
    np.testing.assert_allclose(windows, arrays["windows"], atol=3e-6)
    difference = np.abs(mel.astype(int) - arrays["mel"].astype(int))
    assert difference.max() <= 1
    # A level is off where a value lies next to the border of two.
    assert np.mean(difference > 0) < 0.002
    assert arrays["mel"].std() > 20


@pytest.mark.parametrize("channels", ["statistics", "repeat"])
def test_both_kinds_of_channels_are_the_pipelines(music_mp3, channels):
    config = ClipConfig(mel_channels=channels)
    samples = load_waveform(io.BytesIO(music_mp3), config).samples
    expected = compute_representations(samples, ["mel"], config, Workspace())["mel"]
    found = tf.function(graph_audio.make_mel_image)(samples, config).numpy()
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    if channels == "repeat":
        np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_what_cannot_be_used_is_an_error_that_says_so(represent, files):
    def refuse(message, content):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            represent(content)

    good = files["22 kHz mono, 15 s, repeated"]
    refuse("no WAV file", b"")
    refuse("no WAV file", encode(make_sine(440, 6.0)))
    refuse("no WAV file", b"RIFF1234WAVX" + bytes(100))
    refuse("has no audio", good[:20])
    refuse("truncated", good[:-10_000])
    refuse("shorter than 5 s", encode(make_sine(440, 4.9), kind="WAV"))
    refuse("silent", encode(np.zeros((300_000, 1), np.float32), kind="WAV"))
    loud = 9 * make_sine(440, 6.0)
    refuse("damaged", encode(loud, kind="WAV", subtype="FLOAT"))
    odd_rate = encode(make_sine(440, 6.0, 44_000), 44_000, "WAV")
    refuse("sampling rate must be one of 8000", odd_rate)
    refuse(
        "not of integer or float samples",
        encode(make_sine(440, 6.0), kind="WAV", subtype="ULAW"),
    )

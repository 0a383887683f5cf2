"""What serving computes in the graph is what the pipeline computes for training."""

import io

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import load_waveform
from pipeline.representations import compute_representations
from pipeline.representations.spectrum import Workspace
from tests.support.audio_files import RATE, encode, make_id3, make_music, make_sine
from trainer.export import graph_audio, graph_resampling, graph_wav

CONFIG = ClipConfig(windows_per_clip=3)


@pytest.fixture(scope="module")
def decode():
    return tf.function(
        graph_wav.decode_wav, input_signature=[tf.TensorSpec((), tf.string)]
    )


@pytest.fixture(scope="module")
def represent():
    """From a WAV's bytes to the clip, mel image and windows, all in one graph."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def compute(data):
        clip = graph_audio.make_clip(*graph_wav.decode_wav(data), CONFIG)
        return (
            clip.samples,
            graph_audio.make_mel_images(clip, CONFIG),
            graph_audio.cut_windows(clip, CONFIG),
        )

    return compute


@pytest.fixture(scope="module")
def resample():
    return tf.function(
        graph_resampling.resample,
        input_signature=[
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int32),
        ],
    )


@pytest.mark.parametrize("rate", graph_resampling.RATES)
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


def set_size(content: bytes, size: int, width: int = 4, behind: int = 4) -> bytes:
    """A WAV whose `data` chunk says another size."""
    at = content.index(b"data") + behind
    return content[:at] + size.to_bytes(width, "little") + content[at + width :]


def set_channels(content: bytes, channels: int) -> bytes:
    """A WAV whose header alone says another number."""
    at = content.index(b"fmt ") + 10
    return content[:at] + channels.to_bytes(2, "little") + content[at + 2 :]


@pytest.fixture(scope="module")
def streamed():
    """The same audio, written to pipes by programs that did not know its length."""
    music = make_music(6.0, 8_000)
    wav, w64, rf64 = (encode(music, 8_000, kind) for kind in ("WAV", "W64", "RF64"))
    sizes = (0, 2_000_000_000, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    sizes += (0x77359424, 0x7FFFFFFE, 0xFFFFFFDB)
    files = {f"{size:x}": set_size(wav, size) for size in sizes}
    for size in (0, 0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF):
        files[f"W64 {size:x}"] = set_size(w64, size, 8, 16)
        at = rf64.index(b"ds64") + 16
        unknown = rf64[:at] + size.to_bytes(8, "little") + rf64[at + 8 :]
        files[f"RF64 {size:x}"] = set_size(unknown, 0xFFFFFFFF)
    return files | {"whole": wav, "W64": w64, "RF64": rf64, "RF64 0": set_size(rf64, 0)}


def test_an_unknown_size_is_one_to_all_three(represent, streamed, tmp_path):
    """Preprocessing, prediction and the exported model share a rule."""
    config = CONFIG
    expected = load_waveform(io.BytesIO(streamed["whole"]), config)
    assert expected.seconds == 6.0
    with IsolatedDecoder() as decoder:
        for name, content in streamed.items():
            found = load_waveform(io.BytesIO(content), config)
            assert found.seconds == expected.seconds, name
            np.testing.assert_array_equal(found.samples, expected.samples, name)
            path = tmp_path / "a.wav"
            path.write_bytes(content)
            [predicted] = decoder.load_excerpts(str(path), config, 10)
            np.testing.assert_array_equal(predicted.samples, expected.samples, name)
            clip = represent(content)[0].numpy()
            np.testing.assert_allclose(clip, expected.samples, atol=3e-6, err_msg=name)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda wav: set_size(wav, 1_999_999_999), Reason.TRUNCATED, "truncated"),
        (lambda wav: wav[:-20_000], Reason.TRUNCATED, "truncated"),
        (lambda wav: set_size(wav, 100_000), Reason.UNANNOUNCED, "more audio than"),
        (lambda wav: wav + wav, Reason.UNANNOUNCED, "more audio than"),
        (lambda wav: set_channels(wav, 1), Reason.CHANNELS, "other channels than"),
        (lambda wav: set_channels(wav, 3), Reason.CHANNELS, "other channels than"),
        (lambda wav: wav + b"LIST\x10\x27\0\0" + bytes(10_000), None, ""),
        (lambda wav: wav + bytes(50_000), None, ""),
        (lambda wav: wav + make_id3(50_000), None, ""),
        (lambda wav: wav[:-1_000], None, ""),
    ],
)
def test_sizes_are_believed_by_one_rule(represent, streamed, change, reason, message):
    content = change(streamed["whole"])
    if reason is None:
        expected = load_waveform(io.BytesIO(content), CONFIG).samples
        clip = represent(content)[0].numpy()
        np.testing.assert_allclose(clip, expected, atol=3e-6)
        return
    with pytest.raises(AudioError) as caught:
        load_waveform(io.BytesIO(content), CONFIG)
    assert caught.value.reason == reason
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        represent(content)


@pytest.mark.parametrize(
    ("factor", "share"),
    [(-1.0, 1.0), (-0.97, 1.0), (-0.5, 1.0), (-1.0, 0.5), (-1.0, 0.1)],
)
def test_channels_cancel_by_one_rule(represent, factor, share):
    left = make_sine(440, 6.0)
    right = left.copy()
    right[: round(len(left) * share)] *= factor
    content = encode(np.concatenate([left, right], 1), kind="WAV")
    if factor == -0.5 or share == 0.1:
        represent(content)
        load_waveform(io.BytesIO(content), CONFIG)
        return
    with pytest.raises(AudioError) as caught:
        load_waveform(io.BytesIO(content), CONFIG)
    assert caught.value.reason == Reason.CANCELS
    with pytest.raises(tf.errors.InvalidArgumentError, match="cancel each other"):
        represent(content)


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
    waveform = load_waveform(io.BytesIO(content), CONFIG)
    samples, length = waveform.samples, waveform.length
    arrays = compute_representations(
        samples, ["mel", "windows"], CONFIG, Workspace(), length=length
    )
    clip, mel, windows = (array.numpy() for array in represent(content))
    np.testing.assert_allclose(clip, samples, atol=3e-6)
    np.testing.assert_allclose(windows, arrays["windows"], atol=3e-6)
    difference = np.abs(mel.astype(int) - arrays["mel"].astype(int))
    assert difference.max() <= 1
    # A level is off where a value lies next to the border of two.
    assert np.mean(difference > 0) < 0.002
    assert arrays["mel"].std() > 20


@pytest.mark.parametrize(
    ("images", "seconds"), [(1, 30), (1, 8), (3, 30), (3, 8), (2, 1.7)]
)
@pytest.mark.parametrize("channels", ["statistics", "repeat"])
def test_both_kinds_of_channels_are_the_pipelines(signal, channels, images, seconds):
    config = ClipConfig(mel_channels=channels, mel_images_per_clip=images)
    music = signal("music")
    length = min(round(seconds * RATE), len(music))
    samples = np.resize(music[:length], len(music))
    expected = compute_representations(
        samples, ["mel"], config, Workspace(), length=length
    )["mel"]
    clip = graph_audio.Clip(tf.constant(samples), tf.constant(length))
    found = tf.function(graph_audio.make_mel_images)(clip, config).numpy()
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
    refuse("truncated", good[:-100_000])
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

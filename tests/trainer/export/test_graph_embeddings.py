"""Embeddings in the graph are the pipeline's."""

import io

import numpy as np
import pytest
import soxr
import tensorflow as tf

from pipeline.common.clip_config import CLIP_SAMPLES, SAMPLE_RATE, ClipConfig
from pipeline.decoding.waveform import load_waveform
from pipeline.representations import compute_representations
from pipeline.representations.log_mel import RATE, log_mel_patches
from pipeline.representations.music_model import load_network
from pipeline.representations.spectrum import Workspace
from tests.support.audio_files import encode, make_music
from tests.support.music_models import publish_chance_weights
from trainer.export import graph_audio, graph_embeddings, graph_resampling, graph_wav


@pytest.fixture(scope="module")
def weights() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        yield publish_chance_weights(patch)


def test_resampling_to_the_music_models_rate_is_soxrs():
    convert = tf.function(
        lambda samples: graph_resampling.convert(samples, SAMPLE_RATE, RATE),
        input_signature=[tf.TensorSpec((None,), tf.float32)],
    )
    for count in (CLIP_SAMPLES, 44_100, 44_177, 5_000):
        samples = np.random.default_rng(count).normal(0, 0.2, count).astype(np.float32)
        expected = soxr.resample(samples, SAMPLE_RATE, RATE, quality="HQ")
        found = convert(samples).numpy()
        # With a constant, the length is known when the graph is made.
        known = graph_resampling.convert(tf.constant(samples), SAMPLE_RATE, RATE)
        for resampled in (found, known.numpy()):
            assert resampled.shape == expected.shape
            np.testing.assert_allclose(resampled, expected, atol=3e-6)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_patches_are_the_pipelines(count):
    patches = tf.function(
        lambda samples: graph_embeddings.make_patches(samples, count),
        input_signature=[tf.TensorSpec((None,), tf.float32)],
    )
    music = make_music(30.0)[:, 0]
    for seconds in (0.5, 1.7, 3.0, 7.3, 29.9):
        samples = music[: int(seconds * SAMPLE_RATE)]
        expected = log_mel_patches(samples, SAMPLE_RATE, count)
        np.testing.assert_allclose(patches(samples), expected, atol=1e-4)
        known = graph_embeddings.make_patches(tf.constant(samples), count)
        np.testing.assert_allclose(known, expected, atol=1e-4)


def test_wav_bytes_become_the_pipelines_embeddings(weights):
    embed = graph_embeddings.find_embeddings(weights, "weights")
    configs = [
        ClipConfig(music_model="MSD_vgg", embedding_records=records)
        for records in ("mean", "patches")
    ]

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def served(data):
        clip = graph_audio.make_clip(*graph_wav.decode_wav(data), configs[0])
        return [embed(clip, config) for config in configs]

    workspace = Workspace(load_network(weights, "weights"))
    for seconds, rate, subtype in ((30.0, 44_100, "PCM_16"), (12.0, 48_000, "FLOAT")):
        content = encode(make_music(seconds, rate), rate, "WAV", subtype=subtype)
        waveform = load_waveform(io.BytesIO(content), configs[0])
        for config, found in zip(configs, served(content), strict=True):
            [expected] = compute_representations(
                waveform.samples,
                ["embeddings"],
                config,
                workspace,
                length=waveform.length,
            ).values()
            assert found.shape == expected.shape
            assert np.abs(expected).max() > 0.1
            np.testing.assert_allclose(found, expected, atol=1e-4)

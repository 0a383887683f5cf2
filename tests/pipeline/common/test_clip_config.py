import json

import librosa
import numpy as np
import pytest

from pipeline.common import clip_config
from pipeline.common.clip_config import CLIP_SAMPLES, WINDOW_SAMPLES, ClipConfig
from pipeline.schema import UserError


def test_a_clip_has_as_many_frames_as_librosa_makes():
    frames = librosa.util.frame(
        np.zeros(CLIP_SAMPLES + clip_config.N_FFT, np.float32),
        frame_length=clip_config.N_FFT,
        hop_length=clip_config.HOP_LENGTH,
    )
    assert frames.shape[1] == clip_config.CLIP_FRAMES == 2582


def test_a_clip_is_what_an_fma_mp3_decodes_to():
    assert CLIP_SAMPLES == 1148 * 1152 - 529


@pytest.mark.parametrize(
    ("values", "flag", "received"),
    [
        ({"windows_per_clip": 0}, "--windows_per_clip", "0"),
        ({"windows_per_clip": -3}, "--windows_per_clip", "-3"),
        (
            {"windows_per_clip": CLIP_SAMPLES - WINDOW_SAMPLES + 2},
            "--windows_per_clip",
            "1311969",
        ),
        ({"mel_channels": "rgb"}, "--mel_channels", "'rgb'"),
        ({"min_duration": 0}, "--min_duration", "0"),
        ({"min_duration": -1.0}, "--min_duration", "-1"),
        ({"min_duration": 31.5}, "--min_duration", "31.5"),
        ({"min_duration": float("nan")}, "--min_duration", "nan"),
        ({"excerpt": "end"}, "--excerpt", "'end'"),
    ],
)
def test_impossible_values_are_refused(values, flag, received):
    with pytest.raises(UserError) as caught:
        ClipConfig(**values)
    assert str(caught.value).startswith(flag)
    assert str(caught.value).endswith(f"Received: {received}")


def test_the_limits_themselves_are_possible():
    ClipConfig(windows_per_clip=1, min_duration=31.0)
    ClipConfig(windows_per_clip=CLIP_SAMPLES - WINDOW_SAMPLES + 1)


def test_settings_survive_json():
    made = ClipConfig(
        windows_per_clip=3,
        mel_channels="repeat",
        min_duration=1.5,
        excerpt="start",
        ignore_checksums=True,
    )
    assert ClipConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings | {"hop_length": 1024},
        lambda settings: settings | {"loudness": "new"},
        lambda settings: {k: v for k, v in settings.items() if k != "n_fft"},
        lambda settings: {k: v for k, v in settings.items() if k != "excerpt"},
    ],
)
def test_settings_of_another_version_are_refused(change):
    with pytest.raises(UserError, match="another version of the pipeline"):
        ClipConfig.from_dict(change(ClipConfig().to_dict()))

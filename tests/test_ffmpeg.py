import io
import tempfile

import numpy as np
import pytest

from pipeline import ffmpeg
from tests.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    find_marker,
    make_markers,
)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files go to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("extension", ["m4a", "mp3", "flac"])
def test_decodes_by_content(temporary, extension):
    aac = encode_with_ffmpeg(make_markers(4), extension=extension)
    samples, rate = ffmpeg.decode(io.BytesIO(aac))
    assert rate == RATE
    assert samples.dtype == np.float32
    assert samples.shape[1] == 1
    assert abs(len(samples) - 4 * RATE) < 3_000
    assert 0.4 < np.abs(samples).max() < 0.8
    for second in range(4):
        start = round((second + 0.2) * RATE)
        assert find_marker(samples[start:, 0]) == pytest.approx(second, abs=0.1)
    assert list(temporary.iterdir()) == []


def test_channels_stay_in_order(music):
    swapped = music[: 6 * RATE] * np.float32([1, 0.25])
    samples, _ = ffmpeg.decode(io.BytesIO(encode(swapped, kind="FLAC")))
    np.testing.assert_allclose(samples, swapped, atol=1e-4)


def test_other_rates_are_kept():
    _, rate = ffmpeg.decode(io.BytesIO(encode(make_markers(2, 8_000), 8_000, "FLAC")))
    assert rate == 8_000


@pytest.mark.parametrize(
    "data", [b"", b"no audio\n" * 20, b"RIFF\x10\0\0\0WAVEfmt "], ids=str
)
def test_no_audio_is_an_error_with_ffmpegs_last_line(temporary, data):
    with pytest.raises(ffmpeg.FfmpegError) as caught:
        ffmpeg.decode(io.BytesIO(data))
    message = str(caught.value)
    assert "Invalid data" in message or "Error" in message
    assert "\n" not in message
    assert list(temporary.iterdir()) == []


def test_a_picture_is_no_audio(temporary):
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
    )
    with pytest.raises(ffmpeg.FfmpegError):
        ffmpeg.decode(io.BytesIO(png))
    assert list(temporary.iterdir()) == []


def test_long_files_are_decoded_in_part(monkeypatch):
    monkeypatch.setattr(ffmpeg, "MAX_SECONDS", 2)
    samples, _ = ffmpeg.decode(io.BytesIO(encode(make_markers(5), kind="FLAC")))
    assert len(samples) == 2 * RATE

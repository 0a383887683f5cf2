import io

import numpy as np
import pytest

from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.rejects import AudioError
from pipeline.decoding.excerpts import decode_parts, excerpt_starts, load_excerpts
from pipeline.decoding.waveform import load_waveform
from tests.support.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    find_marker,
    make_markers,
    make_sine,
)

CONFIG = ClipConfig()


def write(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("seconds", [7.0, 29.9, 30.9])
def test_a_short_file_is_the_clip_that_training_makes(tmp_path, seconds):
    content = encode(make_markers(31)[: round(seconds * RATE)], kind="FLAC")
    (found,) = load_excerpts(write(tmp_path / "a.flac", content), CONFIG, 10)
    expected = load_waveform(io.BytesIO(content), CONFIG)
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert found.length == expected.length


def test_parts_of_a_long_file_are_taken_from_their_middles(tmp_path):
    path = write(tmp_path / "a.wav", encode(make_markers(150), kind="WAV"))
    found = load_excerpts(path, CONFIG, 10)
    assert [clip.samples.shape for clip in found] == [(CLIP_SAMPLES,)] * 5
    assert {clip.length for clip in found} == {CLIP_SAMPLES}
    starts = [round(find_marker(clip.samples)) for clip in found]
    assert starts == [0, 30, 60, 90, 120]
    found = load_excerpts(path, CONFIG, 2)
    # Halves of 75 s: 22.5 to 52.5 and 97.5 to 127.5.
    starts = [round(find_marker(clip.samples)) for clip in found]
    assert starts in ([22, 97], [23, 98])
    (middle,) = load_excerpts(path, CONFIG, 1)
    assert round(find_marker(middle.samples)) == 60


def test_what_libsndfile_cannot_read_is_cut_too(tmp_path):
    content = encode_with_ffmpeg(
        make_markers(64, 22_050), "-c:a", "aac", rate=22_050, extension="m4a"
    )
    found = load_excerpts(write(tmp_path / "a.m4a", content), CONFIG, 10)
    assert [round(find_marker(clip.samples)) for clip in found] == [1, 33]


def test_silent_parts_are_left_out(tmp_path):
    silence = np.zeros((30 * RATE, 1), np.float32)
    sound = np.concatenate([silence, make_sine(440, 30.0), silence])
    found = load_excerpts(
        write(tmp_path / "a.flac", encode(sound, kind="FLAC")), CONFIG, 10
    )
    assert len(found) == 1
    assert np.abs(found[0].samples).max() > 0.4
    path = write(tmp_path / "b.flac", encode(np.tile(silence, (3, 1)), kind="FLAC"))
    with pytest.raises(AudioError, match="is silent"):
        load_excerpts(path, CONFIG, 10)


def test_what_cannot_be_used_says_why(tmp_path):
    with pytest.raises(AudioError, match="no bytes"):
        load_excerpts(write(tmp_path / "a.mp3", b""), CONFIG, 10)
    with pytest.raises(AudioError):
        load_excerpts(write(tmp_path / "b.mp3", b"words " * 99), CONFIG, 10)
    with pytest.raises(FileNotFoundError):
        load_excerpts(str(tmp_path / "none.mp3"), CONFIG, 10)


@pytest.mark.parametrize("limit", [2, 7, 500])
@pytest.mark.parametrize("seconds", [31.2, 59.0, 61.0, 3600.0])
def test_excerpts_lie_in_the_file_and_do_not_overlap(seconds, limit):
    frames = round(seconds * 8000)
    starts, length = excerpt_starts(frames, 8000, limit)
    assert length == 30 * 8000
    assert len(starts) == max(1, min(limit, frames // length))
    assert starts[0] >= 0
    assert starts[-1] + length <= frames
    assert (np.diff(starts) >= length).all()


def test_parts_say_where_they_lie(tmp_path):
    tone = make_sine(440, 100)
    for name, content in {
        "a.wav": encode(tone, kind="WAV"),
        "a.mp3": encode(tone),
    }.items():
        path = write(tmp_path / name, content)
        with open(path, "rb") as file:
            parts = list(decode_parts(file, CONFIG, 10))
        assert [part.seconds for part in parts] == pytest.approx([100] * 3, abs=0.1)
        starts = [100 / 6 - 15, 50 - 15, 500 / 6 - 15]
        assert [part.start for part in parts] == pytest.approx(starts, abs=0.1)
    with open(path, "rb") as file:
        [middle] = decode_parts(file, CONFIG, 1)
    assert middle.start == pytest.approx(35, abs=0.1)
    with open(
        write(tmp_path / "b.wav", encode(tone[: 8 * 44_100], kind="WAV")), "rb"
    ) as file:
        [only] = decode_parts(file, CONFIG, 10)
    assert (only.start, only.seconds) == (0, 8)

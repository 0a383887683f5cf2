import errno
import io
import os
import tempfile

import numpy as np
import pytest

from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import ffmpeg
from tests.support.audio_files import (
    RATE,
    encode,
    encode_with_ffmpeg,
    find_marker,
    make_markers,
)


def decode(file):
    """All frames of a file, full scale 1, and their rate in Hz."""
    [decoding] = ffmpeg.decode_parts(file, lambda frames, _: [(0, frames)])
    return ffmpeg.scale(decoding.frames), decoding.sample_rate


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder that temporary files go to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("extension", ["m4a", "mp3", "flac"])
def test_decodes_by_content(temporary, extension):
    aac = encode_with_ffmpeg(make_markers(4), extension=extension)
    samples, rate = decode(io.BytesIO(aac))
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
    samples, _ = decode(io.BytesIO(encode(swapped, kind="FLAC")))
    np.testing.assert_allclose(samples, swapped, atol=1e-4)


def test_other_rates_are_kept():
    _, rate = decode(io.BytesIO(encode(make_markers(2, 8_000), 8_000, "FLAC")))
    assert rate == 8_000


@pytest.mark.parametrize(
    "data", [b"", b"no audio\n" * 20, b"RIFF\x10\0\0\0WAVEfmt "], ids=str
)
def test_no_audio_is_an_error_with_ffmpegs_last_line(temporary, data):
    with pytest.raises(ffmpeg.FfmpegError) as caught:
        decode(io.BytesIO(data))
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
        decode(io.BytesIO(png))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("extension", ["m4a", "aac", "flac", "wma", "ts"])
def test_a_part_is_the_same_by_seeking(monkeypatch, extension):
    codec = [] if extension == "flac" else ["-b:a", "64k"]
    data = encode_with_ffmpeg(make_markers(30), *codec, extension=extension)

    def decode(start, length):
        place = lambda *_: [(start, length)]  # noqa: E731
        return next(iter(ffmpeg.decode_parts(io.BytesIO(data), place)))

    whole = decode(round(12.3 * RATE), 5 * RATE)
    monkeypatch.setattr(ffmpeg, "WHOLE_SECONDS", 2)
    part = decode(round(12.3 * RATE), 5 * RATE)
    assert part.sample_rate == whole.sample_rate
    assert part.total == pytest.approx(whole.total, abs=3_000)
    assert part.frames.shape == whole.frames.shape
    if extension != "wma":  # Its timestamps are milliseconds.
        # AAC fills in noise, anew each time.
        np.testing.assert_allclose(part.frames, whole.frames, atol=20_000)
    assert find_marker(ffmpeg.scale(part.frames)[:, 0]) == pytest.approx(12, abs=0.1)


def test_levels_over_full_scale_are_seen():
    loud = encode(5 * make_markers(2), kind="WAV", subtype="FLOAT")
    samples, _ = decode(io.BytesIO(loud))
    assert np.abs(samples).max() == pytest.approx(2.5, rel=1e-3)


@pytest.mark.parametrize("extension", ["m4a", "webm", "aac"])
def test_what_ffmpeg_tells_of_a_file(extension):
    data = encode_with_ffmpeg(make_markers(4), extension=extension)

    def decode(data):
        return next(iter(ffmpeg.decode_parts(io.BytesIO(data), lambda *_: [(0, 9)])))

    whole = decode(data)
    assert whole.errors == ()
    assert whole.announced == pytest.approx(4, abs=0.1)
    damaged = bytearray(data)
    damaged[len(data) // 2 : len(data) // 2 + 5_000] = bytes(5_000)
    assert decode(bytes(damaged)).errors


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.mp3\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=audio 5004 RTP/AVP 14\n",
    ],
    ids=["HLS", "concat", "address", "SDP"],
)
def test_a_playlist_opens_no_other_file(temporary, playlist):
    (temporary / "other.mp3").write_bytes(encode(make_markers(9)))
    content = playlist.format(path=temporary / "other.mp3").encode()
    with pytest.raises(ffmpeg.FfmpegError):
        decode(io.BytesIO(content))


def fake_ffmpeg(folder, script: str) -> str:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_ffmpeg_that_hangs_is_ended(temporary, monkeypatch):
    executable = fake_ffmpeg(temporary, "exec sleep 60")
    monkeypatch.setattr(ffmpeg.imageio_ffmpeg, "get_ffmpeg_exe", lambda: executable)
    monkeypatch.setattr(ffmpeg, "TIME_LIMIT", 0.3)
    with pytest.raises(AudioError, match=r"longer than 0\.3 s") as caught:
        decode(io.BytesIO(b"audio"))
    assert caught.value.reason == Reason.DECODER_TIMED_OUT
    assert [path.name for path in temporary.iterdir()] == ["ffmpeg"]


#: How ffmpeg says that it was asked to end.
ASKED = "echo '[info] Exiting normally, received signal 2.' >&2; exit 255"


@pytest.mark.parametrize(
    ("script", "name"), [("kill -SEGV $$", "Segmentation fault"), (ASKED, "Interrupt")]
)
def test_an_ffmpeg_that_crashes_is_a_reason(temporary, monkeypatch, script, name):
    executable = fake_ffmpeg(temporary, script)
    monkeypatch.setattr(ffmpeg.imageio_ffmpeg, "get_ffmpeg_exe", lambda: executable)
    with pytest.raises(AudioError, match=rf"died 2 times \({name}\)") as caught:
        decode(io.BytesIO(b"audio"))
    assert caught.value.reason == Reason.DECODER_CRASHED


@pytest.mark.parametrize("script", [ASKED.replace("2.", "24."), "kill -XCPU $$"])
def test_an_ffmpeg_that_takes_too_much_cpu_time_is_not_tried_again(
    temporary, monkeypatch, script
):
    executable = fake_ffmpeg(temporary, f'echo x >>"$0.runs"; {script}')
    monkeypatch.setattr(ffmpeg.imageio_ffmpeg, "get_ffmpeg_exe", lambda: executable)
    with pytest.raises(AudioError, match="more than 31 s of CPU time") as caught:
        decode(io.BytesIO(b"audio"))
    assert caught.value.reason == Reason.DECODER_TIMED_OUT
    assert (temporary / "ffmpeg.runs").read_text() == "x\n"


@pytest.mark.parametrize("script", ["kill -KILL $$", "kill -TERM $$", ASKED])
def test_an_ffmpeg_that_is_killed_from_outside_costs_nothing(
    temporary, monkeypatch, script
):
    data = encode_with_ffmpeg(make_markers(4), extension="flac")
    expected, _ = decode(io.BytesIO(data))
    genuine = ffmpeg.imageio_ffmpeg.get_ffmpeg_exe()
    # Each of its two runs, for the packets and for the sound, is tried again.
    once = f'if rm "$0.once"; then {script}; fi; touch "$0.once"; exec {genuine} "$@"'
    executable = fake_ffmpeg(temporary, once)
    (temporary / "ffmpeg.once").touch()
    monkeypatch.setattr(ffmpeg.imageio_ffmpeg, "get_ffmpeg_exe", lambda: executable)
    found, _ = decode(io.BytesIO(data))
    np.testing.assert_array_equal(found, expected)


def test_what_is_too_large_is_not_copied(temporary, monkeypatch):
    monkeypatch.setattr(ffmpeg, "MAX_SOURCE_BYTES", 1_000)
    with pytest.raises(AudioError, match="its 1,001 bytes are too many") as caught:
        decode(io.BytesIO(bytes(1_001)))
    assert caught.value.reason == Reason.TOO_LARGE


def test_too_little_temporary_space_is_a_reason(monkeypatch, tmp_path):
    class FullFile(io.BytesIO):
        def write(self, data, /):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: FullFile())
    with pytest.raises(AudioError) as caught:
        decode(io.BytesIO(bytes(5_000)))
    assert caught.value.reason == Reason.NO_SPACE
    message = f"{tmp_path} does not take its 5,000 bytes for ffmpeg (No space left"
    assert str(caught.value).startswith(message)


def test_a_source_that_fails_is_not_taken_for_a_full_folder(temporary):
    class FailingFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        decode(FailingFile(b"audio"))


def test_nothing_is_left_of_a_decoder_that_is_killed(temporary):
    """The copy has no name, and so ends with the processes that have it open."""
    data = encode_with_ffmpeg(make_markers(4), extension="m4a")
    with ffmpeg._copy(io.BytesIO(data)) as copy:
        assert list(temporary.iterdir()) == []
        assert copy.seek(0, os.SEEK_END) == len(data)

import contextlib
import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.rejects import AudioError
from pipeline.decoding import mp3, mpeg
from pipeline.decoding.mpeg import Frame
from tests.support.audio_files import (
    RATE,
    CountingFile,
    encode,
    encode_with_ffmpeg,
    make_id3,
    make_markers,
    make_music,
    make_sine,
)

#: Samples that libmpg123 drops from a stream whose length it knows.
DECODER_DELAY = 529


def count_frames(data: bytes) -> int:
    """Frames of audio that following a stream finds."""
    start = mpeg.find_frame(data)
    if start is None:
        return 0
    return len(mpeg.follow(io.BytesIO(data), start, len(data)).starts)


def announced_seconds(data: bytes) -> float:
    stream = mp3.read_stream(io.BytesIO(data))
    return stream.frames * stream.frame.seconds


BARE = ("-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0")

# Bytes in which headers are as likely as can be.
mpeg_like = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\xff", b"\xff\xfb\x90\x64", b"\xff\xf3\x18\xc4", b"ID3"]),
        st.tuples(
            st.sampled_from([0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB]),
            st.integers(0, 255),
            st.integers(0, 255),
        ).map(lambda rest: bytes([0xFF, *rest])),
        st.integers(0, 2000).map(bytes),
    ),
    max_size=30,
).map(b"".join)


@pytest.fixture(scope="module")
def bare() -> bytes:
    """Ten seconds of mono at 64 kbit/s without tag or Xing header."""
    return encode_with_ffmpeg(make_markers(10), *BARE)


@pytest.mark.parametrize(
    ("header", "frame"),
    [
        # MPEG-1: 44.1 kHz 128 kbit/s joint stereo, with padding, mono with CRC.
        ("fffb9064", Frame(417, 1152, 44_100, 32, 128)),
        ("fffb9264", Frame(418, 1152, 44_100, 32, 128)),
        ("fffa90c4", Frame(417, 1152, 44_100, 17, 128)),
        ("fffbe464", Frame(960, 1152, 48_000, 32, 320)),
        ("fffb1800", Frame(144, 1152, 32_000, 32, 32)),
        # MPEG-2, low sampling frequencies.
        ("fff380c4", Frame(208, 576, 22_050, 9, 64)),
        ("fff38464", Frame(192, 576, 24_000, 17, 64)),
        ("fff3e864", Frame(720, 576, 16_000, 17, 160)),
        # MPEG-2.5.
        ("ffe38064", Frame(417, 576, 11_025, 17, 64)),
        ("ffe314c4", Frame(48, 576, 12_000, 9, 8)),
        ("ffe3e8c4", Frame(1440, 576, 8_000, 9, 160)),
    ],
)
def test_known_headers(header, frame):
    data = bytes.fromhex(header)
    assert mpeg.parse_frame(data, 0) == frame
    assert mpeg.parse_frame(b"\0\0" + data, 2) == frame
    assert mpeg.parse_frame(data[:3], 0) is None


@pytest.mark.parametrize(
    "header",
    [
        "fefb9064",  # no sync
        "ff7b9064",  # no sync
        "ffeb9064",  # reserved version
        "fff99064",  # reserved layer
        "fffd9064",  # layer II
        "ffff9064",  # layer I
        "fffb0064",  # free format, whose size is unknown
        "fffbf064",  # no bit rate
        "fffb9c64",  # no sample rate
    ],
)
def test_other_bytes_are_no_header(header):
    assert mpeg.parse_frame(bytes.fromhex(header), 0) is None


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000]
)
def test_every_rate_of_all_three_versions(rate, channels):
    samples = make_music(2, rate)[:, :channels]
    data = encode(samples, rate)
    stream = mp3.read_stream(io.BytesIO(data))
    assert stream.start == 0
    assert stream.frame.sample_rate == rate
    # LAME adds its delay and fills the last frame.
    lowest = len(samples) / stream.frame.samples
    assert lowest < stream.frames < lowest + 4
    assert count_frames(data) == stream.frames
    # Frame after frame leads to the file's last byte.
    position = 0
    while (frame := mpeg.parse_frame(data, position)) is not None:
        position += frame.size
    assert position == len(data)


def test_the_genuine_clip(genuine_mp3):
    stream = mp3.read_stream(io.BytesIO(genuine_mp3))
    assert stream.frames == 1148
    assert stream.frame.sample_rate == RATE
    assert announced_seconds(genuine_mp3) == 1148 * 1152 / RATE


@settings(max_examples=300)
@given(data=mpeg_like)
def test_no_bytes_make_the_parser_crash_or_loop(data):
    for position in range(-1, len(data) + 2):
        frame = mpeg.parse_frame(data, max(position, 0))
        # What `follow` relies on to move forward.
        assert frame is None or frame.size > 0
    found = mpeg.find_frame(data)
    assert found is None or mpeg.parse_frame(data, found) is not None
    assert 0 <= count_frames(data) <= len(data) // 24 + 1
    file = io.BytesIO(data)
    stream = mp3.read_stream(file)
    assert stream is None or 0 <= stream.start < len(data)
    for excerpt in ("middle", "start"):
        # A stream may announce more than there is.
        with contextlib.suppress(AudioError):
            assert mp3.prepare(file, excerpt).tell() == 0


@settings(max_examples=100)
@given(where=st.floats(0, 1), size=st.integers(1, 3000), filling=st.integers(0, 255))
def test_sync_is_found_again_after_damage(bare, where, size, filling):
    data = bytearray(bare)
    start = int(where * (len(data) - size))
    data[start : start + size] = bytes([filling]) * size
    undamaged = count_frames(bare)
    lost = size // 208 + 2
    # Long runs of FF may pass for a header, once.
    assert undamaged - lost - 1 <= count_frames(bytes(data)) <= undamaged + 1


@pytest.mark.parametrize("size", [10, 14, 1_000, mp3.HEAD_BYTES - 2, 3_000_000])
def test_tags_are_skipped_by_their_length(bare, size):
    # Filled with what looks like frames.
    stream = mp3.read_stream(io.BytesIO(make_id3(size) + bare))
    end = size + len(bare)
    expected = mp3.read_stream(io.BytesIO(bare))
    assert stream == expected._replace(start=size, audio=size, end=end)


def test_large_tags_are_not_read(bare):
    file = CountingFile(make_id3(3_000_000) + bare)
    mp3.read_stream(file)
    assert file.bytes_read <= 2 * mp3.HEAD_BYTES


@pytest.mark.parametrize("size", [10, 5_000, 10_000_000])
def test_a_tag_alone_is_no_stream(size):
    assert mp3.read_stream(io.BytesIO(make_id3(size)[:5_000])) is None


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "W64", "AU", "CAF"])
def test_other_formats_are_passed_on_untouched(bare, kind):
    # Samples that make up an MPEG stream.
    order = {"AIFF": ">i2", "AU": ">i2", "CAF": ">i2"}.get(kind, "<i2")
    samples = np.frombuffer(bare[: len(bare) // 2 * 2], order).astype(np.int16)
    data = encode(samples, kind=kind)
    assert mpeg.find_frame(data) is not None
    file = io.BytesIO(data)
    file.seek(99)
    assert mp3.prepare(file, "middle") is file
    assert file.tell() == 0
    assert mp3.read_stream(file) is None


def test_mp4_is_passed_on_even_with_frames_inside(bare):
    file = io.BytesIO(b"\0\0\0\x20ftypM4A " + bare)
    assert mp3.prepare(file, "middle") is file


def test_a_short_mp3_with_a_xing_header_is_passed_on(music_mp3):
    file = io.BytesIO(music_mp3)
    file.seek(99)
    assert mp3.prepare(file, "middle") is file
    assert file.tell() == 0


def test_a_bare_stream_gets_its_length(bare):
    count = count_frames(bare)
    # ffmpeg flushes LAME's delay into a frame or two more.
    assert 10 * RATE / 1152 < count < 10 * RATE / 1152 + 4
    longer = mpeg.add_length(bare)
    assert longer.endswith(bare)
    stream = mp3.read_stream(io.BytesIO(longer))
    assert (stream.start, stream.frames) == (0, count)
    assert mpeg.parse_frame(longer, 0).size == len(longer) - len(bare)
    assert announced_seconds(longer) == count * 1152 / RATE
    samples, _ = soundfile.read(io.BytesIO(longer), dtype="float32")
    assert len(samples) == count * 1152 - DECODER_DELAY
    plain, _ = soundfile.read(io.BytesIO(bare), dtype="float32")
    np.testing.assert_array_equal(samples, plain[DECODER_DELAY:])


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_libsndfile_understands_the_length_in_every_version(rate, channels):
    sound = make_music(3, rate)[:, :channels]
    bare = encode_with_ffmpeg(sound, "-q:a", "4", *BARE[2:], rate=rate)
    stream = mp3.read_stream(io.BytesIO(bare))
    info = soundfile.info(io.BytesIO(mpeg.add_length(bare)))
    frames = count_frames(bare) * stream.frame.samples
    assert info.frames == frames - DECODER_DELAY
    assert info.samplerate == rate


def test_a_frame_too_small_for_a_length_is_left_alone():
    # 8 kbit/s at 24 kHz: 24 bytes.
    tiny = (bytes.fromhex("fff314c4") + bytes(20)) * 5
    assert mpeg.parse_frame(tiny, 0).size == 24
    assert mpeg.add_length(tiny) == tiny


def test_length_is_added_to_frames_only():
    with pytest.raises(ValueError, match="Received: 49443303"):
        mpeg.add_length(make_id3(500))


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("excerpt", ["middle", "start"])
def test_of_an_hour_only_the_excerpt_is_read(bare, xing, excerpt):
    hour = bare * 360
    file = CountingFile(mpeg.add_length(hour) if xing else hour)
    source = mp3.prepare(file, excerpt)
    needed = 8_000 * 30.5  # bytes, at 64 kbit/s
    assert file.bytes_read < needed + 4 * mp3.HEAD_BYTES
    seconds = soundfile.info(source).duration
    assert 30.0 < seconds < 31.0


def test_an_excerpt_has_one_length_alone(bare):
    # The whole file's Xing header would sound, and lie.
    tagged = make_id3(5_000) + mpeg.add_length(bare * 6)
    excerpt = mp3.prepare(io.BytesIO(tagged), "start").getvalue()
    first = mpeg.parse_frame(excerpt, 0)
    assert bare.startswith(excerpt[first.size : len(bare)])
    assert mp3.read_stream(io.BytesIO(excerpt)).frames == count_frames(excerpt)


def test_what_is_quiet_at_first_is_not_taken_for_long():
    # The first 64 kB, at a low bit rate, last longer than the rest of the file.
    rng = np.random.default_rng(0)
    sound = np.concatenate(
        [0.01 * make_sine(300, 12), 0.3 * rng.standard_normal((18 * RATE, 1))]
    )
    bare = encode_with_ffmpeg(sound.clip(-1, 1), "-q:a", "2", *BARE[2:])
    source = mp3.prepare(io.BytesIO(bare), "middle")
    assert source.getvalue().endswith(bare)
    assert 30.0 <= soundfile.info(source).duration < 30.1


@pytest.mark.parametrize("excerpt", ["middle", "start"])
def test_an_excerpt_is_long_enough_where_the_bit_rate_rises(monkeypatch, excerpt):
    # Estimates, as of a file too large to be counted.
    monkeypatch.setattr(mp3, "FOLLOWED_BYTES", 0)
    rng = np.random.default_rng(0)
    quiet, loud = 0.01 * make_sine(300, 5), 0.3 * rng.standard_normal((20 * RATE, 1))
    sound = np.concatenate([quiet, loud, quiet, quiet, loud, quiet, quiet])
    bare = encode_with_ffmpeg(sound.clip(-1, 1), "-q:a", "2", *BARE[2:])
    source = mp3.prepare(io.BytesIO(bare), excerpt)
    assert source.getbuffer().nbytes < len(bare)
    assert soundfile.info(source).duration > 30.0

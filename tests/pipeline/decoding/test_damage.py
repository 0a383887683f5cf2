import io
import struct

import numpy as np
import pytest
import soundfile

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import damage, flac, mp3, mpeg, ogg
from pipeline.decoding.waveform import load_waveform
from tests.support.audio_files import (
    encode,
    encode_with_ffmpeg,
    make_id3,
    make_music,
    make_sine,
)

BARE = ("-b:a", "96k", "-write_xing", "0", "-id3v2_version", "0")
WITH_LENGTH = ("WAV", "RF64", "W64", "AIFF", "AU", "CAF")
SECONDS = 7.0


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return make_music(SECONDS)


@pytest.fixture(scope="module")
def files(sound) -> dict[str, bytes]:
    by_name = {kind: encode(sound, kind=kind) for kind in (*WITH_LENGTH, "OGG", "FLAC")}
    return by_name | {
        "LAME": encode(sound),
        "LAME mono": encode(sound[:, :1]),
        "LAME 22 kHz": encode(make_music(SECONDS, 22_050), 22_050),
        "ffmpeg": encode_with_ffmpeg(sound, "-b:a", "128k"),
        "ffmpeg mono": encode_with_ffmpeg(sound[:, :1], "-b:a", "64k"),
        "bare": encode_with_ffmpeg(sound, *BARE),
        "Opus": encode(make_music(SECONDS, 48_000), 48_000, "OGG", subtype="OPUS"),
        "m4a": encode_with_ffmpeg(sound, "-movflags", "+faststart", extension="m4a"),
    }


CHECKED = ("LAME", "LAME mono", "LAME 22 kHz", "ffmpeg", "ffmpeg mono")


def load(data: bytes) -> None:
    load_waveform(io.BytesIO(data), ClipConfig())


def reject(data: bytes) -> tuple[Reason, str]:
    with pytest.raises(AudioError) as caught:
        load(data)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(
    "name", [*WITH_LENGTH, *CHECKED, "OGG", "FLAC", "Opus", "bare", "m4a"]
)
def test_nothing_is_wrong_with_whole_files(files, name):
    load(files[name])


# Lengths in headers


@pytest.mark.parametrize("kind", [*WITH_LENGTH, "FLAC", "OGG", "Opus", "m4a", "LAME"])
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_truncated_files_are_not_taken_for_shorter_ones(files, kind, share):
    data = files[kind]
    reason, message = reject(data[: int(share * len(data))])
    assert reason == Reason.TRUNCATED, message


@pytest.mark.parametrize("kind", WITH_LENGTH)
def test_the_message_says_how_much_is_there(files, kind):
    data = files[kind]
    _, message = reject(data[:-400_000])
    total = round(SECONDS * 44_100) * 4
    numbers = [
        int(word.replace(",", "")) for word in message.split() if word[0].isdigit()
    ]
    assert numbers[1] == pytest.approx(total, abs=20)
    assert numbers[1] - numbers[0] == pytest.approx(400_000, abs=20)


def test_a_few_bytes_less_are_no_matter(files):
    load(files["WAV"][:-3])


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_written_to_a_pipe_does_not_know_its_length(files, length):
    data = files["WAV"]
    start = data.index(b"data") + 4
    load(data[:start] + struct.pack("<I", length) + data[start + 4 :])


def test_a_wav_that_promises_nearly_two_gigabytes(files):
    data = files["WAV"]
    start = data.index(b"data") + 4
    lying = data[:start] + struct.pack("<I", 1_999_999_999) + data[start + 4 :]
    reason, message = reject(lying)
    assert reason == Reason.TRUNCATED
    assert message.startswith("has 1,234,800 of the 1,999,999,999 bytes of audio")


def test_an_au_file_may_not_know_its_length(files):
    data = files["AU"]
    load(data[:8] + b"\xff" * 4 + data[12:])


@pytest.mark.parametrize("kind", WITH_LENGTH)
def test_headers_cut_off(files, kind):
    for end in (*range(4, 60), 100):
        assert reject(files[kind][:end])[0] in (
            Reason.TRUNCATED,
            Reason.UNDECODABLE,
            Reason.TOO_SHORT,
        )


@pytest.mark.parametrize("kind", ["WAV", "RIFX", "RF64", "W64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(("real", "claimed"), [(2, 1), (1, 2)])
def test_a_wav_of_other_channels_than_its_frames(sound, kind, subtype, real, claimed):
    endian = "BIG" if kind == "RIFX" else None
    buffer = io.BytesIO()
    form = "WAV" if kind == "RIFX" else kind
    soundfile.write(buffer, sound[:, :real], 44_100, subtype, endian, form)
    data = bytearray(buffer.getvalue())
    load(bytes(data))
    width = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    start = data.index(b"fmt ") + (24 if kind == "W64" else 8)
    order = "big" if kind == "RIFX" else "little"
    data[start + 2 : start + 4] = claimed.to_bytes(2, order)
    reason, message = reject(bytes(data))
    assert reason == Reason.CHANNELS
    assert f"its header says ({claimed})" in message
    assert f"{width * real} bytes a frame of {8 * width} bits say ({real})" in message
    # One field alone is wrong in many files whose audio is right.
    for field, count in ((8, 4), (12, 2)):
        honest = bytearray(buffer.getvalue())
        honest[start + field : start + field + count] = (7).to_bytes(count, order)
        load(bytes(honest))


@pytest.mark.parametrize(
    ("channels", "frame", "bits"),
    [
        (1, 16, 16),
        (2, 8, 24),
        (1, 4, 24),
        (2, 0, 16),
        (1, 3, 12),
        (1, 1, 0),
        (2, 99, 8),
    ],
)
def test_frames_that_tell_no_channels(channels, frame, bits):
    found = damage.find_channels(channels, 44_100, 44_100 * frame, frame, bits)
    assert found == channels


def test_chunks_that_lead_nowhere_end():
    empty = b"RIFF" + bytes(4) + b"WAVE" + (b"junk" + bytes(4)) * 5_000
    damage.check_length(io.BytesIO(empty))


@pytest.mark.parametrize("kind", ["W64", "CAF"])
def test_sizes_that_no_file_system_can_seek_to(files, kind):
    data = bytearray(files[kind])
    fmt = data.index(b"fmt " if kind == "W64" else b"desc")
    start = fmt + (16 if kind == "W64" else 4)
    data[start : start + 8] = (b"\xff" if kind == "W64" else b"\x7f\xff") * 8
    data = data[: len(files[kind])]
    damage.check_length(io.BytesIO(bytes(data)))
    assert reject(bytes(data))[0] in (Reason.UNDECODABLE, Reason.TRUNCATED)


# MP3


@pytest.mark.parametrize("name", CHECKED)
def test_lame_tags_are_read(files, name):
    stream = mp3.read_stream(io.BytesIO(files[name]))
    assert stream.checksum is not None
    assert stream.start + stream.checksum.length == len(files[name])
    assert stream.size == stream.checksum.length


def test_the_lame_tag_of_the_genuine_clip(genuine_mp3):
    stream = mp3.read_stream(io.BytesIO(genuine_mp3))
    assert stream.start + stream.checksum.length == len(genuine_mp3)
    source = mp3.prepare(io.BytesIO(genuine_mp3), "middle")
    assert source.read() == genuine_mp3[stream.start : stream.end]


@pytest.mark.parametrize("name", CHECKED)
def test_one_flipped_bit_is_found(files, name):
    rng = np.random.default_rng(0)
    for position in rng.integers(3_000, len(files[name]), 10):
        damaged = bytearray(files[name])
        damaged[position] ^= 1 << int(rng.integers(8))
        reason, message = reject(bytes(damaged))
        assert reason == Reason.CHECKSUM
        assert "LAME" in message


def test_tags_before_and_behind_are_not_part_of_the_checksum(files):
    load(make_id3(5_000) + files["LAME"] + b"TAG" + bytes(125))


def test_a_damaged_lame_tag_is_not_believed(files):
    stream = mp3.read_stream(io.BytesIO(files["LAME"]))
    damaged = bytearray(files["LAME"])
    damaged[stream.start + 36 + 120 + 30] ^= 1
    assert mp3.read_stream(io.BytesIO(bytes(damaged))).checksum is None
    load(bytes(damaged))


def test_a_tag_that_agrees_about_the_length_is_believed(files):
    # Damage elsewhere in the tag, and in the audio.
    damaged = bytearray(files["LAME"])
    damaged[100] ^= 1
    load(bytes(damaged))
    damaged[60_000] ^= 1
    assert reject(bytes(damaged))[0] == Reason.CHECKSUM


def test_bytes_missing_in_the_middle_are_not_taken_for_a_missing_end(files):
    data = files["LAME"]
    load(data[:-100])
    reason, message = reject(data[:60_000] + data[60_100:])
    assert reason == Reason.CORRUPT
    assert message == "the chain of its frames breaks once"


def test_damage_in_many_places_of_a_stream_without_checksum(files):
    damaged = bytearray(files["bare"])
    position = 0
    for number in range(200):
        frame = mpeg.parse_frame(files["bare"], position)
        if number % 40 == 20:
            damaged[position] = 0
        position += frame.size
    reason, message = reject(bytes(damaged))
    assert reason == Reason.CORRUPT
    assert message == "the chain of its frames breaks 5 times"


def test_a_stream_without_header_that_ends_within_a_frame(files):
    for missing in (1, 100, 200):
        reason, message = reject(files["bare"][:-missing])
        assert reason == Reason.TRUNCATED
        assert message.startswith(f"its last frame lacks {missing} bytes")


def test_a_stream_without_header_may_end_with_a_tag(files):
    load(files["bare"] + b"TAG" + bytes(125))


@pytest.mark.parametrize("frames", [2_000, 1 << 24, 1 << 31, (1 << 32) - 1])
def test_more_frames_announced_than_there_are(files, frames):
    stream = mp3.read_stream(io.BytesIO(files["LAME"]))
    data = bytearray(files["LAME"])
    position = stream.start + 4 + stream.frame.side_info + 8
    data[position : position + 4] = struct.pack(">I", frames)
    reason, message = reject(bytes(data))
    assert reason == Reason.TRUNCATED
    assert message.startswith("announces ") or " of the announced " in message


def follow(data: bytes) -> mpeg.Chain:
    return mpeg.follow(io.BytesIO(data), 0, len(data))


def test_following_counts_frames_and_gaps(files):
    bare = files["bare"]
    whole = follow(bare)
    assert whole.gaps == ()
    assert whole.missing == whole.foreign == 0
    assert follow(bare[:-10]).missing == 10
    position = 0
    for _ in range(3):
        position += mpeg.parse_frame(bare, position).size
    damaged = follow(bare[:position] + b"\0\0\0\0" + bare[position + 4 :])
    assert damaged.starts == whole.starts[:3] + whole.starts[4:]
    assert damaged.gaps == (3,)
    assert len(follow(b"").starts) == 0


@pytest.mark.parametrize("piece", [10_000, 13_001])
def test_a_chain_does_not_depend_on_how_it_is_read(files, monkeypatch, piece):
    """Neither do the tags between its parts."""
    bare = files["bare"]
    joined = bare + make_id3(30_000) + bare + b"TAG" + bytes(125) + bare
    whole = follow(joined)
    assert whole.gaps == ()
    assert len(whole.starts) == 3 * len(follow(bare).starts)
    monkeypatch.setattr(mpeg, "PIECE", piece)
    assert follow(joined) == whole


def test_little_behind_the_announced_end_is_left_alone(files):
    # No LAME tag in front: a Xing header of our own, which has no checksum.
    announced = mpeg.add_length(files["bare"])
    load(announced + bytes(100_000))
    load(announced + bytes(1_000) + files["LAME"][:5_000])
    with pytest.raises(AudioError, match="breaks once"):
        load(announced[:20_000] + bytes(1_000) + announced[20_000:])


# Ogg and FLAC


@pytest.mark.parametrize("name", ["OGG", "Opus"])
def test_one_flipped_bit_in_ogg_is_found(files, name):
    rng = np.random.default_rng(0)
    for position in rng.integers(6_000, len(files[name]) - 6_000, 10):
        damaged = bytearray(files[name])
        damaged[position] ^= 1 << int(rng.integers(8))
        reason, _ = reject(bytes(damaged))
        assert reason in (Reason.CHECKSUM, Reason.CORRUPT, Reason.TRUNCATED)


def test_ogg_pages():
    data = encode(make_sine(440, 6.0), kind="OGG")
    ogg.check(data)
    ogg.check(data + b"TAG" + bytes(125))
    ogg.check(b"no Ogg at all")
    pages = data.split(b"OggS")[1:]
    lost = b"".join(b"OggS" + page for page in pages[:-1])
    for broken, reason in (
        (lost, Reason.TRUNCATED),
        (data[:-1], Reason.TRUNCATED),
        (data[: len(lost) + 10], Reason.TRUNCATED),
        (lost + b"garbage" + b"OggS" + pages[-1], Reason.CORRUPT),
        (data[:-1] + bytes([data[-1] ^ 1]), Reason.CHECKSUM),
    ):
        with pytest.raises(AudioError) as caught:
            ogg.check(broken)
        assert caught.value.reason == reason


def test_one_flipped_bit_in_flac_is_found(files):
    rng = np.random.default_rng(0)
    for position in rng.integers(200, len(files["FLAC"]), 10):
        damaged = bytearray(files["FLAC"])
        damaged[position] ^= 1 << int(rng.integers(8))
        reason, _ = reject(bytes(damaged))
        assert reason in (Reason.CHECKSUM, Reason.CORRUPT, Reason.TRUNCATED)


@pytest.mark.parametrize("total", [1 << 31, (1 << 36) - 1, 700_000])
def test_a_flac_file_that_promises_more_than_it_has(files, total):
    data = bytearray(files["FLAC"])
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    assert reject(bytes(data))[0] == Reason.TRUNCATED


def test_a_flac_file_without_md5_is_not_checked(files):
    data = files["FLAC"]
    load(data[:26] + bytes(16) + data[42:])


def test_a_flac_file_written_to_a_pipe_does_not_know_its_length(files):
    data = bytearray(files["FLAC"])
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    load(bytes(data))


@pytest.mark.parametrize("known", [True, False])
def test_a_flac_file_of_many_channels_has_large_frames(known):
    random = np.random.default_rng(0)
    sound = 0.3 * random.standard_normal((40 * 44_100, 6)).clip(-3, 3)
    data = bytearray(encode(sound.astype(np.float32), kind="FLAC"))
    if not known:
        data[12:18] = bytes(6)
    # Two frames do not fit into what is read of others.
    assert int.from_bytes(data[15:18], "big") > flac.SEARCHED_BYTES // 2 or not known
    damage.check_length(io.BytesIO(data))
    with pytest.raises(AudioError, match="its last frame begins at"):
        damage.check_length(io.BytesIO(data[: len(data) // 2]))


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF"])
@pytest.mark.parametrize("between", [b"", b"note"])
def test_audio_in_two_chunks_is_not_taken_for_one(files, kind, between):
    data, order = files[kind], "little" if kind == "WAV" else "big"
    name = b"SSND" if kind == "AIFF" else b"data"
    start, width = data.index(name), 12 if kind == "CAF" else 8
    size = int.from_bytes(data[start + 4 : start + width], order)
    chunk = data[start : start + width + size]
    if between:
        between += (6).to_bytes(width - 4, order) + bytes(6)
    another = data[:start] + chunk + between + chunk
    reason, message = reject(another)
    assert reason == Reason.UNANNOUNCED
    assert "holds audio twice" in message

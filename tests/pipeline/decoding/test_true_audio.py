"""What is taken of a file is its middle, whatever stands around it and in its header.

The tone rises, so that its frequency tells from which second a part was taken.
"""

import io
import struct
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding import flac, mp3, mpeg
from pipeline.decoding.excerpts import decode_parts
from pipeline.decoding.waveform import load_waveform, resample
from tests.support.audio_files import encode, encode_with_ffmpeg, make_id3
from tests.whole.campaigns.fuzz import find_misplaced
from tests.whole.campaigns.mutations import (
    LONG_SECONDS,
    LOWEST,
    RISE,
    make_ape,
    make_glide,
    make_lyrics3,
)

RATE = 22_050
BARE = ("-write_xing", "0", "-id3v2_version", "0")
ID3V1 = b"TAG" + bytes(125)
MP3S = ("CBR", "CBR bare", "VBR", "VBR bare")


@pytest.fixture(scope="module")
def glide() -> np.ndarray:
    return make_glide(LONG_SECONDS)


@pytest.fixture(scope="module")
def files(glide) -> dict[str, bytes]:
    """70 s of it, longer than a clip."""
    uneven = glide.copy()
    # Noise, so that a variable bit rate varies.
    noise = np.random.default_rng(0).standard_normal(20 * RATE) * 0.1
    uneven[: 20 * RATE, 0] += noise.astype(np.float32)
    plain = ("-id3v2_version", "0")
    return {
        "CBR": encode_with_ffmpeg(glide, "-b:a", "32k", *plain, rate=RATE),
        "CBR bare": encode_with_ffmpeg(glide, "-b:a", "32k", *BARE, rate=RATE),
        "VBR": encode_with_ffmpeg(uneven, "-q:a", "6", *plain, rate=RATE),
        "VBR bare": encode_with_ffmpeg(uneven, "-q:a", "6", *BARE, rate=RATE),
        "WAV": encode(glide, RATE, "WAV"),
        "FLAC": encode(glide, RATE, "FLAC"),
        "AIFF": encode(glide, RATE, "AIFF"),
        "m4a": encode_with_ffmpeg(glide, extension="m4a", rate=RATE),
    }


def load(data: bytes):
    return load_waveform(io.BytesIO(data), ClipConfig())


def reject(data: bytes) -> tuple[Reason, str]:
    with pytest.raises(AudioError) as caught:
        load(data)
    return caught.value.reason, str(caught.value)


def find_second(samples: np.ndarray) -> float:
    """From which second of the source the first 8,192 samples are."""
    part = samples[:8_192] * np.hanning(8_192)
    hertz = np.argmax(np.abs(np.fft.rfft(part))) * 44_100 / 8_192
    return (hertz - LOWEST) / RISE - 4_096 / 44_100


@pytest.mark.parametrize("name", ["CBR bare", "VBR bare", "low"])
def test_an_excerpt_is_what_the_whole_file_decodes_to(files, glide, name):
    files = files | {
        "low": encode_with_ffmpeg(glide[::2], "-b:a", "8k", *BARE, rate=RATE // 2)
    }
    data = io.BytesIO(files[name])
    measured = mp3.measure(data, mp3.read_stream(data))
    frame = measured.stream.frame
    # Without its number of frames libsndfile guesses the length.
    sized = io.BytesIO(mpeg.add_length(files[name]))
    whole, rate = soundfile.read(sized, dtype="float32")
    first = int((measured.seconds - 30) / 2 / frame.seconds) * frame.samples
    samples = load(files[name]).samples
    expected = resample(whole[first : first + 30 * rate], rate)
    # The resampler does not know what follows; not a sample differs else.
    count = len(samples) - 2_000
    np.testing.assert_allclose(samples[:count], expected[:count], atol=1e-6)


def check_middle(data: bytes, seconds: float = LONG_SECONDS, mutation="keep") -> None:
    waveform = load(data)
    assert find_misplaced("long", mutation, waveform.samples) == ""
    assert waveform.seconds == pytest.approx(seconds, abs=0.15)


@pytest.mark.parametrize("kind", [*MP3S, "WAV", "FLAC", "AIFF", "m4a"])
def test_the_middle_and_the_length_of_a_long_file(files, kind):
    check_middle(files[kind])


BEHIND = {
    "APEv2": make_ape(300_000),
    "APEv2 without header": make_ape(1_000, header=False),
    "ID3v1": ID3V1,
    "ID3v1 extended": b"TAG+" + bytes(223) + ID3V1,
    "Lyrics3v2": make_lyrics3(20_000) + ID3V1,
    "Lyrics3v1": b"LYRICSBEGIN" + b"la " * 1_000 + b"LYRICSEND" + ID3V1,
    "a second ID3v2": make_id3(200_000),
    "several": make_ape(90_000) + make_ape(70_000) + make_lyrics3(500) + ID3V1,
    "an ID3v2 with a footer": (
        b"ID3\x04\0\x10\0\0\x10\0" + bytes(2_048) + b"3DI\x04\0\x10\0\0\x10\0"
    ),
    "zeros": bytes(300_000),
    "junk": np.random.default_rng(0).bytes(200_000),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", MP3S)
def test_what_stands_behind_the_audio_is_no_audio(files, kind, behind):
    check_middle(files[kind] + BEHIND[behind])


@pytest.mark.parametrize("kind", ["CBR", "VBR bare"])
def test_it_does_not_matter_how_a_file_is_measured(files, kind, monkeypatch):
    """Files over 4 MB of constant bit rate are not followed."""
    expected = load(files[kind])
    monkeypatch.setattr("pipeline.decoding.mp3.FOLLOWED_BYTES", 50_000)
    for behind in ("several", "a second ID3v2", "zeros", "ID3v1"):
        found = load(files[kind] + BEHIND[behind])
        np.testing.assert_array_equal(found.samples, expected.samples)
        assert found.seconds == pytest.approx(expected.seconds, abs=0.06)


@pytest.mark.parametrize("size", [20, 65_000, 65_400, 65_532, 65_536, 65_540, 131_072])
def test_a_tag_in_front_may_end_anywhere(files, glide, size):
    check_middle(make_id3(size) + files["VBR bare"])
    check_middle(make_id3(size) + make_id3(500) + files["CBR"])
    short = encode_with_ffmpeg(glide[: 7 * RATE], "-q:a", "6", *BARE, rate=RATE)
    expected = load(short)
    found = load(make_id3(size) + short)
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert found.seconds == expected.seconds > 7


@pytest.mark.parametrize("kind", ["CBR", "VBR bare"])
@pytest.mark.parametrize("size", [60_000, 65_400, 65_536, 100_000])
def test_other_bytes_in_front_may_end_anywhere(files, glide, kind, size):
    text = (b"<p>la la la</p>\n" * 10_000)[:size]
    check_middle(text + files[kind])
    check_middle(np.random.default_rng(size).bytes(size) + files[kind])


@pytest.mark.parametrize("front", [bytes(5_000) + make_ape(300), ID3V1])
def test_decoders_get_nothing_that_is_in_front_of_the_audio(glide, front):
    short = encode_with_ffmpeg(glide[: 7 * RATE], "-b:a", "32k", rate=RATE)
    found, expected = load(front + short), load(short)
    assert found.decoder == expected.decoder == "libsndfile"
    np.testing.assert_array_equal(found.samples, expected.samples)


@pytest.mark.parametrize("kind", ["FLAC", "WAV"])
def test_tags_around_other_formats(files, kind):
    expected = load(files[kind]).samples
    for data in (
        make_id3(70_000) + files[kind],
        make_id3(500) + make_id3(500) + files[kind] + make_ape(9_000) + ID3V1,
    ):
        np.testing.assert_array_equal(load(data).samples, expected)


def change_frames(data: bytes, frames: int) -> bytes:
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    return data[: tag + 8] + struct.pack(">I", frames) + data[tag + 12 :]


@pytest.mark.parametrize("frames", [0, 1, 50, 400, 1_200, 2_400])
@pytest.mark.parametrize("kind", ["CBR", "VBR"])
def test_too_few_frames_announced_are_not_believed(files, kind, frames):
    check_middle(change_frames(files[kind], frames))


def test_too_few_frames_of_a_clip(glide):
    short = encode_with_ffmpeg(glide[: 7 * RATE], "-q:a", "6", rate=RATE)
    assert load(change_frames(short, 60)).seconds == pytest.approx(7, abs=0.1)
    assert reject(change_frames(short, 700))[0] == Reason.TRUNCATED


def test_a_wild_table_leads_nowhere(files):
    tag = files["VBR"].find(b"Xing")
    table = np.random.default_rng(0).bytes(100)
    check_middle(files["VBR"][: tag + 16] + table + files["VBR"][tag + 116 :])


def test_fraunhofers_header(files):
    bare = files["VBR bare"]
    frame = bare[:4] + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, 9, 9)
    check_middle(frame + bytes(313 - len(frame)) + bare)


# Several streams in one file


@pytest.mark.parametrize("between", [b"", make_id3(5_000), ID3V1, make_ape(3_000)])
@pytest.mark.parametrize("kind", MP3S)
def test_joined_mp3s_are_one(files, kind, between):
    joined = files[kind] + between + files[kind]
    check_middle(joined, 2 * LONG_SECONDS, "chain")


def test_a_jingle_does_not_stand_for_the_song(files, glide):
    jingle = encode_with_ffmpeg(glide[: 6 * RATE], "-b:a", "32k", rate=RATE)
    found = load(jingle + files["CBR"])
    assert found.seconds == pytest.approx(6 + LONG_SECONDS, abs=0.3)
    start = (6 + LONG_SECONDS - 30) / 2 - 6
    assert find_second(found.samples) == pytest.approx(start, abs=0.2)


def test_streams_of_two_kinds_are_named(glide, files):
    other = encode_with_ffmpeg(glide, "-b:a", "64k", "-ar", "44100", rate=RATE)
    reason, message = reject(files["CBR"] + other)
    assert reason == Reason.MIXED
    assert "have another sampling rate or number of channels" in message
    seven = encode_with_ffmpeg(glide[: 7 * RATE], "-b:a", "32k", rate=RATE)
    reason, message = reject(seven + bytes(3_000) + seven)
    assert reason == Reason.UNANNOUNCED
    assert message.startswith("its header announces 7.0")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize(("first", "second"), [(3, 4), (30, 40)])
def test_chained_ogg_is_decoded_whole(glide, subtype, first, second):
    rate = 24_000
    links = [glide[: first * RATE], glide[first * RATE : (first + second) * RATE]]
    data = b"".join(encode(link, rate, "OGG", subtype=subtype) for link in links)
    found = load(data)
    total = (first + second) * RATE / rate
    assert found.seconds == pytest.approx(total, abs=0.05)
    assert found.decoder == "libsndfile"
    start = max((total - 30) / 2, 0) if total > 31 else 0
    # It plays faster by the ratio of the rates.
    heard = (find_second(found.samples[44_100 * 10 :]) * RISE + LOWEST) * RATE / rate
    if total > 31:
        expected = LOWEST + RISE * (start + 10.09) * rate / RATE
        assert heard == pytest.approx(expected, rel=0.03)


@pytest.fixture(scope="module")
def oggs(glide) -> dict[str, bytes]:
    vorbis = encode(glide, RATE, "OGG", subtype="VORBIS")
    flac = encode_with_ffmpeg(glide, "-c:a", "flac", rate=RATE, extension="ogg")
    return {"VORBIS": vorbis, "FLAC": flac, "chained": vorbis + vorbis}


@pytest.mark.parametrize("kind", ["VORBIS", "FLAC", "chained"])
def test_long_ogg_files_with_damage_or_without_an_end(oggs, kind):
    data = oggs[kind]
    # The middle of the chain is where its links meet.
    middle = len(data) // 2 - 3_000
    changed = bytearray(data)
    changed[middle] ^= 0xFF
    assert reject(bytes(changed))[0] in (Reason.CHECKSUM, Reason.CORRUPT)
    reason, message = reject(data[: -len(data) // 5])
    assert reason == Reason.TRUNCATED
    assert "the page that marks the end" in message


def test_damage_elsewhere_in_a_long_ogg_file_does_not_matter(oggs):
    changed = bytearray(oggs["VORBIS"])
    changed[len(changed) * 9 // 10] ^= 0xFF
    check_middle(bytes(changed))


def test_damaged_excerpts_of_an_ogg_file_are_left_out(oggs):
    changed = bytearray(oggs["VORBIS"])
    changed[len(changed) // 4] ^= 0xFF
    [only] = decode_parts(io.BytesIO(changed), ClipConfig(), 2)
    assert find_second(only.samples) == pytest.approx(37.5, abs=0.2)


def test_links_of_different_rates(glide):
    low = encode(glide[: 4 * RATE], RATE, "OGG")
    high = encode(make_glide(6, 44_100), 44_100, "OGG")
    found = load(low + high)
    assert found.seconds == pytest.approx(10, abs=0.01)
    assert find_second(found.samples[44_100:]) == pytest.approx(1, abs=0.1)
    assert find_second(found.samples[round(5.5 * 44_100) :]) == pytest.approx(
        1.5, abs=0.1
    )
    damaged = bytearray(low + high)
    damaged[len(low) + len(high) // 2] ^= 1
    assert reject(bytes(damaged))[0] == Reason.CHECKSUM


def test_more_of_a_flac_than_its_header_promises(files, glide):
    data = bytearray(files["FLAC"])
    for total, reason in ((200_000, Reason.UNANNOUNCED), (1 << 25, Reason.TRUNCATED)):
        data[22:26] = struct.pack(">I", total)
        assert reject(bytes(data))[0] == reason
    seven = encode(glide[: 7 * RATE], RATE, "FLAC")
    assert reject(files["FLAC"] + seven)[0] == Reason.UNANNOUNCED
    assert reject(seven + files["FLAC"])[0] == Reason.UNANNOUNCED
    for count in (2, 3):
        assert reject(files["FLAC"] * count)[0] == Reason.UNANNOUNCED
        assert reject(seven * count)[0] == Reason.UNANNOUNCED


@pytest.mark.parametrize("kind", ["WAV", "AIFF"])
def test_more_than_a_header_promises(files, kind):
    data = files[kind]
    at = data.index(b"data" if kind == "WAV" else b"SSND") + 4
    form = "<I" if kind == "WAV" else ">I"
    small = data[:at] + struct.pack(form, 300_000) + data[at + 4 :]
    reason, message = reject(small)
    assert reason == Reason.UNANNOUNCED
    assert "300,000 bytes of audio, but" in message
    assert reject(data + data)[0] == Reason.UNANNOUNCED
    chunk = b"LIST" + struct.pack(form, 400_000) + bytes(400_000)
    check_middle(data + chunk)


# Evidence about something else


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A JPEG of noise."""
    return b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(30_000)


def add_video(
    samples: np.ndarray, folder: Path, seconds: float, *options: str
) -> bytes:
    """An MP4 of sound and two pictures a second, by more options of ffmpeg."""
    source, target = folder / "a.wav", folder / "a.mp4"
    source.write_bytes(encode(samples, RATE, "WAV"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(source)]
    command += ["-f", "lavfi", "-i", f"testsrc=s=64x64:r=2:d={seconds}"]
    command += ["-map", "0:a", "-map", "1:v", *options, str(target)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return target.read_bytes()


def test_a_truncated_avi_is_told_by_its_size(glide):
    options = ("-c:a", "libmp3lame")
    data = encode_with_ffmpeg(glide, *options, rate=RATE, extension="avi")
    check_middle(data)
    check_middle(data[:4] + bytes(4) + data[8:])
    reason, message = reject(data[: len(data) // 2])
    assert reason == Reason.TRUNCATED
    assert message.endswith(f"of the {len(data):,} bytes that its header promises")


def test_a_longer_video_does_not_truncate_the_audio(glide, tmp_path):
    options = ["-c:v", "mpeg4", "-movflags", "+faststart"]
    data = add_video(glide[: 7 * RATE], tmp_path, 12, *options)
    assert load(data).seconds == pytest.approx(7, abs=0.1)
    reason, message = reject(data[: len(data) // 2])
    assert reason == Reason.TRUNCATED
    assert message.endswith("of the announced 12.00 s can be decoded")


def test_a_damaged_cover_says_nothing_about_the_audio(glide, tmp_path):
    options = ["-c:v", "mjpeg", "-disposition:v", "attached_pic"]
    data = bytearray(add_video(glide[: 7 * RATE], tmp_path, 0.5, *options))
    start = data.index(b"\xff\xd8\xff")
    noise = np.random.default_rng(1).bytes(600)
    data[start : start + 603] = bytes(3) + noise
    assert load(bytes(data)).seconds == pytest.approx(7, abs=0.1)
    # Damage of the audio itself is still seen.
    audio = data.index(b"mdat") + 9_000
    data[audio : audio + 3_000] = noise * 5
    assert reject(bytes(data))[0] in (Reason.CORRUPT, Reason.TRUNCATED)


def test_damaged_pictures_in_two_tags(files, picture):
    tags = b""
    for content in (picture[:1], picture):
        body = b"\0image/jpeg\0\3\0" + content
        sizes = [
            bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
            for size in (len(body), len(body) + 10)
        ]
        tags += b"ID3\4\0\0" + sizes[1] + b"APIC" + sizes[0] + b"\0\0" + body
    check_middle(tags + files["VBR bare"])


# What only ffmpeg decodes


@pytest.mark.parametrize("options", [[], ["-movflags", "+faststart"]])
def test_the_middle_of_what_is_too_long_to_decode_whole(glide, monkeypatch, options):
    monkeypatch.setattr("pipeline.decoding.ffmpeg.WHOLE_SECONDS", 20)
    check_middle(encode_with_ffmpeg(glide, *options, extension="m4a", rate=RATE))


@pytest.mark.parametrize("extension", ["mka", "webm", "aac", "wma", "ts", "wv"])
def test_the_middle_in_any_container(glide, monkeypatch, extension):
    monkeypatch.setattr("pipeline.decoding.ffmpeg.WHOLE_SECONDS", 20)
    check_middle(encode_with_ffmpeg(glide, extension=extension, rate=RATE))


# Prediction


@pytest.mark.parametrize("kind", [*MP3S, "WAV", "FLAC", "m4a"])
def test_excerpts_of_a_long_file_lie_where_they_should(files, kind):
    data = files[kind]
    if kind in MP3S:
        data = make_id3(65_530) + data + make_ape(100_000) + ID3V1
    found = list(decode_parts(io.BytesIO(data), ClipConfig(), 10))
    # Halves of 35 s.
    starts = [find_second(part.samples) for part in found]
    assert starts == pytest.approx([2.5, 37.5], abs=0.2)


def test_excerpts_are_checked_as_clips_are(files):
    wav = files["WAV"]
    at = wav.index(b"data") + 4
    for data, reason in (
        (wav[: len(wav) // 2], Reason.TRUNCATED),
        (wav[:at] + struct.pack("<I", 300_000) + wav[at + 4 :], Reason.UNANNOUNCED),
        (files["VBR"][: len(files["VBR"]) // 2], Reason.TRUNCATED),
        (files["m4a"][:-100_000], Reason.UNDECODABLE),
    ):
        with pytest.raises(AudioError) as caught:
            list(decode_parts(io.BytesIO(data), ClipConfig(), 10))
        assert caught.value.reason == reason


def test_excerpts_of_a_chain(glide):
    data = encode(glide[: 40 * RATE], RATE, "OGG") + encode(
        glide[40 * RATE :], RATE, "OGG"
    )
    found = list(decode_parts(io.BytesIO(data), ClipConfig(), 10))
    starts = [find_second(part.samples) for part in found]
    assert starts == pytest.approx([2.5, 37.5], abs=0.2)


def wrap_in_wav(stream: bytes, size: int | None = None, tag: int = 0x55) -> bytes:
    """A WAV that holds an MPEG stream, as ripping programs and recorders write it."""
    form = struct.pack("<HHIIHH", tag, 1, RATE, 4_000, 1, 0)
    form += struct.pack("<HHIHHH", 12, 1, 2, 1_152, 1, 1_393)
    length = len(stream) if size is None else size
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"fact" + struct.pack("<II", 4, 0) + b"data" + struct.pack("<I", length)
    return b"RIFF" + struct.pack("<I", len(chunks) + len(stream)) + chunks + stream


@pytest.mark.parametrize("kind", MP3S)
@pytest.mark.parametrize("size", [None, 0, 0xFFFF_FFFF])
def test_a_stream_of_mp3_in_a_wav(files, kind, size):
    check_middle(wrap_in_wav(files[kind], size))


def test_excerpts_of_mp3_in_a_wav(files):
    found = decode_parts(io.BytesIO(wrap_in_wav(files["VBR bare"])), ClipConfig(), 10)
    starts = [find_second(part.samples) for part in found]
    assert starts == pytest.approx([2.5, 37.5], abs=0.2)


def test_mp3_in_a_wav_is_held_against_the_size_of_its_chunk(files):
    data = wrap_in_wav(files["VBR bare"])
    assert reject(data[: len(data) // 2])[0] == Reason.TRUNCATED


@pytest.mark.parametrize("extension", ["mka", "webm"])
def test_a_container_may_begin_at_any_time(glide, extension):
    options = ["-output_ts_offset", "600"]
    check_middle(encode_with_ffmpeg(glide, *options, extension=extension, rate=RATE))


def test_an_avi_written_to_a_pipe_does_not_know_its_length(glide):
    data = bytearray(encode_with_ffmpeg(glide, extension="avi", rate=RATE))
    at = data.find(b"strh") + 8 + 32
    data[4:8] = b"\xff" * 4
    data[at : at + 4] = struct.pack("<I", 1 << 30)
    # ffmpeg believes an index at the end.
    check_middle(bytes(data[: data.find(b"idx1")]))


@pytest.mark.parametrize("behind", [bytes(300_000), b"no frame of FLAC" * 20_000])
def test_what_stands_behind_flac_is_no_audio(files, behind):
    check_middle(files["FLAC"] + behind)


def test_erased_storage_behind_flac_takes_no_time(files, monkeypatch):
    """Its bytes are 255, as a frame's first one."""
    looks: list[bytes] = []
    parse = flac._parse_frame
    monkeypatch.setattr(flac, "_parse_frame", lambda h: looks.append(h) or parse(h))
    data = files["FLAC"]
    flac.check_length(io.BytesIO(data), len(data))
    expected = len(looks)
    behind = b"\xff" * 500_000
    flac.check_length(io.BytesIO(data + behind), len(data + behind))
    assert len(looks) < 3 * expected + 100


def test_a_clip_that_is_hardly_too_short_is_not_said_to_be_long_enough(glide):
    sound = glide[: 5 * RATE - 20]
    assert "lasts 4.99" in reject(encode(sound, RATE, "WAV"))[1]

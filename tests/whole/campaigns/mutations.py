"""Audio files of many formats, and what can become of them; all of it seeded."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping

import numpy as np
import soundfile

from pipeline.decoding import mpeg
from tests.support.audio_files import encode, encode_with_ffmpeg, make_id3, make_music

#: Long enough to be accepted, short enough to be fast.
SECONDS = 7.0
#: Files longer than a clip, whose middle is taken; their tone begins and rises so.
LONG_SECONDS, LOWEST, RISE = 70.0, 300.0, 20.0
BARE = ("-write_xing", "0", "-id3v2_version", "0")

Mutation = Callable[[np.random.Generator, bytes, Mapping[str, bytes]], bytes]


def make_bases() -> dict[str, bytes]:
    """Undamaged files by a name that says what they are."""
    music = make_music(SECONDS)
    mono = {rate: make_music(SECONDS, rate)[:, :1] for rate in (8_000, 22_050, 192_000)}
    six = np.concatenate([music, 0.5 * music, 0.2 * music], axis=1)
    slow = make_music(SECONDS, 48_000)
    long = make_glide(LONG_SECONDS)
    return {
        "mp3 30 s": encode(make_music(30.0)),
        "mp3": encode(music),
        "mp3 48 kHz": encode(slow, 48_000),
        "mp3 22 kHz mono": encode(mono[22_050], 22_050),
        "mp3 8 kHz mono": encode(mono[8_000], 8_000),
        "mp3 by ffmpeg": encode_with_ffmpeg(music, "-b:a", "128k"),
        "mp3 bare": encode_with_ffmpeg(music, "-b:a", "96k", *BARE),
        "mp3 bare VBR": encode_with_ffmpeg(music, "-q:a", "5", *BARE),
        "mp3 long": encode_with_ffmpeg(long, "-b:a", "32k", rate=22_050),
        "mp3 long VBR": encode_with_ffmpeg(long, "-q:a", "7", rate=22_050),
        "mp3 long bare VBR": encode_with_ffmpeg(long, "-q:a", "7", *BARE, rate=22_050),
        "wav long": encode(long, 22_050, kind="WAV"),
        "flac long": encode(long, 22_050, kind="FLAC"),
        "m4a long": encode_with_ffmpeg(long, extension="m4a", rate=22_050),
        "wav": encode(music, kind="WAV"),
        "wav 8 bit": encode(music, kind="WAV", subtype="PCM_U8"),
        "wav 24 bit": encode(music, kind="WAV", subtype="PCM_24"),
        "wav float": encode(music, kind="WAV", subtype="FLOAT"),
        "wav 6 channels": encode(six, kind="WAV"),
        "wav 192 kHz": encode(mono[192_000], 192_000, "WAV"),
        "wav ADPCM": encode(music, kind="WAV", subtype="IMA_ADPCM"),
        "rf64": encode(music, kind="RF64"),
        "w64": encode(music, kind="W64"),
        "aiff": encode(music, kind="AIFF"),
        "au": encode(music, kind="AU"),
        "caf": encode(music, kind="CAF"),
        "flac": encode(music, kind="FLAC"),
        "flac 24 bit": encode(music, kind="FLAC", subtype="PCM_24"),
        "flac 8 kHz mono": encode(mono[8_000], 8_000, "FLAC"),
        "flac 6 channels": encode(six, kind="FLAC"),
        "ogg": encode(music, kind="OGG"),
        "ogg opus": encode(slow, 48_000, "OGG", subtype="OPUS"),
        "m4a": encode_with_ffmpeg(music, extension="m4a"),
        "aac": encode_with_ffmpeg(music, extension="aac"),
        "webm": encode_with_ffmpeg(music, extension="webm"),
    }


def make_glide(seconds: float, rate: int = 22_050) -> np.ndarray:
    """A tone that rises by `RISE` Hz a second, so that it tells its own position."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    tone = 0.4 * np.sin(2 * np.pi * (LOWEST * time + RISE * time**2 / 2))
    return (tone + 0.01 * noise).astype(np.float32)[:, None]


def make_silence(hours: float) -> dict[str, bytes]:
    """Hours of silence: an MP3 of 10 MB and a FLAC of a few kB."""
    seconds = int(hours * 3600)
    frame = bytes.fromhex("ffe318c4") + bytes(68)  # 8 kbit/s at 8 kHz: 72 ms
    flac = io.BytesIO()
    with soundfile.SoundFile(flac, "w", 8_000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(seconds // 60):
            file.write(np.zeros(60 * 8_000, np.int16))
    return {"silent mp3": frame * int(seconds / 0.072), "silent flac": flac.getvalue()}


def keep(rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]) -> bytes:
    """Nothing: the file is good, whatever its name says."""
    return data


def truncate(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Anywhere, in the header, near the end, or between two frames."""
    match rng.integers(4):
        case 0:
            return data[: rng.integers(1, len(data))]
        case 1:
            return data[: rng.integers(1, 600)]
        case 2:
            return data[: -rng.integers(1, 600)]
    position = mpeg.find_frame(data, int(rng.integers(len(data) // 2)))
    return data[:position] if position else data[: len(data) // 3]


def flip_bits(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """From one to thousands, anywhere."""
    count = int(rng.choice([1, 2, 5, 20, 100, 1_000, 5_000]))
    return _flip(rng, data, count, 0, len(data))


def flip_header(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Some bits of the first bytes."""
    return _flip(rng, data, int(rng.integers(1, 20)), 0, min(len(data), 300))


def _flip(
    rng: np.random.Generator, data: bytes, count: int, start: int, end: int
) -> bytes:
    damaged = np.frombuffer(data, np.uint8).copy()
    positions = rng.integers(start, end, count)
    damaged[positions] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    return damaged.tobytes()


def make_hole(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Zeros, or noise, in place of a part."""
    size = min(int(10 ** rng.uniform(0, 5.3)), len(data) - 1)
    start = int(rng.integers(len(data) - size))
    filling = bytes(size) if rng.integers(2) else rng.bytes(size)
    return data[:start] + filling + data[start + size :]


def lose_bytes(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """A part is missing, or there twice."""
    size = min(int(10 ** rng.uniform(0, 4.5)), len(data) - 1)
    start = int(rng.integers(len(data) - size))
    if rng.integers(2):
        return data[:start] + data[start + size :]
    return data[: start + size] + data[start:]


def lie_in_header(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """An extreme number somewhere in the header, such as 2^31 frames."""
    number = int(rng.choice([0, 1, 0xFFFF, 1 << 31, (1 << 31) - 1, (1 << 32) - 1]))
    form = ("<I", ">I", "<H", ">H")[rng.integers(4)]
    value = struct.pack(form, number & (0xFFFF if "H" in form else 0xFFFFFFFF))
    start = int(rng.integers(0, 64)) & ~1
    return data[:start] + value + data[start + len(value) :]


def lie_in_xing(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Another number of frames or bytes than there are, or a wild table."""
    tag = max(data.find(b"Xing", 0, 8192), data.find(b"Info", 0, 8192))
    if tag < 0:
        return lie_in_header(rng, data, bases)
    number = int(rng.choice([0, 1, 100, 600, 3_000, 1 << 24, 1 << 31, (1 << 32) - 1]))
    changed = bytearray(data)
    where = int(rng.choice([8, 12]))
    changed[tag + where : tag + where + 4] = struct.pack(">I", number)
    if rng.integers(2):
        changed[tag + 16 : tag + 116] = rng.bytes(100)
    return bytes(changed)


def add_tag(rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]) -> bytes:
    """ID3 tags in front, behind, in the middle, of 10 MB, or of a lying length."""
    tag = make_id3(int(rng.choice([10, 500, 70_000, 10_000_000])))
    match rng.integers(5):
        case 0:
            return tag + data
        case 1:
            return tag[: int(rng.integers(10, len(tag) + 1))] + data
        case 2:
            return make_id3(100) + make_id3(3_000) + data
        case 3:
            return data + b"TAG" + bytes(125)
    middle = len(data) // 2
    return data[:middle] + make_id3(500) + data[middle:]


def make_ape(size: int, *, header: bool = True) -> bytes:
    """An APEv2 tag with a cover of `size` bytes, as it stands behind the audio."""
    value = b"Cover Art (Front).jpg\0" + (b"\xff\xfb\x90\x64" * (size // 4 + 1))[:size]
    item = struct.pack("<II", len(value), 2) + b"Cover Art (Front)\0" + value
    flags = 0x8000_0000 if header else 0
    footer = struct.pack("<IIII", 2_000, len(item) + 32, 1, flags) + bytes(8)
    first = struct.pack("<IIII", 2_000, len(item) + 32, 1, 0xA000_0000) + bytes(8)
    return (b"APETAGEX" + first if header else b"") + item + b"APETAGEX" + footer


def make_lyrics3(size: int) -> bytes:
    """A Lyrics3v2 tag of that many letters."""
    body = b"LYRICSBEGIN" + b"LYR%05d" % size + b"a" * size
    return body + b"%06dLYRICS200" % len(body)


def pile_tags(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Tags of all kinds in front and behind, several, of any size."""
    sizes = (10, 500, 65_400, 65_536, 300_000, 1 << 20)

    def make() -> bytes:
        size = int(rng.choice(sizes))
        match rng.integers(5):
            case 0:
                return make_ape(size)
            case 1:
                return make_ape(size, header=False)
            case 2:
                return make_lyrics3(size % 90_000)
            case 3:
                return make_id3(max(size, 20))
        return b"TAG" + rng.bytes(125)

    front = b"".join(
        make_id3(int(rng.choice(sizes)) + 20) for _ in range(rng.integers(3))
    )
    return front + data + b"".join(make() for _ in range(rng.integers(1, 4)))


def add_cover(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """A damaged picture in front, or junk where a picture was."""
    jpeg = b"\xff\xd8\xff\xe0" + rng.bytes(int(rng.choice([0, 100, 80_000])))
    body = b"\0image/jpeg\0\3\0" + jpeg
    digits = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    frame = b"APIC" + digits + b"\0\0" + body
    digits = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + digits + frame + data


def chain(rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]) -> bytes:
    """The same sound again behind it, with or without tags between."""
    between = (b"", make_id3(2_000), b"TAG" + bytes(125), make_ape(3_000))
    return data + between[rng.integers(len(between))] + data


def lie_in_count(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """A header's length by a factor, down to a hundredth, or as an unknown one."""
    factor = float(rng.choice([0.01, 0.1, 0.3, 0.5, 0.9, 1.1, 2.0, 10.0]))
    changed = bytearray(data)
    tag = max(data.find(b"Xing", 0, 8192), data.find(b"Info", 0, 8192))
    chunk = data.find(b"data", 0, 8192)
    if data.startswith(b"fLaC"):
        total = int(factor * (int.from_bytes(data[21:26], "big") & 0xF_FFFF_FFFF))
        changed[21] = data[21] & 0xF0 | total >> 32
        changed[22:26] = (total & 0xFFFF_FFFF).to_bytes(4, "big")
    elif tag >= 0:
        where = tag + int(rng.choice([8, 12]))
        (number,) = struct.unpack_from(">I", data, where)
        changed[where : where + 4] = struct.pack(">I", int(factor * number))
    elif chunk >= 0 and data.startswith(b"RIFF"):
        (number,) = struct.unpack_from("<I", data, chunk + 4)
        unknown = (0, 2_000_000_000, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF)
        lies = (int(factor * number), int(rng.choice(unknown)))
        changed[chunk + 4 : chunk + 8] = struct.pack("<I", lies[rng.integers(2)])
    return bytes(changed)


def concatenate(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Another file behind it, of other rate, channels or format."""
    names = sorted(bases)
    return data + bases[names[rng.integers(len(names))]]


def surround(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Garbage in front or behind."""
    garbage = rng.bytes(int(10 ** rng.uniform(0, 5)))
    return garbage + data if rng.integers(2) else data + garbage


def make_stub(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Nothing, a few bytes, or no audio at all."""
    choices = [
        b"",
        b"\0",
        data[:4],
        data[: rng.integers(1, 100)],
        bytes(100_000),
        rng.bytes(50_000),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"#EXTM3U\n#EXTINF:10,\nother.mp3\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.mp3\n",
    ]
    return choices[rng.integers(len(choices))]


def play_silence(
    rng: np.random.Generator, data: bytes, bases: Mapping[str, bytes]
) -> bytes:
    """Three hours of it."""
    silence = sorted(name for name in bases if name.startswith("silent"))
    return bases[silence[rng.integers(len(silence))]]


#: Mutations, and how many in a hundred files are of each.
MUTATIONS: Mapping[Mutation, int] = {
    keep: 4,
    truncate: 17,
    flip_bits: 20,
    flip_header: 10,
    make_hole: 12,
    lose_bytes: 8,
    lie_in_header: 9,
    lie_in_xing: 5,
    add_tag: 5,
    pile_tags: 8,
    add_cover: 3,
    chain: 5,
    lie_in_count: 8,
    concatenate: 4,
    surround: 3,
    make_stub: 2,
    play_silence: 1,
}


def choose(
    seed: int, number: int, bases: Mapping[str, bytes]
) -> tuple[str, Mutation, bytes]:
    """The campaign's file of a number: base, mutation, bytes."""
    rng = np.random.default_rng([seed, number])
    kinds = list(MUTATIONS)
    shares = np.array(list(MUTATIONS.values())) / sum(MUTATIONS.values())
    mutation = kinds[rng.choice(len(kinds), p=shares)]
    names = sorted(name for name in bases if not name.startswith("silent"))
    weights = np.array([3.0 if name.startswith("mp3") else 1.0 for name in names])
    if mutation is lie_in_xing:
        weights = np.array([float(name.startswith("mp3")) for name in names])
    base = names[rng.choice(len(names), p=weights / weights.sum())]
    return base, mutation, mutation(rng, bases[base], bases)

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decoding.flac import samples_md5
from pipeline.decoding.mpeg import crc16
from pipeline.decoding.ogg import page_crc
from tests.support.audio_files import encode, make_music


def divide(data: bytes, polynomial: int, width: int) -> int:
    """A CRC by the book: from 0, highest bit first."""
    value = 0
    for byte in data:
        value ^= byte << (width - 8)
        for _ in range(8):
            carry = value >> (width - 1)
            value = value << 1 & (1 << width) - 1
            value ^= polynomial if carry else 0
    return value


def reverse(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)


def reflected_crc16(data: bytes) -> int:
    mirrored = bytes(reverse(byte, 8) for byte in data)
    return reverse(divide(mirrored, 0x8005, 16), 16)


def test_check_value_of_the_crc_catalogue():
    # CRC-16/ARC.
    assert crc16(b"123456789") == 0xBB3D == reflected_crc16(b"123456789")


@settings(max_examples=30)
@given(seed=st.integers(0, 99), length=st.integers(0, 5_000))
def test_crc16_of_short_data(seed, length):
    data = np.random.default_rng(seed).bytes(length)
    assert crc16(data) == reflected_crc16(data)


@pytest.mark.parametrize("length", [32_766, 32_767, 32_768, 65_534, 100_001])
def test_crc16_of_data_longer_than_a_period(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc16(data) == reflected_crc16(data)


def test_any_bit_changes_the_crc16():
    data = bytearray(np.random.default_rng(0).bytes(100_000))
    whole = crc16(bytes(data))
    for position in (0, 1, 32_767, 65_000, 99_999):
        data[position] ^= 4
        assert crc16(bytes(data)) != whole
        data[position] ^= 4


@settings(max_examples=30)
@given(data=st.binary(max_size=300))
def test_crc_of_ogg(data):
    assert page_crc(data) == divide(data, 0x04C11DB7, 32)


def test_pages_of_a_genuine_ogg_file():
    data = encode(make_music(2.0), kind="OGG")
    page = data[: data.index(b"OggS", 4)]
    (stated,) = struct.unpack_from("<I", page, 22)
    assert page_crc(page[:22] + bytes(4) + page[26:]) == stated


@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_S8", 8), ("PCM_16", 16), ("PCM_24", 24)]
)
def test_md5_of_flac(subtype, bits):
    data = encode(make_music(2.0), kind="FLAC", subtype=subtype)
    frames, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert samples_md5(frames, bits) == data[26:42]
    frames[1_000, 1] += np.float32(2 ** -(bits - 1))
    assert samples_md5(frames, bits) != data[26:42]

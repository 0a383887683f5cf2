"""The checksums that audio formats carry: of MP3's LAME tag, Ogg and FLAC.

All are computed at the speed of memory; a loop over bytes in Python would take
longer than decoding.
"""

from __future__ import annotations

import functools
import hashlib
import zlib

import numpy as np
from numpy.typing import NDArray

#: Powers of x modulo the CRC-16's polynomial repeat after so many.
_PERIOD = 32_767
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc16(data: bytes | memoryview) -> int:
    """CRC-16 of a LAME tag: polynomial 0x8005, reflected, from 0.

    The polynomial is (x + 1)(x^15 + x + 1), whose powers of x have a period of
    2^15 - 1. So blocks of that many bytes, and then of that many bits, may be
    added up before anything is divided.
    """
    bits = np.unpackbits(_fold(np.frombuffer(data, np.uint8)), bitorder="little")
    if len(bits) > _PERIOD:
        bits = np.bitwise_xor.reduce(bits.reshape(8, _PERIOD), axis=0)
    remainders = _remainders()[_PERIOD - len(bits) :]
    return int(np.bitwise_xor.reduce(remainders * bits))


def _fold(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds up blocks of a period's bytes, (n,) to (32767,); keeps what is short."""
    if len(octets) * 8 <= _PERIOD:
        return octets
    length = -(-len(octets) // _PERIOD) * _PERIOD
    # Leading zeros change nothing.
    padded = np.zeros(length, np.uint8)
    padded[length - len(octets) :] = octets
    return np.asarray(np.bitwise_xor.reduce(padded.reshape(-1, _PERIOD), axis=0))


@functools.cache
def _remainders() -> NDArray[np.uint16]:
    """What each bit of a folded block adds to the checksum, (32767,)."""
    powers = np.empty(_PERIOD, np.uint16)
    value = 0x8000  # x^0, reflected
    for exponent in range(_PERIOD):
        powers[exponent] = value
        value = value >> 1 ^ (0xA001 if value & 1 else 0)
    # The first bit is of the highest power; a CRC multiplies all by x^16.
    exponents = np.arange(_PERIOD - 1, -1, -1) + 16
    return powers[exponents % _PERIOD]


def crc8(data: bytes) -> int:
    """CRC-8 of a FLAC frame's header (RFC 9639, 9.1.8): polynomial 0x07, from 0."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) & 0xFF ^ (0x07 if value & 0x80 else 0)
    return value


def ogg_crc(page: bytes) -> int:
    """CRC-32 of an Ogg page (RFC 3533): polynomial 0x04C11DB7, from 0.

    zlib's has the same polynomial with all bits in the other order, and starts
    and ends with an inversion.
    """
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def flac_md5(frames: NDArray[np.float32], bits: int) -> bytes:
    """MD5 of decoded samples as FLAC's STREAMINFO holds it (RFC 9639, 8.2).

    Args:
      frames: all of the file's, shape (n, channels), full scale 1.
      bits: of a sample in the file, at most 24, which float32 holds exactly.
    """
    size = (bits + 7) // 8
    integers = np.rint(frames * np.float32(1 << (bits - 1))).astype("<i4")
    octets = integers.reshape(-1, 1).view(np.uint8)[:, :size]
    return hashlib.md5(octets.tobytes(), usedforsecurity=False).digest()

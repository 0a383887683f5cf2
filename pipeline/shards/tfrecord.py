"""TFRecord files, without TensorFlow, which takes seconds and 500 MB in every worker.

Framing: `tensorflow/core/lib/io/record_writer.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c


def write_record(file: BinaryIO, record: bytes) -> int:
    """Appends one framed record; returns the number of bytes written."""
    length = struct.pack("<Q", len(record))
    file.write(length + _masked_crc(length))
    file.write(record)
    file.write(_masked_crc(record))
    return len(record) + 16


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """Yields the records of a TFRecord file.

    Raises:
      ValueError: the file is cut off or a checksum is wrong.
    """
    while header := file.read(12):
        length = header[:8]
        if len(header) < 12 or _masked_crc(length) != header[8:]:
            raise ValueError("The TFRecord file is corrupt: bad length checksum.")
        record = file.read(struct.unpack("<Q", length)[0])
        if _masked_crc(record) != file.read(4):
            raise ValueError("The TFRecord file is corrupt: bad record checksum.")
        yield record


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)

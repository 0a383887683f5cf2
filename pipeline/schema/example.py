"""`tf.train.Example` without TensorFlow, for writers and readers; NumPy alone.

Building the protobuf value by value takes ten times as long as computing a feature
vector. Packed floats are their own little-endian bytes, so that serialising is joining
bytes; the result is what TensorFlow serialises deterministically.

Wire format: Protocol Buffers encoding guide, `tensorflow/core/example`'s
`example.proto` and `feature.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.schema.records import Field

#: A value of a feature, before its field says how it is encoded.
Value = str | int | NDArray[Any]

_BYTES, _FLOAT, _INT64 = 1, 2, 3  # Field numbers of the oneof in `Feature`.


def encode_example(fields: tuple[Field, ...], values: Mapping[str, Value]) -> bytes:
    """Serialises one `tf.train.Example`.

    Args:
      fields: the record's schema.
      values: one for each field, by name; arrays of the field's dtype and shape.

    Returns:
      The bytes of `Example.SerializeToString(deterministic=True)`.

    Raises:
      ValueError: a value is not of its field's dtype or shape.
    """
    entries = b"".join(
        delimited(1, delimited(1, field.name.encode()) + delimited(2, feature))
        for field in sorted(fields, key=lambda field: field.name)
        for feature in (_encode_feature(field, values[field.name]),)
    )
    return delimited(1, entries)


def _encode_feature(field: Field, value: Value) -> bytes:
    if isinstance(value, np.ndarray):
        if value.shape != field.shape or value.dtype != field.dtype:
            raise ValueError(
                f"Expected {field.name} as {field.dtype}{field.shape}. "
                f"Received: {value.dtype}{value.shape}"
            )
        raw = np.ascontiguousarray(value).tobytes()
        if field.encoding == "float_list":
            return delimited(_FLOAT, delimited(1, raw))
        return delimited(_BYTES, delimited(1, raw))
    if isinstance(value, str) and field.encoding == "bytes_list":
        return delimited(_BYTES, delimited(1, value.encode()))
    if isinstance(value, int) and field.encoding == "int64_list":
        return delimited(_INT64, delimited(1, _varint(value)))
    raise ValueError(
        f"Expected {field.name} as {field.dtype}. Received: {type(value).__name__}"
    )


def decode_example(
    fields: Sequence[Field], record: bytes, *, in_part: bool = False
) -> dict[str, Value]:
    """Parses what `encode_example` serialises, by any writer.

    Args:
      fields: the record's schema.
      record: a serialised Example.
      in_part: whether the record may have features beside them.

    Returns:
      A value for each field, by name; arrays are read-only.

    Raises:
      ValueError: the record is no Example, or not one of this schema.
    """
    features: dict[str, memoryview] = {}
    for entries in _parse_fields(memoryview(record), 1):
        for entry in _parse_fields(entries, 1):
            [name], [feature] = (_parse_fields(entry, n) for n in (1, 2))
            features[bytes(name).decode()] = feature
    names = {field.name for field in fields}
    if not (names <= set(features) if in_part else names == set(features)):
        raise ValueError(f"The record has the features {sorted(features)}.")
    return {
        field.name: _decode_feature(field, features[field.name]) for field in fields
    }


def _decode_feature(field: Field, feature: memoryview) -> Value:
    kind = {"float_list": _FLOAT, "int64_list": _INT64}.get(field.encoding, _BYTES)
    lists = _parse_fields(feature, kind)
    values = _parse_fields(lists[0], 1) if len(lists) == 1 else []
    if len(values) != 1:
        raise ValueError(f"{field.name} is not one value as {field.encoding}.")
    if field.encoding == "int64_list":
        number, end = _parse_varint(values[0], 0)
        if end != len(values[0]):
            raise ValueError(f"{field.name} is not one integer.")
        return number
    if field.encoding == "bytes_list":
        return bytes(values[0]).decode()
    array = np.frombuffer(values[0], np.dtype(field.dtype).newbyteorder("<"))
    if array.size != field.size:
        raise ValueError(f"{field.name} has {array.size} values, not {field.size}.")
    return array.reshape(field.shape)


def _parse_fields(message: memoryview, number: int) -> list[memoryview]:
    """Contents of a message's fields of one number, if all are delimited."""
    contents = []
    position = 0
    while position < len(message):
        key, position = _parse_varint(message, position)
        length, position = _parse_varint(message, position)
        if key & 7 != 2 or position + length > len(message):
            raise ValueError("The record is no Example, or cut off.")
        if key >> 3 == number:
            contents.append(message[position : position + length])
        position += length
    return contents


def _parse_varint(data: memoryview, position: int) -> tuple[int, int]:
    """An integer, and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("The record ends within a number.")


def delimited(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0:
        raise ValueError(f"Expected a value of 0 or more. Received: {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

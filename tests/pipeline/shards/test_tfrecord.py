import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.common.quiet import keep_back_stderr
from pipeline.schema import Field
from pipeline.schema.example import decode_example, encode_example
from pipeline.shards.tfrecord import read_records, write_record

with keep_back_stderr():
    import tensorflow as tf

NAME = Field(name="name", dtype="string", shape=(), encoding="bytes_list")
LABEL = Field(name="label", dtype="int64", shape=(), encoding="int64_list")
VECTOR = Field(name="vector", dtype="float32", shape=(3,), encoding="float_list")
IMAGE = Field(name="image", dtype="uint8", shape=(2, 3), encoding="raw_bytes")


def encode_with_tensorflow(values: dict) -> bytes:
    feature = {}
    for name, value in values.items():
        if isinstance(value, str):
            content = tf.train.BytesList(value=[value.encode()])
            feature[name] = tf.train.Feature(bytes_list=content)
        elif isinstance(value, int):
            content = tf.train.Int64List(value=[value])
            feature[name] = tf.train.Feature(int64_list=content)
        elif value.dtype == np.float32:
            content = tf.train.FloatList(value=value.ravel())
            feature[name] = tf.train.Feature(float_list=content)
        else:
            content = tf.train.BytesList(value=[value.tobytes()])
            feature[name] = tf.train.Feature(bytes_list=content)
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def make_field(name: str, value) -> Field:
    if isinstance(value, str):
        return Field(name=name, dtype="string", shape=(), encoding="bytes_list")
    if isinstance(value, int):
        return Field(name=name, dtype="int64", shape=(), encoding="int64_list")
    encoding = "float_list" if value.dtype == np.float32 else "raw_bytes"
    return Field(
        name=name, dtype=str(value.dtype), shape=value.shape, encoding=encoding
    )


shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=40)
any_value = st.one_of(
    st.text(),
    st.integers(0, 2**63 - 1),
    # NaN has many bit patterns, and protobuf may choose another.
    hnp.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False)),
    hnp.arrays(np.uint8, shapes),
)
any_record = st.dictionaries(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2000), min_size=1),
    any_value,
    min_size=1,
    max_size=6,
)


def has_prefixes(values: dict) -> bool:
    """Whether one name begins with another; protobuf orders those its own way."""
    return any(a != b and a.startswith(b) for a in values for b in values)


@settings(max_examples=200)
@given(values=any_record.filter(lambda values: not has_prefixes(values)))
def test_bytes_are_tensorflows(values):
    fields = tuple(make_field(name, value) for name, value in values.items())
    assert encode_example(fields, values) == encode_with_tensorflow(values)


def test_bytes_of_a_large_vector_are_tensorflows():
    vector = np.random.default_rng(0).standard_normal(85_210, np.float32)
    values = {"vector": vector, "name": "größer"}
    fields = (make_field("vector", vector), NAME)
    assert encode_example(fields, values) == encode_with_tensorflow(values)


def test_arrays_need_not_be_contiguous():
    turned = np.arange(6, dtype=np.uint8).reshape(3, 2).T
    expected = encode_with_tensorflow({"image": np.ascontiguousarray(turned)})
    assert encode_example((IMAGE,), {"image": turned}) == expected


@pytest.mark.parametrize(
    ("field", "value", "received"),
    [
        (VECTOR, np.zeros(3), r"float64\(3,\)"),
        (VECTOR, np.zeros(4, np.float32), r"float32\(4,\)"),
        (VECTOR, np.zeros((1, 3), np.float32), r"float32\(1, 3\)"),
        (IMAGE, np.zeros((3, 2), np.uint8), r"uint8\(3, 2\)"),
        (IMAGE, np.zeros((2, 3), np.int8), r"int8\(2, 3\)"),
        (IMAGE, "text", "str"),
        (VECTOR, 3, "int"),
        (NAME, 7, "int"),
        (LABEL, "7", "str"),
        (LABEL, -1, "-1"),
    ],
)
def test_values_of_another_kind_are_refused(field, value, received):
    with pytest.raises(ValueError, match=f"Received: {received}$"):
        encode_example((field,), {field.name: value})


def test_no_field_may_be_missing():
    with pytest.raises(KeyError, match="label"):
        encode_example((NAME, LABEL), {"name": "a"})


def write(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    sizes = [write_record(file, record) for record in records]
    assert sum(sizes) == len(file.getvalue())
    return file.getvalue()


def read(data: bytes) -> list[bytes]:
    return list(read_records(io.BytesIO(data)))


@settings(max_examples=30)
@given(records=st.lists(st.binary(max_size=300), max_size=5))
def test_files_are_tensorflows(tmp_path_factory, records):
    path = str(tmp_path_factory.getbasetemp() / "records.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with open(path, "rb") as file:
        expected = file.read()
    assert write(records) == expected
    assert read(expected) == records


@pytest.mark.parametrize("lost", range(1, 36))
def test_a_file_that_is_cut_off_is_an_error(lost):
    data = write([b"first", b"a second one, longer"])  # 21 and 36 bytes
    reader = read_records(io.BytesIO(data[:-lost]))
    assert next(reader) == b"first"
    with pytest.raises(ValueError, match="corrupt"):
        next(reader)


@pytest.mark.parametrize("position", range(36))
def test_a_changed_byte_is_an_error(position):
    data = bytearray(write([b"a record of 20 bytes"]))
    data[position] ^= 0x10
    with pytest.raises(ValueError, match="corrupt"):
        read(bytes(data))


def test_the_length_is_checked_before_it_is_believed():
    huge = struct.pack("<Q", 1 << 60)
    with pytest.raises(ValueError, match="bad length checksum"):
        read(huge + b"\0\0\0\0" + bytes(100))


# Parsing


@settings(max_examples=200)
@given(values=any_record)
def test_what_was_encoded_is_decoded(values):
    fields = tuple(make_field(name, value) for name, value in values.items())
    for record in (encode_example(fields, values), encode_with_tensorflow(values)):
        found = decode_example(fields, record)
        assert set(found) == set(values)
        for name, value in values.items():
            np.testing.assert_array_equal(found[name], value)
            if isinstance(value, np.ndarray):
                assert found[name].dtype == value.dtype


FIELDS = (NAME, LABEL, VECTOR, IMAGE)
RECORD = encode_example(
    FIELDS,
    {
        "name": "größer",
        "label": 300,
        "vector": np.float32([1, 2, 3]),
        "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
    },
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FIELDS[:-1], "has the features"),
        ((*FIELDS, Field(**(vars(NAME) | {"name": "x"}))), "has the features"),
        (
            (Field(**(vars(NAME) | {"name": "label"})), NAME, VECTOR, IMAGE),
            "bytes_list",
        ),
        ((NAME, LABEL, Field(**(vars(VECTOR) | {"shape": (4,)})), IMAGE), "3 values"),
        ((NAME, LABEL, VECTOR, Field(**(vars(IMAGE) | {"shape": (5,)}))), "6 values"),
    ],
)
def test_records_of_another_schema(fields, message):
    with pytest.raises(ValueError, match=message):
        decode_example(fields, RECORD)


def test_damaged_records_raise_nothing_but_value_errors():
    rng = np.random.default_rng(0)
    for _ in range(3_000):
        damaged = bytearray(RECORD[: rng.integers(1, len(RECORD) + 1)])
        for position in rng.integers(0, len(damaged), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        with contextlib.suppress(ValueError):
            decode_example(FIELDS, bytes(damaged))


def test_a_truncated_record_is_no_record():
    for end in range(len(RECORD)):
        with pytest.raises(ValueError, match=r"."):
            decode_example(FIELDS, RECORD[:end])

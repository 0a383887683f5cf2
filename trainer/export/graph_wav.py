"""Reading WAV files as TensorFlow operations, as the pipeline reads them.

What is exported with a model has to do without Python. Other containers than RIFF,
RF64 and W64 end in an `InvalidArgumentError` that says so.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from pipeline.decoding.damage import (
    BEHIND_BYTES,
    FILE_NAMES,
    MAX_CHANNELS,
    MIN_PRESENT,
    UNKNOWN_LONG_SIZE,
    UNKNOWN_SIZE,
)

#: Of the bytes of a number, the lowest first.
_POWERS = np.array([256**power for power in range(7)] + [256**7], np.int64)
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


def decode_wav(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a WAV file of 8 to 32-bit integers or 32 or 64-bit floats.

    The container is RIFF, RF64 or W64. What its header says of the audio's size is
    believed as far as `pipeline.decoding.damage.check_length` believes it.

    Args:
      data: the file, a scalar string.

    Returns:
      Samples of full scale 1, float32 `(frames, channels)`, and their rate, int32.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    total = tf.size(content, tf.int64)
    header = tf.pad(content[:40], [[0, 40]])

    def begins(place: int, text: bytes) -> tf.Tensor:
        return tf.reduce_all(header[place : place + len(text)] == list(text))

    w64 = tf.logical_and(begins(0, _W64_RIFF), begins(24, b"wave"))
    riff = tf.logical_and(
        tf.logical_or(begins(0, b"RIFF"), begins(0, b"RF64")), begins(8, b"WAVE")
    )
    is_wav = tf.logical_or(w64, riff)
    with tf.control_dependencies(
        [check(is_wav, "This is no WAV file; convert it, or use trainer.predict")]
    ):
        content = tf.identity(content)

    def number(position: tf.Tensor, length: int) -> tf.Tensor:
        digits = tf.cast(content[position : position + length], tf.int64)
        return tf.reduce_sum(digits * _POWERS[:length])

    # W64 has names of 16 bytes and sizes of 8, which count both.
    width, align = tf.where(w64, _long(24), _long(8)), tf.where(w64, _long(8), _long(2))
    missing = _long(-1)

    def unfinished(position: tf.Tensor, *chunks: tf.Tensor) -> tf.Tensor:
        return tf.logical_and(position + width <= total, chunks[1] < 0)

    def next_chunk(
        position: tf.Tensor, fmt: tf.Tensor, samples: tf.Tensor, sizes: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        name = number(position, 4)
        start = position + width
        length = tf.where(w64, number(start - 8, 8) - 24, number(start - 4, 4))
        # One of 64 bits may lead anywhere.
        length = tf.where(length < 0, total, tf.minimum(length, total))
        following = start + length
        return (
            following + -following % align,
            tf.where(name == int.from_bytes(b"fmt ", "little"), start, fmt),
            tf.where(name == int.from_bytes(b"data", "little"), start, samples),
            tf.where(name == int.from_bytes(b"ds64", "little"), start, sizes),
        )

    first = tf.where(w64, _long(40), _long(12))
    _, fmt, samples, sizes = tf.while_loop(
        unfinished, next_chunk, (first, missing, missing, missing)
    )
    has_audio = tf.logical_and(
        samples >= 0, tf.logical_and(fmt >= 0, fmt + 16 <= total)
    )
    with tf.control_dependencies([check(has_audio, "The WAV file has no audio")]):
        kind, channels = number(fmt, 2), number(fmt + 2, 2)
        rate, bits = number(fmt + 4, 4), number(fmt + 14, 2)
        second, size = number(fmt + 8, 4), number(fmt + 12, 2)
    kind = tf.cond(
        tf.logical_and(kind == _EXTENSIBLE, fmt + 26 <= total),
        lambda: number(fmt + 24, 2),
        lambda: kind,
    )
    announced = tf.where(w64, number(samples - 8, 8) - 24, number(samples - 4, 4))
    # RF64 has its sizes in a chunk of their own: of the file, then of the audio.
    elsewhere = tf.logical_and(announced == 0xFFFF_FFFF, sizes >= 0)
    announced = tf.where(elsewhere, number(sizes + 8, 8), announced)
    available = total - samples
    known = is_known(announced, available, tf.logical_or(w64, elsewhere))
    announced = tf.where(known, announced, available)
    enough = tf.cast(available, tf.float64) >= MIN_PRESENT * tf.cast(
        announced, tf.float64
    )
    behind = samples + announced
    as_announced = tf.logical_or(
        tf.logical_and(
            announced >= available - BEHIND_BYTES,
            tf.cast(announced, tf.float64)
            >= MIN_PRESENT * tf.cast(available, tf.float64),
        ),
        _is_no_audio(
            content[behind + -behind % align :][:BEHIND_BYTES], total - behind
        ),
    )
    is_consistent = _agrees(channels, rate, second, size, bits)
    coding = kind * 100 + bits
    codings = tf.constant(list(_DECODERS), tf.int64)
    is_supported = tf.logical_and(tf.reduce_any(coding == codings), channels > 0)
    with tf.control_dependencies(
        [
            check(enough, "The WAV file is truncated"),
            check(as_announced, "The WAV file has more audio than it announces"),
            check(is_consistent, "The WAV file has other channels than it announces"),
            check(is_supported, "The WAV file is not of integer or float samples"),
        ]
    ):
        frame = tf.maximum(channels * bits // 8, 1)
        length = tf.minimum(announced, available) // frame * frame
    payload = tf.strings.substr(
        data, tf.cast(samples, tf.int32), tf.cast(length, tf.int32)
    )
    branches = [functools.partial(decode, payload) for decode in _DECODERS.values()]
    branch = tf.cast(tf.argmax(tf.cast(coding == codings, tf.int32)), tf.int32)
    values = tf.switch_case(branch, branches)
    return tf.reshape(values, (-1, channels)), tf.cast(rate, tf.int32)


def is_known(size: tf.Tensor, present: tf.Tensor, long: tf.Tensor) -> tf.Tensor:
    """Whether `pipeline.decoding.damage.known_size` takes a size for one, boolean."""
    impossible = tf.logical_or(
        size >= UNKNOWN_LONG_SIZE,
        tf.logical_and(size >= UNKNOWN_SIZE, tf.logical_not(long)),
    )
    unknown = tf.logical_and(size > present, impossible)
    return tf.logical_not(tf.logical_or(size <= 0, unknown))


def _agrees(
    channels: tf.Tensor, rate: tf.Tensor, second: tf.Tensor, size: tf.Tensor, bits: int
) -> tf.Tensor:
    """Whether `pipeline.decoding.damage.find_channels` finds the same, boolean."""
    width = tf.maximum(bits // 8, 1)
    usual = [channels * bits, channels * width, channels * 4]
    excused = [size == 0, bits % 8 != 0, bits == 0, size % width != 0]
    excused += [size > MAX_CHANNELS * width]
    padded = tf.logical_and(bits == 24, size == usual[2])
    return tf.reduce_any(
        [*excused, second != rate * size, size == usual[0], size == usual[1], padded]
    )


def _is_no_audio(data: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Whether a chunk, a tag or zeros stand behind the audio, boolean.

    Args:
      data: the bytes behind it, uint8.
      left: how many there are, int64.
    """
    data = data[:BEHIND_BYTES]
    head = tf.pad(data[:8], [[0, 8]])[:8]
    digits = tf.cast(head[4:], tf.int64)
    size = tf.minimum(
        tf.reduce_sum(digits * _POWERS[:4]), tf.reduce_sum(digits * _POWERS[3::-1])
    )
    printable = tf.reduce_all(tf.logical_and(head[:4] >= 0x20, head[:4] <= 0x7E))
    is_file = tf.reduce_any(
        [tf.reduce_all(head[:4] == list(name)) for name in FILE_NAMES]
    )
    is_chunk = tf.logical_and(
        tf.logical_and(printable, size <= left), tf.logical_not(is_file)
    )
    is_tag = tf.logical_or(
        tf.reduce_all(head[:3] == list(b"ID3")),
        tf.reduce_all(head == list(b"APETAGEX")),
    )
    return tf.logical_or(tf.reduce_all(data == 0), tf.logical_or(is_chunk, is_tag))


def _long(value: int) -> tf.Tensor:
    return tf.constant(value, tf.int64)


def _decode_bytes(payload: tf.Tensor) -> tf.Tensor:
    values = tf.cast(tf.io.decode_raw(payload, tf.uint8), tf.float32)
    return (values - 128) / 128


def _decode_three_bytes(payload: tf.Tensor) -> tf.Tensor:
    digits = tf.reshape(tf.io.decode_raw(payload, tf.uint8), (-1, 3))
    values = tf.reduce_sum(tf.cast(digits, tf.int32) * [1 << 8, 1 << 16, 1 << 24], 1)
    return tf.cast(values, tf.float32) / 2**31


#: By 100 times the format's number plus the bits of a sample.
_DECODERS = {
    100 * _PCM + 8: _decode_bytes,
    100 * _PCM + 16: lambda payload: (
        tf.cast(tf.io.decode_raw(payload, tf.int16), tf.float32) / 2**15
    ),
    100 * _PCM + 24: _decode_three_bytes,
    100 * _PCM + 32: lambda payload: (
        tf.cast(tf.io.decode_raw(payload, tf.int32), tf.float32) / 2**31
    ),
    100 * _FLOAT + 32: lambda payload: tf.io.decode_raw(payload, tf.float32),
    100 * _FLOAT + 64: lambda payload: tf.cast(
        tf.io.decode_raw(payload, tf.float64), tf.float32
    ),
}


def check(condition: tf.Tensor, message: str) -> tf.Operation:
    """Ends in an `InvalidArgumentError` with the message if a condition is false."""
    return tf.debugging.Assert(condition, [f"{message}."])

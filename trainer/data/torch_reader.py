"""A dataset for PyTorch, or anything that indexes: NumPy alone.

    from torch.utils.data import DataLoader
    from trainer.data.torch_reader import RecordDataset

    training = RecordDataset("dataset", "mel", "training")
    loader = DataLoader(training, batch_size=32, shuffle=True, num_workers=2)
    for values, labels, track_ids in loader:  # (32, 224, 224, 3) uint8, (32,) int64
        ...

A `RecordDataset` is what PyTorch calls a map-style dataset. Neither PyTorch nor
TensorFlow is imported here. Files are not compressed, so that one pass over the lengths
of the records is all that random access needs; they are mapped into memory by the
process that reads, and shared by all.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import (
    COMPLETED_FILE,
    MANIFEST_FILE,
    SINGLE_LABEL,
    SPLITS,
    Field,
    Manifest,
    RepresentationSchema,
    UserError,
    check_marker,
)

#: Bytes around a record: its length and that one's checksum, and its own.
_HEADER, _FOOTER = 12, 4
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3  # Field numbers of the oneof in `Feature`.


class Record(NamedTuple):
    """One record.

    Attributes:
      value: the representation's array, of its dtype and shape.
      label: index of the genre; of several genres, uint8 `(genres,)` with ones.
      track_id: of its clip.
    """

    value: Any
    label: Any
    track_id: str


class RecordDataset:
    """The records of one split, by number.

    Attributes:
      manifest: the dataset's: genres, normalisation, what a record holds.
      genres: names by label.
      layout: of the representation.

    Args:
      folder: of a completed dataset, on this machine.
      representation: name, such as `mel`.
      split: `training`, `validation` or `test`.
      transform: called with each value, if given.

    Raises:
      UserError: there is no such dataset, or a file is not what its manifest says.
    """

    def __init__(
        self,
        folder: str,
        representation: str,
        split: str = "training",
        transform: Callable[[NDArray[Any]], Any] | None = None,
    ) -> None:
        self.manifest = _read_manifest(folder)
        known = self.manifest.representations
        for what, name, names in (
            ("representation", representation, known),
            ("split", split, SPLITS),
        ):
            if name not in names:
                raise UserError(
                    f"The {what} must be one of {', '.join(names)}. Received: {name!r}"
                )
        self.genres = self.manifest.genres
        self.layout: RepresentationSchema = known[representation]
        self.transform = transform
        self._label = "label" if self.manifest.task == SINGLE_LABEL else "labels"
        self._fields = {
            field.name: field
            for field in self.layout.fields
            if field.name in (self._label, "track_id", self.layout.value.name)
        }
        self._files: list[str] = []
        self._maps: dict[int, mmap.mmap] = {}
        places = []
        for name in self.manifest.shard_files(representation, split):
            path = os.path.join(folder, name)
            found = _find_records(path)
            file = self.manifest.files.get(name)
            if file is not None and len(found) != file.records:
                raise UserError(
                    f"{path} holds {len(found)} records, {MANIFEST_FILE} says "
                    f"{file.records}; copy the dataset again."
                )
            places += [(len(self._files), start, size) for start, size in found]
            self._files.append(path)
        #: File, first byte and size of each record, `(records, 3)`.
        self._places = np.array(places, np.int64).reshape(len(places), 3)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        """Reads one record; negative numbers count from the end.

        Raises:
          IndexError: there is none of that number.
          ValueError: the file is damaged.
        """
        file, start, size = self._places[index].tolist()
        if file not in self._maps:
            with open(self._files[file], "rb") as opened:
                self._maps[file] = mmap.mmap(
                    opened.fileno(), 0, access=mmap.ACCESS_READ
                )
        values = parse_example(self._maps[file][start : start + size], self._fields)
        value = values[self.layout.value.name]
        if self.transform is not None:
            value = self.transform(value)
        return Record(value, values[self._label], values["track_id"])

    def __getstate__(self) -> dict[str, Any]:
        """A worker maps the files itself."""
        return {**self.__dict__, "_maps": {}}


def _read_manifest(folder: str) -> Manifest:
    texts = []
    for name in (MANIFEST_FILE, COMPLETED_FILE):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                texts.append(file.read())
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); give the folder of a "
                f"completed dataset on this machine. Received: {folder}"
            ) from error
    source = os.path.join(folder, MANIFEST_FILE)
    manifest = Manifest.from_json(texts[0], source=source)
    check_marker(texts[1].decode(errors="replace"), manifest, texts[0], source=source)
    return manifest


def _find_records(path: str) -> list[tuple[int, int]]:
    """First byte and size of each record of a TFRecord file."""
    found = []
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            position = 0
            while position < end:
                file.seek(position)
                header = file.read(_HEADER)
                if len(header) < _HEADER:
                    break
                (size,) = struct.unpack("<Q", header[:8])
                found.append((position + _HEADER, size))
                position += _HEADER + size + _FOOTER
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); copy the dataset again."
        ) from error
    if position != end:
        raise UserError(f"{path} is cut off or damaged; copy the dataset again.")
    return found


def parse_example(data: bytes, fields: dict[str, Field]) -> dict[str, Any]:
    """Parses some features of a serialised `tf.train.Example`.

    Args:
      data: the record.
      fields: what to take, by name.

    Returns:
      By name: arrays that may be written to, text, or integers.

    Raises:
      ValueError: it is no Example, or lacks a feature.
    """
    found: dict[str, Any] = {}
    for _, features in _read_fields(memoryview(data)):
        for _, entry in _read_fields(features):
            pair = dict(_read_fields(entry))
            name = bytes(pair.get(1, b"")).decode()
            if name in fields and 2 in pair:
                found[name] = _read_value(pair[2], fields[name])
    if found.keys() != fields.keys():
        missing = ", ".join(sorted(fields.keys() - found.keys()))
        raise ValueError(f"The record lacks {missing}.")
    return found


def _read_value(feature: memoryview, field: Field) -> Any:
    kind, values = next(_read_fields(feature), (_BYTES, memoryview(b"")))
    content = next((value for _, value in _read_fields(values)), memoryview(b""))
    if kind == _INTEGERS:
        return _read_varint(content, 0)[0] if len(content) else 0
    if field.encoding == "bytes_list":
        return bytes(content).decode()
    dtype = "float32" if kind == _FLOATS else field.dtype
    array = np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))
    if array.size != field.size:
        raise ValueError(f"{field.name} has {array.size} values, not {field.size}.")
    return array.astype(field.dtype).reshape(field.shape)


def _read_fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of a protobuf message's fields, all length-delimited."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        size, position = _read_varint(message, position)
        if key & 7 != 2 or position + size > len(message):
            raise ValueError("The record is no Example, or cut off.")
        yield key >> 3, message[position : position + size]
        position += size


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """An integer, and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("The record ends within a number.")

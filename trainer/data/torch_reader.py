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
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import (
    COMPLETED_FILE,
    MANIFEST_FILE,
    SINGLE_LABEL,
    SPLITS,
    Manifest,
    RepresentationSchema,
    UserError,
    check_marker,
)
from pipeline.schema.example import decode_example

#: Bytes around a record: its length and that one's checksum, and its own.
_HEADER, _FOOTER = 12, 4


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
        wanted = (self._label, "track_id", self.layout.value.name)
        self._fields = [field for field in self.layout.fields if field.name in wanted]
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
        record = self._maps[file][start : start + size]
        values = decode_example(self._fields, record, in_part=True)
        value, label = (
            np.array(found) if isinstance(found, np.ndarray) else found
            for found in (values[self.layout.value.name], values[self._label])
        )
        if self.transform is not None:
            value = self.transform(value)
        return Record(value, label, str(values["track_id"]))

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

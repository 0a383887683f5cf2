"""What may be in a `model.keras`: looked at before Keras is, and without it.

A `.keras` file is a ZIP of JSON, which names Python classes, and HDF5, which may link
to other files. Only plain layers of Keras are taken, only numbers that lie in the
file itself, and no more of them than it has bytes.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from trainer.evaluation.typed_json import parse_json

#: Bytes of a `model.keras`.
MAX_BYTES = 1 << 30
#: Bytes of the layers' description.
MAX_CONFIG_BYTES = 16 << 20
CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
#: Levels of objects and lists in a description.
MAX_DEPTH = 64

#: By module, the classes that a description may name. They compute, and neither run
#: code that the file brings nor read other files.
CLASSES: Mapping[str, frozenset[str]] = {
    "keras": frozenset({"DTypePolicy"}),
    "keras.initializers": frozenset(
        (
            *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform"),
            *("LecunNormal", "LecunUniform", "Ones", "RandomNormal", "RandomUniform"),
            *("TruncatedNormal", "VarianceScaling", "Zeros"),
        )
    ),
    "keras.regularizers": frozenset({"L1", "L2", "L1L2"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.layers": frozenset(
        (
            *("Activation", "Add", "Average", "AveragePooling1D", "AveragePooling2D"),
            *("BatchNormalization", "Concatenate", "Conv1D", "Conv2D", "Dense"),
            *("DepthwiseConv1D", "DepthwiseConv2D", "Dropout", "ELU", "Flatten"),
            *("GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
            *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "InputLayer"),
            *("LayerNormalization", "LeakyReLU", "Maximum", "MaxPooling1D"),
            *("MaxPooling2D", "Multiply", "Normalization", "Permute", "PReLU", "ReLU"),
            *("Rescaling", "Reshape", "SeparableConv1D", "SeparableConv2D", "Softmax"),
            *("SpatialDropout1D", "SpatialDropout2D", "Subtract", "UnitNormalization"),
            *("ZeroPadding1D", "ZeroPadding2D"),
        )
    ),
}
#: A tensor's place in the graph, which is no class.
_TENSOR = "__keras_tensor__"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelArchive:
    """A `model.keras` that may be loaded.

    Attributes:
      name: the model's: the representation that it reads.
      config: description of the layers, JSON.
      weight_count: number of the weights in the file.
    """

    name: str
    config: str
    weight_count: int


def check_archive(content: bytes) -> ModelArchive:
    """Looks into a `model.keras`.

    Raises:
      ValueError: it is damaged, or holds what none of our models does.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _read_members(archive, len(content))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,  # encrypted
        UnicodeError,
    ) as error:
        raise ValueError(f"it is no ZIP archive of a model: {error}") from error
    text = members[CONFIG].decode()
    config = parse_json(text)
    _check_classes(config)
    if not isinstance(config, dict) or config.get("class_name") != "Functional":
        raise ValueError("it describes no functional model")
    details = config.get("config")
    name = details.get("name") if isinstance(details, dict) else None
    if not isinstance(name, str):
        raise ValueError("its model has no name")
    return ModelArchive(
        name=name, config=text, weight_count=_count_weights(members[WEIGHTS])
    )


def _read_members(archive: zipfile.ZipFile, size: int) -> dict[str, bytes]:
    """The archive's files, after their sizes; reading compares their checksums."""
    infos = {info.filename: info for info in archive.infolist()}
    if set(infos) != {CONFIG, WEIGHTS, METADATA} or len(archive.infolist()) != 3:
        names = ", ".join(sorted(infos))
        raise ValueError(f"it holds {names[:200] or 'nothing'} in place of a model")
    # Keras stores without compression: whatever inflates was not written by it.
    total = sum(info.file_size for info in infos.values())
    if total > size or infos[CONFIG].file_size > MAX_CONFIG_BYTES:
        raise ValueError(f"it would inflate to {total:,} bytes")
    return {name: archive.read(info) for name, info in infos.items()}


def _check_classes(config: Any) -> None:
    """Makes sure that a description names known classes only."""
    level: Sequence[Any] = [config]
    for _ in range(MAX_DEPTH):
        if not level:
            return
        for value in level:
            if isinstance(value, dict) and "class_name" in value:
                _check_class(value)
        level = [child for value in level for child in _children(value)]
    raise ValueError("its layers are nested too deeply")


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _check_class(entry: Mapping[str, Any]) -> None:
    name, module = entry["class_name"], entry.get("module")
    if name == _TENSOR and module is None:
        return
    known = (
        isinstance(name, str)
        and isinstance(module, str)
        and name in CLASSES.get(module, ())
        and entry.get("registered_name") in (None, name)
    )
    if not known:
        raise ValueError(
            f"it holds {f'{module}.{name}'[:80]}, which no model of ours does"
        )


def _count_weights(content: bytes) -> int:
    """Number of the weights in an HDF5 file, all of which are finite."""
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            datasets = list(_find_datasets(file))
            size = sum(math.prod(d.shape) * d.dtype.itemsize for d in datasets)
            if size > len(content):
                raise ValueError(f"its weights would inflate to {size:,} bytes")
            for dataset in datasets:
                values = dataset[()]
                if not np.all(np.isfinite(values)):
                    raise ValueError(f"weights are no finite numbers ({dataset.name})")
            return sum(math.prod(dataset.shape) for dataset in datasets)
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its weights cannot be read: {error}") from error


def _find_datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
    """All arrays of a file, none of them elsewhere or met twice."""
    groups = [file["/"]]
    met = set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError("its weights lie in other files")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in met:
                raise ValueError("its weights lie in a circle")
            met.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiu":
                raise ValueError("its weights are no numbers")
            elif item.external or item.is_virtual or item.shape is None:
                raise ValueError("its weights lie in other files")
            else:
                yield item

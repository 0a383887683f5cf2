"""Files beside the shards by which other libraries read them. Standard library only.

For each representation, as functions of the manifest alone:

    features.json, dataset_info.json, label.labels.txt
        TensorFlow Datasets: `tfds.builder_from_directory("dataset/mel")`
    schema.pbtxt
        `tensorflow_metadata.proto.v0.Schema` of a record, for TensorFlow Transform
        and TFX
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.schema.basics import SPLITS
from pipeline.schema.records import LABEL_FIELD, Field, RepresentationSchema, ShardFile

#: Names in a representation's folder.
TFDS_FILES = ("features.json", "dataset_info.json", "label.labels.txt")
SCHEMA_FILE = "schema.pbtxt"
READER_FILES = (*TFDS_FILES, SCHEMA_FILE)
#: Of the data as TFDS sees it, which asks for one; the manifest has the fingerprint.
_TFDS_VERSION = "1.0.0"
_TFDS = "tensorflow_datasets.core.features."


def make_reader_files(
    *,
    genres: tuple[str, ...],
    representations: Mapping[str, RepresentationSchema],
    shard_files: Mapping[str, Mapping[str, list[ShardFile]]],
    description: str,
) -> dict[str, str]:
    """The files' texts, by path relative to the dataset's folder.

    Args:
      genres: names, in the order of the labels.
      representations: schemas by name.
      shard_files: what each shard holds, by representation and split, in order.
      description: of the corpus.
    """
    texts: dict[str, str] = {}
    for name, layout in representations.items():
        contents = {
            "features.json": _to_json(_describe_features(layout, genres)),
            "dataset_info.json": _to_json(
                _describe_dataset(name, shard_files[name], description)
            ),
            SCHEMA_FILE: "".join(_describe_record(layout, len(genres))),
        }
        if LABEL_FIELD in layout.fields:
            contents["label.labels.txt"] = "".join(f"{genre}\n" for genre in genres)
        texts |= {f"{name}/{file}": text for file, text in contents.items()}
    return texts


def _to_json(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _describe_features(
    layout: RepresentationSchema, genres: tuple[str, ...]
) -> dict[str, Any]:
    """As `tfds.features.FeaturesDict.to_json` writes it."""
    features = {field.name: _describe_feature(field, genres) for field in layout.fields}
    return {
        "pythonClassName": f"{_TFDS}features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _describe_feature(field: Field, genres: tuple[str, ...]) -> dict[str, Any]:
    if field == LABEL_FIELD:
        return {
            "pythonClassName": f"{_TFDS}class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(genres))},
        }
    if field.encoding == "bytes_list":
        return {"pythonClassName": f"{_TFDS}text_feature.Text", "text": {}}
    kind = "tensor_feature.Tensor" if field.shape else "scalar.Scalar"
    shape = {"dimensions": [str(size) for size in field.shape]} if field.shape else {}
    encoding = "bytes" if field.encoding == "raw_bytes" else "none"
    return {
        "pythonClassName": _TFDS + kind,
        "tensor": {"shape": shape, "dtype": field.dtype, "encoding": encoding},
    }


def _describe_dataset(
    name: str, shard_files: Mapping[str, list[ShardFile]], description: str
) -> dict[str, Any]:
    """As TFDS' `dataset_info.proto` in JSON, where 64-bit numbers are texts."""
    splits = [
        {
            "name": split,
            "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
            "shardLengths": [str(file.records) for file in shard_files[split]],
            "numBytes": str(sum(file.size for file in shard_files[split])),
        }
        for split in SPLITS
    ]
    return {
        "name": f"fma_{name}",
        "version": _TFDS_VERSION,
        "fileFormat": "tfrecord",
        "moduleName": "fma",
        "description": description,
        "splits": splits,
    }


def _describe_record(layout: RepresentationSchema, genres: int) -> Iterator[str]:
    """Text format of `tensorflow_metadata/proto/v0/schema.proto`."""
    for field in layout.fields:
        kind = {"int64_list": "INT", "float_list": "FLOAT"}.get(field.encoding, "BYTES")
        # An array in one value of bytes is one value.
        shape = () if field.encoding == "raw_bytes" else field.shape
        yield f'feature {{\n  name: "{field.name}"\n  type: {kind}\n'
        if field == LABEL_FIELD:
            yield "  int_domain {\n    min: 0\n"
            yield f"    max: {genres - 1}\n    is_categorical: true\n  }}\n"
        yield "  presence {\n    min_fraction: 1.0\n    min_count: 1\n  }\n"
        dimensions = "".join(f"    dim {{\n      size: {n}\n    }}\n" for n in shape)
        yield f"  shape {{\n{dimensions}  }}\n}}\n"

"""Croissant metadata of the Parquet table: what is in it, for catalogues and loaders.

Format: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html. Who may use
the music and whom to cite is not in a dataset; `license`, `url`, `citeAs` and the like
are its publisher's to add.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from pipeline.common.files import beam_files
from pipeline.common.owned_kinds import CROISSANT, OWNER
from pipeline.common.ownership import replace_file
from pipeline.inspect.table import MARK_COLUMN, make_schema
from pipeline.schema import Manifest

#: JSON-LD's context of the specification, but for what is not used here.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "key": "cr:key",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
_RECORDS = "clips"
_TEXTS = {
    MARK_COLUMN: "program and fingerprint of the dataset",
    "split": "training, validation or test",
    "path": "of the audio file",
    "decoder": "library that read the audio file",
    "audio": "checksum of the decoded audio",
    "size": "of the audio file, in bytes",
    "seconds": "length of the audio",
}


def describe_table(manifest: Manifest, name: str, data: bytes) -> dict[str, Any]:
    """The metadata as JSON-LD.

    Args:
      manifest: of the dataset.
      name: of the table's file.
      data: its content.
    """
    content = manifest.description or "Clips of music and their genres."
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": name[: -len(".parquet")],
        "description": f"{content} {manifest.split_rule}",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "identifier": manifest.fingerprint,
        "sdPublisher": {"@type": "sc:Organization", "name": OWNER},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": name,
                "contentSize": f"{len(data)} B",
                "encodingFormat": "application/x-parquet",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": _RECORDS,
                "name": _RECORDS,
                "key": {"@id": f"{_RECORDS}/track_id"},
                "field": [_describe(field, name) for field in make_schema(manifest)],
            }
        ],
    }


def _describe(field: pa.Field, table: str) -> dict[str, Any]:
    kind, repeated = field.type, pa.types.is_list(field.type)
    kind = kind.value_type if repeated else kind
    number = "sc:Integer" if pa.types.is_integer(kind) else "sc:Float"
    return {
        "@type": "cr:Field",
        "@id": f"{_RECORDS}/{field.name}",
        "name": field.name,
        "description": _TEXTS.get(field.name, field.name),
        "dataType": "sc:Text" if pa.types.is_string(kind) else number,
        "source": {
            "fileObject": {"@id": table},
            "extract": {"column": field.name},
        },
        **({"repeated": True} if repeated else {}),
    }


def write_croissant(
    path: str, manifest: Manifest, table: str, data: bytes, *, flag: str
) -> None:
    """Writes the metadata of a table, whose path and content are given, beside it.

    Raises:
      UserError: something else lies there, or it cannot be written.
    """
    content = describe_table(manifest, table.rpartition("/")[2], data)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    replace_file(beam_files(path), path, text.encode(), CROISSANT, flag=flag)

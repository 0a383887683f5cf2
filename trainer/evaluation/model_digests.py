"""Digests of a model folder's files: `model.json`, by which damage is recognised.

    {"format": 1, "representation": "mel", "genres": 8,
     "files": {"model.keras": {"sha256": "...", "size": 123}, ...}}

Who writes a model folder puts a `ModelDigests` into it; who reads one reads that
first, and takes a file's bytes only after `check`. No file is opened here, so that
the caller decides how: locally, or on an object store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.schema import UserError

DIGESTS_FILE = "model.json"
FORMAT = 1
#: Bytes that the file may have.
MAX_BYTES = 1 << 20

_PIECE = 1 << 20
#: What content of another kind raises where it is read.
_WRONG = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_SHA256 = re.compile("[0-9a-f]{64}")
_ADVICE = "copy the model folder again, or train the model again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileDigest:
    """What a file holds.

    Attributes:
      sha256: of its bytes, in lower-case hexadecimal.
      size: in bytes.
    """

    sha256: str
    size: int

    def __post_init__(self) -> None:
        """Refuses values that describe no file."""
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"Expected a SHA-256. Received: {self.sha256!r:.80}")
        _check_count("size", self.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDigests:
    """What the files of a model folder hold.

    Attributes:
      representation: what the model reads.
      genres: number of the genres that it tells apart, the width of its output.
      files: by name; all files of the folder but `model.json`.
      settings: name of what the model was trained with and on; empty where that is
        not known.
      versions: of the libraries that it was trained with, by name.
    """

    representation: str
    genres: int
    files: Mapping[str, FileDigest]
    settings: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses values that describe no model folder."""
        if not isinstance(self.representation, str):
            raise ValueError(
                "Expected the name of a representation. Received: "
                f"{self.representation!r:.80}"
            )
        _check_count("genres", self.genres)
        if not isinstance(self.settings, str):
            raise ValueError(f"Expected settings. Received: {self.settings!r:.80}")
        if not all(isinstance(version, str) for version in self.versions.values()):
            raise ValueError(f"Expected versions. Received: {self.versions!r:.80}")
        for name in self.files:
            if name in ("", ".", "..", DIGESTS_FILE) or re.search(r"[/\\\0]", name):
                raise ValueError(f"Expected the name of a file. Received: {name!r:.80}")

    def to_json(self) -> str:
        """The content of `model.json`."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, content: bytes, source: str) -> ModelDigests:
        """Inverse of `to_json`.

        Args:
          content: the file; `MAX_BYTES + 1` of it are enough.
          source: path named in errors.

        Raises:
          UserError: it is no such file, or one of another format.
        """
        try:
            if len(content) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            values = json.loads(content.decode())
            version = values.pop("format")
            if version == FORMAT:
                files = {
                    name: FileDigest(**digest)
                    for name, digest in values.pop("files").items()
                }
                return cls(files=files, **values)
        except _WRONG as error:
            raise UserError(
                f"{source} does not describe a model ({_shorten(error)}); {_ADVICE}"
            ) from error
        raise UserError(
            f"{source} is of format {version!r:.40}, expected {FORMAT}; train the "
            "model again, or use the version of this project that wrote it."
        )

    def check(self, name: str, digest: FileDigest, source: str) -> None:
        """Compares a file with what was written.

        Args:
          name: of the file in the folder.
          digest: of what was read.
          source: the file's path, named in errors.

        Raises:
          UserError: it is another file, or none of this model.
        """
        expected = self.files.get(name)
        if expected is None:
            raise UserError(
                f"{source} is not named in the {DIGESTS_FILE} beside it; {_ADVICE}"
            )
        if digest.size != expected.size:
            raise UserError(
                f"{source} has {digest.size} bytes, {DIGESTS_FILE} says "
                f"{expected.size}: it was cut off or replaced; {_ADVICE}"
            )
        if digest != expected:
            raise UserError(
                f"{source} has another SHA-256 than {DIGESTS_FILE} says: it is damaged "
                f"or was changed; {_ADVICE}"
            )


def digest_bytes(content: bytes) -> FileDigest:
    """Digest of bytes in memory."""
    return FileDigest(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or value < 0:
        raise ValueError(f"Expected {name} as a count. Received: {value!r:.80}")


def _shorten(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."

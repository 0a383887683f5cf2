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

from pipeline.schema import UserError
from trainer.evaluation.typed_json import parse_json, to_dataclass

DIGESTS_FILE = "model.json"
FORMAT = 1
#: Bytes that the file may have.
MAX_BYTES = 1 << 20

_PIECE = 1 << 20
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
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"Expected a SHA-256. Received: {self.sha256!r:.80}")
        if self.size < 0:
            raise ValueError(f"Expected a size. Received: {self.size}")


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
        if self.genres < 0:
            raise ValueError(f"Expected a number of genres. Received: {self.genres}")
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
            values = parse_json(content)
            version = values.pop("format")
            if version == FORMAT:
                digests: ModelDigests = to_dataclass(cls, values)
                return digests
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{source} does not describe a model ({describe_error(error)}); "
                f"{_ADVICE}"
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


def describe_error(error: BaseException) -> str:
    """The kind of an error and what it says, on one line and not too long."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:200]}..."

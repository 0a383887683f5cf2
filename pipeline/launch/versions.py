"""Versions and code that can change a record."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import soundfile

from pipeline.schema import fingerprint

PACKAGE = Path(__file__).resolve().parents[1]
#: Packages whose version can change a record.
SHAPING_PACKAGES = (
    "imageio-ffmpeg",
    "librosa",
    "numpy",
    "pydub",
    "scipy",
    "soundfile",
    "soxr",
)


def find_versions() -> dict[str, str]:
    """Versions of all that can change a record's numbers."""
    versions = {name: importlib.metadata.version(name) for name in SHAPING_PACKAGES}
    return versions | {"libsndfile": soundfile.__libsndfile_version__}


def fingerprint_tools(versions: Mapping[str, str], package: Path = PACKAGE) -> str:
    """Digest of all that makes the files, apart from inputs and options.

    Args:
      versions: of libraries and decoders.
      package: folder of the code, with all below it.
    """
    code = {
        path.relative_to(package).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in package.rglob("*.py")
    }
    return fingerprint({"versions": dict(versions), "code": code})

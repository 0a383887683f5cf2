"""The files of a finished dataset, for reading; without Beam for local ones."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.schema import (
    CLIPS_PATTERN,
    COMPLETED_FILE,
    JOB_REPORT_FILE,
    MANIFEST_FILE,
    REJECTS_PATTERN,
    Manifest,
    RepresentationSchema,
    UserError,
)
from pipeline.shards.tfrecord import Value, decode_example, read_records


def join(folder: str, name: str) -> str:
    """A path below a dataset's folder."""
    return f"{folder.rstrip('/')}/{name}"


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, on any file system that Beam knows."""
    if "://" not in path:
        return open(path, "rb")
    from pipeline.common import storage  # Takes seconds to import.

    return storage.open_for_reading(path)


def list_files(pattern: str) -> list[str]:
    """Paths that match a glob, sorted."""
    if "://" not in pattern:
        folder, _, name = pattern.partition("*")
        return sorted(
            filter(os.path.isfile, glob.glob(glob.escape(folder) + "*" + name))
        )
    from apache_beam.io.filesystems import FileSystems

    return sorted(item.path for item in FileSystems.match([pattern])[0].metadata_list)


def read_text(path: str) -> str | None:
    """Reads a small UTF-8 file; None if it is not there."""
    try:
        with open_file(path) as file:
            return file.read().decode("utf-8")
    except OSError:
        return None


def read_manifest(folder: str) -> Manifest:
    """Reads a dataset's manifest.

    Raises:
      UserError: there is none, or it is not one.
    """
    path = join(folder, MANIFEST_FILE)
    text = read_text(path)
    if text is None:
        raise UserError(
            f"{path} cannot be read; give the folder of a dataset that "
            f"pipeline.preprocess has completed. Received: {folder}"
        )
    return Manifest.from_json(text, source=path)


def read_marker(folder: str) -> str | None:
    """The fingerprint in the completion marker; None without one."""
    text = read_text(join(folder, COMPLETED_FILE))
    return None if text is None else text.strip()


def read_report(folder: str) -> Mapping[str, Any]:
    """Counters and distributions of the job; empty where they are not kept."""
    text = read_text(join(folder, JOB_REPORT_FILE))
    report = json.loads(text) if text else {}
    return report if isinstance(report, dict) else {}


def read_rejects(folder: str) -> Iterator[Mapping[str, str]]:
    """Yields the rejects, as `rejects.Reject` serialises them."""
    return _read_lines(join(folder, REJECTS_PATTERN))


def read_clips(folder: str) -> Iterator[Mapping[str, Any]]:
    """Yields what is known of each clip, as `shards.result.WrittenClip` has it."""
    return _read_lines(join(folder, CLIPS_PATTERN))


def _read_lines(pattern: str) -> Iterator[Mapping[str, Any]]:
    for path in list_files(pattern):
        with open_file(path) as file:
            for line in file:
                yield json.loads(line)


def read_examples(
    path: str, schema: RepresentationSchema
) -> Iterator[Mapping[str, Value]]:
    """Yields the records of a shard file.

    Raises:
      ValueError: a record is corrupt, or of another schema.
      OSError: the file cannot be read.
    """
    with open_file(path) as file:
        for record in read_records(file):
            yield decode_example(schema.fields, record)

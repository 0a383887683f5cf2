"""The files of a finished dataset, for reading; without Beam for local ones."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.common.files import join
from pipeline.inputs.splits import stable_hash
from pipeline.schema import (
    CLIPS_PATTERN,
    COMPLETED_FILE,
    JOB_REPORT_FILE,
    MANIFEST_FILE,
    REJECTS_PATTERN,
    Manifest,
    RepresentationSchema,
    UserError,
    check_marker,
    make_label_field,
    shard_file,
    shorten,
)
from pipeline.schema.checks import MOST_BYTES, check_whole, parse
from pipeline.schema.example import Value, decode_example
from pipeline.shards.tfrecord import read_records


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
    from pipeline.common import storage  # Takes seconds to import.

    return sorted(file.path for file in storage.match(pattern))


def read_bytes(path: str) -> bytes | None:
    """Reads a small file; None if it is not there.

    Raises:
      UserError: it is no regular file, or a large one.
    """
    if "://" not in path and os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no regular file; copy the dataset again.")
    try:
        with open_file(path) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{path} has over {MOST_BYTES >> 20} MiB; preprocess the dataset again."
        )
    return data


def read_manifest(folder: str) -> Manifest:
    """Reads a dataset's manifest.

    Raises:
      UserError: there is none, or it is not one.
    """
    path = join(folder, MANIFEST_FILE)
    data = read_bytes(path)
    if data is None:
        raise UserError(
            f"{path} cannot be read; give the folder of a dataset that "
            f"pipeline.preprocess has completed. Received: {folder}"
        )
    manifest = Manifest.from_json(data, source=path)
    check_whole(vars(manifest), path)
    return manifest


def is_completed(folder: str, manifest: Manifest) -> bool:
    """Whether the folder's completion marker is there and fits the manifest.

    Raises:
      UserError: the manifest was changed since.
    """
    marker = read_marker(folder) or ""
    if marker.partition("\n")[0] != manifest.fingerprint:
        return False
    path = join(folder, MANIFEST_FILE)
    check_marker(marker, manifest, read_bytes(path) or b"", source=path)
    return True


def read_marker(folder: str) -> str | None:
    """The completion marker, whose first line is a fingerprint; None without one."""
    data = read_bytes(join(folder, COMPLETED_FILE))
    return None if data is None else data.decode(errors="replace").strip()


def read_report(folder: str) -> Mapping[str, Any]:
    """Counters and distributions of the job; empty where they are not kept.

    Raises:
      UserError: the file is no report.
    """
    path = join(folder, JOB_REPORT_FILE)
    data = read_bytes(path)
    if data is None:
        return {}
    report = parse(data, path)
    if not isinstance(report, dict):
        raise UserError(f"{path} holds no report; preprocess the dataset again.")
    return report


def read_rejects(folder: str) -> Iterator[Mapping[str, str]]:
    """Yields the rejects, as `rejects.Reject` serialises them."""
    return read_lines(join(folder, REJECTS_PATTERN))


def read_clips(folder: str) -> Iterator[Mapping[str, Any]]:
    """Yields what is known of each clip, as `shards.result.WrittenClip` has it."""
    return read_lines(join(folder, CLIPS_PATTERN))


def read_lines(pattern: str) -> Iterator[Mapping[str, Any]]:
    """Yields the objects of files of JSON lines.

    Raises:
      UserError: a line is none.
    """
    for path in list_files(pattern):
        with open_file(path) as file:
            for line in file:
                row = parse(line, path)
                if not isinstance(row, dict):
                    raise UserError(
                        f"{path} is damaged: {shorten(row)} is no object; copy the "
                        "dataset again."
                    )
                yield row


def read_labels(example: Mapping[str, Value], manifest: Manifest) -> tuple[int, ...]:
    """Indices of the genres of a record.

    Raises:
      ValueError: there is no such genre, or none at all.
    """
    field = make_label_field(manifest.task, len(manifest.genres))
    value = example[field.name]
    if isinstance(value, np.ndarray):
        labels = tuple(np.flatnonzero(value).tolist())
        if not labels or value.max() > 1:
            raise ValueError(
                f"labels that are not 0 or 1, or all 0: {shorten(value.tolist())}"
            )
        return labels
    if not isinstance(value, int) or value >= len(manifest.genres):
        raise ValueError(f"label {value}, but there are {len(manifest.genres)} genres")
    return (value,)


def genres_of(clip: Mapping[str, Any]) -> list[str]:
    """The genres of a clip of `read_clips`.

    Raises:
      UserError: it has none, or no id and split.
    """
    genres = [clip["genre"]] if "genre" in clip else clip.get("genres")
    if (
        not isinstance(genres, list)
        or not genres
        or not all(isinstance(genre, str) for genre in genres)
        or not {"track_id", "split"} <= clip.keys()
    ):
        raise UserError(
            f"{CLIPS_PATTERN} is damaged: {shorten(clip)} is no clip; copy the dataset "
            "again."
        )
    return genres


def choose_clips(
    clips: Iterable[Mapping[str, Any]], count: int
) -> list[Mapping[str, Any]]:
    """The first clip of each genre, then the second of each, and so on.

    Args:
      clips: of `read_clips`; the first genre of one that has several counts.
      count: of those to choose, at most.

    Raises:
      UserError: a clip has no genre, or no id and split.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for clip in clips:
        group = groups.setdefault(genres_of(clip)[0], [])
        if len(group) < count:  # Of a large dataset no more than can be chosen.
            group.append(clip)
    ranked = [
        (rank, genre, clip)
        for genre, group in groups.items()
        for rank, clip in enumerate(group)
    ]
    ranked.sort(key=lambda item: item[:2])
    return [clip for _, _, clip in ranked[:count]]


def read_chosen(
    folder: str, manifest: Manifest, name: str, clips: Iterable[Mapping[str, Any]]
) -> dict[str, NDArray[Any]]:
    """Values of some clips, whose shards alone are read: as `read_values`.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      name: of the representation.
      clips: of `choose_clips`.

    Raises:
      UserError: a file cannot be read, or is damaged.
    """
    tracks: dict[tuple[str, int], set[str]] = {}
    for clip in clips:
        track = str(clip["track_id"])
        place = str(clip["split"]), stable_hash(track) % manifest.num_shards
        tracks.setdefault(place, set()).add(track)
    found: dict[str, NDArray[Any]] = {}
    for (split, shard), wanted in sorted(tracks.items()):
        path = join(folder, shard_file(name, split, shard, manifest.num_shards))
        found |= read_values(path, manifest.representations[name], wanted)
    return found


def read_values(
    path: str, schema: RepresentationSchema, tracks: Container[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Values in a shard file: `(records_per_clip, *value.shape)` by track id.

    Args:
      path: of the file.
      schema: of its representation.
      tracks: of the clips that are wanted; None for all.

    Raises:
      UserError: the file cannot be read, or is damaged.
    """
    found: dict[str, list[Any]] = {}
    try:
        for example in read_examples(path, schema):
            track = str(example["track_id"])
            if tracks is None or track in tracks:
                found.setdefault(track, []).append(example[schema.value.name])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); ./launch.sh inspect --verify says what "
            "is wrong."
        ) from error
    return {track: np.stack(values) for track, values in found.items()}


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

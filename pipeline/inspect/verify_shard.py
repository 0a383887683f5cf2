"""Checks one file of a dataset record by record, and its normalisation."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.common.files import join
from pipeline.inputs.splits import stable_hash
from pipeline.inspect import reading
from pipeline.schema import Manifest, RepresentationSchema, ShardFile, shard_file
from pipeline.schema.example import Value, decode_example
from pipeline.shards.tfrecord import read_records

#: Problems of one kind that are listed; others are counted.
MAX_LISTED = 10
#: No value of any representation is larger: frequencies reach 22,050 Hz.
MAX_VALUE = 1e6
#: Of windows: the decoder lets 4 pass, and resampling may add to it.
MAX_SAMPLE = 8.0
#: Difference of a mean, in standard deviations, that summation in another order
#: may make.
MEAN_TOLERANCE = 1e-3
VARIANCE_TOLERANCE = 1e-2


class Identity(NamedTuple):
    """What all records of a clip say alike."""

    split: str
    labels: tuple[int, ...]
    artist_id: str
    decoder: str


class Problems:
    """Collects sentences, a limited number of each kind."""

    def __init__(self) -> None:
        self._listed: dict[str, list[str]] = {}
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, kind: str, sentence: str) -> None:
        """Adds a sentence."""
        self._counts[kind] += 1
        if self._counts[kind] <= MAX_LISTED:
            self._listed.setdefault(kind, []).append(sentence)

    def sentences(self) -> list[str]:
        """What was added, and how many more of each kind there are."""
        lines = []
        for kind, sentences in self._listed.items():
            lines += sentences
            if more := self._counts[kind] - len(sentences):
                lines.append(f"... and {more:,} more of this kind ({kind})")
        return lines


class ClipSummary(NamedTuple):
    """What the records of one clip in one file have in common."""

    track_id: str
    identity: Identity
    digest: bytes
    where: str


class ShardReader:
    """Reads and checks one file; `records` and `size` are set while it does."""

    def __init__(
        self,
        folder: str,
        manifest: Manifest,
        schema: RepresentationSchema,
        split: str,
        shard: int,
        problems: Problems,
        moments: TrainingMoments,
    ) -> None:
        self.records = 0
        self.size = 0
        self._manifest = manifest
        self._schema = schema
        self._split = split
        self._shard = shard
        self._problems = problems
        self._moments = moments
        self._is_part = schema.records_per_clip > 1
        self._name = shard_file(schema.name, split, shard, manifest.num_shards)
        self._path = join(folder, self._name)

    def read(self) -> Iterator[ClipSummary]:
        """Yields the clips of the file, as far as it can be read."""
        previous = ""
        for track_id, group in self._read_groups():
            if track_id <= previous:
                self._problems.add(
                    "order", f"{self._name}: clip {track_id} comes after {previous}"
                )
            previous = track_id
            expected = self._schema.records_per_clip
            indices = [example["index"] for example in group]
            if indices != list(range(expected)):
                self._problems.add(
                    "index",
                    f"{self._name}: clip {track_id} has the records {indices}, not 0 "
                    f"to {expected - 1}",
                )
            if stable_hash(track_id) % self._manifest.num_shards != self._shard:
                self._problems.add(
                    "shard", f"{self._name}: clip {track_id} belongs in another shard"
                )
            identities = {self._identify(example) for example in group}
            if len(identities) > 1:
                self._problems.add(
                    "records disagree",
                    f"{self._name}: the records of clip {track_id} disagree about "
                    "its label, artist or decoder",
                )
            values = [self._check_value(track_id, example) for example in group]
            digest = hashlib.blake2b(digest_size=16)
            for value in values:
                digest.update(value.data)
            if self._split == "training":
                self._moments.add(values)
            yield ClipSummary(track_id, min(identities), digest.digest(), self._name)

    def _read_groups(self) -> Iterator[tuple[str, list[Mapping[str, Value]]]]:
        """Runs of records of one track."""
        track_id = ""
        group: list[Mapping[str, Value]] = []
        try:
            with reading.open_file(self._path) as file:
                counting = _CountingFile(file)
                for record in read_records(cast(BinaryIO, counting)):
                    example = decode_example(self._schema.fields, record)
                    self.records += 1
                    if group and example["track_id"] != track_id:
                        yield track_id, group
                        group = []
                    track_id = str(example["track_id"])
                    group.append(example)
                self._check_file(counting)
        except FileNotFoundError:
            return  # Said already.
        except (ValueError, OSError) as error:
            self._problems.add(
                "unreadable", f"{self._name}, after {self.records} records: {error}"
            )
        if group:
            yield track_id, group

    def _identify(self, example: Mapping[str, Value]) -> Identity:
        try:
            labels = reading.read_labels(example, self._manifest)
        except ValueError as error:
            self._problems.add(
                "label", f"{self._name}: clip {example['track_id']} has {error}"
            )
            labels = ()
        return Identity(
            self._split, labels, str(example["artist_id"]), str(example["decoder"])
        )

    def _check_file(self, file: _CountingFile) -> None:
        """Holds a whole file against what the manifest says of it."""
        self.size = file.size
        stated = self._manifest.files.get(self._name)
        if stated is None:
            self._problems.add("manifest", f"{self._name} is not in the manifest")
            return
        content = ShardFile(
            records=self.records,
            size=file.size,
            crc32c=file.checksum.hexdigest().decode(),
        )
        if content != stated:
            self._problems.add(
                "manifest",
                f"{self._name} has {content.records} records in {content.size:,} "
                f"bytes, CRC {content.crc32c}; the manifest says {stated.records} in "
                f"{stated.size:,}, CRC {stated.crc32c}",
            )

    def _check_value(self, track_id: str, example: Mapping[str, Value]) -> NDArray[Any]:
        value = example[self._schema.value.name]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"Expected an array. Received: {type(value).__name__}")
        value = np.ascontiguousarray(value)
        low, high = float(value.min()), float(value.max())
        is_window = self._schema.name == "windows"
        limit = MAX_SAMPLE if is_window else MAX_VALUE
        what = ""
        if not np.isfinite((low, high)).all():
            what = "has values that are no finite numbers"
        elif max(-low, high) > limit:
            what = f"has values from {low:.3g} to {high:.3g}"
        elif low == high and not (low == 0 and self._is_part) and not is_window:
            # Silence in a part of a clip is music; in a whole clip it is not.
            what = f"has the one value {low:g} throughout"
        if what:
            self._problems.add("values", f"{self._name}: clip {track_id} {what}")
        return value


class _CountingFile:
    """Counts and sums up what is read of a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.checksum = google_crc32c.Checksum()
        self._file = file

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.size += len(data)
        self.checksum.update(data)
        return data


class TrainingMoments:
    """Adds up what the normalisation of a representation is made from."""

    def __init__(self, schema: RepresentationSchema) -> None:
        self._schema = schema
        self._clips = 0
        self._mean = np.zeros(len(schema.segments))
        self._square = np.zeros(len(schema.segments))

    def add(self, values: Sequence[NDArray[Any]]) -> None:
        """Adds the records of one training clip."""
        if not self._schema.segments:
            return
        from pipeline.shards.moments import compute_moments  # Imports the decoders.

        moments = compute_moments(self._schema, np.stack(values))
        self._clips += 1
        mean = moments.mean.astype(np.float64)
        self._mean += mean
        self._square += moments.variance + mean**2

    def check(self, manifest: Manifest, problems: Problems) -> None:
        """Holds the sums against the manifest's normalisation."""
        name = self._schema.name
        stated = manifest.normalisation.get(name)
        if stated is None or not self._clips:
            if self._schema.segments and self._clips:
                problems.add("normalisation", f"{name} has no normalisation")
            return
        mean = self._mean / self._clips
        variance = np.maximum(self._square / self._clips - mean**2, 0)
        deviation = np.sqrt(variance) + 1e-12
        lengths = {len(stated.mean), len(stated.variance)}
        numbers = np.zeros((2, 0))
        if lengths == {len(mean)}:
            numbers = np.array([stated.mean, stated.variance], np.float64)
        if not numbers.size or not np.isfinite(numbers).all():
            problems.add(
                "normalisation",
                f"{name}: the manifest does not have a finite mean and variance for "
                f"each of its {len(mean)} segments",
            )
            return
        wrong = (abs(numbers[0] - mean) > MEAN_TOLERANCE * deviation) | (
            abs(numbers[1] - variance) > VARIANCE_TOLERANCE * variance + 1e-12
        )
        for index in np.flatnonzero(wrong):
            problems.add(
                "normalisation",
                f"{name}, {self._schema.segments[index].name}: the manifest has mean "
                f"{numbers[0, index]:.6g} and variance {numbers[1, index]:.6g}, the "
                f"training records {mean[index]:.6g} and {variance[index]:.6g}",
            )

"""A million paths without audio through the whole job.

`./launch.sh run benchmarks.paths --help`.

Join, split, reject accounting, sharding, leak check and manifest are the product's,
with Beam in this process; only listing, reading and decoding are replaced: a file
system that lists names, and records of a few bytes. Planted faults are counted, so
that a fast wrong answer is seen.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from apache_beam.io.filesystem import FileMetadata, FileSystem

from pipeline import preprocess
from pipeline.common.plain_text import align
from pipeline.common.quiet import silence_beam
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.waveform import Waveform
from pipeline.inputs.join import Clip
from pipeline.inputs.splits import stable_hash
from pipeline.job import make_shards
from pipeline.launch.output import prepare_output
from pipeline.launch.plan import make_job, run_job
from pipeline.shards import shard
from pipeline.shards.records import ClipRecords

GENRES = 16
#: Of several a track: FMA's table has so many, a track three on average, five at most.
SEVERAL, MOST_GENRES = 163, 5
#: The most productive artist's share of all tracks: FMA's has 0.7 %.
HOT_ARTIST = 0.02
#: One in so many tracks has this fault.
FAULTS = {"missing": 100, "no_metadata": 97, "no_genre": 211, "undecodable": 89}


class Listed(FileSystem):
    """Lists `listed://COUNT/NUMBER.mp3`; has nothing to read."""

    @classmethod
    def scheme(cls) -> str:
        """The scheme of its paths."""
        return "listed"

    def join(self, basepath: str, *paths: str) -> str:
        """Joins with slashes."""
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        """Splits at the last slash."""
        folder, _, name = path.rpartition("/")
        return folder, name

    def has_dirs(self) -> bool:
        """It has none."""
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        count = int(dir_or_prefix.removeprefix("listed://").partition("/")[0])
        for number in range(count):
            if not is_faulty(number, "missing"):
                yield FileMetadata(f"listed://{count}/{number:07d}.mp3", 1 << 20, 1.0)

    def exists(self, path: str) -> bool:
        """Whether it is one of its own."""
        return path.endswith(".mp3")

    def _nothing(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    mkdirs = create = open = copy = rename = delete = _nothing
    size = last_updated = checksum = metadata = _nothing


def is_faulty(number: int, fault: str) -> bool:
    """Whether that track has that fault; each has one at most."""
    for name, share in FAULTS.items():
        if number % share == 7:
            return name == fault
    return False


def find_artist(number: int) -> str:
    """The first artist has many tracks, the others a geometric number."""
    if number % round(1 / HOT_ARTIST) == 0:
        return "hot"
    return f"a{stable_hash(str(number // 7)) % 10**9}"


def name_genres(number: int, *, several: bool) -> str:
    """A track's genre, or its genres."""
    if not several:
        return f"Genre {number % GENRES}"
    first = stable_hash(f"genre {number}")
    names = {(first >> 8 * n) % SEVERAL for n in range(1 + first % MOST_GENRES)}
    return ";".join(f"Genre {name}" for name in sorted(names))


def write_metadata(path: Path, count: int, *, several: bool = False) -> None:
    """Writes a CSV of all tracks but those without metadata, shuffled."""
    numbers = [n for n in range(count) if not is_faulty(n, "no_metadata")]
    random.Random(0).shuffle(numbers)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "genre", "artist_id"])
        for number in numbers:
            genre = name_genres(number, several=several)
            if is_faulty(number, "no_genre"):
                genre = ""
            writer.writerow([f"{number:07d}.mp3", genre, find_artist(number)])


def fetch_nothing(clip: Clip, *_: Any, **__: Any) -> BinaryIO:
    """Stands for reading."""
    if is_faulty(int(clip.track_id), "undecodable"):
        raise AudioError(Reason.UNDECODABLE, "planted")
    return io.BytesIO()


class NoDecoder:
    """Stands for decoding."""

    def load_waveform(self, *_: object) -> Waveform:
        """No samples."""
        samples = np.zeros(0, np.float32)
        return Waveform(samples=samples, length=0, decoder="none", seconds=30.0)

    def close(self) -> None:
        """There is nothing to end."""


def make_tiny_records(
    clip: Clip, _: Waveform, names: Sequence[str], *__: Any
) -> ClipRecords:
    """Stands for computing: one small record, which differs by file."""
    return ClipRecords(
        records={name: [clip.path.encode()] for name in names},
        moments={},
        audio=clip.track_id,
        compute_ms=0.0,
    )


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_row(phase: str, wall: float, cpu: float) -> list[str]:
    """A phase that began at these readings of the clocks and ends now."""
    seconds = time.monotonic() - wall, time.process_time() - cpu
    return [phase, *(f"{value:.0f}" for value in (*seconds, peak_mib()))]


def measure(
    count: int, num_shards: int, folder: Path, *, labels: str = "top"
) -> list[list[str]]:
    """Runs the job; returns a table of phases.

    Raises:
      RuntimeError: the dataset's counts are not the planted ones.
    """
    metadata = folder / "tracks.csv"
    write_metadata(metadata, count, several=labels == "all")
    rows = [["imports and CSV", "", "", f"{peak_mib():.0f}"]]
    arguments = preprocess.make_parser().parse_args(
        [
            f"--audio=listed://{count}/**.mp3",
            f"--metadata={metadata}",
            f"--output={folder / 'dataset'}",
            "--representations=mel",
            "--mel_images_per_clip=1",
            f"--num_shards={num_shards}",
            f"--labels={labels}",
        ]
    )
    started = time.monotonic(), time.process_time()
    job, inputs = make_job(arguments)
    rows.append(make_row("plan", *started))
    prepare_output(job.dataset, overwrite=False)
    started = time.monotonic(), time.process_time()
    run_job(job, inputs, ["--direct_running_mode=in_memory"])
    rows.append(make_row("job", *started))
    check(json.loads((folder / "dataset" / "manifest.json").read_text()), count)
    return rows


def check(manifest: dict[str, Any], count: int) -> None:
    """Compares a manifest with what was planted.

    Raises:
      RuntimeError: they differ.
    """
    planted = {
        fault: sum(is_faulty(number, fault) for number in range(count))
        for fault in FAULTS
    }
    clips = sum(manifest["clip_totals"].values())
    if manifest["rejects"] != planted or clips != count - sum(planted.values()):
        raise RuntimeError(
            f"Expected {planted} and {count - sum(planted.values())} clips. "
            f"Received: {manifest['rejects']} and {clips}"
        )


def describe_spots(count: int, num_shards: int) -> str:
    """How even shards are, and how large the largest artist."""
    sizes = np.bincount(
        [stable_hash(f"{number:07d}") % num_shards for number in range(count)],
        minlength=num_shards,
    )
    artists = collections.Counter(map(find_artist, range(count)))
    (name, most), *_ = artists.most_common(1)
    return (
        f"{num_shards} shards of {sizes.mean():.0f} clips on average, at most "
        f"{sizes.max()} ({sizes.max() / sizes.mean():.2f} times), at least "
        f"{sizes.min()}; {len(artists):,} artists, the largest ({name}) with "
        f"{most:,} tracks"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh run benchmarks.paths", description=__doc__
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--num_shards", type=int, default=2048)
    parser.add_argument(
        "--labels", choices=("top", "all"), default="top", help="one genre, or several"
    )
    arguments = parser.parse_args(argv)
    silence_beam()
    shard.fetch_audio = fetch_nothing
    shard.make_records = make_tiny_records  # type: ignore[attr-defined, assignment]
    make_shards.IsolatedDecoder = NoDecoder  # type: ignore[attr-defined, assignment]
    with tempfile.TemporaryDirectory(prefix="paths-") as folder:
        rows = measure(
            arguments.count,
            arguments.num_shards,
            Path(folder),
            labels=arguments.labels,
        )
    print()
    print(align(["phase", "wall s", "CPU s", "peak MiB"], rows))
    print(describe_spots(arguments.count, arguments.num_shards))
    return 0


if __name__ == "__main__":
    sys.exit(main())

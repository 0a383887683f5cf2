"""What FMA's subsets take on Dataflow and on Flink, on paper.

    ./launch.sh run benchmarks.plan

From the measured cost of a clip and the constants of `pipeline.launch.estimate`, as
`./launch.sh dataflow` estimates it, but without a bucket. docs/reference/scaling.md
explains.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence

from pipeline.cloud.machines import Machine, parse_machine
from pipeline.cloud.submission import DISK_GB
from pipeline.common.plain_text import align
from pipeline.inputs.splits import stable_hash
from pipeline.launch import estimate
from pipeline.launch.plan import suggest_shards
from pipeline.schema import SPLITS

#: Tracks and GB of audio, of which a job reads: all of 30 s clips, and of an untrimmed
#: MP3 its header and the bytes of the middle 30 s.
SUBSETS = {
    "small": (8_000, 7.7, 7.7),
    "medium": (25_000, 23.6, 23.6),
    "large": (106_574, 99.9, 99.9),
    "full": (106_574, 943.8, 140.0),
}
#: Share of the tracks that carry a label, by `--labels` (FMA issue 11): of small and
#: medium all have a top genre; the others are rejects, whose audio is not read.
LABELLED = {
    "small": {"top": 1.0},
    "medium": {"top": 1.0},
    "large": {"top": 0.47, "all": 0.98},
    "full": {"top": 0.47, "all": 0.98},
}
WORKERS = (1, 4, 16, 64)
#: Measured: CPU milliseconds and MB of records of a clip, three representations.
CLIP_MS = 80.0
CLIP_MB = 0.82
REPRESENTATIONS = 3
SLOTS = (8, 64, 512)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlinkTimes:
    """Seconds of a job on Flink that do not depend on the number of clips.

    Measured with 400 clips on two slots, on two cores that nothing else used.

    Attributes:
      look: from the command to workers that have looked, on a cluster just started.
      stages: of the six between the look's and the last.
      last: imports TensorFlow, analyses, completes.
      path: of the preflight, a path (`benchmarks.paths`).
    """

    look: float = 18.0
    stages: float
    last: float
    path: float = 164 / 1e6


KEPT = FlinkTimes(stages=3.2, last=4.5)
ANEW = FlinkTimes(stages=5 * 5.2 + 4.0, last=9.0)


def count_busiest(clips: int, slots: int) -> int:
    """Clips of the slot that gets most: shards go to slots by a hash, too."""
    shards = suggest_shards(clips)
    counts = [0] * slots
    for clip in range(clips):
        shard = stable_hash(str(clip)) % shards
        counts[stable_hash(f"shard {shard}") % slots] += 1
    return max(counts)


def list_flink_runs(clips: int) -> Iterator[list[str]]:
    """Yields slots, clips of the busiest, and minutes with workers kept and anew."""
    for slots in SLOTS:
        busiest = count_busiest(clips, slots)
        work = busiest * CLIP_MS / 1000 * estimate.JOB_OVERHEAD
        minutes = [
            (work + t.look + t.stages + t.last + t.path * clips) / 60
            for t in (KEPT, ANEW)
        ]
        even = f"{busiest * slots / clips:.2f}"
        yield [str(slots), f"{busiest:,}", even, *(f"{m:.1f} min" for m in minutes)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A subset on a number of workers."""

    clips: int
    workers: int
    machine: Machine

    @property
    def seconds(self) -> float:
        """Wall time, with the time until workers compute."""
        cpu = self.clips * CLIP_MS / 1000 * estimate.JOB_OVERHEAD
        busy = min(self.workers * self.machine.vcpus, suggest_shards(self.clips))
        return cpu / busy + estimate.DATAFLOW_START

    @property
    def dollars(self) -> float:
        """At list prices, without storage and network."""
        vcpus = self.workers * self.machine.vcpus
        prices = dataclasses.replace(
            estimate.Prices(),
            memory_gb=self.machine.memory_gib / self.machine.vcpus,
            disk_gb=DISK_GB / self.machine.vcpus,
        )
        return self.seconds / 3600 * vcpus * prices.worker_hour


def list_jobs() -> Iterator[tuple[str, str, int, float, float]]:
    """Yields subset, labels, clips that carry one, GB stored and GB read."""
    for name, (tracks, stored, read) in SUBSETS.items():
        for labels, share in LABELLED[name].items():
            yield name, labels, round(tracks * share), stored, read * share


def main(argv: Sequence[str] | None = None) -> int:
    """Prints three tables; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh run benchmarks.plan", description=__doc__
    )
    parser.add_argument("--machine_type", default="n1-standard-4")
    machine = parse_machine(parser.parse_args(argv).machine_type)
    sizes, runs = [], []
    for name, labels, clips, stored, read in list_jobs():
        shards = suggest_shards(clips)
        sizes.append(
            [
                f"fma_{name}",
                labels,
                f"{clips:,}",
                f"{stored:,.0f}",
                f"{read:,.0f}",
                f"{clips * CLIP_MS / 3.6e6 * estimate.JOB_OVERHEAD:.1f}",
                f"{clips * CLIP_MB / 1000:.1f}",
                f"{shards:,}",
                f"{clips / shards:.0f}",
                f"{shards * REPRESENTATIONS * len(SPLITS):,}",
            ]
        )
        plans = [Plan(clips=clips, workers=n, machine=machine) for n in WORKERS]
        runs.append(
            [
                f"fma_{name}, {labels}",
                *(f"{p.seconds / 60:.0f} min, ${p.dollars:.2f}" for p in plans),
            ]
        )
    header = [
        "subset",
        "labels",
        "clips",
        "stored",
        "read",
        "CPU",
        "records",
        "shards",
        "clips/shard",
        "files",
    ]
    units = ["-", "-", "-", "GB", "GB", "hours", "GB", "-", "-", "-"]
    print(align(header, [units, *sizes]))
    print()
    print(align([machine.name, *(f"{n} workers" for n in WORKERS)], runs))
    print()
    clips = SUBSETS["full"][0]
    names = [f"fma_full, {clips:,} clips: slots", "busiest", "of mean", "kept", "anew"]
    print(align(names, list(list_flink_runs(clips))))
    print(
        f"\nMemory of a worker: {machine.memory_gib:.1f} GiB, of which "
        f"{machine.headroom_gib:.1f} stay free with {machine.vcpus} processes of one "
        "thread each."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measures what the pipeline costs: `./launch.sh run benchmarks.run --help`.

Prints a table of ratios against their goals, and draws where the time goes.
All that is compared is measured in one run, interleaved.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import threadpoolctl

from benchmarks import plots
from benchmarks.analysis import measure_analysis
from benchmarks.clips import make_clips
from benchmarks.jobs import MODES, JobTimes, run_job
from benchmarks.ways import ARTICLE, make_ours, make_stages, make_ways
from pipeline.common.plain_text import align
from pipeline.demo.corpus import make_corpus
from pipeline.demo.layout import DemoConfig

#: Two workers on a store where opening a file takes 80 ms.
STORE = "80 ms store"
#: Clips whose records are made outside a job, before each job.
BARE_CLIPS = 40


def time_interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """CPU milliseconds of each call: the median over rounds that alternate."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name].append((time.process_time() - started) * 1000)
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}


def measure_ways(clips: Sequence[Path], rounds: int) -> dict[str, float]:
    """CPU milliseconds a clip of each way, means over clips."""
    ways = make_ways()
    totals = dict.fromkeys(ways, 0.0)
    for number, clip in enumerate(clips):
        print(f"ways: clip {number + 1} of {len(clips)}", flush=True)
        calls = {name: (lambda w=way, c=clip: w(c)) for name, way in ways.items()}
        for name, milliseconds in time_interleaved(calls, rounds).items():
            totals[name] += milliseconds / len(clips)
    return totals


def measure_jobs(
    small: Path, large: Path, scratch: Path, repeats: int, *, one_worker: bool
) -> tuple[dict[str, list[JobTimes]], float]:
    """Whole jobs of two sizes in every mode, and the bare function beside them.

    Returns:
      Times by job, and CPU milliseconds of a clip's records without a job: the
      median of looks taken before each job, on clips that the job reads too.
    """
    results: dict[str, list[JobTimes]] = {}
    bare = []
    modes = [(mode, options, "pipeline.preprocess") for mode, options in MODES.items()]
    modes.append((STORE, MODES["2 workers"], "benchmarks.slow_store"))
    clips = itertools.cycle(sorted(large.parent.glob("*.mp3")))
    with threadpoolctl.threadpool_limits(1):
        make_bare = make_ours(ARTICLE, records=True)
    for repeat in range(repeats):
        for mode, options, module in modes:
            if mode == "1 worker" and (repeat or not one_worker):
                continue  # For the picture; no goal is about it.
            for size, metadata in (("small", small), ("large", large)):
                with threadpoolctl.threadpool_limits(1):
                    bare.append(_time_bare(make_bare, clips))
                name = f"{mode}, {size}"
                print(f"jobs: {name} ({repeat + 1} of {repeats})", flush=True)
                times = run_job(metadata, scratch / "dataset", options, module=module)
                results.setdefault(name, []).append(times)
                print(
                    f"  {times.wall:.1f} s wall, {times.cpu:.1f} s CPU; a clip's "
                    f"records alone {bare[-1]:.1f} ms",
                    flush=True,
                )
    return results, sorted(bare)[len(bare) // 2]


def _time_bare(make: Callable[[Path], object], clips: Iterator[Path]) -> float:
    make(next(clips))
    started = time.process_time()
    for clip in itertools.islice(clips, BARE_CLIPS):
        make(clip)
    return (time.process_time() - started) * 1000 / BARE_CLIPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobCost:
    """What a clip costs in a mode, start-up subtracted: means over the repeats.

    Attributes:
      cpu: milliseconds of the whole process tree.
      wall: milliseconds.
      large_to_small: wall time of the large job over that of the small one.
      peaks: largest resident memory of any process in bytes, small and large.
    """

    cpu: float
    wall: float
    large_to_small: float
    peaks: tuple[int, int]

    @property
    def busy_cores(self) -> float:
        """Cores kept busy; it does not change with the machine's speed."""
        return self.cpu / self.wall


def summarise_jobs(jobs: Mapping[str, Sequence[JobTimes]], mode: str) -> JobCost:
    """The slope between the two sizes."""
    small, large = jobs[f"{mode}, small"], jobs[f"{mode}, large"]
    clips = sum(job.clips for job in large) - sum(job.clips for job in small)

    def slope(what: str) -> float:
        total: float = sum(getattr(job, what) for job in large)
        total -= sum(getattr(job, what) for job in small)
        return total * 1000 / clips

    return JobCost(
        cpu=slope("cpu"),
        wall=slope("wall"),
        large_to_small=sum(j.wall for j in large) / sum(j.wall for j in small),
        peaks=(max(j.peak_rss[0] for j in small), max(j.peak_rss[0] for j in large)),
    )


def make_rows(
    ways: Mapping[str, float],
    jobs: Mapping[str, Sequence[JobTimes]],
    costs: Mapping[str, float],
) -> list[list[str]]:
    """The goals, what was seen, and whether it is enough."""
    ours = ways["pipeline: three representations"]
    notebook = ways["notebook: five loads"]
    shared = ways["librosa: one load, one STFT"]
    statistics = ways["librosa: 518 statistics"] / ways["pipeline: statistics"]
    rows = [
        _row("notebook / three representations", notebook / ours, 8, least=True),
        _row("one STFT in librosa / three representations", shared / ours, 3.4, True),
        _row("three representations / floor", ours / ways[_FLOOR], 1.6),
        _row("librosa's 518 statistics / statistics", statistics, 4, least=True),
    ]
    if jobs:
        rows += _job_rows(jobs, costs)
    return rows


_FLOOR = "floor: decode and one FFT pass"


def _job_rows(
    jobs: Mapping[str, Sequence[JobTimes]], costs: Mapping[str, float]
) -> list[list[str]]:
    bare = costs["a clip's records"]
    one, two, slow = (
        summarise_jobs(jobs, mode) for mode in ("one process", "2 workers", STORE)
    )
    return [
        _row("job in one process / bare records, CPU", one.cpu / bare, 1.2),
        _row("job with 2 workers / bare records, CPU", two.cpu / bare, 1.35),
        _row("tft analysis, CPU ms a clip", costs["tft analysis"], 3),
        _row("one process / 2 workers, wall", one.wall / two.wall, 1.8, least=True),
        _row("2 workers, large / small, wall", two.large_to_small, 4.2),
        _row("2 workers, large / small, memory", two.peaks[1] / two.peaks[0], 1.1),
        _row("peak memory of a process, GiB", max(two.peaks) / 2**30, 1.3),
        _row("80 ms store / local disk, wall", slow.wall / two.wall, 1.15),
        _row("the same, of busy cores", two.busy_cores / slow.busy_cores, 1.15),
    ]


def _row(name: str, seen: float, goal: float, least: bool = False) -> list[str]:
    reached = seen >= goal if least else seen <= goal
    sign = ">=" if least else "<="
    return [name, f"{sign} {goal:g}", f"{seen:.2f}", "yes" if reached else "NO"]


def find_sources(scratch: Path, paths: Sequence[str]) -> list[Path]:
    """MP3s to make the load from: those paths, or a clip of each demo genre."""
    if paths:
        return [Path(path) for path in paths]
    print("making a demo clip of each genre", flush=True)
    config = DemoConfig(
        output=scratch / "demo",
        artists_per_genre=(1, 0, 0),
        tracks_per_artist=(1, 1, 1),
        broken=False,
    )
    make_corpus(config)
    return sorted((scratch / "demo").rglob("*.mp3"))


def make_parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh run benchmarks.run", description=__doc__
    )
    parser.add_argument("--output", default="benchmark-results", metavar="DIR")
    parser.add_argument("--audio", nargs="*", default=[], metavar="MP3")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each way")
    parser.add_argument("--clips", type=int, nargs=2, default=[400, 1600])
    parser.add_argument("--repeats", type=int, default=1, help="runs of each job")
    parser.add_argument(
        "--no_one_worker", action="store_true", help="no job with a single worker"
    )
    parser.add_argument("--no_jobs", action="store_true", help="only the functions")
    parser.add_argument("--scratch", metavar="DIR", help="for clips and datasets")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all benchmarks; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-", dir=arguments.scratch))
    try:
        sources = find_sources(scratch, arguments.audio)
        small, large = (
            make_clips(sources, scratch / f"clips-{count}", count)
            for count in arguments.clips
        )
        distinct = sorted(small.parent.glob("*.mp3"))[: len(sources)]
        # No way may use another core.
        with threadpoolctl.threadpool_limits(1):
            ways = measure_ways(distinct, arguments.rounds)
            calls = make_stages(distinct[0])
            stages = time_interleaved(calls, arguments.rounds)
        jobs: dict[str, list[JobTimes]] = {}
        costs: dict[str, float] = {}
        if not arguments.no_jobs:
            jobs, bare = measure_jobs(
                small,
                large,
                scratch,
                arguments.repeats,
                one_worker=not arguments.no_one_worker,
            )
            costs = {"a clip's records": bare, "tft analysis": measure_analysis()}
    finally:
        shutil.rmtree(scratch)
    rows = make_rows(ways, jobs, costs)
    tables = "\n\n".join(
        [
            align(["ratio", "goal", "seen", "reached"], rows),
            align(["way", "CPU ms"], [[n, f"{v:.1f}"] for n, v in ways.items()]),
            align(["stage", "CPU ms"], [[n, f"{v:.2f}"] for n, v in stages.items()]),
            _describe_jobs(jobs),
        ]
    )
    print(f"\n{tables}")
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} "
        f"cores, Python {platform.python_version()}",
        "ways": ways,
        "stages": stages,
        "costs": costs,
        "jobs": {
            name: [dataclasses.asdict(item) for item in times]
            for name, times in jobs.items()
        },
    }
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (output / "results.txt").write_text(tables + "\n")
    plots.draw(results, output)
    print(f"\nresults in {output}")
    return 0


def _describe_jobs(jobs: Mapping[str, Sequence[JobTimes]]) -> str:
    header = ["job", "clips", "wall s", "CPU s", "runner's CPU s", "peak MiB"]
    rows = []
    for name, times in jobs.items():
        for job in times:
            peaks = "+".join(f"{size / 2**20:.0f}" for size in job.peak_rss[:3])
            numbers = [f"{n:.1f}" for n in (job.wall, job.cpu, job.runner_cpu)]
            rows.append([name, str(job.clips), *numbers, peaks])
    return align(header, rows)


if __name__ == "__main__":
    sys.exit(main())

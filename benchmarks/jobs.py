"""Whole jobs in processes of their own, watched from outside."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.ways import ARTICLE

#: Seconds between looks at the process tree.
INTERVAL = 0.05

MODES = {
    "one process": ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    "1 worker": ["--direct_running_mode=multi_processing", "--direct_num_workers=1"],
    "2 workers": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobTimes:
    """What a job took.

    Attributes:
      clips: number of clips.
      wall: seconds.
      cpu: user and system seconds of the whole process tree.
      runner_cpu: those of the first process alone.
      peak_rss: largest resident memory of each process, in bytes, descending.
    """

    clips: int
    wall: float
    cpu: float
    runner_cpu: float
    peak_rss: Sequence[int]


def run_job(
    metadata: Path,
    output: Path,
    options: Sequence[str],
    *,
    module: str = "pipeline.preprocess",
) -> JobTimes:
    """Preprocesses a folder of clips.

    Args:
      metadata: CSV made by `benchmarks.clips`, beside its clips.
      output: dataset folder; emptied first and removed afterwards.
      options: further options of `pipeline.preprocess`.
      module: command line to run.
    """
    shutil.rmtree(output, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        module,
        f"--audio={metadata.parent}/*.mp3",
        f"--metadata={metadata}",
        f"--output={output}",
        "--mel_images_per_clip=1",
        "--representations",
        *ARTICLE,
        *options,
    ]
    started = time.monotonic()
    process = psutil.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    cpu: dict[int, float] = {}
    memory: dict[int, int] = {}
    while process.poll() is None:
        _look(process, cpu, memory)
        time.sleep(INTERVAL)
    wall = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(process.stderr.read())
    clips = len(list(metadata.parent.glob("*.mp3")))
    shutil.rmtree(output)
    return JobTimes(
        clips=clips,
        wall=wall,
        cpu=sum(cpu.values()),
        runner_cpu=cpu[process.pid],
        peak_rss=sorted(memory.values(), reverse=True),
    )


def _look(root: psutil.Process, cpu: dict[int, float], memory: dict[int, int]) -> None:
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        try:
            times = process.cpu_times()
            cpu[process.pid] = times.user + times.system
            resident = process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        memory[process.pid] = max(memory.get(process.pid, 0), resident)

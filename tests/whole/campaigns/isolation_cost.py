"""What decoding in a process of its own costs.

    python -m tests.whole.campaigns.isolation_cost clip.mp3

Decodes the same file in turns in this process and in a helper, and prints the
CPU time of both ways: medians over rounds.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from pipeline.common.clip_config import ClipConfig
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.decoding.waveform import Loader, load_waveform

#: Decodings in a round: the kernel counts a process's time in hundredths.
BATCH = 20


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.whole.campaigns.isolation_cost"
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args(argv)
    data = arguments.file.read_bytes()

    def measure(load: Loader) -> float:
        started = time.process_time()
        for _ in range(BATCH):
            load(io.BytesIO(data), ClipConfig())
        return (time.process_time() - started) / BATCH * 1000

    with IsolatedDecoder() as decoder:
        measure(load_waveform)
        measure(decoder.load_waveform)
        [helper] = psutil.Process().children()
        direct, own, other = [], [], []
        for _ in range(arguments.rounds):
            direct.append(measure(load_waveform))
            before = sum(helper.cpu_times()[:2])
            own.append(measure(decoder.load_waveform))
            other.append((sum(helper.cpu_times()[:2]) - before) / BATCH * 1000)
        memory = helper.memory_info().rss / 1e6
    medians = [statistics.median(times) for times in (direct, own, other)]
    total = medians[1] + medians[2]
    print(f"in this process    {medians[0]:6.2f} ms of CPU a clip")
    print(f"in a helper        {total:6.2f} ms ({medians[1]:.2f} here)")
    print(f"more               {total / medians[0] - 1:6.1%}")
    print(f"helper's memory    {memory:6.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

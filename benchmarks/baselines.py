"""Time and memory of the baselines at full width.

`./launch.sh run benchmarks.baselines --help`.

Rows are synthetic, of the size that fma_small has: 6,400 training, 800 validation and
800 test clips of 85,210 values. All is measured as `trainer.baselines` does it, from
normalised rows in memory to the test clips' probabilities.
"""

from __future__ import annotations

import argparse
import resource
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
import psutil

from pipeline.common.plain_text import align
from trainer.baselines.choice import Examples
from trainer.baselines.fitting import BASELINES
from trainer.data.distances import squared_distances

GENRES = 8
#: Directions in which the clips of a genre differ, and the genres from each other.
RANK = 60
ROWS_AT_ONCE = 200


def make_rows(clips: int, values: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with mean 0 and variance about 1, and their genres."""
    common = np.random.default_rng(0)
    directions = common.standard_normal((RANK, values), np.float32)
    centres = 0.35 * common.standard_normal((GENRES, RANK), np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, GENRES, clips)
    rows = np.empty((clips, values), np.float32)
    for start in range(0, clips, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        samples = centres[labels[part]]
        samples = samples + rng.standard_normal(samples.shape, np.float32)
        rows[part] = 0.05 * (samples @ directions)
        rows[part] += rng.standard_normal(rows[part].shape, np.float32)
    return rows, labels


class PeakMemory:
    """Largest resident memory of this process while a block runs."""

    def __enter__(self) -> PeakMemory:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.05):
            self.bytes = max(self.bytes, process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh run benchmarks.baselines",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("--clips", type=int, default=6_400, help="of training")
    parser.add_argument("--values", type=int, default=85_210, help="of a clip")
    names = [baseline.name for baseline in BASELINES]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    flags = parser.parse_args(argv)
    training, labels = make_rows(flags.clips, flags.values, 1)
    others, other_labels = make_rows(flags.clips // 4, flags.values, 2)
    half = len(others) // 2
    started = time.perf_counter()
    with PeakMemory() as memory:
        products = squared_distances(training, training)
        other_products = squared_distances(others, training)
    seconds = time.perf_counter() - started
    table = [["distances", f"{seconds:.0f}", f"{memory.bytes / 2**30:.1f}", ""]]
    print(table[-1], flush=True)
    for baseline in BASELINES:
        if baseline.name not in flags.models:
            continue
        inputs = (products, other_products)
        if not baseline.on_distances:
            inputs = (training, others)
        started = time.perf_counter()
        with PeakMemory() as memory:
            classifier = baseline.fit(
                Examples(
                    training=inputs[0],
                    training_labels=labels,
                    validation=inputs[1][:half],
                    validation_labels=other_labels[:half],
                    genres=GENRES,
                )
            )
            predictions = classifier.predict(inputs[1][half:]).argmax(axis=1)
        seconds = time.perf_counter() - started
        accuracy = np.mean(predictions == other_labels[half:])
        table.append(
            [
                baseline.name,
                f"{seconds:.0f}",
                f"{memory.bytes / 2**30:.1f}",
                f"{accuracy:.3f}",
            ]
        )
        print(table[-1], flush=True)
    print()
    print(align(["step", "seconds", "peak GiB", "accuracy"], table))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\npeak of all: {peak / 2**30:.1f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Kills a preprocessing job at random moments: `python -m tests.whole.campaigns.kill`.

Each kill is a SIGKILL of the job's first process alone, at a moment drawn evenly
from the time that an undisturbed job takes, imports and the last step included.
The job is then started again in the same folder, and killed again, until it ends or
was killed as often as `--in_a_row` allows; then its files are compared with those of
the undisturbed job and a new folder begins. Jobs in one process and with two workers
take turns, and so do jobs in a new folder and those that replace a dataset
(`--overwrite`), which has to be whole after every kill: the old one or the new one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.support.jobs import (
    MODES,
    kill,
    looks_finished,
    read_dataset,
    start,
    write_leaking_corpus,
)


def run_undisturbed(flags: Sequence[str], output: Path) -> float:
    """Runs a job to its end; returns the seconds that it took."""
    started = time.monotonic()
    process = start([*flags, f"--output={output}"], output.with_suffix(".log"))
    if process.wait():
        raise RuntimeError(output.with_suffix(".log").read_text())
    return time.monotonic() - started


def run_until_killed(
    flags: Sequence[str], output: Path, seconds: float
) -> tuple[bool, list[psutil.Process]]:
    """Runs a job and kills it after some seconds.

    Returns:
      Whether it ended before that, and the processes that outlive it.
    """
    process = start([*flags, f"--output={output}"], output.with_suffix(".log"))
    try:
        code = process.wait(timeout=seconds)
    except psutil.TimeoutExpired:
        return False, kill(process)
    if code:
        raise RuntimeError(output.with_suffix(".log").read_text())
    return True, []


def describe_state(output: Path) -> str:
    """How far a killed job was."""
    finished = len(list(output.glob("_progress/shard-*.json")))
    if (output / "COMPLETED").exists():
        return "when the dataset was complete"
    if not (output / "_progress").exists():
        return "before it wrote anything"
    lists = len(list(output.glob("clips/*")))
    state = f"{finished} shards finished"
    return state + (f", {lists} of them for good" if lists else "")


def is_whole(output: Path, *datasets: dict[str, bytes]) -> bool:
    """Whether a folder holds one of some datasets, apart from what is being built."""
    found = {
        name: content
        for name, content in read_dataset(output).items()
        if not name.startswith("_next/")
    }
    return found in datasets


def compare(output: Path, expected: dict[str, bytes]) -> list[str]:
    """Names of files that are missing, too many or different."""
    found = read_dataset(output)
    return sorted(
        name for name in found | expected if found.get(name) != expected.get(name)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign; returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.whole.campaigns.kill", description=__doc__
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--in_a_row", type=int, default=0, help="0: no limit")
    parser.add_argument(
        "--representations", nargs="+", default=["windows", "mel", "features"]
    )
    arguments = parser.parse_args(argv)
    draw = random.Random(arguments.seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        flags = write_leaking_corpus(folder, arguments.clips)
        flags += [f"--num_shards={arguments.shards}", "--representations"]
        flags += arguments.representations
        seconds, expected = {}, {}
        for mode, options in MODES.items():
            output = folder / f"undisturbed {mode}"
            seconds[mode] = run_undisturbed([*flags, *options], output)
            expected[mode] = read_dataset(output)
            print(f"undisturbed, {mode}: {seconds[mode]:.0f} s", flush=True)
        old = folder / "old"
        run_undisturbed([*flags, *MODES["one process"], "--description=old"], old)
        before = read_dataset(old)
        first, second = expected.values()
        if first != second:
            faults.append("one process and two workers make different files")
        kills = datasets = kept = 0
        while kills < arguments.kills:
            mode = list(MODES)[datasets % 2]
            output = folder / f"killed {datasets}"
            replacing = datasets % 4 > 1
            if replacing:
                shutil.copytree(old, output)
            ended = False
            row = arguments.in_a_row
            last = kills + (draw.randint(1, row) if row else arguments.kills)
            while not ended:
                after = draw.uniform(0, seconds[mode])
                if kills >= min(last, arguments.kills):
                    after = 10 * seconds[mode] + 60
                job = [*flags, *MODES[mode], *["--overwrite"] * replacing]
                ended, orphans = run_until_killed(job, output, after)
                if ended:
                    break
                kills += 1
                print(
                    f"kill {kills} ({mode}) after {after:.1f} s: "
                    f"{describe_state(output / '_next' if replacing else output)}",
                    flush=True,
                )
                if replacing:
                    if not is_whole(output, before, expected[mode]):
                        faults.append(f"kill {kills}: no dataset is whole")
                    ended = is_whole(output, expected[mode])
                else:
                    ended = (output / "COMPLETED").exists()  # Killed while it left.
                    if looks_finished(output) and not ended:
                        faults.append(f"kill {kills}: a manifest is there")
                # Half of the time the next job starts beside the orphans.
                if draw.random() < 0.5:
                    psutil.wait_procs(orphans, timeout=30)
                    if any(orphan.is_running() for orphan in orphans):
                        faults.append(f"kill {kills}: processes live on")
            datasets += 1
            log = output.with_suffix(".log").read_text()
            lines = [
                line for line in log.splitlines() if "kept from an earlier run" in line
            ]
            kept += bool(lines)
            wrong = compare(output, expected[mode])
            if wrong:
                faults.append(f"dataset {datasets}: {len(wrong)} files, {wrong[:5]}")
            shards = lines[0] if lines else "nothing kept."
            print(
                f"dataset {datasets} ({mode}): {shards} "
                f"{len(wrong)} of {len(expected[mode])} files differ",
                flush=True,
            )
    print(
        f"{kills} kills, {datasets} datasets, {kept} of them with shards kept; "
        f"{len(faults)} faults"
    )
    for fault in faults:
        print(f"fault: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

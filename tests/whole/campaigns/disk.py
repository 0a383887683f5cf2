"""Fills the disk under a preprocessing job: `python -m tests.whole.campaigns.disk`.

Mounts small file systems of growing size in memory, and so needs root on
Linux. Each job must say in one sentence what is wrong and leave nothing that looks
finished. Then the disk grows, and the same command must end with the files of an
undisturbed job.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.audio_files import encode_with_ffmpeg, make_music
from tests.support.jobs import looks_finished, read_dataset, start, write_leaking_corpus
from tests.whole.campaigns.kill import compare, run_undisturbed

ROOM = 200  # MB, enough for all.


@contextlib.contextmanager
def mount(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of that size."""
    folder.mkdir()
    options = f"size={kilobytes}k"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def check_temporary(folder: Path, flags: Sequence[str]) -> list[str]:
    """What is wrong with a job whose temporary folder has next to no room."""
    place = folder / "temporary"
    log = folder / "temporary.log"
    # In place of the last clip, one that takes ffmpeg, and so a copy.
    clip = sorted((folder / "audio").glob("*.wav"))[-1]
    clip.write_bytes(encode_with_ffmpeg(make_music(60.0), extension="m4a"))
    with mount(place, 256):
        code = start(
            [*flags, f"--output={folder}/small"], log, {"TMPDIR": str(place)}
        ).wait()
        left = list(place.iterdir())
    text = log.read_text()
    if code or "Traceback" in text or "no_space" not in text or left:
        return [f"temporary folder: exit code {code}, {left}, {text[-300:]}"]
    return []


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign; returns 1 if anything was not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.whole.campaigns.disk", description=__doc__
    )
    parser.add_argument("--disks", type=int, default=8)
    parser.add_argument("--clips", type=int, default=24)
    arguments = parser.parse_args(argv)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="disk-") as name:
        folder = Path(name)
        flags = [*write_leaking_corpus(folder, arguments.clips), "--num_shards=6"]
        run_undisturbed(flags, folder / "undisturbed")
        expected = read_dataset(folder / "undisturbed")
        whole = sum(map(len, expected.values())) // 1024
        print(f"undisturbed: {whole} kB in {len(expected)} files", flush=True)
        for disk in range(arguments.disks):
            size = whole * (disk + 1) // (arguments.disks + 1)
            if disk == arguments.disks - 1:
                size = whole - 40  # Room for all shards, not for what follows.
            place = folder / f"disk {disk}"
            output, log = place / "out", folder / "log"
            job = [*flags, f"--output={output}"]
            with mount(place, size):
                code = start(job, log).wait()
                lines = log.read_text().splitlines()
                errors = [line for line in lines if line.startswith("error: ")]
                if code != 1 or len(errors) != 1 or "Traceback" in log.read_text():
                    faults.append(f"{size} kB: exit code {code}, {lines[-3:]}")
                if looks_finished(output):
                    faults.append(f"{size} kB: a marker or a manifest is there")
                grow = ["mount", "-o", f"remount,size={ROOM}m", str(place)]
                subprocess.run(grow, check=True)
                if start(job, log).wait():
                    faults.append(f"{size} kB: then {log.read_text()[-300:]}")
                    continue
                kept = [
                    s
                    for s in log.read_text().splitlines()
                    if "kept from an earlier run" in s
                ]
                wrong = compare(output, expected)
                if wrong:
                    faults.append(f"{size} kB: then {len(wrong)} files, {wrong[:5]}")
            print(
                f"{size} kB: {errors[:1]}; then {kept[:1]}, {len(wrong)} files differ",
                flush=True,
            )
        faults += check_temporary(folder, flags)
    print(f"{arguments.disks} disks, {len(faults)} faults")
    for fault in faults:
        print(f"fault: {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

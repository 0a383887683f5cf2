"""Jobs in processes of their own, to be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import soundfile

from tests.support.corpora import write_csv, write_tone

ROOT = Path(__file__).resolve().parents[2]
MODES = {
    "one process": ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    "two workers": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}
#: The one file of a dataset that differs from run to run: it has times in it.
REPORT = "report.json"


def write_leaking_corpus(folder: Path, clips: int) -> list[str]:
    """Tones, some of which share audio or artist across splits, and a broken file.

    Returns the flags that name them.
    """
    rows = []
    for index in range(clips):
        path = write_tone(folder / "audio" / f"{index:03d}.wav", 200 + index)
        rows.append(
            {
                "path": path.name,
                "genre": ["High", "Low"][index % 2],
                "track_id": f"t{index}",
                "artist_id": f"a{index // 2}",
                "split": ["training", "training", "test", "validation"][index // 2 % 4],
            }
        )
    rows[-1]["artist_id"] = rows[4]["artist_id"]
    samples, rate = soundfile.read(folder / "audio" / "004.wav")
    soundfile.write(folder / "audio" / "001.wav", samples, rate)
    (folder / "audio" / "003.wav").write_bytes(b"RIFF nothing")
    write_csv(folder / "tracks.csv", rows)
    return [f"--audio={folder}/audio/*.wav", f"--metadata={folder}/tracks.csv"]


def start(
    flags: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    module: str = "pipeline.preprocess",
) -> psutil.Popen:
    """Starts a job, with more of an environment; what it prints goes to a file."""
    with log.open("wb") as file:
        return psutil.Popen(
            [sys.executable, "-m", module, *flags],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
        )


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {seconds} s in vain.")
        time.sleep(0.01)


def kill(process: psutil.Popen) -> list[psutil.Process]:
    """Kills a job's first process alone; returns those that it had started."""
    children = process.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return children


def find_workers(process: psutil.Popen) -> list[psutil.Process]:
    """Beam's worker processes of a job."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # It may end meanwhile.
            line = child.cmdline()
            # For a moment, a process that was just started has no command line.
            named = line and "python" in Path(line[0]).name
            if named and "pipeline.job.worker" in line:
                found.append(child)
    return found


def read_dataset(folder: Path) -> dict[str, bytes]:
    """All files of a dataset but the report."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    del found[REPORT]
    return found


def looks_finished(folder: Path) -> bool:
    """Whether a marker is there, or what is written just before."""
    names = ("COMPLETED", "manifest.json", "labels.json")
    return any((folder / name).exists() for name in names)


def count_finished(folder: Path) -> int:
    """Number of shards that an unfinished job has finished."""
    return len(list(folder.glob("_progress/shard-*.json")))

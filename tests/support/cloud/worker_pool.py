"""Beam's worker pool in an environment that has the dependencies and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import find_free_ports

BOOT = Path(__file__).with_name("worker_boot.py")


def make_clean_environment(folder: Path) -> Path:
    """Makes an environment with this one's packages; returns its Python.

    The project is in none: here it is found by the working directory alone.
    """
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@contextlib.contextmanager
def worker_pool(python: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Starts a pool whose workers boot as in Beam's container.

    Args:
      python: of the clean environment.
      folder: for the boot script and the log.

    Yields:
      The pool's address, and its log.
    """
    boot = folder / "boot"
    text = BOOT.read_text().partition("\n")[2]
    boot.write_text(f"#!{python}\n{text}")
    boot.chmod(0o755)
    log = folder / "pool.log"
    [port] = find_free_ports()
    command = [str(python), "-m", "apache_beam.runners.worker.worker_pool_main"]
    command += [f"--service_port={port}", f"--container_executable={boot}"]
    scratch = folder / "scratch"
    scratch.mkdir()
    variables = {"PATH": os.environ["PATH"], "HOME": str(scratch)}
    # Other kernels of the linear algebra round otherwise.
    variables |= {n: v for n, v in os.environ.items() if n.startswith("OPENBLAS_")}
    variables |= {"TMPDIR": str(scratch), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        _await_port(port, process)
        yield f"localhost:{port}", log
    finally:
        # The pool's own group: its workers end with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def run_on_workers(
    pool: str, options: list[str], *, workers: int = 2, timeout: float = 250
) -> subprocess.CompletedProcess[str]:
    """Runs `tests.support.cloud.run_on_workers` to its end, however it ends."""
    command = [
        sys.executable,
        "-m",
        "tests.support.cloud.run_on_workers",
        pool,
        *options,
    ]
    return subprocess.run(
        [*command, f"--direct_num_workers={workers}"],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("localhost", port), timeout=1),
        ):
            return
        time.sleep(0.2)
    raise RuntimeError("the worker pool did not start")

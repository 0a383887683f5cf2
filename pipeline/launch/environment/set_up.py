"""Makes the environment of launch.sh, or finds that it is whole.

Nothing is resolved: a lock file says what is installed, with hashes, by uv or, where it
cannot be had, pip. Standard library only; launch.sh runs it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path

from pipeline.common.plain_text import print_error
from pipeline.launch.environment import indexes
from pipeline.launch.environment.installed import (
    MARK,
    Environment,
    SetUpError,
    normalise,
    read_pins,
    select_pins,
)

#: Pins uv, which installs everything else.
BOOTSTRAP = "requirements-bootstrap.lock"
#: What is there as source alone is built with these, which therefore come first.
BUILD_TOOLS = ("setuptools", "wheel")
#: Modules by distribution that must be importable, in two processes: TensorFlow takes
#: as long as the others, the first of which it imports at its end.
PROBES: tuple[Mapping[str, str], ...] = (
    {"tensorflow": "tensorflow"},
    {
        "scikit-learn": "sklearn.linear_model",
        "matplotlib": "matplotlib.figure",
        "apache-beam": "apache_beam",
        "librosa": "librosa",
        "soundfile": "soundfile",
    },
)
#: Seconds between two states of a terminal's line, and between two lines in a log.
TICK_SECONDS = 0.2
LINE_SECONDS = 5.0
#: Lines of a failed step that are shown.
TAIL = 12

_FETCHED = re.compile(
    # pip; uv, what it downloads; uv, what it has in its cache.
    r"\s*Collecting ([\w.-]+?)(?:\[|==)"
    r"|DEBUG Sending fresh GET request for: \S+/([\w.]+(?:-[a-zA-Z][\w.]*)*)-\d"
    r"|DEBUG \S+ requirement already cached: ([\w.-]+)=="
)


class Progress:
    """What is being done and for how long: a line that changes, or lines in a log.

    Args:
      total: number of packages.
    """

    def __init__(self, total: int) -> None:
        self._begun = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._total = total
        self._shown = self._begun
        self.seen: set[str] = set()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def note(self, line: str) -> None:
        """Takes a line of pip or uv that may name a package."""
        if match := _FETCHED.match(line):
            self.seen.add(normalise(next(filter(None, match.groups()))))

    def show(self, step: str) -> None:
        """Says where things are, if it is time to."""
        now = time.monotonic()
        if not self._terminal and now - self._shown < LINE_SECONDS:
            return
        self._shown = now
        count = min(len(self.seen), self._total)
        text = f"{step}: {count} of {self._total} packages" if self.seen else step
        if self._terminal:
            print(f"\r\033[K  {self.seconds:.0f} s  {text}", end="", file=sys.stderr)
            sys.stderr.flush()
        else:
            _say(f"  {self.seconds:.0f} s  {text}")

    def clear(self) -> None:
        """Takes the line away."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class StepError(Exception):
    """A program ended badly; the message is the end of what it said."""


class Maker:
    """Makes one environment from one lock file.

    Args:
      environment: to be made; its lock is held.
      lock: file that says what is installed.
      held: descriptor of the lock, which programs inherit: as long as one of them
        lives, nobody else begins.
    """

    def __init__(self, environment: Environment, lock: Path, held: int) -> None:
        self.environment = environment
        self.lock = lock
        self.pins = read_pins(lock.read_text())
        self.progress = Progress(len(self.pins))
        self._held = held
        self._log = environment.mark / "install.log"

    def make(self, fault: str) -> None:
        """Installs, compares, imports, stamps.

        Raises:
          SetUpError: it is not possible here.
        """
        environment = self.environment
        with contextlib.suppress(FileNotFoundError):
            self._log.unlink()
        for cached in (True, False):
            if not (cached and self._can_be_added_to(fault)):
                environment.empty()
                self._create()
            else:
                environment.stamp.unlink()
            self._install(cached)
            difference = environment.find_difference(self.pins)
            if not difference:
                break
            _say(
                f"What was installed is not whole ({difference}); again, without cache."
            )
        else:
            raise SetUpError(
                f"{environment.folder} cannot be made whole: {difference}."
            )
        environment.link_packages()
        self._probe()
        environment.write_stamp(self.lock)
        self.progress.clear()

    def _can_be_added_to(self, fault: str) -> bool:
        """Whether the environment is whole and lacks nothing but some packages."""
        stamp = self.environment.read_stamp()
        pins = stamp.get("pins")
        return (
            fault.startswith("it is not what")
            and isinstance(pins, dict)
            and pins.items() <= self.pins.items()
            and not self.environment.find_missing(stamp)
        )

    def _create(self) -> None:
        command = [sys.executable, "-I", "-m", "venv", str(self.environment.folder)]
        try:
            self._run(
                command, "creating the environment", indexes.pip_variables(os.environ)
            )
        except StepError as error:
            advice = (
                " On Debian and Ubuntu: apt-get install "
                f"python{sys.version_info.major}.{sys.version_info.minor}-venv."
                if "ensurepip" in str(error)
                else ""
            )
            raise SetUpError(
                f"{sys.executable} cannot create a virtual environment in "
                f"{self.environment.folder}:\n{error}{advice}"
            ) from error

    def _install(self, cached: bool) -> None:
        """Installs the lock file with uv, or with pip."""
        bootstrap = self.environment.root / BOOTSTRAP
        try:
            self._pip(bootstrap, "fetching uv", "--only-binary=:all:", cached=cached)
            install: Callable[..., None] = self._uv
        except StepError:
            _say("uv cannot be had here; pip takes its place, which takes longer.")
            install = self._pip
        tools = self.environment.mark / "build-tools.lock"
        tools.write_text(select_pins(self.lock.read_text(), BUILD_TOOLS))
        try:
            if tools.stat().st_size:
                install(tools, "installing", cached=cached)
            install(self.lock, "installing", "--no-build-isolation", cached=cached)
        except StepError as error:
            free = shutil.disk_usage(self.environment.folder).free / 1e9
            raise SetUpError(
                f"the installation of {self.lock.name} failed; the whole log is "
                f"{self._log} ({free:.1f} GB are free there; 4 are needed):\n{error}"
            ) from error

    def _pip(self, lock: Path, step: str, *options: str, cached: bool) -> None:
        command = [str(self.environment.python), "-I", "-m", "pip", "install"]
        command += ["--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--require-hashes", "-r", str(lock), *options]
        command += [] if cached else ["--no-cache-dir"]
        self._run(command, step, indexes.pip_variables(os.environ))

    def _uv(self, lock: Path, step: str, *options: str, cached: bool) -> None:
        command = [str(self.environment.folder / "bin" / "uv"), "pip", "install", "-v"]
        command += ["--no-config", "--python", str(self.environment.python)]
        # Hashes make it safe to look for a package in every index.
        command += ["--no-deps", "--index-strategy=unsafe-best-match"]
        command += ["--require-hashes", "-r", str(lock), *options]
        command += [] if cached else ["--no-cache"]
        variables, settings = indexes.uv_settings(os.environ)
        self._run([*command, *settings], step, variables)

    def _run(
        self, command: Sequence[str], step: str, variables: dict[str, str]
    ) -> None:
        """Runs a program to its end, with what it says in the log."""
        tail: collections.deque[str] = collections.deque(maxlen=TAIL)
        process = subprocess.Popen(
            command,
            # Programs look for settings in the current folder.
            cwd=self.environment.mark,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[self._held],
        )
        reader = threading.Thread(target=self._read, args=(process, tail), daemon=True)
        reader.start()
        while reader.is_alive():
            self.progress.show(step)
            reader.join(TICK_SECONDS)
        if process.wait():
            self.progress.clear()
            raise StepError("\n".join(tail) or f"exit code {process.returncode}")

    def _read(
        self, process: subprocess.Popen[str], tail: collections.deque[str]
    ) -> None:
        for line in process.stdout or ():
            self.progress.note(line)
            if not line.startswith(("DEBUG", "WARNING")) and line.strip():
                tail.append(line.rstrip())
            # A full disk is the program's to complain about.
            with contextlib.suppress(OSError), open(self._log, "a") as log:
                log.write(line)

    def _probe(self) -> None:
        """Imports what has much native code, as everything will that is run here."""
        code = "import importlib, sys\n"
        code += "for name in sys.argv[1:]: importlib.import_module(name)"
        variables = indexes.clean_variables(os.environ) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        # What is compiled here need not be later, by somebody who may not write here.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)

        def probe(names: Sequence[str]) -> str:
            command = [str(self.environment.python), "-I", "-c", code, *names]
            try:
                self._run(command, f"importing {', '.join(names)}", variables)
            except StepError as error:
                return f"{' or '.join(names)} cannot be imported:\n{error}"
            return ""

        groups = [[m for name, m in p.items() if name in self.pins] for p in PROBES]
        with futures.ThreadPoolExecutor(len(PROBES)) as threads:
            faults = [*filter(None, threads.map(probe, filter(None, groups)))]
        if faults:
            raise SetUpError("\n".join([*faults, f"The whole log is {self._log}."]))


@contextlib.contextmanager
def hold(environment: Environment) -> Iterator[int]:
    """Waits until nobody else works on an environment, and keeps others waiting.

    Yields:
      The lock's descriptor.
    """
    path = environment.mark / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    os.set_inheritable(descriptor, True)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Another set-up is at work in {environment.folder}; waiting for it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # A file system without locks.
        yield descriptor
    finally:
        os.close(descriptor)


def claim(environment: Environment, *, ours: bool) -> None:
    """Makes the folder, if need be, and marks it.

    Args:
      environment: to be claimed.
      ours: whether its place is in the checkout, where nobody else's is; if it was
        made by other means it is set aside there, and refused elsewhere.

    Raises:
      SetUpError: the folder is somebody else's.
    """
    folder, mark = environment.folder, environment.mark
    if folder.is_dir() and not mark.is_dir() and os.listdir(folder):
        if not ours:
            raise SetUpError(
                f"{folder} is not empty and was not made by launch.sh; set FMA_ENV to "
                "a folder that does not exist."
            )
        aside = next(
            path
            for number in range(1, 1000)
            if not (path := folder.with_name(f"{folder.name}-{number}")).exists()
        )
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
            _say(f"{folder.name} was not made by launch.sh; it is {aside.name} now.")
    mark.mkdir(parents=True, exist_ok=True)


def set_up(environment: Environment, locks: Sequence[Path], *, thorough: bool) -> None:
    """Makes an environment if it is not whole.

    Args:
      environment: to be made.
      locks: it is whole with one of these; the first is installed if it is not.
      thorough: look into every file.

    Raises:
      SetUpError: it cannot be made.
    """
    claim(environment, ours=environment.folder == environment.root / ".venv")
    with hold(environment) as held:
        fault = environment.find_fault(locks)
        if thorough and not fault:
            fault = environment.find_difference(environment.pins)
        if not fault:
            if thorough:
                _say(f"{environment.folder} is whole.")
            return
        if fault.startswith("its link"):
            environment.link_packages()
            return
        if os.listdir(environment.folder) == [MARK]:
            _say(f"Setting up {environment.folder}")
        else:
            _say(f"Setting up {environment.folder} again: {fault}")
        maker = Maker(environment, locks[0], held)
        maker.make(fault)
        _say(f"Set up in {maker.progress.seconds:.0f} s: {locks[0].name}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Checks or makes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="set_up", description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="the checkout")
    parser.add_argument("--lock", action="append", required=True)
    parser.add_argument("--thorough", action="store_true", help="look at every file")
    flags = parser.parse_args(argv)
    environment = Environment(flags.environment, flags.root)
    locks = [flags.root / name for name in flags.lock]
    try:
        set_up(environment, locks, thorough=flags.thorough)
    except SetUpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print_error(f"{environment.folder} cannot be set up: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

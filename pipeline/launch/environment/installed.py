"""The Python environment that launch.sh runs in: is it whole?

An environment is a folder. `fma-setup` in it says that it was made here and may be
emptied; `fma-setup/installed.json` is written last, after what is installed was held
against the lock file and imported. Standard library only: this runs on whatever Python
3.11 there is.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

#: In the environment: the mark that it is ours, the log and the stamp.
MARK = "fma-setup"
#: What of a checkout its environment can import, whatever the current folder holds.
PACKAGES = ("pipeline", "trainer", "benchmarks", "tests")

_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def normalise(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, str]:
    """Versions by normalised name, of a lock file's text."""
    return {normalise(name): version for name, version in _PIN.findall(text)}


def select_pins(text: str, names: Collection[str]) -> str:
    """The part of a lock file's text that pins some distributions."""
    blocks = re.split(r"\n(?=\S)", text)
    pins = [(block, _PIN.match(block)) for block in blocks]
    return "".join(f"{b}\n" for b, pin in pins if pin and normalise(pin[1]) in names)


class SetUpError(Exception):
    """The environment cannot be made; the message may quote lines of a program."""


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment of one checkout.

    Attributes:
      folder: the environment.
      root: the checkout.
    """

    folder: Path
    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where its distributions are."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def mark(self) -> Path:
        """Folder that says that the environment was made here."""
        return self.folder / MARK

    @property
    def stamp(self) -> Path:
        """File that says that it is whole."""
        return self.mark / "installed.json"

    @property
    def packages(self) -> Path:
        """Folder for PYTHONPATH, with links to the checkout's packages alone."""
        return self.mark / "packages"

    def read_stamp(self) -> dict[str, object]:
        """The stamp's content; empty if there is none that can be read."""
        try:
            content = json.loads(self.stamp.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def find_fault(self, locks: Sequence[Path]) -> str:
        """What is wrong with the environment, in words; empty: nothing.

        Costs milliseconds: it looks for what was there, not into it.

        Args:
          locks: files of which one must be installed.
        """
        stamp = self.read_stamp()
        if not stamp:
            return "its set-up did not come to its end"
        if stamp.get("digest") not in [digest(lock) for lock in locks]:
            return f"it is not what {locks[0].name} says"
        return self.find_missing(stamp) or self._find_wrong_link()

    def find_missing(self, stamp: Mapping[str, object]) -> str:
        """What of a stamp's content is not there, in words."""
        entries = stamp.get("entries")
        if not isinstance(entries, list) or not self.python.exists():
            return f"{self.python.name} is missing"
        try:
            there = set(os.listdir(self.site))
        except OSError:
            return f"{self.site} is missing"
        for name in entries:
            if name not in there:
                return f"{name} is missing"
            if (
                name.endswith(".dist-info")
                and not (self.site / name / "RECORD").exists()
            ):
                return f"{name}/RECORD is missing"
        return ""

    def _find_wrong_link(self) -> str:
        for name, target in self._links():
            try:
                destination = os.readlink(self.packages / name)
            except OSError:
                destination = ""
            if destination != str(target):
                return f"its link to {target} is missing"
        return ""

    def _links(self) -> Iterator[tuple[str, Path]]:
        for name in PACKAGES:
            if (self.root / name).is_dir():
                yield name, self.root / name

    def link_packages(self) -> None:
        """Lets commands import the checkout's packages, and nothing beside them."""
        self.packages.mkdir(exist_ok=True)
        for name, target in self._links():
            link = self.packages / name
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(target)

    @property
    def pins(self) -> dict[str, str]:
        """Versions by normalised name, as they were installed."""
        pins = self.read_stamp().get("pins")
        return pins if isinstance(pins, dict) else {}

    def find_difference(self, pins: Mapping[str, str]) -> str:
        """Holds every installed file against what was installed; empty: all is well.

        Args:
          pins: versions by normalised name; what else is installed does not matter.
        """
        missing = dict(pins)
        for folder in sorted(self.site.glob("*.dist-info")):
            name, _, version = folder.name.removesuffix(".dist-info").partition("-")
            name = normalise(name)
            pin = missing.pop(name, version)
            if pin != version:
                return f"{name} is {version}, locked is {pin}"
            try:
                with open(folder / "RECORD", newline="", encoding="utf-8") as file:
                    rows = list(csv.reader(file))
            except OSError:
                return f"{folder.name}/RECORD is missing"
            for path, _, size in rows:
                try:
                    length = os.stat(self.site / path).st_size
                except OSError:
                    if path.endswith(".pyc"):
                        continue
                    return f"{path} of {name} is missing"
                if size and length != int(size):
                    return f"{path} of {name} has {length} bytes in place of {size}"
        return f"{next(iter(missing))} is missing" if missing else ""

    def write_stamp(self, lock: Path) -> None:
        """Says that the environment is whole."""
        content = {
            "lock": lock.name,
            "digest": digest(lock),
            "pins": read_pins(lock.read_text()),
            "entries": sorted(n for n in os.listdir(self.site) if n != "__pycache__"),
        }
        temporary = self.stamp.with_suffix(".tmp")
        with open(temporary, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.stamp)

    def empty(self) -> None:
        """Removes all but the mark, the stamp first."""
        self.stamp.unlink(missing_ok=True)
        for entry in os.scandir(self.folder):
            if entry.name == MARK:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry)
            else:
                os.unlink(entry)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    # launch.sh's look before each command: FOLDER ROOT LOCK ...
    folder, root, *locks = map(Path, sys.argv[1:])
    sys.exit(bool(Environment(folder, root).find_fault(locks)))

"""What a worker of a cluster is asked before a job: what it has, and what it sees."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from pipeline.common import storage
from pipeline.common.files import join

#: Modules that the job imports, and those that take long to import: only looked for.
MODULES = ("google_crc32c", "numpy", "psutil", "pydub", "soundfile", "soxr")
HEAVY_MODULES = ("librosa", "scipy", "tensorflow", "tensorflow_transform")
#: Seconds in which a file must be seen elsewhere: network file systems remember for
#: a while what was not there.
SEEN_SECONDS = 40.0
#: Seconds that a worker which has looked waits for the job to begin.
GO_SECONDS = 900.0
#: Names in the folder of a look. A worker's file is `worker-N`, its answer `seen-N`;
#: `ready-N` says that all is well.
HERE, FILE, SEEN, READY = "here", "worker-", "seen-", "ready-"
#: What `here` holds before the job may begin, and from then on. It is written again, as
#: a file that is opened is looked up anew, and one that was missing perhaps not.
WAIT, GO = b"wait", b"go"


class LookError(Exception):
    """A worker is not what the job needs; the message is for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What is asked of each worker.

    Attributes:
      python: version, such as `3.11`.
      versions: of distributions that must be the same, by name.
      read: files that must be readable, by the flag that named them.
      folders: by the flag that named them; each holds a file `here`.
    """

    python: str
    versions: Mapping[str, str]
    read: Mapping[str, str]
    folders: Mapping[str, str]


class LookFn(beam.DoFn):
    """Looks at the end of a bundle: Flink has an empty one in every slot.

    Where the start of a bundle fails, Flink waits three minutes for a connection that
    the worker has not opened yet.
    """

    def __init__(self, look: Look) -> None:
        self._look = look

    def process(self, _: Any) -> Iterator[tuple[int, None]]:
        """Elements only fill the slots; all are grouped to one."""
        yield 0, None

    def finish_bundle(self) -> None:
        """Looks, and waits for the job to begin."""
        folder = self._look.folders["--output"]
        if _read_word(folder) != GO:
            check_worker(self._look)
            _write_file(join(folder, READY + uuid.uuid4().hex))
            _await_go(folder)


@dataclasses.dataclass(kw_only=True, eq=False)
class LookAtWorkers(beam.PTransform):
    """One element to one, once all workers are looked at and the job may begin.

    A stage of its own, which needs nothing of what the job imports.

    Attributes:
      look: what to ask.
      spread: number of slots that get an element, where those without begin no bundle.
    """

    look: Look
    spread: int = 0

    def expand(self, start: Any) -> Any:
        """Looks in each slot."""
        if self.spread:
            start = (
                start
                | "Slots" >> beam.FlatMap(lambda _, n: range(n), self.spread)
                | "Spread" >> beam.Reshuffle()
            )
        return start | "Look" >> beam.ParDo(LookFn(self.look)) | beam.GroupByKey()


def check_worker(look: Look) -> None:
    """Checks this process.

    Raises:
      LookError: says what is missing, and where.
    """
    where = f"workers on {socket.gethostname()}"
    _check_versions(look, where)
    for flag, path in look.read.items():
        try:
            with FileSystems.open(path) as file:
                file.read(1)
        except storage.STORE_ERRORS as error:
            raise LookError(
                f"{where} cannot read {path} ({flag}): {storage.explain(error)}; use a "
                "shared folder or a bucket that all of them see."
            ) from error
    for flag, folder in look.folders.items():
        _check_folder(flag, folder, where)


def _check_versions(look: Look, where: str) -> None:
    python = ".".join(platform.python_version_tuple()[:2])
    if python != look.python:
        raise LookError(
            f"{where} run Python {python}, this machine {look.python}; start workers "
            "with the same version."
        )
    advice = "install what requirements.lock has there."
    for name, version in look.versions.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise LookError(f"{where} lack the package {name}; {advice}") from error
        if found != version:
            raise LookError(
                f"{where} have {name} {found}, this machine {version}; {advice}"
            )
    for name in (*MODULES, *HEAVY_MODULES):
        try:
            if name in MODULES:
                importlib.import_module(name)
            elif importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        except (ImportError, OSError) as error:
            raise LookError(
                f"{where} cannot import {name} ({error}); {advice}"
            ) from error


def _check_folder(flag: str, folder: str, where: str) -> None:
    """A file of this machine's must be seen there, and one of that here."""
    if not storage.exists(join(folder, HERE)):
        raise LookError(
            f"{where} do not see what this machine writes to {flag}: it must be a "
            "shared folder or a bucket, under the same name everywhere."
        )
    name = uuid.uuid4().hex
    path = join(folder, FILE + name)
    try:
        _write_file(path)
    except storage.STORE_ERRORS as error:
        raise LookError(
            f"{where} cannot write to {flag}: {storage.explain(error)}; let user "
            f"{os.getuid()} write there, or run workers as another one."
        ) from error
    try:
        _await_answer(join(folder, SEEN + name), flag, where)
    finally:
        with contextlib.suppress(*storage.STORE_ERRORS):
            storage.delete(path)


def _await_answer(answer: str, flag: str, where: str) -> None:
    deadline = time.monotonic() + SEEN_SECONDS
    while not storage.exists(answer):
        if time.monotonic() > deadline:
            raise LookError(
                f"what {where} write to {flag} is not seen on this machine: it must be "
                "a shared folder or a bucket, under the same name everywhere."
            )
        time.sleep(0.2)


def _await_go(folder: str) -> None:
    deadline = time.monotonic() + GO_SECONDS
    while (word := _read_word(folder)) != GO:
        if word is None or time.monotonic() > deadline:
            raise LookError("the command that submitted the job has ended before it.")
        time.sleep(0.2)


def _read_word(folder: str) -> bytes | None:
    """What `here` holds; None if it is gone."""
    path = join(folder, HERE)
    try:
        return storage.read_bytes(path)
    except storage.STORE_ERRORS:
        return b"" if storage.exists(path) else None


def _write_file(path: str, content: bytes = b"1") -> None:
    with storage.create(path) as file:
        file.write(content)


def let_go(folder: str) -> None:
    """Lets the workers that have looked begin the job.

    Args:
      folder: of the look, in the output.
    """
    _write_file(join(folder, HERE), GO)


def begin_look(folders: Mapping[str, str]) -> None:
    """Writes what workers must see."""
    for folder in folders.values():
        storage.make_folder(folder)
        _write_file(join(folder, HERE), WAIT)


def count_ready(folder: str) -> int:
    """Number of workers that have looked."""
    with contextlib.suppress(*storage.STORE_ERRORS):
        return sum(name.startswith(READY) for name in storage.list_sizes(folder))
    return 0


def answer_workers(folders: Mapping[str, str]) -> Iterator[str]:
    """Answers the workers whose files are seen here; yields their names, once each."""
    for folder in folders.values():
        with contextlib.suppress(*storage.STORE_ERRORS):
            names = set(storage.list_sizes(folder))
            for name in sorted(names):
                seen = SEEN + name.removeprefix(FILE)
                if name.startswith(FILE) and seen not in names:
                    _write_file(join(folder, seen))
                    yield name

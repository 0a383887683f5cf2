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

#: Modules that the job imports, and those that take long to import: only looked for.
MODULES = ("google_crc32c", "numpy", "psutil", "pydub", "soundfile", "soxr")
HEAVY_MODULES = ("librosa", "scipy", "tensorflow", "tensorflow_transform")
#: Seconds in which a file must be seen elsewhere: network file systems remember for
#: a while what was not there.
SEEN_SECONDS = 40.0
#: Names in the folder of a look. A worker's file is `worker-N`, its answer `seen-N`.
HERE, FILE, SEEN = "here", "worker-", "seen-"


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
        self._done = False

    def process(self, element: Any) -> None:
        """Elements only fill the slots."""

    def finish_bundle(self) -> None:
        """Looks, once."""
        if not self._done:
            check_worker(self._look)
            self._done = True


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
    if not storage.exists(storage.join(folder, HERE)):
        raise LookError(
            f"{where} do not see what this machine writes to {flag}: it must be a "
            "shared folder or a bucket, under the same name everywhere."
        )
    name = uuid.uuid4().hex
    path = storage.join(folder, FILE + name)
    try:
        with storage.create(path) as file:
            file.write(b"1")
    except storage.STORE_ERRORS as error:
        raise LookError(
            f"{where} cannot write to {flag}: {storage.explain(error)}; let user "
            f"{os.getuid()} write there, or run workers as another one."
        ) from error
    try:
        _await_answer(storage.join(folder, SEEN + name), flag, where)
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


def answer_workers(folders: Mapping[str, str]) -> Iterator[str]:
    """Answers the workers whose files are seen here; yields their names, once each."""
    for folder in folders.values():
        with contextlib.suppress(*storage.STORE_ERRORS):
            names = set(storage.list_sizes(folder))
            for name in sorted(names):
                seen = SEEN + name.removeprefix(FILE)
                if name.startswith(FILE) and seen not in names:
                    with storage.create(storage.join(folder, seen)) as file:
                        file.write(b"1")
                    yield name

"""Which of several runs may write to a dataset folder.

The run that began last may, until it completes: its name stands in `_progress/RUN`.
On this machine's file systems a lock on the folder makes looking and writing one
step: shared where a shard gets its names, exclusive where a run begins or completes.
The system frees it when its holder dies. On Cloud Storage the same file is replaced
only as the very version that was read, and says when its run is completing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from pipeline.common import gcs, storage
from pipeline.common.credentials import SCHEME
from pipeline.common.files import join
from pipeline.schema import COMPLETED_FILE, JOB_REPORT_FILE

PROGRESS_FOLDER = "_progress"
RUN_FILE = "RUN"
#: The last two files begin with this before they get their names.
UNFINISHED = "_unfinished-"
#: In the folder of a completed dataset: the one that will replace it.
NEXT_FOLDER = "_next"
#: Behind the name of a run in its last step, on Cloud Storage.
_COMPLETING = " completing"
#: Seconds after which a run in its last step is taken for dead.
_LAST_STEP_SECONDS = 600.0
#: File systems without locks on folders say one of these.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP)


class Place(Protocol):
    """Where a run writes to: a `DatasetConfig`, or what else has shards.

    Attributes:
      output: folder to write to.
      replaces: folder whose place it takes in the end; empty for none.
      run: name of the run; empty: not checked.
      num_shards: units of work.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def output(self) -> str:
        """See above."""

    @property
    def replaces(self) -> str:
        """See above."""

    @property
    def run(self) -> str:
        """See above."""

    @property
    def num_shards(self) -> int:
        """See above."""


class SupersededError(Exception):
    """Another job has taken over the folder, or has completed it."""


def describe(folder: str) -> str:
    """What the job that lost is told."""
    return (
        f"Another job has begun to write to {folder}, or has completed it; this one "
        "stops. Give each job a folder of its own."
    )


def home(config: Place) -> str:
    """The folder that the user named."""
    return config.replaces or config.output


def own_folder(config: Place) -> str:
    """Where a run lays what only it needs, until the dataset is complete."""
    return join(config.output, storage.TEMPORARY_FOLDER, config.run)


def run_path(config: Place) -> str:
    """The file that names the run."""
    return join(config.output, PROGRESS_FOLDER, RUN_FILE)


@contextlib.contextmanager
def locked(folder: str, *, shared: bool = False) -> Iterator[None]:
    """Keeps other processes out of a local folder; does nothing for stores."""
    if "://" in folder:
        yield
        return
    while True:
        with storage.writing(folder):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            # A folder that was exchanged while this waited is another one.
            if _is_still(descriptor, folder):
                yield
                return
        finally:
            os.close(descriptor)


def _is_still(descriptor: int, folder: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False


def begin_run(config: Place) -> None:
    """Takes over the folder: runs that began earlier may not write any more.

    The caller holds the lock.

    Raises:
      SupersededError: one of them is in its last step.
    """
    path = run_path(config)
    if not path.startswith(SCHEME):
        storage.write_atomically(path, config.run.encode(), scratch=config.output)
        return
    while True:
        found = gcs.read_version(path)
        if found.content.endswith(_COMPLETING) and found.age < _LAST_STEP_SECONDS:
            raise SupersededError(describe(home(config)))
        if gcs.replace_version(path, config.run, found):
            return


def check_run(config: Place) -> None:
    """Makes sure that no other run has taken over the folder, or completed it.

    Raises:
      SupersededError: one has.
    """
    if not config.run:
        return
    path = run_path(config)
    try:
        found = storage.read_text(path)
    except storage.STORE_ERRORS:
        if storage.exists(path):
            raise
        found = ""
    if found.removesuffix(_COMPLETING) != config.run:
        raise SupersededError(describe(home(config)))


@contextlib.contextmanager
def writing(config: Place) -> Iterator[None]:
    """Some files get their names here, if the run still may.

    Raises:
      SupersededError: it may not.
    """
    with locked(home(config), shared=True):
        check_run(config)
        yield


@contextlib.contextmanager
def completing(config: Place) -> Iterator[bool]:
    """The last step, in which no other run can begin.

    Yields:
      Whether this very run has completed the dataset before, so that nothing is to be
      done: runners repeat a step whose answer is lost.

    Raises:
      SupersededError: another run has begun, or has completed the dataset.
    """
    with locked(home(config)):
        if config.run and _has_reported(config, home(config), COMPLETED_FILE):
            yield True
            return
        # Where an error stopped this step after the run's name had gone, it goes on.
        marker = UNFINISHED + COMPLETED_FILE
        stopped = config.run and _has_reported(config, config.output, marker)
        if not (stopped and not storage.exists(run_path(config))):
            check_run(config)
        if not (config.run and config.output.startswith(SCHEME)):
            yield False
            return
        path = run_path(config)
        found = gcs.read_version(path)
        last = config.run + _COMPLETING
        if found.content not in (config.run, last) or not gcs.replace_version(
            path, last, found
        ):
            raise SupersededError(describe(home(config)))
        try:
            yield False
        except BaseException:
            with contextlib.suppress(*storage.STORE_ERRORS):
                found = gcs.read_version(path)
                if found.content == last:
                    gcs.replace_version(path, config.run, found)
            raise


def _has_reported(config: Place, folder: str, marker: str) -> bool:
    """Whether a marker is there beside a report of this very run."""
    if not storage.exists(join(folder, marker)):
        return False
    try:
        report = json.loads(storage.read_text(join(folder, JOB_REPORT_FILE)))
    except (*storage.STORE_ERRORS, ValueError):
        return False
    return isinstance(report, dict) and report.get("run") == config.run


def is_completed(config: Place) -> bool:
    """Whether this very run has completed the folder, whatever failed afterwards."""
    try:
        return _has_reported(config, home(config), COMPLETED_FILE)
    except storage.STORE_ERRORS:
        return False


def is_superseded(config: Place) -> bool:
    """Whether what went wrong is that another run has taken over."""
    try:
        if config.run and not _has_reported(config, home(config), COMPLETED_FILE):
            check_run(config)
    except SupersededError:
        return True
    except storage.STORE_ERRORS:
        return False
    return False

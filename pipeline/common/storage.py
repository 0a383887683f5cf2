"""Files on any of Beam's file systems: patient reads, read-ahead, atomic writes."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import errno
import io
import os
import posixpath
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, ParamSpec, TypeVar, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPICallError

from pipeline.common.regular_file import SHOWN_LETTERS, check_regular

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

#: What a store raises when it does not give or take a file's bytes.
STORE_ERRORS = (OSError, BeamIOError, GoogleAPICallError)
#: Holds unfinished files; removed when the job completes.
TEMPORARY_FOLDER = "_temporary"
#: How often a store is asked before its error counts.
ATTEMPTS = 3
#: Pause before the second attempt; it doubles for each one after.
RETRY_SECONDS = 0.25

#: Asking again is of no use.
_FINAL_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
    }
)
#: HTTP statuses below 500 that may pass: time-out, too many requests.
_PASSING_STATUSES = (408, 429)
_READ_BUFFER = 1 << 16


class WriteError(Exception):
    """The output does not take a file; the message says which and why.

    Attributes:
      transient: whether the same write may work a little later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ReadError(OSError):
    """A file that was opened gives no more bytes; the message says why."""


# Errors


def is_transient(error: BaseException) -> bool:
    """Whether what a store raised may pass."""
    if isinstance(error, GoogleAPICallError):
        code = error.code
        return code is None or int(code) >= 500 or int(code) in _PASSING_STATUSES
    causes = _causes(error)
    if causes:
        return all(map(is_transient, causes))
    return isinstance(error, OSError) and error.errno not in _FINAL_ERRORS


def _causes(error: BaseException) -> list[BaseException]:
    """The errors that Beam's file systems wrap in theirs."""
    details = getattr(error, "exception_details", None) or {}
    return [
        cause
        for cause in (*details.values(), *error.args)
        if isinstance(cause, BaseException)
    ]


def explain(error: BaseException) -> str:
    """A store's error in a few words, without the paths."""
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    causes = _causes(error)
    return explain(causes[0]) if causes else str(error)


def retry(action: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """Calls an action, and again where a store's error may pass.

    Raises:
      OSError: or another of `STORE_ERRORS`; the last attempt's.
    """
    attempt = 1
    while True:
        try:
            return action(*args, **options)
        except STORE_ERRORS as error:
            if attempt == ATTEMPTS or not is_transient(error):
                raise
        time.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
        attempt += 1


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns a store's errors into a `WriteError` that names the file."""
    try:
        yield
    except STORE_ERRORS as error:
        message = f"{path} cannot be written: {explain(error)}."
        raise WriteError(message, transient=is_transient(error)) from error


# Reading


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file's stored bytes; `NotAFileError` if a local name leads to none."""
    if FileSystems.get_scheme(path) is None:
        check_regular(path)
    file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast(BinaryIO, file)


def open_patiently(path: str, *, sparsely: bool = False) -> BinaryIO:
    """Opens a seekable file that is asked again where reading fails.

    Args:
      path: of any file system.
      sparsely: only parts of it will be read. Beam's reader of Cloud Storage fetches
        16 MiB where it is asked for less.

    Raises:
      OSError: or another of `STORE_ERRORS`; it cannot be opened. Reading raises
        `ReadError`.
    """
    return cast(BinaryIO, io.BufferedReader(_PatientFile(path, sparsely), _READ_BUFFER))


class _PatientFile(io.RawIOBase):
    """Opens the file again at the same place after an error that may pass."""

    def __init__(self, path: str, sparsely: bool) -> None:
        self._path = path
        self._sparsely = sparsely
        self._position = 0
        self._file: BinaryIO | None = retry(self._open)

    def _open(self) -> BinaryIO:
        file = open_for_reading(self._path)
        if self._sparsely and hasattr(file, "_chunk_size"):
            file._chunk_size = _READ_BUFFER  # google.cloud.storage.fileio's
        return file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._do(lambda file: file.read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset, whence = self._position + offset, os.SEEK_SET
        self._position = self._do(lambda file: file.seek(offset, whence))
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def _do(self, action: Callable[[BinaryIO], R]) -> R:
        try:
            return retry(self._try, action)
        except STORE_ERRORS as error:
            raise ReadError(f"{self._path} cannot be read: {explain(error)}") from error

    def _try(self, action: Callable[[BinaryIO], R]) -> R:
        if self._file is None:
            self._file = self._open()
            self._file.seek(self._position)
        try:
            return action(self._file)
        except STORE_ERRORS:
            broken, self._file = self._file, None
            with contextlib.suppress(*STORE_ERRORS):
                broken.close()
            raise


def read_bytes(path: str, limit: int = -1) -> bytes:
    """Reads a file up to a limit, if any, asking again where that may help."""
    return retry(_read_whole, path, limit)


def _read_whole(path: str, limit: int) -> bytes:
    with open_for_reading(path) as file:
        return file.read(limit)


def read_text(path: str) -> str:
    """Reads a UTF-8 file."""
    return read_bytes(path).decode("utf-8")


def exists(path: str) -> bool:
    """Whether there is a file (or a local folder) of that name."""
    return bool(retry(FileSystems.exists, path))


def match(pattern: str) -> list[FileMetadata]:
    """Lists the files of a glob."""
    return list(retry(FileSystems.match, [pattern])[0].metadata_list)


def list_sizes(folder: str) -> dict[str, int]:
    """Sizes of all files under a folder, by path relative to it."""
    base = f"{folder.rstrip('/')}/"
    found = match(f"{base}**")
    return {file.path[len(base) :]: file.size_in_bytes for file in found}


# Writing


def make_folder(path: str) -> None:
    """Creates a folder and its parents, where the file system has folders.

    Raises:
      OSError: it cannot be created, and says why.
    """
    if not exists(path):
        try:
            FileSystems.mkdirs(path)
        except OSError:
            # Another process may be faster.
            if not exists(path):
                raise


def create(path: str) -> BinaryIO:
    """Opens a new file for writing bytes."""
    file = retry(
        FileSystems.create, path, compression_type=CompressionTypes.UNCOMPRESSED
    )
    return cast(BinaryIO, file)


def temporary_path(folder: str, name: str) -> str:
    """A name under `folder` that no other attempt uses."""
    # Beam takes wildcards in the names of files to delete for patterns; and a name may
    # be as long as file systems allow already.
    plain = re.sub(r"[^\w.-]", "_", name)[-SHOWN_LETTERS:]
    return f"{folder.rstrip('/')}/{TEMPORARY_FOLDER}/{uuid.uuid4().hex}-{plain}"


def rename(source: str, target: str) -> None:
    """Moves a file over whatever is at its destination."""
    failed = False

    def attempt() -> None:
        nonlocal failed
        # A store may do it and then fail to say so.
        if failed and not exists(source) and exists(target):
            return
        try:
            FileSystems.rename([source], [target])
        except STORE_ERRORS:
            failed = True
            raise

    retry(attempt)


def delete(path: str) -> None:
    """Deletes a file; one that is gone already is no error."""
    retry(_delete, path)


def _delete(path: str) -> None:
    try:
        FileSystems.delete([path])
    except (BeamIOError, FileNotFoundError):
        if exists(path):
            raise


def delete_tree(folder: str) -> None:
    """Deletes a folder with all that is in it, if it exists."""
    matched = match(f"{folder.rstrip('/')}/**")
    if matched:
        retry(FileSystems.delete, [item.path for item in matched])
    if exists(folder):
        delete(folder)


def write_atomically(path: str, data: bytes, *, scratch: str) -> None:
    """Writes a file that is never seen half-written.

    Args:
      path: destination; an existing file is replaced.
      data: content.
      scratch: folder on the same file system for the unfinished file.

    Raises:
      WriteError: the store does not take it.
    """
    temporary = temporary_path(scratch, posixpath.basename(path))
    with writing(path):
        try:
            make_folder(posixpath.dirname(temporary))
            make_folder(posixpath.dirname(path))
            retry(_write_whole, temporary, data)
            rename(temporary, path)
        except BaseException:
            with contextlib.suppress(*STORE_ERRORS):
                delete(temporary)
            raise


def _write_whole(path: str, data: bytes) -> None:
    with create(path) as file:
        file.write(data)


def read_ahead(
    items: Iterable[T],
    read: Callable[[T], R],
    *,
    executor: concurrent.futures.Executor,
    depth: int,
) -> Iterator[tuple[T, concurrent.futures.Future[R]]]:
    """Reads items in the background, a few ahead of their use.

    Args:
      items: what to read, in order.
      read: reads one; its exception appears where the future's result is asked.
      executor: runs the reads.
      depth: reads under way or waiting behind the item in use.

    Yields:
      Each item, in order, with the future of its content.
    """
    waiting: collections.deque[tuple[T, concurrent.futures.Future[R]]]
    waiting = collections.deque()
    for item in items:
        waiting.append((item, executor.submit(read, item)))
        if len(waiting) > depth:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()

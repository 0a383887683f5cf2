"""Files on any of Beam's file systems: whole reads, read-ahead, atomic writes."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import itertools
import posixpath
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar, cast

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.api_core.exceptions import GoogleAPICallError

T = TypeVar("T")
R = TypeVar("R")

#: What a store raises when it does not give or take a file's bytes.
STORE_ERRORS = (OSError, BeamIOError, GoogleAPICallError)
#: Holds unfinished files; removed when the job completes.
TEMPORARY_FOLDER = "_temporary"


def join(folder: str, *parts: str) -> str:
    """Joins path components of any file system."""
    return str(FileSystems.join(folder, *parts)) if parts else folder


def open_for_reading(path: str) -> BinaryIO:
    """Opens a file's stored bytes, whatever its extension says."""
    file = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast(BinaryIO, file)


def read_text(path: str) -> str:
    """Reads a UTF-8 file."""
    with open_for_reading(path) as file:
        return file.read().decode("utf-8")


def exists(path: str) -> bool:
    """Whether there is a file (or a local folder) of that name."""
    return bool(FileSystems.exists(path))


def make_folder(path: str) -> None:
    """Creates a folder and its parents, where the file system has folders."""
    if not exists(path):
        # Another process may be faster.
        with contextlib.suppress(OSError):
            FileSystems.mkdirs(path)


def create(path: str) -> BinaryIO:
    """Opens a new file for writing bytes."""
    file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return cast(BinaryIO, file)


def temporary_path(folder: str, name: str) -> str:
    """A name under `folder` that no other attempt uses."""
    return join(folder, TEMPORARY_FOLDER, f"{uuid.uuid4().hex}-{name}")


def rename(source: str, target: str) -> None:
    """Moves a file over whatever is at its destination."""
    FileSystems.rename([source], [target])


def delete(path: str) -> None:
    """Deletes a file; one that is gone already is no error."""
    with contextlib.suppress(BeamIOError, FileNotFoundError):
        FileSystems.delete([path])


def delete_tree(folder: str) -> None:
    """Deletes a folder with all that is in it, if it exists."""
    matched = FileSystems.match([join(folder, "**")])[0].metadata_list
    if matched:
        FileSystems.delete([item.path for item in matched])
    if exists(folder):
        delete(folder)


def write_atomically(path: str, data: bytes, *, scratch: str) -> None:
    """Writes a file that is never seen half-written.

    Args:
      path: destination; an existing file is replaced.
      data: content.
      scratch: folder on the same file system for the unfinished file.
    """
    temporary = temporary_path(scratch, posixpath.basename(path))
    make_folder(posixpath.dirname(temporary))
    make_folder(posixpath.dirname(path))
    try:
        with create(temporary) as file:
            file.write(data)
        rename(temporary, path)
    except BaseException:
        delete(temporary)
        raise


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
      depth: reads under way or waiting at any time.

    Yields:
      Each item, in order, with the future of its content.
    """
    iterator = iter(items)
    waiting = collections.deque(
        (item, executor.submit(read, item))
        for item in itertools.islice(iterator, depth)
    )
    while waiting:
        current = waiting.popleft()
        for item in itertools.islice(iterator, 1):
            waiting.append((item, executor.submit(read, item)))
        yield current

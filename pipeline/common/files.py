"""What ownership needs of a file system, and those that give it."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

from pipeline.common.regular_file import SHOWN_LETTERS
from pipeline.schema import UserError


def expand_home(path: str) -> str:
    """A path whose `~` or `~user` at the start is their home, as a shell has it.

    What exists by that name is meant itself.
    """
    first = path.partition("/")[0]
    if not first.startswith("~") or os.path.lexists(first):
        return path
    return os.path.expanduser(path)


class Files(Protocol):
    """What is needed of a file system. All paths are whole; errors are `OSError`."""

    def walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yields what is below a folder and no folder, lazily and in order.

        Yields:
          Path relative to the folder, with `/`, and whether it is a regular file
          (no link, pipe or device). Nothing where there is no folder.
        """

    def is_file(self, path: str) -> bool:
        """Whether there is something of that name that is no folder."""

    def read(self, path: str, count: int) -> bytes:
        """The first `count` bytes of a file."""

    def write(self, path: str, data: bytes) -> None:
        """Makes a file, and its folder, or replaces it; never seen half-written."""

    def rename(self, source: str, target: str) -> None:
        """Moves a file over whatever file is at its destination."""

    def delete(self, path: str) -> None:
        """Deletes a file; one that is gone is no error."""

    def delete_folders(self, folder: str) -> None:
        """Deletes a folder and those in it, as far as they are empty."""


def temporary_name(path: str) -> str:
    """A name beside a path that no other attempt uses, and that is known as ours."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}.{name[-SHOWN_LETTERS:]}.{uuid.uuid4().hex}.part"


def join(folder: str, *names: str) -> str:
    """A path below a folder, on any file system."""
    return "/".join((folder.rstrip("/"), *names))


@contextlib.contextmanager
def scratch_folder(*errors: type[Exception]) -> Iterator[str]:
    """A temporary folder; the body writes nowhere else.

    Args:
      errors: what a library raises that cannot write, besides `OSError`.

    Raises:
      UserError: it cannot be written to.
    """
    failures: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except failures as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(
            f"The temporary folder {tempfile.tempdir or ''} cannot be written to "
            f"({reason or error}); make room there, or set TMPDIR to another folder."
        ) from error


class LocalFiles:
    """Files of this machine."""

    def walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Top down, by name; links are not followed."""
        return self._walk(folder, "")

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
        try:
            with os.scandir(folder) as iterator:
                entries = sorted(iterator, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        folders = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry)
            else:
                yield prefix + entry.name, entry.is_file(follow_symlinks=False)
        for entry in folders:
            yield from self._walk(entry.path, f"{prefix}{entry.name}/")

    def is_file(self, path: str) -> bool:
        """Whether there is something that is no folder, a dangling link included."""
        return os.path.lexists(path) and not os.path.isdir(path)

    def read(self, path: str, count: int) -> bytes:
        """Does not wait for a pipe, which gives nothing."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(count) or b""

    def write(self, path: str, data: bytes) -> None:
        """Through a file beside it."""
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        temporary = temporary_name(path)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def rename(self, source: str, target: str) -> None:
        """At once, within a file system; makes the destination's folder."""
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        os.replace(source, target)

    def delete(self, path: str) -> None:
        """Also of a link, not of what it leads to."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def delete_folders(self, folder: str) -> None:
        """Bottom up."""
        for path, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)


class GFiles:
    """Files that TensorFlow reads: `GFiles(tf.io.gfile, tf.errors.OpError)`.

    Args:
      gfile: the module.
      error: what it raises; it has a `message`.
    """

    def __init__(self, gfile: Any, error: type[Exception]) -> None:
        self._gfile = gfile
        self._error = error

    def walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """A store has only regular files."""
        start = len(join(folder, ""))
        with self._as_os_error():
            if not self._gfile.isdir(folder):
                return
            for parent, _, names in self._gfile.walk(folder.rstrip("/")):
                for name in sorted(names):
                    yield join(parent, name)[start:], True

    def is_file(self, path: str) -> bool:
        """A store may have a file and a folder of one name."""
        with self._as_os_error():
            return self._gfile.exists(path) and not self._gfile.isdir(path)

    def read(self, path: str, count: int) -> bytes:
        """Reads the beginning."""
        with self._as_os_error(), self._gfile.GFile(path, "rb") as file:
            return bytes(file.read(count))

    def write(self, path: str, data: bytes) -> None:
        """An object appears when it is whole."""
        with self._as_os_error(), self._gfile.GFile(path, "wb") as file:
            file.write(data)

    def rename(self, source: str, target: str) -> None:
        """A store copies and deletes."""
        with self._as_os_error():
            self._gfile.rename(source, target, overwrite=True)

    def delete(self, path: str) -> None:
        """Deletes an object."""
        with self._as_os_error():
            if self._gfile.exists(path):
                self._gfile.remove(path)

    def delete_folders(self, folder: str) -> None:
        """A store has no empty folders."""

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise OSError(str(getattr(error, "message", error))) from error


class BeamFiles:
    """Files on any of Beam's file systems; importing Beam takes seconds."""

    def __init__(self) -> None:
        from pipeline.common import storage

        self._storage = storage

    def walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """A store has only regular files."""
        with self._as_os_error():
            for path in sorted(self._storage.list_sizes(folder)):
                yield path, True

    def is_file(self, path: str) -> bool:
        """A store's folders are but the beginnings of names."""
        with self._as_os_error():
            return self._storage.exists(path)

    def read(self, path: str, count: int) -> bytes:
        """Reads the beginning."""
        with (
            self._as_os_error(),
            self._storage.open_patiently(path, sparsely=True) as file,
        ):
            return file.read(count)

    def write(self, path: str, data: bytes) -> None:
        """An object appears when it is whole."""
        with self._as_os_error(), self._storage.create(path) as file:
            file.write(data)

    def rename(self, source: str, target: str) -> None:
        """A store copies and deletes."""
        with self._as_os_error():
            self._storage.rename(source, target)

    def delete(self, path: str) -> None:
        """Deletes an object."""
        with self._as_os_error():
            self._storage.delete(path)

    def delete_folders(self, folder: str) -> None:
        """A store has no empty folders."""

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except self._storage.STORE_ERRORS as error:
            raise OSError(self._storage.explain(error)) from error


def beam_files(path: str) -> Files:
    """The file system of a path, without Beam for local ones."""
    return BeamFiles() if "://" in path else LocalFiles()

"""Opening files of unknown origin: nothing that waits, and nothing without an end.

A name may lead to a FIFO, which waits for a writer, or to a device, which never ends.
Standard library only.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import Any, BinaryIO, cast

#: Letters of a file's name that the name of its unfinished file has: at most 160 bytes
#: of the 255 that file systems allow.
SHOWN_LETTERS = 40

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotAFileError(OSError):
    """What a name leads to holds no bytes to read; `strerror` says what it is."""


def check_regular(path: str) -> None:
    """Makes sure that a name, or what it links to, is a file.

    Raises:
      NotAFileError: it is something else.
      OSError: there is nothing of that name.
    """
    _check_mode(os.stat(path).st_mode, path)


def open_regular(path: str) -> BinaryIO:
    """Opens a local file for reading, at once or not at all.

    It ends where it ended when it was opened, although somebody may still append
    to it.

    Raises:
      NotAFileError: what the name leads to is no file.
      OSError: it cannot be opened.
    """
    check_regular(path)  # Opening a device may have effects.
    # It may have been replaced since.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        _check_mode(status.st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    file = _BoundedFile(descriptor, status.st_size)
    return cast(BinaryIO, io.BufferedReader(file))


def _check_mode(mode: int, path: str) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotAFileError(errno.ENXIO, f"is {kind}, not a file", path)


class _BoundedFile(io.FileIO):
    """A file of which only the first `size` bytes are seen."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, "rb")
        self._size = size

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_END:
            offset, whence = max(self._size + offset, 0), os.SEEK_SET
        return super().seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self._size - self.tell(), 0))
        return super().readinto(view[:count]) or 0

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._size - self.tell(), 0)
        count = left if size is None or size < 0 else min(size, left)
        return super().read(count) or b""

    def readall(self) -> bytes:
        return self.read()

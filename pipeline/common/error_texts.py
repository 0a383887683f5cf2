"""Errors of others that only their text tells apart. Standard library only.

Beam, gRPC, Keras and TensorFlow raise classes that say nothing, or quote in one
text what was raised elsewhere. All that is read out of such texts is read here.
"""

from __future__ import annotations

import errno
import os
import re

#: In the system's words, which TensorFlow and Beam repeat.
DISK_FULL = os.strerror(errno.ENOSPC)

_WORKER_EXIT = re.compile(r"Worker subprocess exited.* (\S+)", re.DOTALL)


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk is full, whoever noticed it."""
    return DISK_FULL in str(error)


def is_failed_download(error: BaseException) -> bool:
    """Whether `keras.utils.get_file` could not download: it raises `Exception`."""
    return "URL fetch failure" in str(error)


def find_exit_code(error: BaseException) -> str | None:
    """The exit code of a worker process; None for an error of another kind.

    Beam's thread that waits for a worker raises a RuntimeError when it ends badly.
    """
    match = _WORKER_EXIT.fullmatch(str(error))
    return match[1] if match else None


def find_message(error: BaseException, kind: type[Exception]) -> str | None:
    """The message of an error of `kind` inside what a runner raises.

    In this process a runner raises the error itself, with the step appended;
    from a worker process it raises a RuntimeError that quotes the traceback.
    """
    name = re.escape(f"{kind.__module__}.{kind.__qualname__}: ")
    quotation = re.search(rf"{name}(.*)", str(error))
    if quotation:
        message = quotation[1]
    elif isinstance(error, kind):
        message = str(error)
    else:
        return None
    return re.sub(r"( \[while running '.*)?$", "", message, count=1)

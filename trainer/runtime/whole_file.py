"""Files that are whole or not there, locally and on a store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Puts a file in its place when it is written, over one that may be there.

    Args:
      path: where it goes; its folder is there.

    Yields:
      Path beside it, to be written to and closed. It stays there after an exception.

    Raises:
      tf.errors.OpError: the file cannot be moved.
    """
    part = f"{path}.part"
    yield part
    tf.io.gfile.rename(part, path, overwrite=True)

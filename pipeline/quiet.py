"""Keeps back what native libraries print. Standard library only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def keep_back_stderr() -> Iterator[None]:
    """Diverts file descriptor 2, and replays it after an exception.

    TensorFlow prints informational lines while it is being imported, whatever
    its log level. Not for use while other threads may have something to say.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(original, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)

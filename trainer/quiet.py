"""Imports TensorFlow without its start-up messages. Import this module first.

TensorFlow prints a few informational lines while it is being imported, whatever
the log level; they are kept back here and shown only if the import fails. To see
everything, set TF_CPP_MIN_LOG_LEVEL=0.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _keep_back_stderr() -> Iterator[None]:
    """Diverts file descriptor 2 to a file, which is replayed after an error."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        completed = False
        try:
            yield
            completed = True
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            if not completed:
                kept.seek(0)
                os.write(2, kept.read())


if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
    with _keep_back_stderr():
        import tensorflow  # noqa: F401

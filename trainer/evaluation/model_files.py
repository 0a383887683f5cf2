"""The files of a model folder: their names, and reading them with a bound."""

from __future__ import annotations

import os
import stat

import tensorflow as tf

from pipeline.schema import UserError

#: Bytes that a text of a model folder may have. `predictions.csv` of 10,000 clips and
#: 161 genres has 15 MB.
MAX_TEXT_BYTES = 256 << 20


def read_file(path: str, *, limit: int = MAX_TEXT_BYTES) -> bytes | None:
    """Reads a whole file, local or remote; None where there is none.

    Args:
      path: anything that TensorFlow reads.
      limit: bytes that it may have.

    Raises:
      UserError: it is no regular file, too large, or cannot be read.
    """
    try:
        if not tf.io.gfile.exists(path):
            return None
        # A pipe would be waited for, and a device never ends.
        if "://" not in path and not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{path} is no regular file; remove it.")
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read(limit + 1)
    except (tf.errors.OpError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise UserError(
            f"{path} cannot be read ({reason}); see to that, or choose another folder."
        ) from error
    if len(content) > limit:
        raise UserError(
            f"{path} has more than {limit:,} bytes, which no model of ours has; train "
            "the model again or remove this file."
        )
    return content

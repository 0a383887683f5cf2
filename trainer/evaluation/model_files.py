"""Reads the files of a model folder: with a bound, and checked by their digests."""

from __future__ import annotations

import os

import tensorflow as tf

from pipeline.common.files import Files, GFiles, LocalFiles
from pipeline.common.regular_file import NotAFileError, check_regular
from pipeline.schema import UserError
from trainer.evaluation import model_digests
from trainer.evaluation.model_digests import DIGESTS_FILE, ModelDigests

#: Bytes that a text of a model folder may have: `predictions.csv` of 100,000 clips and
#: 161 genres has 150 MB.
MAX_BYTES = 256 << 20


def files_of(path: str) -> Files:
    """The file system of a path: this machine's, or what TensorFlow reads."""
    return GFiles(tf.io.gfile, tf.errors.OpError) if "://" in path else LocalFiles()


class ModelFolder:
    """A model folder whose files are read once each.

    Attributes:
      path: local or remote.
      digests: what `model.json` says; None in folders without it.
    """

    def __init__(self, path: str) -> None:
        """Reads the digests, if there are any.

        Raises:
          UserError: `model.json` is damaged.
        """
        self.path = path.rstrip("/") or path
        source = os.path.join(self.path, DIGESTS_FILE)
        content = read_file(source, limit=model_digests.MAX_BYTES)
        self.digests = (
            None if content is None else ModelDigests.from_json(content, source)
        )

    def join(self, name: str) -> str:
        """Path of a file."""
        return os.path.join(self.path, name)

    def holds(self, name: str) -> bool:
        """Whether there is such a file, or should be."""
        expected = self.digests is not None and name in self.digests.files
        return expected or bool(tf.io.gfile.exists(self.join(name)))

    def read(self, name: str, *, limit: int = MAX_BYTES) -> bytes | None:
        """Reads a file; None where there is none and should be none.

        Raises:
          UserError: it is missing, not what the digests say, or cannot be read.
        """
        source = self.join(name)
        content = read_file(source, limit=limit)
        if self.digests is None:
            return content
        if content is not None:
            digest = model_digests.digest_bytes(content)
            self.digests.check(name, digest, source)
        elif name in self.digests.files:
            raise UserError(
                f"{self.path} lacks {name}, which its {DIGESTS_FILE} names; copy the "
                "model folder again, or train the model again."
            )
        return content


def read_file(path: str, *, limit: int = MAX_BYTES) -> bytes | None:
    """Reads a whole file, local or remote; None where there is none.

    Args:
      path: anything that TensorFlow reads.
      limit: bytes that it may have.

    Raises:
      UserError: it is no regular file, too large, or cannot be read.
    """
    try:
        # A pipe would be waited for, and a device has no end.
        if "://" not in path:
            check_regular(path)
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read(limit + 1)
    except (FileNotFoundError, tf.errors.NotFoundError):
        return None
    except NotAFileError as error:
        raise UserError(f"{path} {error.strerror}; remove it.") from error
    except (tf.errors.OpError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise UserError(
            f"{path} cannot be read ({reason}); see to that, or choose another folder."
        ) from error
    if len(content) > limit:
        raise UserError(
            f"{path} has more than {limit >> 20:,} MiB, which is more than any that "
            "this program writes; train the model again or remove this file."
        )
    return content

"""The music model that a dataset's `embeddings` came from, for who takes it along."""

from __future__ import annotations

import os

import tensorflow as tf

from pipeline.schema import EMBEDDINGS, MUSIC_MODEL_FILE, UserError

#: Bytes that a file of weights may have; the largest known has 3 MB.
MAX_BYTES = 256 << 20


def read_music_model(folder: str, representation: str) -> dict[str, bytes]:
    """What a model folder takes along to hear as the dataset was heard.

    Args:
      folder: of the dataset, local or remote.
      representation: that the model reads.

    Returns:
      The file of weights by its name; nothing where the representation needs none, or
      the dataset does not hold it.

    Raises:
      UserError: it is there and cannot be read.
    """
    if representation != EMBEDDINGS:
        return {}
    path = os.path.join(folder, MUSIC_MODEL_FILE)
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content: bytes = file.read(MAX_BYTES)
    except tf.errors.NotFoundError:
        return {}
    except tf.errors.OpError as error:
        raise UserError(
            f"{path} cannot be read ({error.message}); see to that, or copy the "
            "dataset again."
        ) from error
    return {MUSIC_MODEL_FILE: content}

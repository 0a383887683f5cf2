"""The weights of the music model that makes a predictor's embeddings."""

from __future__ import annotations

from pipeline.schema import MUSIC_MODEL_FILE, UserError


def open_music_model(content: bytes | None, wanted: str) -> tuple[bytes, str]:
    """The file of weights that a predictor carries, or else the user's cache has.

    Args:
      content: what the predictor carries.
      wanted: name of the music model that made the training set.

    Returns:
      The file, and where it comes from.

    Raises:
      UserError: it is not there, or another one than is wanted.
    """
    from pipeline.representations.music_model import identify, read_weights

    if content is None:
        from pipeline.representations.weights import read_cached

        return read_cached(wanted)
    found = identify(read_weights(content, MUSIC_MODEL_FILE), MUSIC_MODEL_FILE)
    if found.name != wanted:
        raise UserError(
            f"{MUSIC_MODEL_FILE} holds {found.name}, the model beside it was trained "
            f"on {wanted}; copy the model folder again, or train the model again."
        )
    return content, MUSIC_MODEL_FILE

"""What a dataset says of its clips, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import tensorflow as tf

from pipeline.schema import CLIPS_FOLDER, UserError


def read_clip_list(folder: str, column: str) -> Iterator[tuple[str, str]]:
    """Yields each clip's track id and what another column says of it.

    Args:
      folder: of the dataset; nothing is yielded where it has no list.
      column: `path`, or `audio`, a hash of the decoded samples.

    Raises:
      UserError: a line is none of such a list.
    """
    clips = f"{folder.rstrip('/')}/{CLIPS_FOLDER}"
    if not tf.io.gfile.isdir(clips):
        return
    for name in sorted(tf.io.gfile.listdir(clips)):
        if name.endswith(".jsonl"):
            with tf.io.gfile.GFile(f"{clips}/{name}", "rb") as file:
                for line in file:
                    try:
                        clip = json.loads(line)
                        found = clip["track_id"], clip[column]
                        if not all(isinstance(text, str) and text for text in found):
                            raise TypeError(f"Expected texts. Received: {found}")
                    except (ValueError, TypeError, KeyError) as error:
                        raise UserError(
                            f"{clips}/{name} is damaged; copy the dataset anew. "
                            f"Received: {line[:80].decode(errors='replace')!r}"
                        ) from error
                    yield found

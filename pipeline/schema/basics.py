"""What the modules of the contract share: errors, and how values are told."""

from __future__ import annotations

#: FMA's own names, used for flags, file names and manifest keys alike.
SPLITS = ("training", "validation", "test")


def _escape(text: str) -> str:
    """A text on one line, with escapes for what a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


class UserError(Exception):
    """Input that its owner has to change; the message says what and how.

    Command lines print the message without a traceback and exit with code 2. What a
    file's name may hold beside text is escaped in it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_escape(message))


def shorten(value: object, most: int = 60) -> str:
    """A value for a message: on one line, and not a page of it."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shard_file(representation: str, split: str, shard: int, num_shards: int) -> str:
    """Path of one shard relative to the dataset folder."""
    return f"{representation}/{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"

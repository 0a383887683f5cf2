"""Inputs that cannot be used, and why. Standard library only."""

from __future__ import annotations

import dataclasses
import enum
import json


class Reason(enum.StrEnum):
    """Why an input was rejected; the complete taxonomy."""

    MISSING = "missing"  # a track without an audio file
    NO_METADATA = "no_metadata"  # an audio file without a track
    NO_GENRE = "no_genre"
    DUPLICATE = "duplicate"  # a second file or row for the same track
    UNREADABLE = "unreadable"  # the store does not give the file's bytes
    EMPTY = "empty"  # zero bytes
    UNDECODABLE = "undecodable"  # no decoder takes it for audio
    TRUNCATED = "truncated"  # shorter than its own header says
    CORRUPT = "corrupt"  # decodes to what cannot be music
    TOO_SHORT = "too_short"
    SILENT = "silent"


class AudioError(Exception):
    """An audio file that cannot be used.

    Attributes:
      reason: its place in the taxonomy.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Reject:
    """One input that is not in the records.

    Attributes:
      path: of the audio file, or as the metadata would have it.
      track_id: empty for a file without a track.
      stage: `join` or `decode`.
      reason: one of `Reason`.
      message: what was found, for people.
    """

    path: str
    track_id: str
    stage: str
    reason: Reason
    message: str

    def to_json(self) -> str:
        """One line of a rejects file."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

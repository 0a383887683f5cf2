"""Inputs that cannot be used, and why. Standard library only."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any


class Reason(enum.StrEnum):
    """Why an input was rejected; the complete taxonomy."""

    MISSING = "missing"  # a track without an audio file
    NO_METADATA = "no_metadata"  # an audio file without a track
    NO_GENRE = "no_genre"
    DUPLICATE_FILE = "duplicate_file"  # a second file for the same track
    DUPLICATE_ROW = "duplicate_row"  # a second row for the same file
    DUPLICATE_ID = "duplicate_id"  # a second row, with a file, of the same track id
    AMBIGUOUS_ROW = "ambiguous_row"  # several files fit a row, or others fit its file
    AMBIGUOUS_FILE = "ambiguous_file"  # a file that such a row may mean
    UNREADABLE = "unreadable"  # the store does not give the file's bytes
    NOT_A_FILE = "not_a_file"  # a FIFO, a device, a socket or a folder
    TOO_LARGE = "too_large"  # more than decoding has room for
    NO_SPACE = "no_space"  # the temporary folder is full
    EMPTY = "empty"  # zero bytes
    UNDECODABLE = "undecodable"  # no decoder takes it for audio
    TRUNCATED = "truncated"  # shorter than its own header says
    SHA1_MISMATCH = "sha1_mismatch"  # not what the `checksums` beside it say
    CHECKSUM = "checksum"  # not what its own checksum says
    DAMAGED_IN_ZIP = "damaged_in_zip"  # a member that is not what its ZIP says
    CORRUPT = "corrupt"  # parts of it cannot be decoded
    UNANNOUNCED = "unannounced"  # much follows behind the end that its header tells
    MIXED = "mixed"  # changes its sampling rate or channels on the way
    NOT_FINITE = "not_finite"  # decodes to infinities or to no numbers
    TOO_LOUD = "too_loud"  # decodes to levels that no music has
    SAMPLE_RATE = "sample_rate"  # one that no music has
    CHANNELS = "channels"  # more than music has, or than its header agrees on
    TOO_SHORT = "too_short"
    SILENT = "silent"
    CANCELS = "cancels"  # its channels cancel each other when mixed down
    DECODER_CRASHED = "decoder_crashed"  # the process that decodes died of it
    DECODER_TIMED_OUT = "decoder_timed_out"
    DUPLICATE_AUDIO = "duplicate_audio"  # the same audio as a track in another split
    ARTIST_LEAK = "artist_leak"  # its artist is in another split, too


#: Of a row that has no file of its own: its path is the row's.
ROW_REASONS = (Reason.MISSING, Reason.DUPLICATE_ROW, Reason.AMBIGUOUS_ROW)


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
      stage: `join`, `decode` or `split`.
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

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Reject:
        """What was written of one, parsed."""
        return cls(**{**row, "reason": Reason(row["reason"])})

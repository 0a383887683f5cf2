"""What must not be in two splits: an artist, or the very same audio.

A model that has heard a test clip, or its artist, in training scores better than
it is. Splits by artist prevent the second, as long as the metadata is right; the
first is seen only when the audio is decoded. So both are looked for in what was
written, and the clips that leak are taken out again. Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pipeline.common.rejects import Reason

#: What to do with clips that leak.
POLICIES = ("drop", "keep")
#: Among splits that share something, the first one keeps it: test results stay
#: comparable with others on the same test split.
PRECEDENCE = ("test", "validation", "training")

ARTIST, AUDIO = "artist", "audio"


class Member(NamedTuple):
    """A clip among those that share an artist or the audio.

    Attributes:
      rank: of its split in `PRECEDENCE`.
      track_id: unique name.
      shard: that it is in.
    """

    rank: int
    track_id: str
    shard: int


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Leak:
    """A clip to be taken out, and why.

    Attributes:
      track_id: unique name.
      reason: `duplicate_audio` or `artist_leak`.
      message: what was found, for people.
    """

    track_id: str
    reason: Reason
    message: str


def memberships(
    shard: int, clips: Iterable[tuple[str, str, str, str]]
) -> Iterator[tuple[str, Member]]:
    """What each clip shares with others, if there are any.

    Args:
      shard: index.
      clips: id, artist, split and audio checksum of each.

    Yields:
      A key that names the artist or the audio, and the clip.
    """
    for track_id, artist_id, split, audio in clips:
        member = Member(PRECEDENCE.index(split), track_id, shard)
        yield f"{AUDIO}:{audio}", member
        if artist_id:
            yield f"{ARTIST}:{artist_id}", member


def find_leaks(key: str, members: Iterable[Member]) -> list[tuple[int, Leak]]:
    """Clips of one artist, or with the same audio, that must go.

    Those of the first split in `PRECEDENCE` stay, also where several of them share
    their audio: within a split that is no leak.

    Args:
      key: as `memberships` makes it.
      members: all clips with that key.

    Returns:
      Shard and leak of each clip in another split, by ascending id.
    """
    ordered = sorted(members)
    first = ordered[0]
    kind, _, name = key.partition(":")
    split = PRECEDENCE[first.rank]
    if kind == AUDIO:
        reason = Reason.DUPLICATE_AUDIO
        message = f"has the same audio as track {first.track_id} in {split}"
    else:
        reason = Reason.ARTIST_LEAK
        message = f"its artist, {name}, is also in {split} (track {first.track_id})"
    return [
        (member.shard, Leak(track_id=member.track_id, reason=reason, message=message))
        for member in ordered
        if member.rank != first.rank
    ]


def describe_group(members: Sequence[tuple[str, str]]) -> str:
    """Names tracks and their splits: (split, id) pairs in one line."""
    ordered = sorted(members, key=lambda item: (PRECEDENCE.index(item[0]), item[1]))
    return ", ".join(f"{track_id} ({split})" for split, track_id in ordered)

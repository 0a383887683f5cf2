"""Assignment of tracks to splits. Standard library only."""

from __future__ import annotations

import dataclasses
import hashlib

from pipeline.schema import SPLITS, UserError

SPLIT_RULES = ("fma", "hash")
#: Resolution of the percentages.
BUCKETS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How a track's split is found.

    Attributes:
      rule: `fma`: the split in the metadata; `hash`: by a hash of the artist.
      percent: share of training, validation and test under `hash`; must sum
        to 100.
    """

    rule: str = "fma"
    percent: tuple[float, float, float] = (80.0, 10.0, 10.0)

    def __post_init__(self) -> None:
        """Refuses rules and shares that make no sense."""
        if self.rule not in SPLIT_RULES:
            raise UserError(
                f"--split must be one of {', '.join(SPLIT_RULES)}. "
                f"Received: {self.rule!r}"
            )
        if min(self.percent) < 0 or round(sum(self.percent), 6) != 100:
            raise UserError(
                "--split_percent takes three shares (training,validation,test) that "
                f"sum to 100. Received: {','.join(f'{p:g}' for p in self.percent)}"
            )

    def describe(self) -> str:
        """The rule as a sentence."""
        if self.rule == "fma":
            return "the split that the metadata gives each track"
        shares = ", ".join(
            f"{percent:g} % {split}"
            for split, percent in zip(SPLITS, self.percent, strict=True)
        )
        return (
            "sha256 of the artist's id, or of the track's id where there is no "
            f"artist: {shares}"
        )


def split_by_hash(
    artist_id: str, track_id: str, percent: tuple[float, float, float]
) -> str:
    """Assigns a whole artist to one split, the same everywhere and always.

    Args:
      artist_id: empty where it is not known.
      track_id: stands in for the artist.
      percent: shares of training, validation and test, summing to 100.

    Returns:
      One of `SPLITS`.
    """
    kind, value = ("artist", artist_id) if artist_id else ("track", track_id)
    bucket = stable_hash(f"{kind}:{value}") % BUCKETS
    edge = 0.0
    for split, share in zip(SPLITS, percent, strict=True):
        edge += share * BUCKETS / 100
        if bucket < edge:
            return split
    return SPLITS[-1]


def stable_hash(text: str) -> int:
    """First 64 bits of sha256; Python's own `hash` differs by process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

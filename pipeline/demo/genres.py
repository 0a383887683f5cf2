"""The eight genres of fma_small and who borrows from whom."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.demo import styles_acoustic, styles_electric
from pipeline.demo.styles import Style

#: Genre name (as in FMA's ``track.genre_top``) to its styles.
GENRES: Mapping[str, tuple[Style, ...]] = MappingProxyType(
    {
        "Electronic": styles_electric.ELECTRONIC,
        "Experimental": styles_acoustic.EXPERIMENTAL,
        "Folk": styles_acoustic.FOLK,
        "Hip-Hop": styles_electric.HIP_HOP,
        "Instrumental": styles_acoustic.INSTRUMENTAL,
        "International": styles_acoustic.INTERNATIONAL,
        "Pop": styles_electric.POP,
        "Rock": styles_electric.ROCK,
    }
)

#: Genres from which a track may borrow a part: the overlap is meant.
NEIGHBOURS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Electronic": ("Pop", "Hip-Hop", "Experimental"),
        "Experimental": ("Electronic", "Rock", "Instrumental"),
        "Folk": ("International", "Pop", "Instrumental"),
        "Hip-Hop": ("Electronic", "Pop", "International"),
        "Instrumental": ("Folk", "Experimental", "Rock"),
        "International": ("Folk", "Hip-Hop", "Electronic"),
        "Pop": ("Electronic", "Rock", "Folk"),
        "Rock": ("Pop", "Experimental", "Instrumental"),
    }
)

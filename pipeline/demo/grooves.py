"""What the drums play: patterns of one or two bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

_VELOCITIES = {"X": 1.0, "x": 0.75, "o": 0.4, ".": 0.0}


def read_pattern(pattern: str) -> Iterator[tuple[int, float]]:
    """Yields (step, velocity) of the hits in a pattern such as ``"X..ox..."``."""
    for step, letter in enumerate(pattern):
        if _VELOCITIES[letter]:
            yield step, _VELOCITIES[letter]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groove:
    """One bar (or two) of drumming: a pattern for each line of the kit.

    Patterns are as long as a whole number of the song's bars; an empty one is silent.
    """

    low: str = ""
    mid: str = ""
    high: str = ""
    ring: str = ""
    extra: str = ""


FOUR_ON_THE_FLOOR = Groove(
    low="X...X...X...X...",
    mid="....X.......X...",
    high="o.x.o.x.o.x.o.xo",
    ring="..x...x...x...x.",
)
TECHNO = Groove(
    low="X...X...X...X...",
    high="xoxoxoxoxoxoxoxo",
    ring="..X...X...X...X.",
    extra="...o..o....o..o.",
)
DRUM_AND_BASS = Groove(
    low="X.........X.....X.........X..o..",
    mid="....X.......X.......X..o.o..X...",
    high="x.x.x.x.x.x.x.x.x.x.x.xxx.x.x.x.",
)
BROKEN_BEAT = Groove(
    low="X..x......x..x..",
    mid="....X..o....X...",
    high="xxoxxxoxxxoxxxox",
    extra="..o.....o.o.....",
)
HALF_TIME = Groove(
    low="X.........o.....", mid="........X.......", high="x...x...x...x..."
)
BOOM_BAP = Groove(
    low="X......x..X.....X.x....x..X.....",
    mid="....X.......X.......X.......X..o",
    high="x.x.x.x.x.x.x.x.x.x.x.x.x.x.xox.",
)
LAZY_BOOM_BAP = Groove(
    low="X.x.....x.x.....",
    mid="....X.......X...",
    high="x.xox.x.x.xox.x.",
    ring="..............x.",
)
TRAP = Groove(
    low="X.....x...x.....X..x......x.....",
    mid="........X...............X.......",
    high="x.x.x.xxx.x.xxxxx.x.x.x.xxxxx.xx",
    extra="......o.....o.........o.........",
)
BACKBEAT = Groove(
    low="X.....x.X.......", mid="....X.......X...", high="x.x.x.x.x.x.x.x."
)
DRIVING = Groove(
    low="X...X.x.X...X.x.", mid="....X.......X...", high="X.X.X.X.X.X.X.X."
)
PUNK = Groove(low="X...X...X...X...", mid="..X...X...X...X.", high="X.X.X.X.X.X.X.X.")
BLAST = Groove(low="x.x.x.x.x.x.x.x.", mid="....X.......X...", ring="X...X...X...X...")
TOM_ROCK = Groove(
    low="X.......X.x.....",
    mid="....X.......X..o",
    extra="x.x.x.x.x.x.x.x.",
)
BALLAD = Groove(low="X.......x.......", mid="....x.......x...", high="o...o...o...o...")
WALTZ = Groove(low="X...........", mid="....o...o...", high="..o.....o...")
BRUSHED = Groove(
    low="x.......x.......", mid="..o.x..o..o.x..o", high="x.o.x.o.x.o.x.o."
)
STOMP = Groove(low="X.......X.......", mid="....x.......x...")
TRAIN = Groove(low="x...x...x...x...", mid="oox.oox.oox.oox.")
DISCO_POP = Groove(
    low="X...X...X...X...",
    mid="....X.......X...",
    high="x.o.x.o.x.o.x.o.",
    ring="..x...x...x...x.",
    extra="o.o.o.o.o.o.o.o.",
)
SNAP_POP = Groove(
    low="X..x..x.X.......",
    mid="....X.......X...",
    high="x.xxx.x.x.xxx.x.",
)
SON_CLAVE = Groove(
    low="..o...x...o...x.",
    mid="x..o..xx...o..xx",
    high="x.oxx.oxx.oxx.ox",
    ring="x.x.x.x.x.x.x.x.",
    extra="X..X..X...X.X...",
)
AFRO_TWELVE = Groove(
    low="X..x..X..o.x",
    mid=".xx..x.xx..x",
    high="xoxxoxxoxxox",
    ring="X.X.XX.X.X.X",
)
MALFUF = Groove(low="X..x..x.X..x..x.", mid="..o.X..oo.o.X.oo", high="oooooooooooooooo")
MAQSUM = Groove(low="X.......X.......", mid="..X...X.....X.o.", high="o.o.o.o.o.o.o.o.")
TEENTAL = Groove(
    low="X..x..x.X.......",
    mid="x.x.x.x.x.x.xxx.",
    high="..o..o.o..o..o.o",
)
REGGAE = Groove(
    low="........X.......",
    mid="........x.......",
    high="x.xox.xox.xox.xo",
    extra="..o......o..o...",
)
SCATTERED = Groove(
    low="X.............o....x............",
    mid=".....x.........o.........X..o...",
    high="..o....oo.....o..o.........ooooo",
    extra="...........x............o.......",
)
MACHINE_LIMP = Groove(
    low="X..X..X..X..X.X.",
    mid="..x....x..x....x",
    high="oooo.oo.ooo.oooo",
    ring="......x.........",
)

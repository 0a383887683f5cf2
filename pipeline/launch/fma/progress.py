"""How far a transfer is, how fast, and how long it will take."""

from __future__ import annotations

import collections
import sys
import time
from typing import TextIO

#: The speed is that of so many seconds.
WINDOW = 20.0
#: Seconds between lines: on a terminal, where one replaces another, and elsewhere.
TERMINAL_SECONDS, PLAIN_SECONDS = 0.5, 15.0


def format_bytes(count: float) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def format_seconds(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Prints a line now and then.

    Args:
      what: comes first on the line.
      stream: where to; on a terminal the line is replaced.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._shown = time.monotonic() - (0 if self._live else PLAIN_SECONDS / 2)
        self._places: collections.deque[tuple[float, int]] = collections.deque()

    def __call__(self, done: int, total: int | None) -> None:
        """Is told how many bytes there are, of how many."""
        now = time.monotonic()
        if not self._places or now - self._places[-1][0] >= 0.25:
            self._places.append((now, done))
            while len(self._places) > 2 and now - self._places[0][0] > WINDOW:
                self._places.popleft()
        if now - self._shown < (TERMINAL_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = now
        line = self.describe(now, done, total)
        if self._live:
            print(f"\r\x1b[K{line}", end="", file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)

    def describe(self, now: float, done: int, total: int | None) -> str:
        """The line."""
        started, before = self._places[0]
        speed = max(done - before, 0) / max(now - started, 1e-3)
        line = f"{self._what}: {format_bytes(done)}"
        if total:
            line += f" of {format_bytes(total)} ({100 * done / total:.1f} %)"
        line += f", {format_bytes(speed)}/s"
        if total and speed:
            line += f", {format_seconds((total - done) / speed)} left"
        return line

    def close(self) -> None:
        """Clears the line of a terminal."""
        if self._live:
            print("\r\x1b[K", end="", file=self._stream, flush=True)

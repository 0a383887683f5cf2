"""What a command tells while it works, on a terminal and in a log.

One `Reporter` is made where a command begins and handed down; what it is handed to
prints nothing by itself:

    reporter = take_reporter(arguments)  # --quiet, --verbose
    with reporter.stage("clips", total=200, unit="clip") as stage:
        for clip in clips:
            ...
            stage.advance()
    reporter.note("What stays on the screen.")

On a terminal each stage is one line that changes, with a bar, and that goes when the
stage is over. Elsewhere, a stage that takes long is a plain line every few seconds and
one at its end. Both go to standard error; what is said goes to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipeline.common.plain_text import one_line, print_to

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between plain lines: in the first minute of a stage, and later.
LINE_SECONDS = (5.0, 15.0)
#: Variable that is set for a command that is one step of several, which say together
#: what is next: the id of the process that runs them.
WHOLE_RUN = "FMA_WHOLE_RUN"
#: The unit of what is counted in bytes; it is shown in MB.
BYTE = "byte"

_T = TypeVar("_T")


@dataclasses.dataclass(kw_only=True)
class Stage:
    """Work under way, of which parts are counted.

    Attributes:
      name: what is done, e.g. "clips" or "Training mel".
      total: parts in all; None where that is not known.
      unit: one part, in singular, e.g. "clip"; `BYTE` for bytes.
      done: parts done.
      text: what else there is to say, e.g. a loss.
    """

    name: str
    total: int | None
    unit: str
    done: int = 0
    text: str = ""
    _reporter: Reporter
    _begun: float = dataclasses.field(default_factory=lambda: time.monotonic())
    _shown: float = 0.0
    # The pace leaves out the start, and what was done before.
    _first: tuple[float, int] | None = None

    def advance(self, count: int = 1) -> None:
        """Counts parts as done; from any thread."""
        self.update(self.done + count)

    def update(self, done: int, text: str | None = None) -> None:
        """Says how many parts are done, and what else there is to say."""
        self.done = done
        self.text = self.text if text is None else text
        if self._first is None and done:
            self._first = (time.monotonic(), done)
        self._reporter._show(self)

    def tell(self, text: str) -> None:
        """Says something without a part done."""
        self.update(self.done, text)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def describe(self) -> str:
        """How far it is, how fast, and how long it will take."""
        return "; ".join(filter(None, (self._count(), self._pace(), self.text)))

    def describe_end(self) -> str:
        """What was done, and in what time."""
        line = f"{self._count()} in {format_seconds(self.seconds)}"
        return "; ".join(filter(None, (line, self.text)))

    def is_due(self) -> bool:
        """Whether it is time for a plain line; then it is counted as shown."""
        now = self.seconds
        if now - self._shown < LINE_SECONDS[now > 60]:
            return False
        self._shown = now
        return True

    def _count(self) -> str:
        if self.unit == BYTE:
            large = max(self.done, self.total or 0) >= 1e10
            size, unit = (1e9, "GB") if large else (1e6, "MB")
            done = f"{self.done / size:.1f}"
            total = None if self.total is None else f"{self.total / size:.1f}"
        else:
            done = str(self.done)
            total = None if self.total is None else str(self.total)
            one = self.total == 1 or (self.total is None and self.done == 1)
            unit = self.unit if one else f"{self.unit}s"
        return f"{done} {unit}" if total is None else f"{done} of {total} {unit}"

    def _pace(self) -> str:
        if self._first is None:
            return ""
        begun, before = self._first
        seconds, count = time.monotonic() - begun, self.done - before
        if count <= 0 or seconds <= 0:
            return ""
        rate = count / seconds
        if self.unit == BYTE:
            pace = f"{rate / 1e6:.1f} MB a second"
        elif rate < 0.5:
            pace = f"{format_seconds(1 / rate)} a {self.unit}"
        else:
            pace = f"{rate:.1f} a second"
        if self.total is None or self.done >= self.total:
            return pace
        # Counted from the last part: what has taken long already is nearly done.
        return f"{pace}, {format_seconds((self.total - self.done) / rate)} left"


class Reporter:
    """The plain form: lines, for logs and pipes.

    Args:
      quiet: tell only what the command was asked for.
      verbose: tell the details too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose and not quiet

    def result(self, text: str) -> None:
        """Prints what the command was asked for."""
        self._print(text)

    def note(self, text: str) -> None:
        """Prints what is good to know."""
        if not self.quiet:
            self._print(text)

    def detail(self, text: str) -> None:
        """Prints what only some want to know."""
        if self.verbose:
            self._print(text)

    def finish(
        self, made: str | Sequence[str], *commands: Sequence[str], aside: bool = False
    ) -> None:
        """Ends a command: what was made and where, and what to type next.

        Args:
          made: a line, or several.
          commands: words of commands of `./launch.sh`, without it.
          aside: say what to type on standard error, as a program may read the rest.
        """
        for line in [made] if isinstance(made, str) else made:
            self.result(one_line(line))
        if WHOLE_RUN in os.environ:
            return
        label = "Next:"
        for command in commands:
            line = shlex.join(["./launch.sh", *command])
            if not self.quiet:
                self._print(f"{label} {one_line(line)}", error=aside)
            label = " " * len(label)

    def warn(self, text: str) -> None:
        """Prints what somebody should do something about, on standard error."""
        self._print(text, error=True)

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int | None = None, unit: str = "part", done: int = 0
    ) -> Iterator[Stage]:
        """Shows a part of the work while it is done; see `Stage`.

        Args:
          name: what is done.
          total: parts in all.
          unit: one part, in singular.
          done: parts that were done before.
        """
        stage = Stage(name=name, total=total, unit=unit, done=done, _reporter=self)
        self._open(stage)
        try:
            yield stage
            # Not after a failure, whose error is the next thing to be read.
            self._end(stage)
        finally:
            self._close(stage)

    def track(
        self, items: Iterable[_T], name: str, unit: str, total: int | None = None
    ) -> Iterator[_T]:
        """Yields items and counts those that were worked on."""
        with self.stage(name, total, unit) as stage:
            for item in items:
                yield item
                stage.advance()

    def _print(self, text: str, *, error: bool = False) -> None:
        print_to(sys.stderr if error else sys.stdout, text)

    def _open(self, stage: Stage) -> None:
        """Begins to show a stage."""

    def _show(self, stage: Stage) -> None:
        over = stage.done == stage.total
        if not self.quiet and not over and stage.is_due():
            self._print(f"{stage.name}: {stage.describe()}", error=True)

    def _end(self, stage: Stage) -> None:
        if not self.quiet and stage.seconds >= LINE_SECONDS[0]:
            self._print(f"{stage.name}: {stage.describe_end()}", error=True)

    def _close(self, stage: Stage) -> None:
        """Ends to show a stage."""


class _Silent(Reporter):
    """Tells nothing."""

    def _print(self, text: str, *, error: bool = False) -> None:
        pass


#: For whoever wants the work without the words.
SILENT = _Silent(quiet=True)


class LiveReporter(Reporter):
    """The form for a terminal: lines that change, drawn by rich.

    It writes to what standard error is when it is made, whatever is put in its place
    to keep native libraries quiet.

    Args:
      verbose: see `Reporter`.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__(verbose=verbose)
        self._terminal = open(  # noqa: SIM115 (as long as the process)
            os.dup(sys.stderr.fileno()),
            "w",
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
        )
        self._lock = threading.Lock()
        self._display: Progress | None = None
        self._rows: dict[int, TaskID] = {}

    def _open(self, stage: Stage) -> None:
        with self._lock:
            if self._display is None:
                self._display = _make_display(self._terminal)
                self._display.start()
            row = self._display.add_task(
                stage.name, total=stage.total, completed=stage.done, stage=stage
            )
            self._rows[id(stage)] = row

    def _show(self, stage: Stage) -> None:
        display, row = self._display, self._rows.get(id(stage))
        if display is not None and row is not None:
            display.update(row, completed=stage.done, total=stage.total)

    def _end(self, stage: Stage) -> None:
        """Leaves nothing."""

    def _close(self, stage: Stage) -> None:
        with self._lock:
            row = self._rows.pop(id(stage), None)
            if self._display is None or row is None:
                return
            self._display.remove_task(row)
            if not self._rows:
                self._display.stop()
                self._display = None

    def _print(self, text: str, *, error: bool = False) -> None:
        display = self._display
        stream = sys.stderr if error else sys.stdout
        if display is None or not (error or _is_terminal(sys.__stdout__)):
            print_to(stream, text)
        else:
            display.console.out(text, highlight=False)


def _make_display(terminal: object) -> Progress:
    """Lines below which what is printed meanwhile passes by."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as Display
    from rich.text import Text

    class Cursor(Console):
        """Leaves the cursor alone: a process that is killed could not restore it."""

        def show_cursor(self, show: bool = True) -> bool:
            return not show

    class Describe(ProgressColumn):
        """How far a stage is."""

        def render(self, task: Task) -> Text:
            line = task.fields["stage"].describe()
            return Text(line, no_wrap=True, overflow="ellipsis")

    return Display(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        Describe(),
        console=Cursor(file=terminal, force_terminal=True),  # type: ignore[arg-type]
        transient=True,
        refresh_per_second=4,
        redirect_stdout=_is_terminal(sys.stdout),
    )


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def make_reporter(*, quiet: bool = False, verbose: bool = False) -> Reporter:
    """The reporter that suits standard error.

    Args:
      quiet: tell only what the command was asked for.
      verbose: tell the details too.
    """
    if quiet or not _is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        return Reporter(quiet=quiet, verbose=verbose)
    return LiveReporter(verbose=verbose)


def add_progress_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --quiet and --verbose, of which one at most may be given."""
    group = parser.add_argument_group("terminal").add_mutually_exclusive_group()
    group.add_argument(
        "--quiet", action="store_true", help="print results and errors only"
    )
    group.add_argument(
        "--verbose", action="store_true", help="print details too, such as each epoch"
    )


def take_reporter(arguments: argparse.Namespace) -> Reporter:
    """The reporter that `add_progress_flags` asks for; its flags are taken out."""
    flags = vars(arguments)
    return make_reporter(quiet=flags.pop("quiet"), verbose=flags.pop("verbose"))


def format_seconds(seconds: float) -> str:
    """A duration for people, e.g. `0.4 s`, `52 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

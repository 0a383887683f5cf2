"""Commands that follow each other, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.common.child_process import python_command
from pipeline.common.progress import WHOLE_RUN
from pipeline.common.progress.command_line import CommandParser

#: How a command ends that was interrupted: by Ctrl-C, or asked to and has saved.
_STOPPED = (130, 75)


class StepError(Exception):
    """A step did not end well, and has said why.

    Attributes:
      code: exit code for the whole.
      stopped: whether it was interrupted.
    """

    def __init__(self, code: int) -> None:
        """Takes what `Popen` gives: less than 0 for a signal."""
        self.stopped = code < 0 or code in _STOPPED
        self.code = 128 - code if code < 0 else code
        super().__init__(f"exit code {code}")


def run_step(words: Sequence[str]) -> None:
    """Runs a command to its end, also where this process is asked to stop meanwhile.

    Args:
      words: of the command, as typed after `./launch.sh`.

    Raises:
      StepError: it did not end well.
    """
    command = python_command("pipeline.launch.commands", *words)
    came: list[int] = []
    told: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def tell(number: int, _: object) -> None:
        came.append(number)
        # The terminal tells Ctrl-C to the step, too.
        if number == signal.SIGTERM and process is not None:
            told.append(number)
            process.terminate()

    environment = os.environ | {WHOLE_RUN: str(os.getpid())}
    with _handling(signal.SIGINT, tell), _handling(signal.SIGTERM, tell):
        process = subprocess.Popen(command, env=environment)
        with process:
            if signal.SIGTERM in came and not told:  # While it was started.
                process.terminate()
            code = process.wait()
    # A step that was about to end has done so; the next one is not wanted.
    if code or came:
        raise StepError(code or -came[0])


@contextlib.contextmanager
def _handling(number: int, handler: Callable[[int, object], None]) -> Iterator[None]:
    before = signal.getsignal(number)
    # What is ignored, as in the background of a script, is so in the step, too.
    if before != signal.SIG_IGN:
        signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def route(
    words: Sequence[str], parsers: Mapping[str, CommandParser], others: str
) -> dict[str, list[str]]:
    """Shares the options of a command line out among the commands that know them.

    Args:
      words: options and their values.
      parsers: by name; the flags of the first are for it alone.
      others: the one that gets unknown flags, or the first, whose error they are.

    Returns:
      Words by name.
    """
    first = next(iter(parsers))
    routed: dict[str, list[str]] = {name: [] for name in parsers}
    names = [first]
    for word in words:
        if word.startswith("--") or word == "-h":
            flag = word.partition("=")[0]
            names = [name for name in parsers if flag in parsers[name].flags]
            if first in names:
                names = [first]
            names = names or [others]
        for name in names:
            routed[name].append(word)
    return routed


def number(steps: Sequence[str], title: str = "") -> Iterator[tuple[str, str]]:
    """Yields steps, each with a heading for it."""
    for index, step in enumerate(steps, 1):
        yield step, f"\n== {index}/{len(steps)} {title}{step}"

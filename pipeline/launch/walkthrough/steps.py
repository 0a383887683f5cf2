"""Commands that follow each other, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from pipeline.common.child_process import CORES_FREE, TURN, python_command
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


class Successor:
    """A command that imports what it needs while the one before it comes to its end.

    Args:
      words: of the command, as typed after `./launch.sh`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self._lock = threading.Lock()
        self._wanted = True
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = -1

    def start(self, cores_free: int) -> None:
        """Starts it once a byte comes; its turn is later.

        Args:
          cores_free: descriptor to read from, which is closed.
        """
        with open(cores_free, "rb", buffering=0) as pipe:
            if not pipe.read(1):
                return
        with self._lock:
            if not self._wanted or self._process is not None:
                return
            # The command before has the terminal. Of this thread, and inherited.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            turn, self._turn = os.pipe()
            try:
                self._process = _start(self.words, {TURN: turn})
            except OSError:  # It begins by itself, when there may be room for it.
                os.close(self._turn)
            finally:
                os.close(turn)

    def take_turn(self) -> subprocess.Popen[bytes]:
        """Has it begin; a command that has not been started begins by itself."""
        with self._lock:
            self._wanted = False
            process, self._process = self._process, None
            if process is not None:
                try:
                    # Looked at before: after its turn it may have ended well.
                    if process.poll() is None:
                        os.write(self._turn, b".")
                        return process
                except BrokenPipeError:
                    process.wait()
                finally:
                    os.close(self._turn)
        return _start(self.words, {})

    def __enter__(self) -> Successor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends it, if it still waits."""
        with self._lock:
            self._wanted = False
            if self._process is not None:
                os.close(self._turn)
                self._process.kill()
                self._process.wait()


def _start(
    words: Sequence[str], descriptors: Mapping[str, int]
) -> subprocess.Popen[bytes]:
    """Starts a command, with descriptors that variables name."""
    variables = {name: str(value) for name, value in descriptors.items()}
    return subprocess.Popen(
        python_command("pipeline.launch.commands", *words),
        env=os.environ | variables | {WHOLE_RUN: str(os.getpid())},
        pass_fds=list(descriptors.values()),
    )


def _start_before(
    words: Sequence[str], successor: Successor
) -> subprocess.Popen[bytes]:
    """Starts a command which tells when its successor may start."""
    reader, writer = os.pipe()
    process = _start(words, {CORES_FREE: writer})
    os.close(writer)
    threading.Thread(target=successor.start, args=(reader,), daemon=True).start()
    return process


def _begin(
    step: Sequence[str] | Successor, successor: Successor | None
) -> subprocess.Popen[bytes]:
    if isinstance(step, Successor):
        return step.take_turn()
    if successor is not None:
        return _start_before(step, successor)
    return _start(step, {})


def run_step(
    step: Sequence[str] | Successor, successor: Successor | None = None
) -> None:
    """Runs a command to its end, also where this process is asked to stop meanwhile.

    Args:
      step: words of the command, as typed after `./launch.sh`, or what waits for the
        turn that has come.
      successor: gets ready when the command has cores to spare.

    Raises:
      StepError: it did not end well.
    """
    came: list[int] = []
    told: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def tell(number: int, _: object) -> None:
        came.append(number)
        # The terminal tells Ctrl-C to the step, too.
        if number == signal.SIGTERM and process is not None:
            told.append(number)
            process.terminate()

    with _handling(signal.SIGINT, tell), _handling(signal.SIGTERM, tell):
        process = _begin(step, successor)
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

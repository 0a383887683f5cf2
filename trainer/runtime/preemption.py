"""Stops a run in good order when the machine is taken away (SIGTERM)."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Exit code of a run that saved its state after SIGTERM and is to be started again:
#: EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
EXIT_CODE = 75


class PreemptedError(Exception):
    """The run was asked to stop and has saved what it needs to go on."""


class Preemption:
    """Whether the run was asked to stop."""

    def __init__(self, *, watching: bool = False) -> None:
        self.requested = False
        self._watching = watching

    def arm(self) -> None:
        """Handles SIGTERM from now on, if that is wanted.

        To be called again after TensorFlow has started: for several processes it
        puts a handler of its own in the place of Python's.
        """
        if self._watching and not self.requested:
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.requested = True


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[Preemption]:
    """Turns the first SIGTERM into a request; a second one ends the process.

    In threads other than the main one signals cannot be handled: nothing is asked.
    """
    main = threading.current_thread() is threading.main_thread()
    preemption = Preemption(watching=main)
    before = signal.getsignal(signal.SIGTERM)
    preemption.arm()
    try:
        yield preemption
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)

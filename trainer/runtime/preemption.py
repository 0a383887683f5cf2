"""Stops a run in good order: on SIGTERM, as clouds send it, and on Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

#: Exit code of a run that was asked to stop, saved its state and is to be started
#: again: EX_TEMPFAIL of sysexits.h, "the user is invited to retry".
EXIT_CODE = 75


class PreemptedError(Exception):
    """The run was asked to stop and has saved what it needs to go on."""


_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}
#: What they do where nobody watches.
_DEFAULTS: Mapping[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class Preemption:
    """Whether the run was asked to stop.

    Attributes:
      requested: whether it was.
      by: the signal's name, for people.
    """

    def __init__(self, *, watching: bool = False) -> None:
        self.requested = False
        self.by = _NAMES[signal.SIGTERM]
        self._watching = watching

    def arm(self) -> None:
        """Handles the signals from now on, if that is wanted.

        To be called again after TensorFlow has started: for several processes it
        puts a handler of its own in the place of Python's.
        """
        if not self._watching or self.requested:
            return
        signal.signal(signal.SIGTERM, self._handle)
        # A shell starts what runs in its background so that Ctrl-C is not for it.
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        for known, handler in _DEFAULTS.items():
            if signal.getsignal(known) == self._handle:
                signal.signal(known, handler)
        self.requested, self.by = True, _NAMES[signal.Signals(number)]


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[Preemption]:
    """Turns the first signal into a request; a second one ends the process.

    A request that came too late for whoever asks is handed on to who watched before:
    `interrupting`. In threads other than the main one signals cannot be handled:
    nothing is asked.
    """
    main = threading.current_thread() is threading.main_thread()
    preemption = Preemption(watching=main)
    before = {number: signal.getsignal(number) for number in _NAMES}
    preemption.arm()
    try:
        yield preemption
    finally:
        if main:
            for number, handler in before.items():
                signal.signal(number, handler)
        for number, handler in before.items():
            outer = getattr(handler, "__self__", None)
            asked = preemption.requested and preemption.by == _NAMES[number]
            # Also where the work failed: what is wrong is told, and no more begun.
            if asked and isinstance(outer, _Interruption):
                outer.came.append(number)
    stop_if_interrupted()


class _Interruption:
    """What came, where Python may have swallowed what the handler raised."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.came.append(number)
        raise KeyboardInterrupt


def stop_if_interrupted() -> None:
    """To be called between two pieces of work in `interrupting`.

    Raises:
      KeyboardInterrupt: a signal came before.
    """
    for number in _NAMES:
        interruption = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(interruption, _Interruption) and interruption.came:
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Interrupts several pieces of work at once, or between two, but never not at all.

    Python swallows what a signal's handler raises while a finaliser or a callback of C
    runs, and a run that is about to end finishes first: see `stop_if_interrupted`.

    Raises:
      PreemptedError: by SIGTERM.
    """
    interruption = _Interruption()
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _NAMES if main}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interruption.handle)
    try:
        yield
    except KeyboardInterrupt as error:
        if interruption.came[:1] == [signal.SIGTERM]:
            raise PreemptedError(
                "by SIGTERM; what is finished stays, and the same command goes on."
            ) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

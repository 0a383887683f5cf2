import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.runtime.preemption import (
    PreemptedError,
    Preemption,
    interrupting,
    stop_if_interrupted,
    watch_for_preemption,
)


def test_sigterm_becomes_a_request():
    before = signal.getsignal(signal.SIGTERM)
    with watch_for_preemption() as preemption:
        assert not preemption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested
        # The next one ends the process, however often it is armed.
        preemption.arm()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def foreground():
    """As a shell starts what is not in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
def test_ctrl_c_is_a_request_too_and_the_next_one_interrupts():
    with watch_for_preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert (preemption.requested, preemption.by) == (True, "Ctrl-C")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watch_for_preemption():
            # In the background of a shell Ctrl-C is for others.
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_was_replaced_is_put_back():
    with watch_for_preemption() as preemption:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        preemption.arm()
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested


def test_who_does_not_watch_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    Preemption().arm()
    assert signal.getsignal(signal.SIGTERM) == before
    found = []

    def elsewhere() -> None:
        with watch_for_preemption() as preemption:
            found.append(preemption.requested)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_ends_the_process():
    code = """
import os, signal
from trainer.runtime.preemption import watch_for_preemption
with watch_for_preemption():
    os.kill(os.getpid(), signal.SIGTERM)
    print("once", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("twice", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "once\n")


class Finalised:
    """Is sent a signal where Python swallows what its handler raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0)


@pytest.mark.usefixtures("foreground")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, PreemptedError)],
)
def test_no_signal_is_swallowed_between_two_pieces_of_work(number, error):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def at_once():
        os.kill(os.getpid(), number)
        pytest.fail("goes on")

    def in_a_finaliser():
        Finalised(number)
        stop_if_interrupted()

    def as_a_run_ends():
        with watch_for_preemption() as preemption:
            os.kill(os.getpid(), number)
            assert preemption.requested
        pytest.fail("goes on")

    def work(piece):
        with interrupting():
            stop_if_interrupted()
            piece()

    for piece in (at_once, in_a_finaliser, as_a_run_ends):
        with pytest.raises(error):
            work(piece)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

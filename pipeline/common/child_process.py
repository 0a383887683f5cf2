"""Processes that this project starts: what they import, when they begin and end.

`python -m` and `python -c` put the current folder before the standard library, and
people work where their music is, beside files of any name. A process whose launcher was
killed would work on for nobody.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: Seconds between looks at the launcher.
INTERVAL = 0.5

#: Variables with descriptors of pipes. To the first a command writes when what it has
#: left to do takes one core; from the second, one reads when it is its turn.
CORES_FREE, TURN = "FMA_CORES_FREE", "FMA_TURN"

_VARIABLE = "PYTHONSAFEPATH"
#: Where the package `pipeline` is; it may not be installed.
_ROOT = Path(__file__).resolve().parents[2]
#: The root comes last, so that nothing in it hides a module of anybody else's.
_CODE = (
    "import runpy, sys; root, module = sys.argv[1:3]; del sys.argv[1:3]; "
    "root in sys.path or sys.path.append(root); "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python, as `python -m` does.

    Args:
      module: of this project or of an installed one.
      arguments: of the module.
    """
    return [sys.executable, "-P", "-c", _CODE, str(_ROOT), module, *arguments]


@contextlib.contextmanager
def current_folder_kept_out() -> Iterator[None]:
    """Does the same for processes that others start, such as multiprocessing's."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def tell_cores_free() -> None:
    """Tells the launcher that another command may import, if it has asked for that."""
    descriptor = os.environ.pop(CORES_FREE, "")
    if descriptor.isdecimal():
        with (
            contextlib.suppress(OSError),  # The launcher is gone.
            open(int(descriptor), "wb", buffering=0) as pipe,
        ):
            pipe.write(b".")


def wait_for_turn(prepare: Callable[[], None]) -> bool:
    """Waits until the launcher says that it is this command's turn, if it has one.

    Meanwhile an interrupt is for the command whose turn it is: the launcher has
    blocked it here.

    Args:
      prepare: called meanwhile.

    Returns:
      Whether to begin; not if the launcher does without.
    """
    descriptor = os.environ.pop(TURN, "")
    if not descriptor.isdecimal():
        return True
    with contextlib.suppress(ImportError):  # Told when it is its turn.
        prepare()
    begins = bool(os.read(int(descriptor), 1))
    os.close(int(descriptor))
    if begins:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return begins


def end_with(launcher: int, scratch: str = "") -> None:
    """Watches a process on this machine, and ends this one with it.

    Args:
      launcher: its id.
      scratch: a temporary folder of it, which it cannot remove where it is killed.
    """
    # A killed process that its own parent has not waited for still has its id.
    is_child = os.getppid() == launcher

    def watch() -> None:
        while is_alive(launcher) and (not is_child or os.getppid() == launcher):
            time.sleep(INTERVAL)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        # Threads inside Beam and native code cannot be asked to end.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_alive(process: int) -> bool:
    """Whether there is a process of that id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

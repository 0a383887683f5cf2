"""Processes that this project starts: what they import, and when they end.

`python -m` and `python -c` put the current folder before the standard library, and
people work where their music is, beside files of any name. A process whose launcher was
killed would work on for nobody.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds between looks at the launcher.
INTERVAL = 0.5

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


def end_with(launcher: int) -> None:
    """Watches a process on this machine, and ends this one with it.

    Args:
      launcher: its id.
    """
    # A killed process that its own parent has not waited for still has its id.
    is_child = os.getppid() == launcher

    def watch() -> None:
        while is_alive(launcher) and (not is_child or os.getppid() == launcher):
            time.sleep(INTERVAL)
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

"""Ends a worker process when the process that started the job is gone.

Beam's local workers notice it only when they have finished what they do. Standard
library only.
"""

from __future__ import annotations

import os
import threading
import time

#: Seconds between looks.
INTERVAL = 0.5


def end_with(launcher: int) -> None:
    """Watches a process on this machine, and ends this one with it.

    Args:
      launcher: its id.
    """
    threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _watch(launcher: int) -> None:
    while is_alive(launcher):
        time.sleep(INTERVAL)
    # Threads inside Beam and native code cannot be asked to end.
    os._exit(1)


def is_alive(process: int) -> bool:
    """Whether there is a process of that id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

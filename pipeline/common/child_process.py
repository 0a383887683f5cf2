"""How this project's programs start Python: never with modules of the current folder.

`python -m` and `python -c` put the current folder before the standard library, and
people work where their music is, beside files of any name.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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

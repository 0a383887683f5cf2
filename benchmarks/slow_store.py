"""Preprocesses as if the local disk were an object store: opening takes 80 ms.

`./launch.sh run benchmarks.slow_store OPTION ...` takes the options of
`pipeline.preprocess`. Importing this module slows Beam's local file system down
in the process that imports it; Beam's `--beam_plugins` makes workers do so.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.utils.plugin import BeamPlugin

from pipeline.preprocess import main

OPEN_SECONDS = 0.08


class SlowStore(BeamPlugin):
    """Names this module to Beam's workers."""


def _delay(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def delayed(*args: Any, **options: Any) -> Any:
        time.sleep(OPEN_SECONDS)
        return method(*args, **options)

    return delayed


LocalFileSystem.open = _delay(LocalFileSystem.open)
LocalFileSystem.create = _delay(LocalFileSystem.create)

if __name__ == "__main__":
    sys.exit(main([*sys.argv[1:], "--beam_plugins=benchmarks.slow_store.SlowStore"]))

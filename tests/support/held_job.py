"""Runs a job that waits when so many shards are finished, for tests that kill it.

    python -m tests.support.held_job MODULE FLAG ...

A test that looks at how far a job is may see it too late, so the job itself stands
still: see `tests.support.jobs.start`.
"""

import os
import runpy
import sys
import time
from pathlib import Path

from pipeline.common import storage
from tests.support.jobs import HELD_AT, HOLD_FILE, count_finished


def hold(path: str) -> None:
    """Waits, if a file that was just written makes enough shards."""
    folder = Path(path).parent
    if folder.name != "_progress" or not path.endswith(".json"):
        return
    if count_finished(folder.parent) >= int(os.environ[HELD_AT]):
        while os.path.exists(os.environ[HOLD_FILE]):
            time.sleep(0.01)


def main(module: str, arguments: list[str]) -> None:
    write = storage.write_atomically

    def write_and_hold(path: str, data: bytes, **options: str) -> None:
        write(path, data, **options)
        hold(path)

    storage.write_atomically = write_and_hold
    if module != "pipeline.job.worker":
        from pipeline.launch import local

        command = local.python_command
        local.python_command = lambda *words: command("tests.support.held_job", *words)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

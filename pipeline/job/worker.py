"""A worker process of a job on this machine: Beam's own, with a short end.

Beam ends its workers one after the other. Python takes half a second to unload what one
has imported, and two with TensorFlow: with many workers more than the clips take.
"""

from __future__ import annotations

import os
import sys

from apache_beam.runners.worker import sdk_worker_main

from pipeline.common.quiet import silence_worker


def main() -> None:
    """Works until the job's process is done with it."""
    silence_worker()
    sdk_worker_main.main(sys.argv)
    # Steps are torn down, and their files closed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

"""Runs `trainer.task` in a process of its own, for tests that kill it.

    python -m tests.support.training_run DEVICES STEP FLAG ...

DEVICES is the number of logical CPUs. After STEP steps (0 for never) the process
kills itself, as a machine that is switched off would.
"""

import json
import os
import signal
import socket
import sys


def make_clusters() -> list[str]:
    """TF_CONFIG of a chief and a worker, as Vertex AI sets it."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    chief, worker = (f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    for one in sockets:
        one.close()
    return [
        json.dumps(
            {
                "cluster": {"chief": [chief], "worker": [worker]},
                "environment": "cloud",
                "task": {"type": kind, "index": 0, "cloud": "abc"},
                "job": {"args": []},
            }
        )
        for kind in ("chief", "worker")
    ]


def main(devices: int, last_step: int, flags: list[str]) -> int:
    import trainer.runtime.quiet  # noqa: F401  isort: skip
    import tensorflow as tf

    from trainer import task
    from trainer.training.step import Learner

    if devices > 1:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * devices,
        )
    step = Learner.step
    made = 0

    def count(self, batch, stop):
        nonlocal made
        if made == last_step > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        made += 1
        return step(self, batch, stop)

    Learner.step = count
    return task.main(flags)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))

"""Runs `trainer.task` in a process of its own, for tests that kill it.

    python -m tests.support.training_run DEVICES STEP SIGNAL FLAG ...

DEVICES is the number of logical CPUs. After STEP steps (0 for never) the process gets
a signal, by number: SIGKILL is as if the machine was switched off.
"""

import json
import os
import sys

from tests.support.ports import find_free_ports

#: Of the folder of a network that was measured on a test split.
MODEL_FILES = {
    *("OWNER.json", "manifest.json", "model.json", "model.keras", "model_card.md"),
    *("confusion.png", "history.json", "history.png", "predictions.csv"),
    *("report.json", "validation.csv"),
}


def make_clusters() -> list[str]:
    """TF_CONFIG of a chief and a worker, as Vertex AI sets it."""
    chief, worker = (f"127.0.0.1:{port}" for port in find_free_ports(2))
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


def main(devices: int, last_step: int, number: int, flags: list[str]) -> int:
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
            os.kill(os.getpid(), number)
        made += 1
        return step(self, batch, stop)

    Learner.step = count
    return task.main(flags)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4]), sys.argv[4:]))

"""Tells Vertex AI's hyper-parameter service how a trial went.

The service reads a file of JSON lines, as the package `cloudml-hypertune` writes it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

from trainer.evaluation.history import PhaseHistory

DEFAULT_FILE = "/tmp/hypertune/output.metrics"

#: What a study on Vertex AI may optimise.
METRICS = ("validation_loss", "validation_accuracy")


def metric_file(environment: Mapping[str, str]) -> str | None:
    """Where the service wants metrics; None outside of a trial of it."""
    path = environment.get("CLOUD_ML_HP_METRIC_FILE")
    if path:
        return path
    return DEFAULT_FILE if environment.get("CLOUD_ML_TRIAL_ID") else None


def report_phase(
    phase: PhaseHistory, environment: Mapping[str, str] = os.environ
) -> None:
    """Writes the metrics of the epoch whose weights were kept.

    Nothing is written outside of the service, or without a validation split.
    """
    path = metric_file(environment)
    if path is None:
        return
    lines = []
    for name in METRICS:
        values = phase.metrics.get(name)
        if values:
            content = {
                "timestamp": time.time(),
                "trial": environment.get("CLOUD_ML_TRIAL_ID", "0"),
                name: str(values[phase.best_epoch - 1]),
                "global_step": str(phase.best_epoch),
                "checkpoint_path": "",
            }
            lines.append(json.dumps(content, sort_keys=True) + "\n")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)

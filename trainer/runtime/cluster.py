"""The processes that train together, as the environment variable TF_CONFIG tells."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pipeline.schema import UserError

_EXAMPLE = (
    '{"cluster": {"chief": ["host:port"], "worker": ["host:port"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that train together, and which of them this is.

    Attributes:
      addresses: host and port of each, the chief's first.
      worker: index of this process among them; 0 is the chief, which alone writes.
    """

    addresses: tuple[str, ...]
    worker: int

    @property
    def workers(self) -> int:
        """Number of processes."""
        return len(self.addresses)


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Reads TF_CONFIG as Vertex AI and Kubeflow set it.

    Without a `chief`, worker 0 is the chief. Further keys are ignored.

    Returns:
      The cluster, or None where the variable is not set or names one process.

    Raises:
      UserError: the variable is damaged, or this process has no part in training.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    try:
        content = json.loads(text)
        cluster = content.get("cluster") or {}
        if not cluster:
            return None
        task = content["task"]
        kind, index = str(task["type"]), int(task["index"])
        tasks = [
            (name, number, str(address))
            for name in ("chief", "master", "worker")
            for number, address in enumerate(_addresses(cluster.get(name, [])))
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The environment variable TF_CONFIG cannot be read ({error!r}); set it "
            f"like {_EXAMPLE}, or unset it. Received: {text}"
        ) from error
    if cluster.get("ps"):
        raise UserError(
            "TF_CONFIG names parameter servers, which this trainer does not use; "
            "start it with a chief and workers only."
        )
    for worker, (name, number, _) in enumerate(tasks):
        if (name, number) == (kind, index):
            if len(tasks) == 1:
                return None
            return Cluster(
                addresses=tuple(address for _, _, address in tasks), worker=worker
            )
    raise UserError(
        f"TF_CONFIG gives this process the task {kind} {index}, which is not a chief "
        f"or worker of its cluster; set it like {_EXAMPLE}. Received: {text}"
    )


def find_cluster(strategy: str, environment: Mapping[str, str]) -> Cluster | None:
    """The processes that a run with this --strategy is one of, if any.

    Raises:
      UserError: see `read_cluster`.
    """
    return read_cluster(environment) if strategy in ("auto", "multiworker") else None


def _addresses(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list of addresses, received {value!r}")
    return value

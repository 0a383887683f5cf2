"""A custom job of Vertex AI: configuration, request, submission, follower.

`trainer.vertex` is its command line. Google's SDK is imported where it is used: it
takes seconds, and the trainer's image lacks it.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.common import gcs
from pipeline.schema import UserError

#: Machine types by GPU and number of GPUs.
GPU_MACHINES: Mapping[str, Mapping[int, str]] = {
    "NVIDIA_TESLA_T4": {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"},
    "NVIDIA_TESLA_V100": {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"},
    "NVIDIA_L4": {
        1: "g2-standard-8",
        2: "g2-standard-24",
        4: "g2-standard-48",
        8: "g2-standard-96",
    },
    "NVIDIA_TESLA_A100": {n: f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)},
    "NVIDIA_A100_80GB": {n: f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)},
    "NVIDIA_H100_80GB": {n: f"a3-highgpu-{n}g" for n in (1, 2, 4, 8)},
}
#: Machine types and topologies by TPU and number of chips.
TPU_MACHINES: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "v5e": {
        1: ("ct5lp-hightpu-1t", "1x1"),
        4: ("ct5lp-hightpu-4t", "2x2"),
        8: ("ct5lp-hightpu-8t", "2x4"),
    }
}
#: What TensorFlow needs to find a TPU v5e.
TPU_ENVIRONMENT = {
    "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
    "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "/lib/libtpu.so",
}
CPU_MACHINE = "n1-standard-8"
DISK_GB = 100
COMMAND = ("python", "-m", "trainer.task")
#: Seconds between looks at a running job.
POLL_SECONDS = 15.0

_FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")
_TENSORBOARD = re.compile(r"projects/[^/]+/locations/[^/]+/tensorboards/[^/]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VertexConfig(gcs.Place):
    """A training job.

    Attributes:
      arguments: of `trainer.task`.
      accelerator: a key of `GPU_MACHINES`, or empty.
      accelerator_count: GPUs or chips a machine; None for one.
      tpu: a key of `TPU_MACHINES`, or empty.
      machine_type: empty for the accelerator's.
      replicas: number of machines.
      spot: take machines that may be taken away.
      timeout_hours: after which Vertex AI ends the job.
      container: image of the trainer.
      network: to peer with; empty for none.
      tensorboard: resource that receives the logs; empty for none.
      endpoint: URL of the service.
    """

    arguments: tuple[str, ...]
    accelerator: str
    accelerator_count: int | None
    tpu: str
    machine_type: str
    replicas: int
    spot: bool
    timeout_hours: float
    container: str
    network: str
    tensorboard: str
    endpoint: str

    def __post_init__(self) -> None:
        """Refuses what the service would, minutes later."""
        super().__post_init__()
        if self.replicas < 1:
            raise UserError(f"--replicas must be 1 or more. Received: {self.replicas}")
        if not 0 < self.timeout_hours <= 24 * 28:
            raise UserError(
                "--timeout_hours must be over 0 and at most 672. "
                f"Received: {self.timeout_hours:g}"
            )
        self._check_accelerator()
        if self.tensorboard:
            if not _TENSORBOARD.fullmatch(self.tensorboard):
                raise UserError(
                    "--tensorboard must be projects/P/locations/R/tensorboards/ID. "
                    f"Received: {self.tensorboard!r}"
                )
            if not self.service_account:
                raise UserError(
                    "--tensorboard needs --service_account, an account that may write "
                    "to it (docs/cloud.md)."
                )

    def _check_accelerator(self) -> None:
        if self.tpu == "v6e":
            raise UserError(
                "--tpu v6e: Google no longer supports TensorFlow there; use v5e, or "
                "--accelerator."
            )
        if self.tpu and self.tpu not in TPU_MACHINES:
            raise UserError(
                f"--tpu must be one of {', '.join(TPU_MACHINES)}. "
                f"Received: {self.tpu!r}"
            )
        if self.tpu and (self.accelerator or self.replicas > 1):
            raise UserError(
                "--tpu goes with one machine and without --accelerator. Received: "
                f"--replicas {self.replicas} --accelerator {self.accelerator!r}"
            )
        if self.accelerator_count is not None and not (self.tpu or self.accelerator):
            raise UserError(
                "--accelerator_count needs --accelerator or --tpu. "
                f"Received: {self.accelerator_count}"
            )
        machines = TPU_MACHINES.get(self.tpu) or GPU_MACHINES.get(self.accelerator)
        if machines and self.count not in machines:
            raise UserError(
                f"--accelerator_count of {self.tpu or self.accelerator} must be one of "
                f"{', '.join(map(str, machines))}. Received: {self.count}"
            )

    @property
    def count(self) -> int:
        """GPUs or chips of a machine."""
        return 1 if self.accelerator_count is None else self.accelerator_count

    @property
    def output(self) -> str:
        """Folder of the job's checkpoints, logs and model."""
        return f"gs://{self.bucket}/vertex/{self.job_name}"

    def machine_spec(self) -> dict[str, Any]:
        """Machine of every replica, as the API names things."""
        if self.tpu:
            machine, topology = TPU_MACHINES[self.tpu][self.count]
            return {
                "machine_type": self.machine_type or machine,
                "tpu_topology": topology,
            }
        if not self.accelerator:
            return {"machine_type": self.machine_type or CPU_MACHINE}
        machine = GPU_MACHINES[self.accelerator][self.count]
        return {
            "machine_type": self.machine_type or machine,
            "accelerator_type": self.accelerator,
            "accelerator_count": self.count,
        }

    def describe_machines(self) -> str:
        """The machines in words."""
        spec = self.machine_spec()
        text = f"{self.replicas} x {spec['machine_type']}"
        if self.accelerator:
            text += f" with {self.count} {self.accelerator} each"
        return text + (", spot" if self.spot else "")


def make_request(config: VertexConfig) -> Any:
    """The custom job, as the `CustomJob` message that is sent."""
    from google.cloud import aiplatform_v1

    container: dict[str, Any] = {
        "image_uri": config.container,
        "command": list(COMMAND),
        "args": list(config.arguments),
    }
    if config.tpu:
        container["env"] = [
            {"name": name, "value": value} for name, value in TPU_ENVIRONMENT.items()
        ]
    # The first pool is the chief; Vertex AI sets TF_CONFIG where there are more.
    sizes = [1] if config.replicas == 1 else [1, config.replicas - 1]
    pools = [
        {
            "machine_spec": config.machine_spec(),
            "replica_count": size,
            "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": DISK_GB},
            "container_spec": container,
        }
        for size in sizes
    ]
    scheduling: dict[str, Any] = {
        "timeout": {"seconds": round(config.timeout_hours * 3600)},
        # All start again together, from the last checkpoint.
        "restart_job_on_worker_restart": True,
    }
    if config.spot:
        scheduling["strategy"] = "SPOT"
    spec = {
        "worker_pool_specs": pools,
        "scheduling": scheduling,
        "base_output_directory": {"output_uri_prefix": config.output},
        "service_account": config.service_account,
        "network": config.network,
        "tensorboard": config.tensorboard,
    }
    return aiplatform_v1.CustomJob(
        display_name=config.job_name,
        job_spec={name: value for name, value in spec.items() if value},
        labels={"application": "fma-genre-classifiers"},
    )


def to_json(request: Any) -> dict[str, Any]:
    """A message of the API in its JSON form."""
    from google.protobuf import json_format

    content: dict[str, Any] = json_format.MessageToDict(type(request).pb(request))
    return content


def make_client(config: VertexConfig) -> Any:
    """The SDK's client of the job service, over REST."""
    from google.cloud import aiplatform_v1

    return aiplatform_v1.JobServiceClient(
        transport="rest",
        client_options={"api_endpoint": config.endpoint.removeprefix("https://")},
    )


def submit(client: Any, config: VertexConfig, request: Any) -> str:
    """Sends a job; returns its resource name.

    Raises:
      UserError: Vertex AI refuses it.
    """
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    parent = f"projects/{config.project}/locations/{config.region}"
    try:
        job = client.create_custom_job(
            parent=parent, custom_job=request, timeout=60, retry=None
        )
    except (GoogleAPICallError, GoogleAuthError, RequestException) as error:
        raise UserError(
            f"Vertex AI does not take the job ({error}); check --project, --region and "
            "--container, enable the API with `gcloud services enable "
            "aiplatform.googleapis.com`, and see docs/cloud.md for the roles that are "
            "needed."
        ) from error
    return str(job.name)


def console_link(config: VertexConfig, name: str) -> str:
    """Where people watch the job."""
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{config.region}/training/"
        f"{name.rpartition('/')[2]}?project={config.project}"
    )


def follow(client: Any, name: str, say: Callable[[str], None]) -> tuple[str, str]:
    """Waits for a job's end.

    An outage of the network or the service is reported and waited out.

    Args:
      client: of `make_client`.
      name: of the job.
      say: prints a line.

    Returns:
      The final state, such as `SUCCEEDED`, and the error's message, if any.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    shown, number = "", name.rpartition("/")[2]
    started = time.monotonic()
    while True:
        try:
            job = client.get_custom_job(name=name, timeout=30)
        except (GoogleAPIError, GoogleAuthError, RequestException) as error:
            say(f"the job cannot be seen just now, it goes on ({error})")
        else:
            state = str(job.state.name).removeprefix("JOB_STATE_")
            if state != shown:
                minutes = (time.monotonic() - started) / 60
                say(f"job {number}: {state.lower()} ({minutes:.0f} min)")
                shown = state
            if state in _FINAL:
                return state, str(job.error.message)
        time.sleep(POLL_SECONDS)

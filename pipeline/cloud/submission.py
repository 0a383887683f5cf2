"""A job for Dataflow: configuration, options, request, submission.

`pipeline.cloud.dataflow` is its command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal import apiclient
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow
from requests.exceptions import RequestException

from pipeline.cloud.machines import Machine, parse_machine
from pipeline.common import gcs
from pipeline.common.credentials import SCHEME
from pipeline.common.files import join
from pipeline.common.progress.command_line import is_given
from pipeline.common.quiet import keep_back_stderr
from pipeline.schema import UserError

#: Where `setup.py` and the lock file are: the checkout.
ROOT = Path(__file__).resolve().parents[2]
#: Adds a graph's steps to a pipeline.
AddSteps = Callable[[beam.Pipeline], None]
#: GB of each worker's disk: the image and what it installs; no data is kept there.
DISK_GB = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataflowConfig(gcs.Place):
    """Where and how a job runs on Dataflow.

    Attributes:
      max_workers: number of machines at most.
      machine_type: of a worker.
      container: image with the locked dependencies; empty: Beam's own image, and
        workers install them.
      network: empty for the default one.
      subnetwork: empty for the region's default.
    """

    max_workers: int
    machine_type: str
    container: str
    network: str
    subnetwork: str

    def __post_init__(self) -> None:
        """Refuses what the service would, minutes later."""
        super().__post_init__()
        if not 1 <= self.max_workers <= 4000:
            raise UserError(
                f"--max_workers must be 1 to 4000. Received: {self.max_workers}"
            )
        if self.container and "/" not in self.container:
            raise UserError(
                "--container must be an image with its registry, such as "
                "europe-west1-docker.pkg.dev/PROJECT/fma/dataflow:1. "
                f"Received: {self.container!r}"
            )
        parse_machine(self.machine_type)

    @property
    def machine(self) -> Machine:
        """The worker's machine type."""
        return parse_machine(self.machine_type)


def make_options(config: DataflowConfig, beam_flags: Sequence[str]) -> list[str]:
    """All of Beam's options for a submission, the user's last.

    Args:
      config: where and how.
      beam_flags: Beam's options from the command line.

    Raises:
      UserError: the workers could not install what they need.
    """
    stage = f"{SCHEME}{config.bucket}/dataflow"
    options = [
        "--runner=DataflowRunner",
        f"--project={config.project}",
        f"--region={config.region}",
        f"--job_name={config.job_name}",
        f"--temp_location={stage}/temp",
        f"--staging_location={stage}/staging",
        f"--setup_file={_find_in_checkout('setup.py')}",
        "--no_save_main_session",
        f"--max_num_workers={config.max_workers}",
        f"--machine_type={config.machine_type}",
        f"--disk_size_gb={DISK_GB}",
        # A process a vCPU, with one thread: a second one would only share its core.
        "--number_of_worker_harness_threads=1",
        # The list of packages installed here is nobody's business.
        "--experiments=disable_logging_submission_environment",
        "--labels=application=fma-genre-classifiers",
    ]
    if config.container:
        options += [
            f"--sdk_container_image={config.container}",
            "--sdk_location=container",
        ]
    elif not is_given(beam_flags, "--sdk_container_image", "--requirements_file"):
        if is_given(beam_flags, "--no_use_public_ips"):
            raise UserError(
                "--no_use_public_ips keeps workers from installing the dependencies; "
                "give --container an image that has them (docs/cloud.md)."
            )
        options += [
            f"--requirements_file={_find_in_checkout('requirements.lock')}",
            # Else 2 GB of wheels are downloaded here and uploaded again.
            "--requirements_cache=skip",
        ]
    for flag in ("network", "subnetwork"):
        if value := getattr(config, flag):
            options.append(f"--{flag}={value}")
    if config.service_account:
        options.append(f"--service_account_email={config.service_account}")
    return [*options, *beam_flags]


def _find_in_checkout(name: str) -> Path:
    path = ROOT / name
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; submit from a checkout of the project, since the "
            "workers install what is there."
        )
    return path


def check_service(options: PipelineOptions) -> None:
    """Asks Dataflow for the project's jobs, to see whether it would take one.

    Raises:
      UserError: it would not.
    """
    cloud = options.view_as(GoogleCloudOptions)
    try:
        client = dataflow.JobsV1Beta3Client(
            transport="rest",
            client_options={
                "api_endpoint": cloud.dataflow_endpoint.removeprefix("https://")
            },
        )
        request = dataflow.ListJobsRequest(
            project_id=cloud.project, location=cloud.region, page_size=1
        )
        client.list_jobs(request=request, timeout=gcs.TIMEOUT, retry=None)
    except (GoogleAPICallError, GoogleAuthError, RequestException) as error:
        raise UserError(
            f"Dataflow does not take jobs for {cloud.project} in {cloud.region} "
            f"({error}); check --project and --region, enable the API with `gcloud "
            "services enable dataflow.googleapis.com`, and see docs/cloud.md for the "
            "roles that are needed."
        ) from error


def make_request(
    add_steps: AddSteps, options: PipelineOptions, *, offline: bool = False
) -> dict[str, Any]:
    """The request that would be sent, as Dataflow's REST API names things.

    Beam builds the graph and the package as for a submission, and sends nothing.

    Args:
      add_steps: adds the graph's to a pipeline.
      options: of Beam.
      offline: ask nobody anything, not even the bucket.
    """
    options.view_as(GoogleCloudOptions).no_auth = offline
    pipeline = beam.Pipeline(options=options)
    add_steps(pipeline)
    with _package_for_images(), keep_back_stderr():
        described = pipeline.run().job
    cloud = described.google_cloud_options
    packages = [
        beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
            dependency.role_payload
        ).staged_name
        for environment in described.proto_pipeline.components.environments.values()
        for dependency in environment.dependencies
    ]
    described.proto.environment = apiclient.Environment(
        packages=sorted(set(packages)),
        options=described.options,
        environment_version=apiclient._FNAPI_ENVIRONMENT_MAJOR_VERSION,
        proto_pipeline_staged_url=join(cloud.staging_location, "pipeline.pb"),
        proto_pipeline=described.proto_pipeline,
    ).proto
    request = json.loads(described.json())
    if not isinstance(request, dict):
        raise TypeError(request)
    # A submission has credentials.
    request["environment"]["sdkPipelineOptions"]["options"]["no_auth"] = False
    return request


@contextlib.contextmanager
def _package_for_images() -> Iterator[None]:
    """Lets setup.py build a package that requires nothing."""
    os.environ["FMA_STAGED"] = "1"
    try:
        yield
    finally:
        del os.environ["FMA_STAGED"]


def submit(add_steps: AddSteps, options: PipelineOptions) -> tuple[str, Any]:
    """Stages and submits a job; returns its id and Beam's client of the service.

    Raises:
      UserError: Dataflow refuses it.
    """
    pipeline = beam.Pipeline(options=options)
    add_steps(pipeline)
    try:
        # Packing prints what concerns nobody, unless it fails.
        with keep_back_stderr(), _package_for_images():
            result = pipeline.run()
    except (GoogleAPICallError, GoogleAuthError, RequestException) as error:
        raise UserError(f"Dataflow refuses the job: {error}") from error
    except apiclient.DataflowJobAlreadyExistsError as error:
        raise UserError(f"{error} Received: --job_name") from error
    return result.job_id(), pipeline.runner.dataflow_client


def console_link(config: DataflowConfig, job_id: str) -> str:
    """Where people watch the job."""
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{config.region}/{job_id}"
        f"?project={config.project}"
    )

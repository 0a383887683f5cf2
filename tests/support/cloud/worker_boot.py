#!/usr/bin/env python3
"""What Beam's container does when a worker starts, without the container.

Asks the runner what the worker is given, fetches the staged files, installs them
as `/opt/apache/beam/boot` does (but without an index: the environment must hold the
dependencies, as the image does) and becomes the worker.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
from apache_beam.portability.api import (
    beam_artifact_api_pb2,
    beam_artifact_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

_UNLIMITED = [("grpc.max_receive_message_length", -1)]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("id", "logging", "artifact", "provision", "control"):
        parser.add_argument(f"--{name}" if name == "id" else f"--{name}_endpoint")
    flags, _ = parser.parse_known_args()
    identity = [("worker_id", flags.id)]
    provision = beam_provision_api_pb2_grpc.ProvisionServiceStub(
        grpc.insecure_channel(flags.provision_endpoint)
    )
    info = provision.GetProvisionInfo(
        beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=identity
    ).info
    folder = Path(tempfile.mkdtemp(prefix=f"worker-{flags.id}-"))
    site = folder / "site"
    for path in fetch(info, flags.artifact_endpoint, identity, folder):
        install(path, site)
    environment = os.environ | {
        "WORKER_ID": flags.id,
        "PYTHONPATH": str(site),
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "SEMI_PERSISTENT_DIRECTORY": str(folder),
        "LOGGING_API_SERVICE_DESCRIPTOR": describe(
            flags.logging_endpoint or info.logging_endpoint.url
        ),
        "CONTROL_API_SERVICE_DESCRIPTOR": describe(
            flags.control_endpoint or info.control_endpoint.url
        ),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.status_endpoint.url:
        environment["STATUS_API_SERVICE_DESCRIPTOR"] = describe(
            info.status_endpoint.url
        )
    log(f"worker {flags.id} starts")
    module = "apache_beam.runners.worker.sdk_worker_main"
    os.execve(sys.executable, [sys.executable, "-m", module], environment)


def fetch(
    info: beam_provision_api_pb2.ProvisionInfo,
    endpoint: str,
    identity: list[tuple[str, str]],
    folder: Path,
) -> list[Path]:
    """Downloads what was staged; returns the files."""
    if not info.dependencies:
        return []
    artifacts = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(
        grpc.insecure_channel(endpoint or info.artifact_endpoint.url, _UNLIMITED)
    )
    resolved = artifacts.ResolveArtifacts(
        beam_artifact_api_pb2.ResolveArtifactsRequest(artifacts=info.dependencies),
        metadata=identity,
    )
    staged = folder / "staged"
    staged.mkdir()
    paths = []
    for artifact in resolved.replacements:
        role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
            artifact.role_payload
        )
        request = beam_artifact_api_pb2.GetArtifactRequest(artifact=artifact)
        path = staged / role.staged_name
        with path.open("wb") as file:
            for chunk in artifacts.GetArtifact(request, metadata=identity):
                file.write(chunk.data)
        paths.append(path)
    return paths


def install(path: Path, site: Path) -> None:
    """Installs a staged package; other files only lie there."""
    if not path.name.endswith((".tar.gz", ".whl")):
        return
    options = [
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        f"--target={site}",
    ]
    command = [sys.executable, "-m", "pip", "install", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        log(done.stderr[-2000:])
        sys.exit(1)
    names = sorted(item.name for item in site.iterdir() if item.is_dir())
    log(f"installed {path.name}: {' '.join(names)}")


def describe(url: str) -> str:
    return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url))


def log(text: str) -> None:
    print(f"[boot] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

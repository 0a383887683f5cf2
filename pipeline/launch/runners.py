"""What each of Beam's runners needs, and whether it is there, before work begins."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import create_runner

from pipeline.common.child_process import python_command
from pipeline.schema import UserError

#: Seconds for a server to answer, and for a runner to run a pipeline of one element.
_CONNECT_SECONDS, _TRIAL_SECONDS = 5.0, 120.0
#: The line of a traceback that says what was raised.
_RAISED = re.compile(r"^[\w.]+(?:Error|Exception|Interrupt|Exit): (.+)$", re.MULTILINE)


def _check_nothing(options: PipelineOptions, flags: Sequence[str]) -> None:
    """The Python SDK is all that it needs."""


def _check_trial(options: PipelineOptions, flags: Sequence[str]) -> None:
    """Runs a pipeline of one element, in a process that can be ended."""
    name = options.view_as(StandardOptions).runner
    process = subprocess.Popen(
        python_command("pipeline.launch.runners", *flags),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, printed = process.communicate(timeout=_TRIAL_SECONDS)
        raised = _RAISED.findall(printed.decode(errors="replace"))
        reason = raised[-1] if raised else f"it ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"it did not run one element in {_TRIAL_SECONDS:.0f} s"
    finally:
        # With what it has started: a job server, say.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise UserError(
            f"--runner {name} does not run ({reason[:300].rstrip('.')}); nothing was "
            "changed. Give it what it needs, or leave --runner out to use this machine."
        )


def main(flags: Sequence[str]) -> None:
    """The trial itself."""
    with beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
        _ = pipeline | beam.Create([None]) | beam.Map(lambda _: None)


def _check_job_server(address: str | None) -> None:
    """Connects to the server of --job_endpoint."""
    if not address:
        raise UserError(
            "--job_endpoint is missing; give the server, e.g. "
            "--job_endpoint=localhost:8099."
        )
    url = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        where = (url.hostname or "", url.port or 80)
        with socket.create_connection(where, timeout=_CONNECT_SECONDS):
            return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--job_endpoint: no server answers there ({reason}); nothing was changed. "
            "Start it, or leave --runner out to use this machine. "
            f"Received: {address}"
        ) from error


def _check_portable(options: PipelineOptions, flags: Sequence[str]) -> None:
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint != "embed":
        _check_job_server(endpoint)
    _check_trial(options, flags)


def _check_dataflow(options: PipelineOptions, flags: Sequence[str]) -> None:
    """A trial would cost money: only what Beam asks for before it submits."""
    del flags
    name = options.view_as(StandardOptions).runner
    problems = PipelineOptionsValidator(options, create_runner(name)).validate()
    if problems:
        raise UserError(
            f"--runner {name}: {' '.join(problems)} Or use "
            "./launch.sh dataflow, which asks for less."
        )


#: Raise `UserError` where what a runner needs is not there, by the last part of its
#: name; classes of others are tried.
RUNNERS: Mapping[str, Callable[[PipelineOptions, Sequence[str]], None]] = {
    "DirectRunner": _check_nothing,
    "FnApiRunner": _check_nothing,
    "PrismRunner": _check_trial,  # its program, which Beam fetches
    # At an address, `launch.flink` looks at the cluster; without one, Beam starts it.
    "FlinkRunner": _check_trial,  # Java, Beam's job server
    "SparkRunner": _check_trial,  # Java, Beam's job server, Spark
    "PortableRunner": _check_portable,
    "DataflowRunner": _check_dataflow,
}


def check_flags(options: PipelineOptions) -> None:
    """Refuses runners that are unknown or give wrong results, and senseless flags.

    Beam's DaskRunner sends every element to every output of a step with several,
    and runs the last branch of a graph only, without an error. This job has three
    such steps and several branches.

    Raises:
      UserError: says which.
    """
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    name = runner.rpartition(".")[2]
    if name == "DaskRunner":
        raise UserError(
            "--runner DaskRunner is refused: it silently computes steps with several "
            "outputs wrongly; leave --runner out, or see docs/cloud.md. "
            f"Received: {runner}"
        )
    workers = options.view_as(DirectOptions).direct_num_workers
    if workers < 0:
        raise UserError(
            "--direct_num_workers must be 0 (one for each core) or more. Received: "
            f"{workers}"
        )
    if name in RUNNERS:
        return
    # Beam's others give wrong results too: BundleBasedDirectRunner loses inputs.
    unknown = UserError(
        f"--runner must be one of {', '.join(RUNNERS)}, or a class outside Beam with "
        f"its module; leave it out to use this machine. Received: {runner}"
    )
    if name == runner or runner.startswith("apache_beam."):
        raise unknown
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        raise unknown from error


def try_runner(options: PipelineOptions, flags: Sequence[str]) -> None:
    """Makes sure that the runner can run something.

    Args:
      options: names it.
      flags: that the options are from.

    Raises:
      UserError: it cannot; says why.
    """
    runner = options.view_as(StandardOptions).runner or "DirectRunner"
    RUNNERS.get(runner.rpartition(".")[2], _check_trial)(options, flags)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Hands pipelines to a Flink cluster: Beam's job server, and what is staged."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.runner import PipelineState

from pipeline.launch.flink import rest
from pipeline.schema import UserError

#: Where `setup.py` is: the checkout.
ROOT = Path(__file__).resolve().parents[3]
#: Seconds for the job server to start and for the cluster to have a job.
SUBMIT_SECONDS = 180.0
#: Starts a program that is killed when the pipe to it closes: with this process.
_END_WITH_PIPE = (
    'exec 3<&0; (cat <&3 >/dev/null; kill -9 $$) & exec "$@" </dev/null 3<&-'
)


class SubmitError(Exception):
    """The cluster did not take a job; the message is for people."""


@contextlib.contextmanager
def built_package() -> Iterator[str]:
    """Builds this package, which requires nothing, for workers that have the rest.

    Yields:
      Path of the wheel: workers install one in a second, an sdist in ten.

    Raises:
      UserError: this is no checkout, or it cannot be built.
    """
    if not (ROOT / "setup.py").is_file():
        raise UserError(
            f"{ROOT / 'setup.py'} does not exist; submit from a checkout of the "
            "project, since workers install what is there, or give --setup_file."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "setup.py", "--quiet", "egg_info"]
        command += [f"--egg-base={folder}", "build", f"--build-base={folder}/build"]
        command += ["bdist_wheel", f"--dist-dir={folder}/dist"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"FMA_STAGED": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        wheels = [*Path(folder, "dist").glob("*.whl")]
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise UserError(f"{ROOT / 'setup.py'} cannot be built: {last}")
        yield str(wheels[0])


class JobServer:
    """Beam's job server for one cluster, as a process of its own.

    It starts while other things are done, and gets no signal of the terminal.

    Args:
      options: Beam's; `--job_endpoint` names a server that is there already.
      cluster: to run jobs on.
      artifacts: folder that TaskManagers see too.
    """

    def __init__(
        self, options: PipelineOptions, cluster: rest.Cluster, artifacts: str
    ) -> None:
        self._cluster = cluster
        self._endpoint = options.view_as(PortableOptions).job_endpoint or ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._heard = 0
        # A jar for the cluster is made by Beam, without a server.
        self._whole_jar = options.view_as(FlinkRunnerOptions).flink_submit_uber_jar
        if not self._endpoint and not self._whole_jar:
            self._start(options, artifacts)

    def _start(self, options: PipelineOptions, artifacts: str) -> None:
        flink = options.view_as(FlinkRunnerOptions)
        server = options.view_as(JobServerOptions)
        if flink.flink_job_server_jar and "://" not in flink.flink_job_server_jar:
            path = Path(flink.flink_job_server_jar)
            if not path.is_file():
                raise UserError(
                    "--flink_job_server_jar must be Beam's job server for Flink, a "
                    f"file or URL. Received: {path}"
                )
        maker = FlinkJarJobServer(options)
        try:
            jar = maker.local_jar(maker.path_to_jar(), server.jar_cache_dir)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"Beam's job server for Flink {self._cluster.version} cannot be had "
                f"({error}); fetch beam-runners-flink-{self._cluster.version}"
                "-job-server from Maven Central, and give --flink_job_server_jar."
            ) from error
        port = server.job_port or _free_port()
        command = [server.job_server_java_launcher, *server.job_server_jvm_properties]
        command += ["-jar", jar]
        command += map(
            str,
            maker.java_arguments(
                port, server.artifact_port, server.expansion_port, artifacts
            ),
        )
        if shutil.which(command[0]) is None:
            raise UserError(
                f"{command[0]}, which Beam's job server needs, is not installed; "
                "install Java 11 or later, or give --job_server_java_launcher or "
                "--job_endpoint."
            )
        self._process = subprocess.Popen(
            ["sh", "-c", _END_WITH_PIPE, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._endpoint = f"localhost:{port}"

    def submit(
        self,
        name: str,
        flags: Sequence[str],
        build: Callable[[beam.Pipeline], None],
        *,
        seconds: float = SUBMIT_SECONDS,
    ) -> str:
        """Submits a pipeline; returns the cluster's id of the job.

        Args:
          name: of the job, unlike all others.
          flags: of Beam.
          build: adds the steps.
          seconds: in which the cluster must have it.

        Raises:
          SubmitError: the cluster did not take it.
        """
        deadline = time.monotonic() + seconds
        self._await_port(deadline)
        runner = "FlinkRunner" if self._whole_jar else "PortableRunner"
        options = PipelineOptions([*flags, f"--runner={runner}", f"--job_name={name}"])
        if not self._whole_jar:
            options.view_as(PortableOptions).job_endpoint = self._endpoint
        # Nothing lives in __main__, so nothing of it has to travel.
        options.view_as(SetupOptions).save_main_session = False
        self._heard = os.fstat(self._log.fileno()).st_size
        results: list[Any] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                pipeline = beam.Pipeline(options=options)
                build(pipeline)
                results.append(pipeline.run())
            # Whatever it is, the thread that waits raises it.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while time.monotonic() < deadline:
            with contextlib.suppress(rest.OutageError):
                job = rest.find_job(self._cluster.url, name)
                if job:
                    thread.join(max(0.0, deadline - time.monotonic()))
                    return job
            if errors:
                words = self._last_words() or str(errors[0]).splitlines()[0][:300]
                raise SubmitError(f"Flink does not take the job: {words}") from errors[
                    0
                ]
            gone = self._process is not None and self._process.poll() is not None
            if gone or (results and _has_failed(results[0])):
                raise SubmitError(f"Flink does not take the job: {self._last_words()}")
            time.sleep(0.2)
        raise SubmitError(
            f"Flink did not take the job within {seconds:.0f} s"
            + (f": {words}" if (words := self._last_words()) else ".")
        )

    def _await_port(self, deadline: float) -> None:
        host, _, port = self._endpoint.rpartition(":")
        while not self._whole_jar:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), timeout=1),
            ):
                return
            if self._process and self._process.poll() is not None:
                raise SubmitError(
                    f"Beam's job server did not start: {self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise SubmitError(
                    f"Beam's job server does not answer at {self._endpoint}."
                )
            time.sleep(0.1)

    def _last_words(self) -> str:
        """What the server said of a failure since the last job, in a line."""
        self._log.seek(self._heard)
        text = self._log.read().decode(errors="replace")
        lines = [
            line for line in text.splitlines() if "rror" in line or "xcept" in line
        ]
        return rest.find_cause([text, "\n".join(lines[-1:])])[:500] if lines else ""

    def close(self) -> None:
        """Ends the server; jobs that the cluster has go on."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None
        self._log.close()


def complete_flags(
    flags: Sequence[str], cluster: rest.Cluster, parallelism: int
) -> list[str]:
    """Beam's flags, with what makes the job fast where nothing was asked for."""
    given = {flag.partition("=")[0] for flag in flags}
    defaults = {
        "--flink_version": cluster.version,
        "--parallelism": parallelism,
        # A stage begins when the one before is done: the look's before the job's, and
        # what fails is done again alone.
        "--execution_mode_for_batch": "BATCH_FORCED",
        # Else all slots of a TaskManager share one Python process.
        "--sdk_worker_parallelism": cluster.slots_a_worker,
        # The list of packages installed here is nobody's business.
        "--experiments": "disable_logging_submission_environment",
    }
    if cluster.keeps_workers:
        defaults["--environment_cache_millis"] = 600_000
    return [
        *flags,
        *(f"{flag}={value}" for flag, value in defaults.items() if flag not in given),
    ]


def _has_failed(result: Any) -> bool:
    """Whether the job server has given a job up."""
    try:
        return result.state in (PipelineState.FAILED, PipelineState.CANCELLED)
    except grpc.RpcError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

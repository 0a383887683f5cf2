"""A job on a Flink cluster, from the look before it to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
)

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.progress.command_line import is_given
from pipeline.inputs.survey import Inputs
from pipeline.job.config import JobConfig
from pipeline.job.graph import build
from pipeline.launch import messages
from pipeline.launch.flink import rest
from pipeline.launch.flink.follow import Follower, Reached
from pipeline.launch.flink.job_server import (
    JobServer,
    SubmitError,
    built_package,
    complete_flags,
)
from pipeline.launch.flink.look import Looker, claimed, find_folder
from pipeline.launch.flink.worker import let_go
from pipeline.launch.output import find_place
from pipeline.schema import COMPLETED_FILE, UserError
from pipeline.shards import resume, runs
from pipeline.shards.result import DatasetConfig

#: Seconds that Ctrl-C waits for the cluster to end the job.
CANCEL_SECONDS = 60.0
#: Seconds in which a lost TaskManager may come back before a job is given again.
REPLACE_SECONDS = 120.0

#: What Flink says when a worker does not answer any more.
_WORKER_GONE = re.compile("StatusRuntimeException|SDK harness|died with exit code")
_KEEPING = """\
Workers start anew for each stage, since {reason}; that costs 10 s or more a stage. To
keep them, lay Beam's job server into Flink's lib/ and change its configuration:
  cp beam-runners-flink-{version}-job-server-*.jar FLINK/lib/
  classloader.resolve-order: parent-first"""


class ClusterJobError(Exception):
    """The job ended badly on the cluster; the message is for people."""


class DetachedError(Exception):
    """The job goes on without this command; the message says how to watch it."""


class FlinkRun:
    """Runs a job on a cluster: `check`, then `run`.

    Args:
      flags: of Beam, from the command line.
      cluster: where.
      inputs: of the job.
      stack: ends what is started.
      detach: leave the job alone once it runs.
    """

    def __init__(
        self,
        flags: Sequence[str],
        cluster: rest.Cluster,
        inputs: Inputs,
        stack: contextlib.ExitStack,
        *,
        detach: bool,
    ) -> None:
        self._cluster = cluster
        self._inputs = inputs
        self._stack = stack
        self._detach = detach
        options = PipelineOptions(list(flags))
        asked = options.view_as(FlinkRunnerOptions).parallelism
        if asked > cluster.slots:
            raise UserError(
                f"--parallelism must not exceed the cluster's {cluster.slots} slots. "
                f"Received: {asked}"
            )
        version = options.view_as(FlinkRunnerOptions).flink_version
        if is_given(flags, "--flink_version") and version != cluster.version:
            raise UserError(
                f"--flink_version must be the cluster's, {cluster.version}; leave it "
                f"out. Received: {version}"
            )
        self._parallelism = asked if asked > 0 else cluster.slots
        self._flags = complete_flags(flags, cluster, self._parallelism)
        self._options = PipelineOptions(self._flags)
        self._own_folder = ""
        self._server: JobServer | None = None
        self._waiting: tuple[JobConfig, str] | None = None

    def check(self, job: JobConfig) -> None:
        """Looks at the workers.

        Raises:
          UserError: they are not what the job needs.
        """
        cluster = self._cluster
        if cluster.keeps_workers:
            kept = "; workers outlive a stage"
        else:
            kept = ""
            _say(_KEEPING.format(reason=cluster.reason, version=cluster.version))
        _say(
            f"Flink {cluster.version} at {cluster.url}: {self._parallelism} of "
            f"{cluster.slots} slots{kept}."
        )
        if not cluster.free_slots:
            raise UserError(
                f"all {cluster.slots} slots of --flink_master {cluster.url} are taken "
                "by other jobs; wait for them, or cancel one."
            )
        # Where the job writes to, unless another one completes the dataset meanwhile.
        job = dataclasses.replace(job, dataset=find_place(job.dataset))
        place = job.dataset.output
        self._own_folder = runs.own_folder(job.dataset)
        with claimed(runs.home(job.dataset)), claimed(place):
            self._server = self._start_server()
            if not self._options.view_as(SetupOptions).setup_file and (
                self._options.view_as(PortableOptions).environment_type != "LOOPBACK"
            ):
                package = self._stack.enter_context(built_package())
                self._flags.append(f"--extra_package={package}")
            looker = Looker(
                server=self._server,
                cluster=cluster,
                flags=[*self._flags, f"--parallelism={self._parallelism}"],
                slots=min(self._parallelism, cluster.free_slots),
                say=_say,
            )
            try:
                job_id = looker.look(_name(job, 1), job, self._inputs)
            except BaseException:
                self._tidy()
                raise
            self._waiting = job, job_id
            self._stack.callback(self._cancel_waiting)

    def _start_server(self) -> JobServer:
        given = [f for f in self._flags if f.partition("=")[0] == "--artifacts_dir"]
        folder = join(self._own_folder, "artifacts")
        if given:
            folder = given[-1].partition("=")[2]
        server = JobServer(self._options, self._cluster, folder)
        self._stack.callback(server.close)
        return server

    def _cancel_waiting(self) -> None:
        """Cancels the job that waits for word to begin, which will not come."""
        if self._waiting is not None:
            _, job_id = self._waiting
            self._waiting = None
            with contextlib.suppress(rest.OutageError, KeyboardInterrupt):
                rest.cancel(self._cluster.url, job_id, CANCEL_SECONDS)
            self._tidy()

    def _tidy(self) -> None:
        """Deletes what was staged."""
        with contextlib.suppress(*storage.STORE_ERRORS):
            storage.delete_tree(self._own_folder)

    def run(self, job: JobConfig) -> None:
        """Runs a job to its end, and again while it gets further than before.

        Raises:
          ClusterJobError: it failed for good.
          DetachedError: it was to be left alone, and runs.
          KeyboardInterrupt: it is cancelled, or was left alone.
        """
        dataset = job.dataset
        if self._waiting is not None and self._waiting[0] != job:
            # Another command has completed, or taken away, what is there.
            self._cancel_waiting()
            raise runs.SupersededError(runs.describe(runs.home(dataset)))
        best = Reached(shards=len(resume.list_finished(dataset)), stages=0)
        attempt = 1
        while True:
            failed, reached = self._run_once(_name(job, attempt), job)
            if failed is None or runs.is_completed(dataset):
                self._tidy()
                return
            if messages.explain_failure(RuntimeError(failed)) is not None:
                self._tidy()
                raise RuntimeError(failed)
            if runs.is_superseded(dataset):
                raise runs.SupersededError(runs.describe(runs.home(dataset)))
            if reached <= best:
                self._tidy()
                raise ClusterJobError(
                    f"the job failed on the cluster: {_describe(failed)}. "
                    f"{reached.shards} of {dataset.num_shards} shards are finished; "
                    f"{messages.GO_ON}"
                )
            best = reached
            attempt += 1
            _say(
                f"The job failed ({_describe(failed)}); it got further than before and "
                f"is submitted again: {reached.shards} of {dataset.num_shards} shards "
                "are finished and kept."
            )
            self._await_slots()

    def _run_once(self, name: str, job: JobConfig) -> tuple[str | None, Reached]:
        """Submits and follows; returns why it failed, if it did, and how far it got."""
        follower = Follower(self._cluster.url, job.dataset, len(self._inputs.clips))
        job_id: str | None = None
        try:
            job_id = self._begin(name, job)
            _say(f"Running as {self._cluster.url}/#/job/{job_id}/overview")
            if self._detach:
                home = runs.home(job.dataset)
                done = join(home, COMPLETED_FILE)
                raise DetachedError(
                    f"The job goes on; {_describe_cancel(self._cluster.url, job_id)}\n"
                    f"It completes the dataset itself: {done} comes last"
                    f"{' and is new' * bool(job.dataset.replaces)}; look with: "
                    f"./launch.sh inspect {shlex.quote(home)}\n"
                    "If it fails, run the same command again; finished shards are kept."
                )
            state, failed = follower.follow(job_id, _say)
        except SubmitError as error:
            return str(error), follower.reached
        except KeyboardInterrupt:
            self._cancel(job_id, name, job.dataset)
            raise
        return (None if state == "FINISHED" else failed), follower.reached

    def _begin(self, name: str, job: JobConfig) -> str:
        """Lets the job that waits begin, or submits it again; returns its id."""
        if self._waiting is not None:
            _, job_id = self._waiting
            let_go(find_folder(job))
            self._waiting = None
            return job_id
        if self._server is None:
            self._server = self._start_server()
        flags = [*self._flags, f"--parallelism={self._parallelism}"]
        return self._server.submit(name, flags, lambda pipeline: build(pipeline, job))

    def _cancel(self, job_id: str | None, name: str, dataset: DatasetConfig) -> None:
        url = self._cluster.url
        print("\nCancelling the job in the cluster ...", file=sys.stderr, flush=True)
        try:
            if job_id is None:
                with contextlib.suppress(rest.OutageError):
                    job_id = rest.find_job(url, name)
            state = "CANCELED"
            if job_id is not None:
                state = rest.cancel(url, job_id, CANCEL_SECONDS)
        except KeyboardInterrupt:
            state = ""
        if state not in rest.FINAL and job_id is not None:
            print(
                f"The job runs on; {_describe_cancel(url, job_id)}",
                file=sys.stderr,
                flush=True,
            )
            # Whatever still waits inside Beam waits in vain.
            self._stack.close()
            os._exit(130)
        self._tidy()
        shards = len(resume.list_finished(dataset))
        print(
            f"The job is cancelled; {shards} of {dataset.num_shards} shards are "
            "finished and kept.",
            file=sys.stderr,
            flush=True,
        )

    def _await_slots(self) -> None:
        """Waits for lost TaskManagers, and then takes what is there."""
        deadline = time.monotonic() + REPLACE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(rest.OutageError, rest.UnknownJobError):
                slots = rest.ask(self._cluster.url, "/overview")["slots-total"]
                if slots >= self._parallelism:
                    return
            time.sleep(1)
        with contextlib.suppress(rest.OutageError, rest.UnknownJobError):
            slots = rest.ask(self._cluster.url, "/overview")["slots-total"]
            if 0 < slots < self._parallelism:
                self._parallelism = slots
                _say(f"{slots} slots are left; the job goes on with them.")


@contextlib.contextmanager
def open_run(
    flags: Sequence[str],
    cluster: rest.Cluster,
    job: JobConfig,
    inputs: Inputs,
    *,
    detach: bool,
) -> Iterator[Callable[[JobConfig], None]]:
    """Looks at a cluster's workers; yields what runs a job there.

    Raises:
      UserError: the workers are not what the job needs.
    """
    with contextlib.ExitStack() as stack:
        # Whoever ends this command, with whatever signal, means the cluster's job too.
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, _interrupt)
            stack.callback(signal.signal, signal.SIGTERM, before)
        run = FlinkRun(flags, cluster, inputs, stack, detach=detach)
        run.check(job)
        yield run.run


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _name(job: JobConfig, attempt: int) -> str:
    return f"fma-{job.dataset.run[:12]}-{attempt}"


def _describe(failed: str) -> str:
    cause = rest.find_cause([failed])[:300].rstrip(". ")
    if _WORKER_GONE.search(cause):
        return f"a Python worker is gone: {cause}"
    return cause or "the cluster does not say why"


def _describe_cancel(url: str, job: str) -> str:
    return (
        f"watch it at {url}/#/job/{job}/overview, cancel it with: "
        f"curl -X PATCH '{url}/jobs/{job}?mode=cancel'"
    )


def _say(line: str) -> None:
    print(line, flush=True)

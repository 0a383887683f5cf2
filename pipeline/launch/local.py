"""Beam on this machine: which mode, how far it is, and what if a worker dies.

Beam's `DirectRunner` prefers a runner that it downloads, where the number of
workers cannot be set, to the one inside the Python SDK. Here it is always the
latter, with the options that `DirectRunner` would give it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import grpc
import psutil
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms import environments

from pipeline.common.child_process import python_command, tell_cores_free
from pipeline.common.plain_text import find_exit_code
from pipeline.common.progress import Reporter
from pipeline.common.quiet import filter_stderr, silence_worker

#: Names under which Beam runs on this machine.
LOCAL_RUNNERS = (
    None,
    "DirectRunner",
    "FnApiRunner",
    "apache_beam.runners.direct.direct_runner.DirectRunner",
)
_WORKER = "pipeline.job.worker"
_MODE_FLAGS = ("--direct_running_mode", "--direct_num_workers")
#: A container's, of the two versions of control groups.
_MEMORY_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
#: Memory of a thread of `ask_for_threads` with its decoder, and of what they share
#: (docs/reference/performance.md, labelling).
THREAD_BYTES, SHARED_BYTES = 300 << 20, 1 << 30
#: Seconds between two looks at how many clips are done.
LOOK_SECONDS = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalRun:
    """What a job's steps on this machine are told; elsewhere they are told nothing.

    Attributes:
      progress_file: grows by a byte for each of what there is to do; empty for none.
      launcher: process that workers end with; 0 for none.
      spare_cores: whether there are more cores than workers.
    """

    progress_file: str = ""
    launcher: int = 0
    spare_cores: bool = False


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_memory() -> int:
    """Bytes that this process and its children may take more than it has."""
    memory = psutil.virtual_memory().available
    used = psutil.Process().memory_info().rss
    for limit in _MEMORY_LIMITS:
        # "max" where there is none; the first version has a huge number.
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(limit).read_text()) - used)
    return memory


def is_local(options: PipelineOptions) -> bool:
    """Whether the options ask for a runner on this machine."""
    return options.view_as(StandardOptions).runner in LOCAL_RUNNERS


def choose_mode(options: PipelineOptions, flags: Sequence[str], workers: int) -> None:
    """Sets mode and number of workers, unless the user did.

    Args:
      options: changed in place.
      flags: what the user gave; it may be what the options have by default.
      workers: processes that are worth their start; 1 for none but this one.
    """
    direct = options.view_as(DirectOptions)
    if _names_mode(flags):
        return
    if workers > 1:
        direct.direct_running_mode = "multi_processing"
        direct.direct_num_workers = workers


def ask_for_threads(options: PipelineOptions, flags: Sequence[str]) -> list[str]:
    """Flags for a thread a core, where the user asks for no mode or other runner.

    Fewer where memory has no room for so many.

    For steps that load much and then compute outside of Python: threads start at once,
    and one copy of what is loaded serves them all.

    Args:
      options: of the user.
      flags: what these were parsed from.
    """
    cores = count_cores()
    if not is_local(options) or cores == 1 or _names_mode(flags):
        return []
    threads = min(cores, (find_memory() - SHARED_BYTES) // THREAD_BYTES)
    if threads < 2:
        return [f"{_MODE_FLAGS[0]}=in_memory"]
    return [f"{_MODE_FLAGS[0]}=multi_threading", f"{_MODE_FLAGS[1]}={threads}"]


def _names_mode(flags: Sequence[str]) -> bool:
    return any(flag.startswith(_MODE_FLAGS) for flag in flags)


def make_runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """The Python SDK's runner; its workers see all options.

    What a step raises in a worker comes to this process. Unless the user asks for
    another log level, workers do not print it as well.
    """
    logs = options.view_as(WorkerOptions)
    if logs.default_sdk_harness_log_level is None:
        logs.default_sdk_harness_log_level = "CRITICAL"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    direct = options.view_as(DirectOptions)
    environment = None
    if direct.direct_running_mode == "multi_processing":
        # Beam's own command for a shell has the interpreter's path without quotes, and
        # workers that import from the current folder.
        command = shlex.join(python_command(_WORKER))
        environment = environments.SubprocessSDKEnvironment.from_command_string(command)
        direct.direct_running_mode = None
    return fn_runner.FnApiRunner(
        default_environment=environment,
        provision_info=fn_runner.ExtendedProvisionInfo(info),
    )


def count_workers(options: PipelineOptions) -> int:
    """Threads or processes that compute at the same time."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "in_memory":
        return 1
    return direct.direct_num_workers or os.cpu_count() or 1


def count_threads(options: PipelineOptions) -> int:
    """Workers that are threads of this process."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_processing":
        return 1
    return count_workers(options)


def has_spare_cores(options: PipelineOptions) -> bool:
    """Whether there are more cores than workers."""
    return count_workers(options) < count_cores()


def describe_mode(options: PipelineOptions) -> str:
    """The mode in words."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "in_memory":
        return "in this process"
    kind = direct.direct_running_mode.removeprefix("multi_")
    return f"with {count_workers(options)} workers ({kind.replace('ing', '')} each)"


def run(pipeline: beam.Pipeline) -> None:
    """Runs a pipeline to its end.

    Beam itself waits for ever for a worker process that died. Here the death
    of one ends this process with code 1.
    """
    silence_worker()
    with _exit_on_worker_death():
        pipeline.run().wait_until_finish()


@contextlib.contextmanager
def _exit_on_worker_death() -> Iterator[None]:
    original = threading.excepthook
    # Not through the filter, which dies with this process.
    stderr = os.dup(2)
    # There may be a line of progress.
    clear = "\r\033[K" if os.isatty(stderr) else ""

    def hook(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, grpc.RpcError):
            return  # A channel to the worker that broke: a symptom.
        code = args.exc_value and find_exit_code(args.exc_value)
        if code is None:
            original(args)
            return
        message = clear + (
            f"error: a worker process died (exit code {code}; 137 and -9 mean that it "
            "was killed, most often for lack of memory). The dataset is incomplete; "
            "run again, with fewer --direct_num_workers if memory is short.\n"
        )
        with contextlib.suppress(OSError):  # Nobody reads it.
            os.write(stderr, message.encode())
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # The main thread is waiting inside Beam and cannot be reached.
        os._exit(1)

    threading.excepthook = hook
    try:
        with filter_stderr():
            yield
    finally:
        threading.excepthook = original
        os.close(stderr)


@contextlib.contextmanager
def show_progress(total: int, reporter: Reporter) -> Iterator[str]:
    """Tells how many clips are done.

    Args:
      total: number of clips.
      reporter: is told.

    Yields:
      Path of the file that grows by a byte for each clip done.
    """
    with (
        tempfile.NamedTemporaryFile(prefix="clips-done-") as file,
        reporter.stage("Clips", total, "clip") as stage,
    ):
        over = threading.Event()

        def look() -> None:
            going_on = True
            while going_on:
                going_on = not over.wait(LOOK_SECONDS)
                count = min(os.stat(file.name).st_size, total)
                if count != stage.done:
                    stage.update(count)
                if count == total:
                    tell_cores_free()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield file.name
        finally:
            over.set()
            thread.join()

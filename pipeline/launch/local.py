"""Beam on this machine: which mode, how far it is, and what if a worker dies.

Beam's `DirectRunner` prefers a runner that it downloads, where the number of
workers cannot be set, to the one inside the Python SDK. Here it is always the
latter, with the options that `DirectRunner` would give it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

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

from pipeline.common.child_process import python_command
from pipeline.common.plain_text import find_exit_code
from pipeline.common.quiet import filter_stderr

#: Names under which Beam runs on this machine.
LOCAL_RUNNERS = (
    None,
    "DirectRunner",
    "FnApiRunner",
    "apache_beam.runners.direct.direct_runner.DirectRunner",
)
#: Fewer clips are done in this process before workers have started.
CLIPS_WORTH_WORKERS = 300
_WORKER = "apache_beam.runners.worker.sdk_worker_main"
_MODE_FLAGS = ("--direct_running_mode", "--direct_num_workers")
#: Seconds between progress lines: at first, and in the long run.
PROGRESS_SECONDS = (2.0, 15.0)


def is_local(options: PipelineOptions) -> bool:
    """Whether the options ask for a runner on this machine."""
    return options.view_as(StandardOptions).runner in LOCAL_RUNNERS


def choose_mode(
    options: PipelineOptions, flags: Sequence[str], clips: int, cores: int
) -> None:
    """Sets mode and number of workers, unless the user did.

    Args:
      options: changed in place.
      flags: what the user gave; it may be what the options have by default.
      clips: to process.
      cores: available to this process.
    """
    direct = options.view_as(DirectOptions)
    if any(flag.startswith(_MODE_FLAGS) for flag in flags):
        return
    if clips >= CLIPS_WORTH_WORKERS and cores > 1:
        direct.direct_running_mode = "multi_processing"
        direct.direct_num_workers = cores


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


def describe_mode(options: PipelineOptions) -> str:
    """The mode in words."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "in_memory":
        return "in this process"
    workers = direct.direct_num_workers or os.cpu_count()
    kind = direct.direct_running_mode.removeprefix("multi_")
    return f"with {workers} workers ({kind.replace('ing', '')} each)"


def run(pipeline: beam.Pipeline) -> None:
    """Runs a pipeline to its end.

    Beam itself waits for ever for a worker process that died. Here the death
    of one ends this process with code 1.
    """
    with _exit_on_worker_death():
        pipeline.run().wait_until_finish()


@contextlib.contextmanager
def _exit_on_worker_death() -> Iterator[None]:
    original = threading.excepthook
    # Not through the filter, which dies with this process.
    stderr = os.dup(2)

    def hook(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, grpc.RpcError):
            return  # A channel to the worker that broke: a symptom.
        code = args.exc_value and find_exit_code(args.exc_value)
        if code is None:
            original(args)
            return
        message = (
            f"error: a worker process died (exit code {code}; 137 and -9 mean that it "
            "was killed, most often for lack of memory). The dataset is incomplete; "
            "run again, with fewer --direct_num_workers if memory is short.\n"
        )
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
def show_progress(total: int) -> Iterator[str]:
    """Prints a line now and then while clips are processed.

    Args:
      total: number of clips.

    Yields:
      Path of the file that grows by a byte for each clip done.
    """
    with tempfile.NamedTemporaryFile(prefix="clips-done-") as file:
        done = threading.Event()
        arguments = (file.name, total, done)
        thread = threading.Thread(target=_print_progress, args=arguments, daemon=True)
        thread.start()
        try:
            yield file.name
        finally:
            done.set()
            thread.join()


def _print_progress(path: str, total: int, done: threading.Event) -> None:
    started = time.monotonic()
    first = shown = 0
    begun = started
    while not done.wait(PROGRESS_SECONDS[time.monotonic() - started > 60]):
        count = min(os.stat(path).st_size, total)
        if count and not first:
            first, begun = count, time.monotonic()
        if count != shown:
            shown = count
            print(_progress_line(count, total, count - first, begun), flush=True)
    count = min(os.stat(path).st_size, total)
    if count != shown:
        print(_progress_line(count, total, 0, begun), flush=True)


def _progress_line(count: int, total: int, since: int, begun: float) -> str:
    line = f"clips: {count} of {total}"
    seconds = time.monotonic() - begun
    if since and seconds > 0:
        rate = since / seconds
        line += f" ({rate:.1f} a second, {(total - count) / rate:.0f} s left)"
    return line


def quiet() -> None:
    """Silences the start-up chatter of Beam and of what it imports."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    for name in (
        # Reports broken channels, with tracebacks, when a worker has died.
        "apache_beam.runners.worker.data_plane",
        # Prints the traceback of what a step raises, which comes here anyway.
        "apache_beam.runners.common",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

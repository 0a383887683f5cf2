"""A look at a cluster before a job: on one worker of each slot, within two minutes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from pipeline.common import ownership, storage
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import DATASET, MARK_FILE
from pipeline.common.plain_text import find_message
from pipeline.inputs.survey import Inputs
from pipeline.job.config import JobConfig
from pipeline.job.graph import build
from pipeline.launch.flink import rest
from pipeline.launch.flink.job_server import JobServer, SubmitError
from pipeline.launch.flink.worker import (
    HERE,
    Look,
    LookAtWorkers,
    LookError,
    answer_workers,
    begin_look,
    count_ready,
)
from pipeline.schema import UserError
from pipeline.shards import runs

#: Seconds in which the workers must have looked.
LOOK_SECONDS = 105.0
#: Seconds for a job that is cancelled to end.
CANCEL_SECONDS = 10.0
_MISSING = re.compile(r"No module named '?([\w.]+)'?")
_WRAPPER = "worker"
#: Starts what the user named, and keeps what it says, which Flink throws away.
_WRAPPER_TEXT = """\
#!/bin/sh
log={folder}/said-$(hostname)-$$
{{ : >"$log"; }} 2>/dev/null && exec {command} "$@" >"$log" 2>&1
exec {command} "$@"
"""


@contextlib.contextmanager
def claimed(output: str) -> Iterator[None]:
    """Makes the output folder ours; after an error it is as it was.

    Raises:
      UserError: it is not ours, or cannot be written to.
    """
    files = beam_files(output)
    missing = _find_missing(output)
    fresh = not ownership.check_folder(files, output, DATASET).marked
    try:
        storage.make_folder(output)
        ownership.claim(files, output, DATASET)
        yield
    except BaseException:
        if fresh:
            with contextlib.suppress(*storage.STORE_ERRORS):
                storage.delete(join(output, MARK_FILE))
        if "://" not in output:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(output, storage.TEMPORARY_FOLDER))
            for folder in missing:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        raise


def _find_missing(folder: str) -> list[str]:
    """Local folders that will have to be made, the innermost first."""
    found: list[str] = []
    while "://" not in folder and folder and not os.path.exists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def find_folder(job: JobConfig) -> str:
    """Where a look's files and what starts the workers lie, until the job's end."""
    return join(runs.own_folder(job.dataset), "look")


def make_look(job: JobConfig, inputs: Inputs, folders: Mapping[str, str]) -> Look:
    """What to ask of the workers of a job."""
    libraries = {
        name: version for name, version in job.versions.items() if name != "libsndfile"
    }
    read = {"--metadata": job.metadata.path}
    if inputs.clips:
        read["--audio"] = inputs.clips[0].path
    if job.dataset.music_weights:
        read["--music_model"] = job.dataset.music_weights
    return Look(
        python=".".join(platform.python_version_tuple()[:2]),
        versions={
            "apache-beam": importlib.metadata.version("apache-beam"),
            **libraries,
        },
        read=read,
        folders=folders,
    )


@dataclasses.dataclass(kw_only=True)
class Looker:
    """Runs the look.

    Attributes:
      server: takes the job.
      cluster: where.
      flags: of Beam.
      slots: number that are looked at.
      say: prints a line.
    """

    server: JobServer
    cluster: rest.Cluster
    flags: Sequence[str]
    slots: int
    say: Callable[[str], None]

    def look(self, name: str, job: JobConfig, inputs: Inputs) -> str:
        """Submits a job, whose first stage looks; it waits for `let_go` afterwards.

        Args:
          name: of the job, unlike all others.
          job: what follows.
          inputs: of it.

        Returns:
          The cluster's id of the job.

        Raises:
          UserError: a sentence on what is not as it must be; the job is cancelled.
          SupersededError: another command has taken the folder meanwhile.
        """
        started = time.monotonic()
        folders = {"--output": find_folder(job)}
        if job.dataset.wav_output:
            folders["--wav_output"] = join(
                job.dataset.wav_output, storage.TEMPORARY_FOLDER, job.dataset.run
            )
        done = False
        try:
            begin_look(folders)
            look = make_look(job, inputs, folders)
            job_id = self._run(name, look, job, started + LOOK_SECONDS)
            done = True
        except storage.STORE_ERRORS as error:
            raise UserError(
                f"--output cannot be written to: {storage.explain(error)}. Received: "
                f"{runs.home(job.dataset)}"
            ) from error
        except UserError as error:
            if not storage.exists(join(folders["--output"], HERE)):
                place = runs.home(job.dataset)
                raise runs.SupersededError(runs.describe(place)) from error
            raise
        finally:
            for flag, folder in folders.items():
                # What starts the workers lies in the output.
                if not done or flag != "--output":
                    with contextlib.suppress(*storage.STORE_ERRORS):
                        storage.delete_tree(folder)
        seconds = time.monotonic() - started
        self.say(f"Looked at the workers of {self.slots} slots ({seconds:.0f} s).")
        return job_id

    def _run(self, name: str, look: Look, job: JobConfig, deadline: float) -> str:
        folder = look.folders["--output"]
        flags = [*self.flags, *_wrap_command(self.flags, folder)]
        # In Flink 2, slots that get nothing begin no bundle.
        spread = 0 if self.cluster.version.startswith("1.") else self.slots
        gate = LookAtWorkers(look=look, spread=spread)
        url, job_id, failed = self.cluster.url, None, ""
        done = False
        try:
            job_id = self.server.submit(
                name,
                flags,
                lambda pipeline: build(pipeline, job, gate),
                seconds=deadline - time.monotonic(),
            )
            # Flink may be set to try again and again what will not change.
            while not failed and time.monotonic() < deadline:
                for _ in answer_workers(look.folders):
                    pass
                with contextlib.suppress(rest.OutageError):
                    tasks = rest.read_job(url, job_id).looking
                    if self._have_looked(tasks, count_ready(folder)):
                        done = True
                        return job_id
                failed = rest.read_exceptions(url, job_id)
                time.sleep(0.2)
        except SubmitError as error:
            raise UserError(f"{error} (--flink_master {url})") from error
        except rest.UnknownJobError as error:
            raise UserError(
                f"the cluster at --flink_master {url} was started again meanwhile."
            ) from error
        finally:
            if not done:
                with contextlib.suppress(rest.OutageError):
                    # The cluster may have a job of which Beam has not told yet.
                    job_id = job_id or rest.find_job(url, name)
                if job_id:
                    rest.cancel(url, job_id, CANCEL_SECONDS)
        raise UserError(self._explain(failed, _read_logs(folder), folder))

    def _have_looked(self, tasks: Mapping[str, int], ready: int) -> bool:
        """Whether all subtasks that have a slot are done, or wait for the job."""
        running, finished = tasks.get("RUNNING", 0), tasks.get("FINISHED", 0)
        return running + finished >= self.slots and ready >= running

    def _explain(self, failed: str, said: Mapping[str, str], folder: str) -> str:
        """A sentence of what was raised and what workers said."""
        message = find_message(RuntimeError(failed), LookError)
        if message:
            return message
        where = ", ".join(said) or "the TaskManagers' machines"
        texts = [*said.values(), failed]
        for text in texts:
            if missing := _MISSING.search(text):
                if missing[1].partition(".")[0] == "pipeline":
                    return (
                        f"workers on {where} lack the staged package: what starts them "
                        "must install what is staged, as /opt/apache/beam/boot does."
                    )
                return (
                    f"workers on {where} lack {missing[1]}; install what "
                    "requirements.lock has for the Python that runs them."
                )
        if folder.rpartition("/")[0] in failed and (
            "No such file" in failed or "FileNotFound" in failed
        ):
            return (
                "the TaskManagers do not see --output: it must be a shared folder or a "
                "bucket, under the same name everywhere. Received: "
                f"{folder.rpartition('/' + storage.TEMPORARY_FOLDER)[0]}"
            )
        if "network buffers" in failed:
            return (
                "the TaskManagers have too little memory for the network; set "
                "taskmanager.memory.network.min: 256mb."
            )
        words = next(
            (text.strip().splitlines()[-1] for text in said.values() if text.strip()),
            rest.find_cause([failed]),
        )
        last = f" The last words: {words[:400]}" if words else ""
        if not failed:
            return (
                f"no worker of the cluster came up within {LOOK_SECONDS:.0f} s; see "
                "that --environment_type and --environment_config start workers there, "
                f"and what they say.{last}"
            )
        return f"workers of the cluster do not start ({where}).{last}"


def _wrap_command(flags: Sequence[str], folder: str) -> list[str]:
    """Beam's flags under which the words of a worker that dies are kept."""
    options = PipelineOptions(list(flags)).view_as(PortableOptions)
    if options.environment_type != "PROCESS" or "://" in folder:
        return []
    try:
        config = json.loads(options.environment_config or "")
        command = config["command"]
    except (ValueError, KeyError, TypeError):
        return []
    wrapper = Path(folder, _WRAPPER)
    text = _WRAPPER_TEXT.format(
        folder=shlex.quote(folder), command=shlex.quote(command)
    )
    wrapper.write_text(text)
    wrapper.chmod(0o755)
    return [f"--environment_config={json.dumps({**config, 'command': str(wrapper)})}"]


def _read_logs(folder: str) -> dict[str, str]:
    """What workers said, by the name of their machine."""
    if "://" in folder:
        return {}
    said: dict[str, str] = {}
    for path in sorted(Path(folder).glob("said-*")):
        with contextlib.suppress(OSError):
            host = path.name.removeprefix("said-").rpartition("-")[0]
            said[host] = path.read_text(errors="replace")[-4000:]
    return said

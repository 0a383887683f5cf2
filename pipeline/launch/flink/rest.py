"""What a Flink cluster says of itself and of its jobs: its REST interface."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from pipeline.schema import UserError

#: Seconds for an answer.
TIMEOUT = 5.0
#: States that a job does not leave.
FINAL = ("FINISHED", "FAILED", "CANCELED")
#: A vertex of the job graph that runs Python; Beam gives the number of transforms.
_PYTHON_STAGE = re.compile(r"(?<!\w)\[\d+\]")
#: The one that looks at the workers, before the job's own.
_LOOK = re.compile(r"(?<!\w)\[\d+\](?:.*\W)?Look\b")
_CAUSE = re.compile(r"^Caused by: (?:[\w.$]+: )?(.+)$", re.MULTILINE)


class OutageError(Exception):
    """The cluster does not answer just now."""


class UnknownJobError(Exception):
    """The cluster does not know the job: another JobManager, perhaps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster, as it was when it was asked.

    Attributes:
      url: of its REST interface.
      version: of Flink, such as `1.19`.
      slots: number of them.
      free_slots: that no job has.
      slots_a_worker: the most that a TaskManager has.
      keeps_workers: whether Python workers may outlive a stage.
      reason: why they may not.
    """

    url: str
    version: str
    slots: int
    free_slots: int
    slots_a_worker: int
    keeps_workers: bool
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobState:
    """A job, as it was when the cluster was asked.

    Attributes:
      state: Flink's word for it.
      stages: number of those that run Python, but for the look's.
      finished: of them.
      looking: subtasks of the look, by Flink's word for their state.
    """

    state: str
    stages: int
    finished: int
    looking: Mapping[str, int]


def ask(url: str, path: str, method: str = "GET", timeout: float = TIMEOUT) -> Any:
    """Asks the REST interface.

    Raises:
      OutageError: no answer, or one that is no Flink's.
      UnknownJobError: it knows nothing of that name.
    """
    # A proxy of the environment is for the web; Beam's job server uses none either.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{url}{path}", method=method)
    try:
        with opener.open(request, timeout=timeout) as response:
            text = response.read()
        return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise UnknownJobError(path) from error
        raise OutageError(f"HTTP status {error.code}") from error
    except json.JSONDecodeError as error:
        raise OutageError("what answers is no Flink cluster") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise OutageError(str(getattr(reason, "strerror", None) or reason)) from error


def make_url(master: str) -> str:
    """The URL of `--flink_master`.

    Raises:
      UserError: it is no address.
    """
    url = master if "://" in master else f"http://{master}"
    parts = urllib.parse.urlsplit(url)
    try:
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        whole = None
    if not whole:
        raise UserError(
            "--flink_master must be HOST:PORT of the cluster's REST interface, such as "
            f"localhost:8081. Received: {master}"
        )
    return url.rstrip("/")


def find_cluster(options: PipelineOptions) -> Cluster:
    """Looks for the cluster of `--flink_master`.

    Raises:
      UserError: it is not there, has no TaskManager, or Beam does not support it.
    """
    flink = options.view_as(FlinkRunnerOptions)
    url = make_url(flink.flink_master)
    try:
        overview = ask(url, "/overview")
        full_version, slots = overview["flink-version"], overview["slots-total"]
        managers = ask(url, "/taskmanagers")["taskmanagers"]
        settings = {s["key"]: s["value"] for s in ask(url, "/jobmanager/config")}
    except (OutageError, UnknownJobError, KeyError, TypeError) as error:
        reason = error if isinstance(error, OutageError) else "no Flink cluster"
        raise UserError(
            f"--flink_master: no Flink cluster answers there ({reason}); nothing was "
            "changed. Start it, or give HOST:PORT of its REST interface. Received: "
            f"{flink.flink_master}"
        ) from error
    version = ".".join(full_version.split(".")[:2])
    supported = flink.PUBLISHED_FLINK_VERSIONS
    if version not in supported:
        raise UserError(
            f"--flink_master {flink.flink_master} is Flink {full_version}, which this "
            f"release of Beam does not support; it does {', '.join(supported)}."
        )
    if not slots:
        raise UserError(
            f"--flink_master {flink.flink_master} has no slots; start a TaskManager."
        )
    reason = _find_reload_reason(url, settings)
    return Cluster(
        url=url,
        version=version,
        slots=slots,
        free_slots=overview.get("slots-available", slots),
        slots_a_worker=max((m["slotsNumber"] for m in managers), default=1),
        keeps_workers=not reason,
        reason=reason,
    )


def _find_reload_reason(url: str, settings: dict[str, str]) -> str:
    """Why Beam's classes are loaded anew for each stage; empty if they are not."""
    order = settings.get("classloader.resolve-order", "child-first")
    if order != "parent-first":
        return f"classloader.resolve-order is {order}"
    try:
        jars = ask(url, "/jobmanager/environment")["classpath"]
    except (OutageError, UnknownJobError, KeyError):
        return ""  # It does not say; Beam does without the cache if need be.
    if not any("beam" in jar.rpartition("/")[2] or "job-server" in jar for jar in jars):
        return "Beam's job server is not in lib/"
    return ""


def find_job(url: str, name: str) -> str | None:
    """The id of a job by its name; None while there is none.

    Raises:
      OutageError: the cluster does not answer.
    """
    jobs = ask(url, "/jobs/overview")["jobs"]
    return next((job["jid"] for job in jobs if job["name"] == name), None)


def read_job(url: str, job: str) -> JobState:
    """How far a job is.

    Raises:
      OutageError: the cluster does not answer.
      UnknownJobError: it does not know the job.
    """
    answer = ask(url, f"/jobs/{job}")
    looks = [v for v in answer["vertices"] if _LOOK.search(v["name"])]
    states = [
        vertex["status"]
        for vertex in answer["vertices"]
        if _PYTHON_STAGE.search(vertex["name"]) and vertex not in looks
    ]
    return JobState(
        state=answer["state"],
        stages=len(states),
        finished=states.count("FINISHED"),
        looking=looks[-1].get("tasks", {}) if looks else {},
    )


def read_exceptions(url: str, job: str) -> str:
    """What made a job fail or start again, the last last; empty for nothing."""
    try:
        answer = ask(url, f"/jobs/{job}/exceptions?maxExceptions=5")
    except (OutageError, UnknownJobError):
        return ""
    entries = answer.get("exceptionHistory", {}).get("entries", [])
    texts = [entry.get("stacktrace") or "" for entry in reversed(entries)]
    return "\n".join([*texts, answer.get("root-exception") or ""]).strip()


def find_cause(texts: Sequence[str]) -> str:
    """The innermost cause in Java's stack traces, or the last line there is."""
    for text in texts:
        causes = _CAUSE.findall(text)
        if causes:
            return str(causes[-1])
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    return lines[0].strip() if lines else ""


def cancel(url: str, job: str, seconds: float) -> str:
    """Asks the cluster to cancel a job, and waits for its end; returns its state."""
    deadline = time.monotonic() + seconds
    state = "RUNNING"
    asked = False
    while time.monotonic() < deadline:
        try:
            if not asked:
                ask(url, f"/jobs/{job}?mode=cancel", "PATCH")
                asked = True
            state = read_job(url, job).state
        except OutageError:
            pass
        except UnknownJobError:
            return "CANCELED"
        if state in FINAL:
            break
        time.sleep(0.3)
    return state

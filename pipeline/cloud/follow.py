"""Follows a Dataflow job to its end, without owning it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow
from requests.exceptions import RequestException

#: Seconds between looks at a running job.
POLL_SECONDS = 15.0
#: Seconds in which a failed job's reason usually follows.
LAST_WORDS_SECONDS = 30.0
#: The counter that tells how far the job is (`pipeline.job.inputs`).
PROGRESS_COUNTER = "clips_read"

_OUTAGES = (GoogleAPIError, GoogleAuthError, RequestException)
_FINAL = ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")
_SHOWN = {
    dataflow.JobMessageImportance.JOB_MESSAGE_BASIC: "",
    dataflow.JobMessageImportance.JOB_MESSAGE_WARNING: "warning: ",
    dataflow.JobMessageImportance.JOB_MESSAGE_ERROR: "error: ",
}


class Follower:
    """Prints a job's states, messages and progress.

    Args:
      client: Beam's client of the Dataflow service.
      job_id: the job's.
      clips: number to process, for the progress.
      say: prints a line.
    """

    def __init__(
        self, client: Any, job_id: str, clips: int, say: Callable[[str], None]
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._clips = clips
        self._say = say
        self._seen: set[str] = set()
        self._latest: datetime.datetime | None = None
        self._read = 0
        self._reason_given = False

    def follow(self) -> str:
        """Waits for the job's end; returns its state, such as `DONE`.

        An outage of the network or the service is reported and waited out.
        """
        shown = ""
        while True:
            try:
                state = self.state()
                if state != shown:
                    self._say(f"job {self._job_id}: {state.lower()}")
                    shown = state
                self._show_messages()
                self._show_progress()
            except _OUTAGES as error:
                self._say(f"the job cannot be seen just now, it goes on ({error})")
            else:
                if state in _FINAL:
                    break
            time.sleep(POLL_SECONDS)
        if state == "FAILED":
            self._await_reason()
        return state

    def state(self) -> str:
        """The job's state now, without its prefix."""
        job = self._client.get_job(self._job_id)
        return str(dataflow.JobState(job.current_state).name).removeprefix("JOB_STATE_")

    def _show_messages(self) -> None:
        token: str | None = None
        while True:
            messages, token = self._client.list_messages(
                self._job_id, start_time=self._latest, page_token=token or None
            )
            for message in messages:
                prefix = _SHOWN.get(message.message_importance)
                if prefix is None or message.id in self._seen:
                    continue
                self._seen.add(message.id)
                self._latest = max(message.time, self._latest or message.time)
                self._reason_given |= prefix == "error: "
                self._say(f"{message.time:%H:%M:%S} {prefix}{message.message_text}")
            if not token:
                return

    def _show_progress(self) -> None:
        # Each counter comes twice, committed and tentative.
        read = max(
            (
                int(metric.scalar)
                for metric in self._client.get_job_metrics(self._job_id).metrics
                if metric.name.name == PROGRESS_COUNTER
            ),
            default=0,
        )
        if read > self._read:
            self._read = read
            self._say(f"clips: {read} of {self._clips}")

    def _await_reason(self) -> None:
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while not self._reason_given and time.monotonic() < deadline:
            time.sleep(min(POLL_SECONDS, 2.0))
            try:
                self._show_messages()
            except _OUTAGES:
                return

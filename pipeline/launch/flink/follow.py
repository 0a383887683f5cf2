"""Follows a job in a Flink cluster to its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from pipeline.common import storage
from pipeline.launch.flink import rest
from pipeline.shards import resume
from pipeline.shards.result import DatasetConfig

#: Seconds between looks, and between lines at first and in the long run.
POLL_SECONDS = 1.0
LINE_SECONDS = (5.0, 15.0)
#: Seconds without an answer after which a cluster is given up.
OUTAGE_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Reached:
    """How far a job got.

    Attributes:
      shards: number that is finished.
      stages: likewise.
    """

    shards: int
    stages: int


class Follower:
    """Says how far a job is, and waits for its end.

    Args:
      url: of the cluster.
      dataset: that is made.
      clips: number of them.
    """

    def __init__(self, url: str, dataset: DatasetConfig, clips: int) -> None:
        self._url = url
        self._dataset = dataset
        self._clips = clips
        self._counted: dict[int, int] = {}
        self._stages = 0
        self._begun = self._shown_at = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._shown = ""

    @property
    def reached(self) -> Reached:
        """How far the job is."""
        self._count()
        return Reached(shards=len(self._counted), stages=self._stages)

    def _count(self) -> int:
        """Number of clips in finished shards."""
        try:
            for shard in set(resume.list_finished(self._dataset)) - set(self._counted):
                result = resume.read_result(shard, self._dataset)
                self._counted[shard] = len(result.clips) + len(result.rejects)
        except (*storage.STORE_ERRORS, ValueError):
            pass  # It is being written, or the dataset is complete.
        return min(sum(self._counted.values()), self._clips)

    def follow(self, job: str, say: Callable[[str], None]) -> tuple[str, str]:
        """Waits for a job's end.

        An outage is said, and waited out.

        Args:
          job: its id.
          say: prints a line.

        Returns:
          Flink's word for its end, and what was raised.
        """
        outage = 0.0
        raised = 0
        while True:
            try:
                state = rest.read_job(self._url, job)
                if outage:
                    say("The cluster answers again.")
                outage = 0.0
            except rest.UnknownJobError:
                return "LOST", "the cluster has lost the job: another JobManager"
            except rest.OutageError as error:
                if not outage:
                    outage = time.monotonic()
                    say(f"The cluster does not answer ({error}); the job may go on.")
                if time.monotonic() - outage > OUTAGE_SECONDS:
                    return "LOST", (
                        f"the cluster has not answered for {OUTAGE_SECONDS:.0f} s"
                    )
                time.sleep(POLL_SECONDS)
                continue
            self._stages = max(self._stages, state.finished)
            self._show(state, say)
            if state.state in rest.FINAL:
                return state.state, rest.read_exceptions(self._url, job)
            if state.state == "RESTARTING" and not raised:
                cause = rest.find_cause([rest.read_exceptions(self._url, job)])
                say(f"Flink starts a part of the job again: {cause[:200]}")
            raised = int(state.state == "RESTARTING")
            time.sleep(POLL_SECONDS)

    def _show(self, state: rest.JobState, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        final = state.state in rest.FINAL
        if not final and now - self._shown_at < LINE_SECONDS[now - self._begun > 60]:
            return
        self._shown_at = now
        clips = self._clips if state.state == "FINISHED" else self._count()
        stage = min(state.finished + 1, state.stages)
        line = f"stage {stage} of {state.stages}; clips: {clips} of {self._clips}"
        if self._first is None and clips:
            self._first = now, clips
        if self._first and self._first[1] < clips < self._clips:
            rate = (clips - self._first[1]) / (now - self._first[0])
            left = (self._clips - clips) / rate
            line += f" ({rate:.1f} a second, {left:.0f} s left)"
        if line != self._shown:
            self._shown = line
            say(line)

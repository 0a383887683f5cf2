"""Tells services about training runs: `./launch.sh train --track wandb,vertex`."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import UserError
from trainer.config import TrainConfig
from trainer.runtime.preemption import PreemptedError
from trainer.training.tracking.vertex_experiments import VertexService
from trainer.training.tracking.weights_and_biases import WandbService

if TYPE_CHECKING:  # They import TensorFlow, which `trainer.vertex` does without.
    from trainer.evaluation.tasks.task import AnyReport
    from trainer.runtime.checkpoint import CheckpointFolder

#: How a run ended; one that was stopped goes on with the same command.
Ending = Literal["complete", "failed", "stopped"]


class Service(Protocol):
    """What is told about one run.

    Attributes:
      name: for people.
    """

    name: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its methods raise where the service cannot be reached, or refuses."""

    def begin(self, run_id: str, key: str) -> str:
        """Opens a run, or the one that was opened by this name.

        Args:
          run_id: 8 hexadecimal digits.
          key: of all that shapes the result.

        Returns:
          Address of a page about the run; empty where there is none.
        """

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """Tells the metrics of an epoch; one may be told again, with equal values."""

    def summarise(self, scores: Mapping[str, float]) -> None:
        """Tells the scores of the finished model."""

    def end(self, ending: Ending) -> None:
        """Ends the run."""

    def advise(self, reason: str) -> str:
        """What to do where a run could not be begun."""


class Tracker:
    """Tells services; a context, at whose end the run ends.

    What a service cannot be told is no reason to lose a training: that is said once,
    and the service is told no more. Only a new run that it does not take is an error.

    Args:
      services: to tell; none is fine.
      reporter: of the run.
    """

    def __init__(
        self, services: Sequence[Service] = (), reporter: Reporter = SILENT
    ) -> None:
        self._services = list(services)
        self._begun: list[Service] = []
        self._reporter = reporter

    def begin(self, key: str, checkpoints: CheckpointFolder | None) -> None:
        """Opens a run, before the model is fitted.

        Args:
          key: of all that shapes the result; runs that go on share it.
          checkpoints: of the run, which keep its name; None where it has none.

        Raises:
          UserError: a service does not take it.
        """
        if not self._services:
            return
        known = None if checkpoints is None else checkpoints.read_run_id()
        run_id = known or secrets.token_hex(4)
        for service in self._services:
            try:
                address = service.begin(run_id, key)
            except service.errors as error:
                if not known:
                    reason = " ".join(str(error).split())
                    raise UserError(service.advise(reason)) from error
                self._warn(service, error)
            else:
                self._begun.append(service)
                self._reporter.detail(f"tracked: {address}" if address else "tracked")
        if not known and checkpoints is not None:
            checkpoints.save_run_id(run_id)

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """Tells the metrics of an epoch, and its number in the run."""
        self._tell(lambda service: service.log_epoch(values, epoch))

    def summarise(self, report: AnyReport) -> None:
        """Tells the scores of the finished model."""
        scores = {
            f"test_{name}": value
            for name, value in dataclasses.asdict(report.test).items()
            if isinstance(value, float)
        }
        self._tell(lambda service: service.summarise(scores))

    def __enter__(self) -> Tracker:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the run, as what the error that came through says."""
        ending: Ending = "complete"
        if error is not None:
            stopped = isinstance(error, PreemptedError | KeyboardInterrupt)
            ending = "stopped" if stopped else "failed"
        self._tell(lambda service: service.end(ending))

    def _tell(self, action: Callable[[Service], Any]) -> None:
        for service in list(self._begun):
            try:
                action(service)
            except service.errors as error:
                self._begun.remove(service)
                self._warn(service, error)

    def _warn(self, service: Service, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        self._reporter.warn(
            f"warning: {service.name} cannot be told about the run ({reason}); "
            "training goes on without it."
        )


def make_tracker(config: TrainConfig, reporter: Reporter = SILENT) -> Tracker:
    """What `--track` names.

    Raises:
      UserError: it is not installed, or not set up.
    """
    makers: Mapping[str, Callable[[TrainConfig], Service]]
    makers = {"wandb": WandbService, "vertex": VertexService}
    names = [] if config.track is None else config.track.split(",")
    return Tracker([makers[name](config) for name in names], reporter)

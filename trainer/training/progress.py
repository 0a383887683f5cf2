"""How far a phase of training has come, in a form that survives a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.evaluation.history import PhaseHistory


@dataclasses.dataclass(kw_only=True)
class Progress:
    """State of a phase between two steps; JSON values only.

    Attributes:
      epoch: number of epochs that are over.
      step: number of steps made in the running one.
      loss_sum: of the running epoch, over records.
      hits: of the running epoch.
      seconds: of the running epoch so far.
      waited: seconds of them that were spent waiting for input.
      best_loss: lowest validation loss so far.
      best_epoch: its epoch, from 1.
      bad_epochs: epochs since then.
      finished: whether the phase is over.
      metrics: of the epochs that are over.
      epoch_seconds: wall time of each of them.
      input_wait: of each of them.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    hits: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    best_loss: float | None = None
    best_epoch: int = 0
    bad_epochs: int = 0
    finished: bool = False
    metrics: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)
    input_wait: list[float] = dataclasses.field(default_factory=list)

    def add_step(self, loss_sum: float, hits: float) -> None:
        """Counts a step."""
        self.step += 1
        self.loss_sum += loss_sum
        self.hits += hits

    def end_epoch(self, records: int, validation: Mapping[str, float]) -> bool:
        """Closes an epoch.

        Args:
          records: seen in its steps.
          validation: metrics of the validation split; empty where there is none.

        Returns:
          Whether this epoch is the best so far.
        """
        values = {
            "loss": self.loss_sum / records,
            "accuracy": self.hits / records,
            **validation,
        }
        for name, value in values.items():
            self.metrics.setdefault(name, []).append(value)
        self.input_wait.append(self.waited / max(self.seconds, 1e-9))
        self.epoch += 1
        self.step = 0
        self.loss_sum = self.hits = self.waited = 0.0
        if not validation:
            self.best_epoch = self.epoch
            return False
        loss = validation["validation_loss"]
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_epoch, self.bad_epochs = loss, self.epoch, 0
            return True
        self.bad_epochs += 1
        return False

    def history(self, name: str) -> PhaseHistory:
        """What is kept of the phase when it is over."""
        return PhaseHistory(
            name=name,
            epochs=tuple(range(1, self.epoch + 1)),
            metrics=self.metrics,
            seconds=self.epoch_seconds,
            input_wait=self.input_wait,
            best_epoch=self.best_epoch,
        )

    def last(self) -> dict[str, float]:
        """Metrics of the epoch that was closed last."""
        return {name: values[-1] for name, values in self.metrics.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Inverse of `dataclasses.asdict`."""
        return cls(**state)

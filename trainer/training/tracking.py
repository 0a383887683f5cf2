"""Tells a service about training runs: `./launch.sh train --track wandb`."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pipeline.schema import UserError
from trainer.config import TrainConfig
from trainer.evaluation.tasks.task import AnyReport

#: Name of the project where WANDB_PROJECT gives none.
PROJECT = "fma-genre-classifiers"


class Tracker:
    """Tells nobody; a context, at whose end the run ends."""

    def begin(self, key: str) -> None:
        """Opens a run, before the model is fitted.

        Args:
          key: of all that shapes the result; runs that go on share it.
        """

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """Tells the metrics of an epoch, and its number in its phase."""

    def summarise(self, report: AnyReport) -> None:
        """Tells the scores of the finished model."""

    def close(self, *, failed: bool) -> None:
        """Ends the run, if one was opened."""

    def __enter__(self) -> Tracker:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the run, as failed where an error came through."""
        self.close(failed=error is not None)


class WandbTracker(Tracker):
    """Tells Weights & Biases, or with WANDB_MODE=offline a file.

    Args:
      config: of the run.

    Raises:
      UserError: the package is not installed.
    """

    def __init__(self, config: TrainConfig) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(
                "--track wandb needs a package that is not installed; "
                "./launch.sh train --track wandb ... installs it, elsewhere "
                "pip install 'fma-genre-classifiers[wandb]' does."
            )
        self._config = config
        self._run: Any = None

    def begin(self, key: str) -> None:
        """See `Tracker`; one W&B run for each training, grouped by what is trained.

        Raises:
          UserError: W&B does not take it.
        """
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name="-".join(self._config.output.rstrip("/").split("/")[-2:]),
                group=key,
                job_type=self._config.model,
                config=self._config.computation(),
                # Ours is the terminal.
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            text = " ".join(str(error).split())
            raise UserError(
                f"--track wandb: Weights & Biases does not take the run ({text}); log "
                "in with `wandb login`, or set WANDB_MODE=offline and send it later "
                "with `wandb sync`."
            ) from error

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """See `Tracker`."""
        self._run.log({"epoch": epoch, **values})

    def summarise(self, report: AnyReport) -> None:
        """See `Tracker`."""
        if self._run is not None:
            scores = dataclasses.asdict(report.test).items()
            self._run.summary.update(
                {f"test_{name}": v for name, v in scores if isinstance(v, float)}
            )

    def close(self, *, failed: bool) -> None:
        """See `Tracker`."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def make_tracker(config: TrainConfig) -> Tracker:
    """What `--track` names.

    Raises:
      UserError: it is not installed.
    """
    return Tracker() if config.track is None else WandbTracker(config)

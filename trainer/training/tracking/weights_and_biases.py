"""Weights & Biases: `--track wandb`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from pipeline.schema import UserError
from trainer.config import TrainConfig
from trainer.training.tracking.names import PROJECT, run_name


class WandbService:
    """One W&B run for each training, grouped by what is trained.

    With WANDB_MODE=offline it is told to a file.

    Args:
      config: of the run.

    Raises:
      UserError: the package is not installed.
    """

    name = "Weights & Biases"

    def __init__(self, config: TrainConfig) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(
                "--track wandb needs a package that is not installed; "
                "./launch.sh train --track wandb ... installs it, elsewhere "
                "pip install 'fma-genre-classifiers[wandb]' does."
            )
        self._config = config
        self._run: Any = None

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Its own, and those of its connection to the process that sends."""
        import wandb
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        return (wandb.Error, OSError, HandleAbandonedError, MailboxClosedError)

    def begin(self, run_id: str, key: str) -> str:
        """See `Service`."""
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            resume="allow",
            name=run_name(self._config),
            group=key,
            job_type=self._config.model,
            config=self._config.computation(),
            # Ours is the terminal.
            settings=wandb.Settings(console="off", silent=True),
        )
        return self._run.url or ""

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """See `Service`; W&B ignores a step that it has."""
        self._run.log({"epoch": epoch, **values}, step=epoch)

    def summarise(self, scores: Mapping[str, float]) -> None:
        """See `Service`."""
        self._run.summary.update(dict(scores))

    def end(self, ending: str) -> None:
        """See `Service`."""
        if ending == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(ending != "complete"))

    def advise(self, reason: str) -> str:
        """See `Service`."""
        return (
            f"--track wandb: Weights & Biases does not take the run ({reason}); log in "
            "with `wandb login`, or set WANDB_MODE=offline and send it later with "
            "`wandb sync`."
        )

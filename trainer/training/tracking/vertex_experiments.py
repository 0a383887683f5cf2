"""Vertex AI Experiments: `--track vertex`.

Google's SDK takes seconds to import, so that it is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from pipeline.schema import UserError
from trainer.config import TrainConfig
from trainer.training.tracking.names import (
    EXPERIMENT,
    PROJECT,
    TENSORBOARD,
    run_name,
)

#: Environment variables of place, the last ones as Vertex AI sets them in its jobs.
_PROJECT = ("GOOGLE_CLOUD_PROJECT", "CLOUD_ML_PROJECT_ID")
_REGION = ("GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION")
#: Seconds that the end of a run waits for what is not sent yet.
WAIT = 60.0
#: Execution.State of the metadata service.
_STATES = {"complete": "COMPLETE", "failed": "FAILED", "stopped": "CANCELLED"}


class VertexService:
    """An experiment run for each training.

    Parameters, scores and the last epoch's metrics are in the run; each epoch's too
    where VERTEX_TENSORBOARD names a TensorBoard instance, which is what the service
    keeps series in. Epochs are sent by a thread: training does not wait for it.

    Args:
      config: of the run.

    Raises:
      UserError: the SDK is not installed, or project and region are not known.
    """

    name = "Vertex AI Experiments"

    def __init__(self, config: TrainConfig) -> None:
        if not _has_sdk():
            raise UserError(
                "--track vertex needs google-cloud-aiplatform, which is not installed; "
                "pip install 'fma-genre-classifiers[cloud]'"
            )
        self._project = _read(_PROJECT, "a project's id")
        self._region = _read(_REGION, "a region such as europe-west1")
        self._config = config
        self._series = False
        self._last: dict[str, float] = {}
        self._run: Any = None
        self._sent: list[Future[None]] = []

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Google's, and what its SDK raises for answers that it does not expect."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        return (GoogleAPIError, GoogleAuthError, OSError, ValueError, RuntimeError)

    def begin(self, run_id: str, key: str) -> str:
        """See `Service`."""
        from google.cloud import aiplatform

        # Each of its loggers has a level of its own, and prints to standard output.
        for name in logging.root.manager.loggerDict:
            if name.startswith("google.cloud.aiplatform"):
                logging.getLogger(name).setLevel(logging.WARNING)
        # For all that follows.
        aiplatform.init(
            project=self._project, location=self._region, api_transport="rest"
        )
        name = os.environ.get(EXPERIMENT, PROJECT)
        experiment = aiplatform.Experiment.get_or_create(name)
        board = os.environ.get(TENSORBOARD)
        # Of an id: lower-case letters, digits and dashes, 128 with the experiment's.
        words = re.sub("[^a-z0-9]+", "-", run_name(self._config).lower()).strip("-")
        run = f"{words[: 118 - len(name)].strip('-')}-{run_id}".strip("-")
        self._run = aiplatform.ExperimentRun.get(run, experiment=experiment)
        if self._run is None:
            self._run = aiplatform.ExperimentRun.create(
                run, experiment=experiment, tensorboard=board
            )
        else:
            self._set_state("RUNNING")
        self._series = board is not None
        parameters = {"key": key, **self._config.computation()}
        self._run.log_params(
            {name: value for name, value in parameters.items() if value is not None}
        )
        self._sender = ThreadPoolExecutor(1)
        return (
            f"https://console.cloud.google.com/vertex-ai/experiments/locations/"
            f"{self._region}/experiments/{name}/runs/{name}-{run}"
            f"?project={self._project}"
        )

    def log_epoch(self, values: Mapping[str, float], epoch: int) -> None:
        """See `Service`."""
        self._last = {**values, "epochs": epoch}
        if self._series:
            self._send(self._run.log_time_series_metrics, dict(values), epoch)

    def summarise(self, scores: Mapping[str, float]) -> None:
        """See `Service`."""
        self._last |= scores

    def end(self, ending: str) -> None:
        """See `Service`; waits until all is sent.

        Raises:
          TimeoutError: it took over `WAIT` seconds.
        """
        if self._last:
            self._send(self._run.log_metrics, self._last)
        self._send(self._set_state, _STATES[ending])
        try:
            wait(self._sent, WAIT, FIRST_EXCEPTION)
            for future in self._sent:
                future.result(0)
        finally:
            self._stop_sending()

    def advise(self, reason: str) -> str:
        """See `Service`."""
        return (
            f"--track vertex: Vertex AI does not take the run ({reason}); check "
            f"project {self._project} ({_PROJECT[0]}) and region {self._region} "
            f"({_REGION[0]}), log in with `gcloud auth application-default login`, and "
            "see docs/train.md for the role that is needed."
        )

    def _set_state(self, state: str) -> None:
        from google.cloud import aiplatform

        self._run.update_state(getattr(aiplatform.gapic.Execution.State, state))

    def _send(self, send: Callable[..., None], *values: Any) -> None:
        """Sends something after all that is not sent yet; raises what went wrong."""
        while self._sent and self._sent[0].done():
            error = self._sent.pop(0).exception()
            if error is not None:
                self._stop_sending()
                raise error
        self._sent.append(self._sender.submit(send, *values))

    def _stop_sending(self) -> None:
        """Drops what is not sent yet, which Python would wait for at its end."""
        self._sender.shutdown(wait=False, cancel_futures=True)


def _has_sdk() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.aiplatform") is not None
    except ModuleNotFoundError:  # There is no google.cloud either.
        return False


def _read(variables: tuple[str, ...], value: str) -> str:
    for name in variables:
        if found := os.environ.get(name):
            return found
    raise UserError(
        f"--track vertex needs {value} in {variables[0]}, which is not set."
    )

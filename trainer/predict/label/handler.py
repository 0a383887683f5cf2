"""The product's predictor as a model of Beam's RunInference."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import threadpoolctl
from apache_beam.ml.inference.base import ModelHandler
from apache_beam.utils.shared import Shared

from pipeline.common.child_process import end_with
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.inputs.audio_files import make_audio_check
from pipeline.inputs.join import AudioFile
from pipeline.job.counters import METRICS, count_files, count_reject
from trainer.predict.label.config import LabelConfig
from trainer.predict.label.shards import LabelledShard, keep_or_make_shard
from trainer.predict.protocol import Predictor

#: What a follower of a job in a cloud shows, as of preprocessing.
PROGRESS_COUNTER = "clips_read"
#: A shard and its files.
ShardFiles = tuple[int, Sequence[AudioFile]]


class SharedPredictor:
    """The models of a job, loaded once a process, however often this is pickled.

    Args:
      folders: of the models.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self._shared = Shared()
        self._loaded: Predictor | None = None

    def load(self) -> Predictor:
        """Loads them, or returns what this process has loaded.

        Raises:
          UserError: one cannot be loaded, or they do not go together.
        """
        from trainer.predict.loading import load_predictors  # Imports TensorFlow.

        # Beam refers to it weakly.
        self._loaded = self._shared.acquire(lambda: load_predictors(self._folders))
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to load them."""
        return vars(self) | {"_loaded": None}


class LoadedModels:
    """The models of one process, and what each of its threads decodes with."""

    def __init__(self, config: LabelConfig, models: SharedPredictor) -> None:
        from trainer.predict.network import Embedder

        self.config = config
        self._predictor = models.load()
        self._embedder = Embedder(self._predictor) if config.embeddings else None
        self._of_thread = threading.local()

    def label_shard(self, shard: int, files: Iterable[AudioFile]) -> LabelledShard:
        """Makes a shard, or keeps it (see `shards.keep_or_make_shard`)."""
        from trainer.predict.label.songs import SongLabeller

        if not hasattr(self._of_thread, "labeller"):
            self._of_thread.is_audio = make_audio_check()
            self._of_thread.labeller = SongLabeller(
                self._predictor,
                IsolatedDecoder(),
                excerpts=self.config.excerpts,
                embedder=self._embedder,
            )
        return keep_or_make_shard(
            shard,
            files,
            self.config,
            self._of_thread.labeller.label,
            self._of_thread.is_audio,
        )


class ShardLabelHandler(ModelHandler[ShardFiles, LabelledShard, LoadedModels]):
    """Has the models name the genres of whole shards of files.

    An example is a shard, not a clip: decoded audio never leaves the process, and a
    shard's rows are written where they are made, so that an interruption costs no more
    than the shards in work. Clips are put into batches inside.

    Args:
      config: of the job.
      models: its models.
    """

    def __init__(self, config: LabelConfig, models: SharedPredictor) -> None:
        super().__init__()
        self._config = config
        self._models = models

    def load_model(self) -> LoadedModels:
        """Loads the models, once a process; with a worker a core, for one core each."""
        launcher = self._config.launcher
        if launcher not in (0, os.getpid()):
            end_with(launcher)
        # Its threads only get into each other's way; a model's have work for long.
        threadpoolctl.threadpool_limits(1)
        if not self._config.spare_cores:
            use_one_thread()
        return LoadedModels(self._config, self._models)

    def run_inference(
        self,
        batch: Sequence[ShardFiles],
        model: LoadedModels,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[LabelledShard]:
        """Labels shards.

        Args:
          batch: shards with their files.
          model: of `load_model`.
          inference_args: none are known.
        """
        del inference_args
        results = []
        for shard, files in batch:
            result = model.label_shard(shard, files)
            _count(result)
            results.append(result)
        return results

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """A shard is work enough for a call."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_metrics_namespace(self) -> str:
        """That of the other counters."""
        return METRICS


def use_one_thread(askers: int = 1) -> None:
    """Has TensorFlow take one core for each thread that asks a model.

    To be called before it computes anything; later, nothing is changed.

    Args:
      askers: threads of this process that ask at the same time.
    """
    import trainer.runtime.quiet  # noqa: F401  isort: skip
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        # Here is where a whole question is answered.
        tf.config.threading.set_inter_op_parallelism_threads(askers)
    except RuntimeError:
        return


def _count(result: LabelledShard) -> None:
    """Shows what became of a shard's files while the job runs."""
    count = beam.metrics.Metrics.counter
    count(METRICS, "shards_kept").inc(int(result.kept))
    count(METRICS, PROGRESS_COUNTER).inc(len(result.songs) + len(result.rejects))
    count_files("not_audio", len(result.not_audio))
    for reject in result.rejects:
        count_reject(reject)

"""The functions of an exported model, from audio or records to probabilities."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from pipeline.common.clip_config import CLIP_SAMPLES
from pipeline.schema import EMBEDDINGS, Field, UserError
from trainer.evaluation.tasks.task import find_task
from trainer.export import graph_audio, graph_embeddings
from trainer.export.graph_classifiers import make_score
from trainer.export.graph_wav import decode_wav
from trainer.predict.audio import open_music_model, read_config
from trainer.predict.baseline import Baseline
from trainer.predict.network import Network
from trainer.predict.protocol import OneModel, Predictor

EXPORT_VERSION = 1
#: From a clip to its records `(records, ...)`, in the graph.
Represent = Callable[[graph_audio.Clip], tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Model(OneModel):
    """A model as a graph can hold it.

    Attributes:
      score: from records `(n, *value.shape)` to uncalibrated probabilities
        `(n, genres)`, float32.
      variables: what `score` reads, for the SavedModel to hold.
    """

    score: Callable[[tf.Tensor], tf.Tensor]
    variables: Any = None

    @property
    def value(self) -> Field:
        """One record."""
        return self.manifest.representations[self.representation].value

    @property
    def records(self) -> int:
        """Records of a clip."""
        return self.manifest.representations[self.representation].records_per_clip

    @property
    def config(self) -> Any:
        """Clip parameters; see `trainer.predict.audio.read_config`."""
        return read_config(self.representation, self.manifest)

    @functools.cached_property
    def represent(self) -> Represent | None:
        """What makes records `(records, ...)` of a clip in the graph.

        None where the representation has no such way.

        Raises:
          UserError: the dataset was made by another version of the pipeline.
        """
        if self.representation == EMBEDDINGS:
            config = self.config
            weights = open_music_model(self.music_model, config.music_model)
            compute = graph_embeddings.find_embeddings(*weights)
        elif self.representation in graph_audio.COMPUTE:
            config = self.config
            compute = graph_audio.COMPUTE[self.representation]
        else:
            return None
        return lambda clip: compute(clip, config)

    def probabilities(self, records: tf.Tensor) -> tf.Tensor:
        """Calibrated, float32 `(clips, genres)`, of `(clips, records, ...)`."""
        genres = len(self.manifest.genres)
        outputs = self.score(tf.reshape(records, (-1, *records.shape[2:])))
        mean = tf.reduce_mean(tf.reshape(outputs, (-1, self.records, genres)), axis=1)
        return find_task(self.manifest).scale_tensor(mean, self.temperature)

    def records_spec(self, clips: int | None = None) -> tf.TensorSpec:
        """Records as a signature takes them, named as in the manifest."""
        shape = (
            self.value.shape if self.records == 1 else (self.records, *self.value.shape)
        )
        kind = tf.as_dtype(self.value.dtype)
        return tf.TensorSpec((clips, *shape), kind, self.value.name)

    def add_axis(self, records: tf.Tensor) -> tf.Tensor:
        """From what `records_spec` says to `(clips, records, ...)`."""
        return records[:, tf.newaxis] if self.records == 1 else records


def make_model(predictor: Predictor) -> Model:
    """A predictor as a graph can hold it.

    Raises:
      UserError: it is an ensemble, or too large.
    """
    variables = None
    score: Callable[[tf.Tensor], tf.Tensor]
    if isinstance(predictor, Network):
        variables = predictor.model
        score = functools.partial(predictor.model, training=False)
    elif isinstance(predictor, Baseline):
        score = make_score(predictor)
    else:
        raise UserError(
            "--model is an ensemble, which predict and label use; export one of its "
            "members, which ensemble.json beside it names."
        )
    return Model(
        representation=predictor.representation,
        manifest=predictor.manifest,
        temperature=predictor.temperature,
        thresholds=predictor.thresholds,
        fingerprint=predictor.fingerprint,
        music_model=predictor.music_model,
        score=score,
        variables=variables,
    )


def describe(model: Model, signatures: Sequence[str]) -> dict[str, Any]:
    """All that a user of the export may want to know: JSON values."""
    manifest = model.manifest
    return {
        "export_version": EXPORT_VERSION,
        "genres": list(manifest.genres),
        "representation": model.representation,
        "temperature": model.temperature,
        **({"thresholds": list(model.thresholds)} if model.thresholds else {}),
        "fingerprint": manifest.fingerprint,
        "signatures": [*signatures],
        "manifest": json.loads(manifest.to_json()),
    }


Signature = tuple[Callable[..., Mapping[str, tf.Tensor]], list[tf.TensorSpec]]


class Serving:
    """The functions of a SavedModel.

    Attributes:
      signatures: functions and the inputs that they take, by name.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        records = model.records_spec()
        self.signatures: dict[str, Signature] = {}
        represent = model.represent
        if represent is None:
            self.signatures["serving_default"] = (self._serve_records, [records])
        else:
            config = model.config
            # From frames `(n, channels)` and their rate; traced once, for all.
            self._make = tf.function(
                lambda frames, rate: represent(
                    graph_audio.make_clip(frames, rate, config)
                ),
                input_signature=[
                    tf.TensorSpec((None, None), tf.float32),
                    tf.TensorSpec((), tf.int32),
                ],
            )
            self.signatures["serving_default"] = (
                self._serve_audio,
                [tf.TensorSpec((None,), tf.string, "audio_bytes")],
            )
            self.signatures["serve_pcm"] = (
                self._serve_pcm,
                [
                    tf.TensorSpec((None, None), tf.float32, "samples"),
                    tf.TensorSpec((), tf.int32, "sample_rate"),
                ],
            )
        self.signatures["serve_records"] = (self._serve_records, [records])
        kind = tf.as_dtype(model.value.dtype)
        clip = (model.records, *model.value.shape)
        self._spec = tf.TensorSpec(clip, kind)
        self._answer = tf.function(
            self._compute, input_signature=[tf.TensorSpec((None, *clip), kind)]
        )

    def _serve_audio(self, audio_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._serve_each(lambda data: self._make(*decode_wav(data)), audio_bytes)

    def _serve_pcm(
        self, samples: tf.Tensor, sample_rate: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        return self._serve_each(
            lambda mono: self._make(mono[:, tf.newaxis], sample_rate), samples
        )

    def _serve_each(
        self, represent: Callable[[tf.Tensor], tf.Tensor], clips: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        records = tf.map_fn(represent, clips, fn_output_signature=self._spec)
        answer: Mapping[str, tf.Tensor] = self._answer(records)
        return answer

    def _serve_records(self, records: tf.Tensor) -> Mapping[str, tf.Tensor]:
        answer: Mapping[str, tf.Tensor] = self._answer(self._model.add_axis(records))
        return answer

    def _compute(self, records: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """From records `(clips, records, ...)` to what a signature returns."""
        probabilities = self._model.probabilities(records)
        names = tf.constant(self._model.manifest.genres)
        given = {}
        if self._model.thresholds is not None:
            least = tf.constant(self._model.thresholds, tf.float32)
            given = {"given": probabilities >= least}
        return given | {
            "genre": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "genres": tf.tile(names[tf.newaxis], (tf.shape(probabilities)[0], 1)),
            "probabilities": probabilities,
        }


class Portable:
    """The functions of a file for LiteRT or ONNX: numbers in, numbers out.

    Attributes:
      signatures: functions and the inputs that they take, by name: `serve_samples`
        takes a clip `(1, 1321967)`, where the representation has a way from audio
        that every format can hold, and `serve_records` takes records.
    """

    #: Representations whose way from audio is not too slow without an FFT.
    FRONT_ENDS = ("windows", EMBEDDINGS)

    def __init__(self, model: Model, *, front_end: bool = True) -> None:
        self._model = model
        self.signatures: dict[str, Signature] = {}
        portable = front_end and model.representation in self.FRONT_ENDS
        if portable and (represent := model.represent):
            samples = tf.TensorSpec((1, CLIP_SAMPLES), tf.float32, "samples")
            serve = functools.partial(self._serve_samples, represent)
            self.signatures["serve_samples"] = (serve, [samples])
        self.signatures["serve_records"] = (self._serve_records, [model.records_spec()])

    def _serve_samples(
        self, represent: Represent, samples: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        clip = graph_audio.Clip(samples[0], tf.constant(CLIP_SAMPLES))
        records = represent(clip)[tf.newaxis]
        return {
            "probabilities": self._model.probabilities(records),
            "records": tf.identity(records),
        }

    def _serve_records(self, records: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {
            "probabilities": self._model.probabilities(self._model.add_axis(records))
        }

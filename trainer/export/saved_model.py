"""A SavedModel: for TensorFlow, TensorFlow Serving and Vertex AI."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf

from pipeline.common import ownership
from pipeline.common.clip_config import SAMPLE_RATE
from pipeline.common.files import Files, join, scratch_folder, temporary_name
from pipeline.common.owned_kinds import EXPORT
from pipeline.schema import UserError
from pipeline.schema.example import delimited
from trainer.evaluation.model_files import files_of
from trainer.export.serving import Model, Serving, Signature, describe

SAVED_MODEL_FILE = "saved_model.pb"
#: Folder of a SavedModel that TensorFlow leaves to others.
EXTRA = "assets.extra"


def export_model(model: Model, folder: str) -> dict[str, Any]:
    """Writes a SavedModel; returns what its signature `describe` says.

    Args:
      model: what to export.
      folder: local or remote; a SavedModel that is there is replaced.

    Raises:
      UserError: the folder holds something else or cannot be written to, or the
        dataset was made by another version of the pipeline.
    """
    files = files_of(folder)
    ownership.check_folder(files, folder, EXPORT)
    serve = Serving(model)
    facts = describe(model, [*serve.signatures, "describe"])
    content = json.dumps(facts, indent=1)

    def describe_export() -> Mapping[str, tf.Tensor]:
        return {"description": tf.constant(content)}

    signatures = {**serve.signatures, "describe": (describe_export, [])}
    with scratch_folder(tf.errors.OpError) as local:
        write_signatures(model, signatures, local)
        contents = _read_folder(local)
    contents[f"{EXTRA}/description.json"] = f"{content}\n".encode()
    contents[f"{EXTRA}/tf_serving_warmup_requests"] = make_warm_up(model)
    with saying_what_to_do(folder):
        replace_export(files, folder, contents, SAVED_MODEL_FILE)
    return facts


def write_signatures(
    model: Model, signatures: Mapping[str, Signature], folder: str
) -> None:
    """Writes functions of a model as a SavedModel into a new local folder."""
    archive = keras.export.ExportArchive()
    if model.variables is not None:
        archive.track(model.variables)
    for name, (function, inputs) in signatures.items():
        archive.add_endpoint(name, function, input_signature=inputs)
    archive.write_out(folder, verbose=False)


@contextlib.contextmanager
def saying_what_to_do(folder: str) -> Iterator[None]:
    """Turns what the file system says into a sentence.

    Raises:
      UserError: the output cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--output cannot be written ({error}); make room or choose another "
            f"folder. Received: {folder}"
        ) from error


def make_warm_up(model: Model) -> bytes:
    """A file of one request, which TensorFlow Serving answers before it is ready.

    The first request of a model costs seconds, all others a fraction of one. It is a
    TFRecord of a `tensorflow.serving.PredictionLog`, whose fields' numbers are those
    of TensorFlow Serving's `prediction_log.proto`, `predict.proto` and `model.proto`.
    """
    if model.represent is None:
        spec = model.records_spec(clips=1)
        name, value = spec.name, tf.zeros(spec.shape, spec.dtype)
    else:
        seconds = math.ceil(model.config.min_duration) + 1
        name, value = "audio_bytes", tf.constant([_make_tone(seconds)])
    tensor = tf.make_tensor_proto(tf.get_static_value(value)).SerializeToString()
    model_spec = delimited(1, b"default") + delimited(3, b"serving_default")
    request = delimited(1, model_spec) + delimited(
        2, delimited(1, name.encode()) + delimited(2, tensor)
    )
    with scratch_folder(tf.errors.OpError) as folder:
        path = f"{folder}/requests"
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(delimited(6, delimited(1, request)))
        return Path(path).read_bytes()


def _make_tone(seconds: int) -> bytes:
    """A WAV file of 440 Hz, mono, 16 bits."""
    times = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    samples = (8_000 * np.sin(2 * np.pi * 440 * times)).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV")
    return buffer.getvalue()


def _read_folder(folder: str) -> dict[str, bytes]:
    """The files of a local folder, by path relative to it."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def replace_export(
    files: Files, folder: str, contents: Mapping[str, bytes], model: str
) -> None:
    """Puts a whole export in the place of an earlier one.

    Nothing is touched before all is written. The model goes first and comes last:
    whoever loads in between finds none, and never one of two halves.

    Args:
      files: the folder's file system.
      folder: to write to.
      contents: files by path relative to it.
      model: the one of them without which nobody loads the others.

    Raises:
      UserError: the folder is not ours.
      OSError: it cannot be written to.
    """
    ownership.claim(files, folder, EXPORT)
    last = join(folder, model)
    targets = {join(folder, name): content for name, content in contents.items()}
    stage = {temporary_name(path): path for path in targets}
    try:
        for temporary, path in stage.items():
            files.write(temporary, targets[path])
        files.delete(last)
        for temporary, path in sorted(stage.items(), key=lambda pair: pair[1] == last):
            files.rename(temporary, path)
    finally:
        for temporary in stage:
            files.delete(temporary)

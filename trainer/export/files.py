"""A model in one file, for LiteRT or ONNX, held against the model that it came from.

Beside `model.tflite` or `model.onnx` lies a JSON file of the same name with `.json`
behind it: labels, how audio becomes the input, and what was measured. `model_card.md`
says the same for people.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.runtime import quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.common import ownership
from pipeline.common.clip_config import (
    CLIP_SAMPLES,
    EXCERPT_SECONDS,
    MAX_CLIP_SECONDS,
    SAMPLE_RATE,
)
from pipeline.common.files import Files, join, scratch_folder
from pipeline.common.owned_kinds import EXPORT
from pipeline.common.quiet import keep_back_stderr
from pipeline.schema import EMBEDDINGS, UserError
from trainer.data.dataset import Dataset
from trainer.evaluation.card import format_exports, name_score
from trainer.evaluation.model_digests import describe_error
from trainer.evaluation.model_files import ModelFolder, files_of
from trainer.evaluation.report import CARD_FILE
from trainer.evaluation.tasks.task import find_task
from trainer.export import litert, onnx_file
from trainer.export.saved_model import (
    replace_export,
    saying_what_to_do,
    write_signatures,
)
from trainer.export.serving import Model, Portable, describe
from trainer.predict.network import LIBRARY_ERRORS
from trainer.predict.protocol import Predictor

#: By format, the ending of its files and how their weights may be kept.
FORMATS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "litert": (litert.SUFFIX, litert.QUANTIZATIONS),
    "onnx": (onnx_file.SUFFIX, onnx_file.QUANTIZATIONS),
}
#: How far a float32 file's probabilities may lie from the model's.
MAX_DIFFERENCE = 1e-4
#: Points of the validation score that a quantized file may lose.
MAX_LOSS = 2.0
#: How LiteRT's converter and ONNX Runtime name an operation that they do not know.
_UNKNOWN = re.compile(r"'tf\.(\w+)' op is neither|No Op registered for (\w+)")
#: Clips that are answered at a time.
_BATCH = 32

#: From records as a signature takes them to probabilities.
Answer = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be exported.

    Attributes:
      form: one of `FORMATS`.
      quantize: how weights are kept, None for float32.
      folder: to write to.
      dataset: that the model was trained on, where it is at hand: it says how near
        the file is to the model.
    """

    form: str
    quantize: str | None
    folder: str
    dataset: Dataset | None

    def __post_init__(self) -> None:
        """Refuses what a format cannot do, or cannot be answered for."""
        suffix, known = FORMATS[self.form]
        if self.folder.endswith(suffix):
            raise UserError(
                f"--output names a folder, in which {self.file_name} is written. "
                f"Received: {self.folder}"
            )
        if self.quantize is not None and self.quantize not in known:
            raise UserError(
                f"--quantize of --format {self.form} must be one of "
                f"{', '.join(known)}. Received: {self.quantize}"
            )
        if self.quantize is not None and self.dataset is None:
            raise UserError(
                "--quantize needs the dataset that the model was trained on, to "
                "measure what is lost; name it with --data."
            )

    @property
    def file_name(self) -> str:
        """`model.tflite`, `model-int8.onnx`, ..."""
        kind = f"-{self.quantize}" if self.quantize else ""
        return f"model{kind}{FORMATS[self.form][0]}"


def compute_in_float32(network: keras.Model) -> None:
    """Has a network that was trained in 16 bits compute in float32; changes it.

    Its weights are float32 in any case. Neither LiteRT nor ONNX has all of bfloat16.
    """
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            compute_in_float32(layer)
        if layer.dtype_policy.name.startswith("mixed_"):
            layer.dtype_policy = keras.DTypePolicy("float32")


def export_file(
    model: Model, predictor: Predictor, source: str, request: Request
) -> dict[str, Any]:
    """Writes a file, its description and the card.

    Args:
      model: what to export.
      predictor: the same, whose answers are what the file is held against.
      source: the model's folder.
      request: what is asked for.

    Returns:
      The description.

    Raises:
      UserError: the folder holds something else or cannot be written to, the file
        does not answer as the model does, or loses too much.
    """
    files = files_of(request.folder)
    ownership.check_folder(files, request.folder, EXPORT)
    # What is measured on records says nothing of a quantized way from audio.
    portable = Portable(model, front_end=request.quantize is None)
    with scratch_folder(tf.errors.OpError) as folder:
        write_signatures(model, portable.signatures, folder)
        names = [*portable.signatures]
        with _saying_what_is_unknown(request.form):
            content, answer = _convert(model, folder, names, request)
    facts = {
        **describe(model, names if request.form == "litert" else names[:1]),
        "format": request.form,
        "quantize": request.quantize,
        "inputs": _describe_inputs(model, portable),
        **_measure(model, predictor, answer, request),
    }
    contents = {
        request.file_name: content,
        f"{request.file_name}.json": (json.dumps(facts, indent=1) + "\n").encode(),
    }
    with saying_what_to_do(request.folder):
        contents[CARD_FILE] = _make_card(files, request, source, facts)
        replace_export(files, request.folder, contents, request.file_name)
    return facts


def _convert(
    model: Model, folder: str, names: Sequence[str], request: Request
) -> tuple[bytes, Answer]:
    """The file of a SavedModel's signatures, and what it answers.

    Raises:
      Exception: of `_saying_what_is_unknown`.
    """
    if request.form == "litert":
        content = litert.convert(folder, names, request.quantize)
        return content, _make_answer(model, litert.Runner(content, "serve_records"))
    content = onnx_file.convert(folder, names[0], request.quantize)
    tail = onnx_file.cut_front_end(content) if len(names) > 1 else content
    return content, _make_answer(model, onnx_file.Runner(tail), len(names) > 1)


@contextlib.contextmanager
def _saying_what_is_unknown(form: str) -> Iterator[None]:
    """Turns what a converter or a format's runtime raises into a sentence.

    Raises:
      UserError: they do not take the model.
      OSError: files cannot be written.
    """
    library = litert if form == "litert" else onnx_file
    try:
        # LiteRT's converter prints what it raises, a page of it.
        with keep_back_stderr(replay=False):
            yield
    except OSError:
        raise  # Of the temporary folder, not of the model.
    except (*LIBRARY_ERRORS, *library.find_errors()) as error:
        unknown = {first or other for first, other in _UNKNOWN.findall(str(error))}
        operations = ", ".join(sorted(unknown))
        reason = f"it has no {operations}" if unknown else describe_error(error)
        raise UserError(
            f"--format {form} cannot hold this model ({reason}); nothing was written. "
            "Export another format."
        ) from error


def _make_answer(model: Model, run: Any, tail: bool = False) -> Answer:
    name = "records" if tail else model.value.name

    def answer(records: NDArray[Any]) -> NDArray[np.float32]:
        clips = len(records)
        flat = records if tail or model.records > 1 else records[:, 0]
        # What lies behind a front end takes one clip at a time.
        step = 1 if tail else _BATCH
        parts = [
            run(**{name: flat[start : start + step]})["probabilities"]
            for start in range(0, clips, step)
        ]
        return np.concatenate(parts)

    return answer


def _measure(
    model: Model, predictor: Predictor, answer: Answer, request: Request
) -> dict[str, Any]:
    """How near the file is to the model."""
    dataset = request.dataset
    if dataset is None:
        return {"test_clips": 0}
    records, _ = load_clips(dataset, model, "test")
    facts: dict[str, Any] = {"test_clips": len(records)}
    if len(records):
        expected = predictor.predict({model.representation: records})
        with _saying_what_is_unknown(request.form):
            found = answer(records)
        difference = float(np.abs(found - expected).max())
        facts["largest_difference"] = difference
        if request.quantize is None and not difference <= MAX_DIFFERENCE:
            raise UserError(
                f"The {request.form} file does not answer as the model does: a "
                f"probability of a test clip is off by {difference:.2g}, more than "
                f"{MAX_DIFFERENCE:g}; nothing was written. Export another format."
            )
    if request.quantize is not None:
        facts |= _measure_loss(model, predictor, answer, request, dataset)
    return facts


def _measure_loss(
    model: Model,
    predictor: Predictor,
    answer: Answer,
    request: Request,
    dataset: Dataset,
) -> dict[str, Any]:
    records, labels = load_clips(dataset, model, "validation")
    if not len(records):
        raise UserError(
            "--quantize measures what is lost on validation clips, and there are none "
            f"in {dataset.folder}; export without it."
        )
    expected = predictor.predict({model.representation: records})
    with _saying_what_is_unknown(request.form):
        found = answer(records)
    task = find_task(model.manifest)
    before, after = task.score(labels, expected), task.score(labels, found)
    loss = 100 * (before - after)
    if loss > MAX_LOSS:
        raise UserError(
            f"--quantize {request.quantize} costs {loss:.1f} points of "
            f"{task.score_name} on {len(records)} validation clips ({before:.3f} to "
            f"{after:.3f}), more than {MAX_LOSS:g}; nothing was written. Export "
            "without it."
        )
    return {
        "validation_clips": len(records),
        "score_name": task.score_name,
        name_score(task.score_name): before,
        f"{name_score(task.score_name)}_quantized": after,
    }


def load_clips(
    dataset: Dataset, model: Model, split: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Records of a split `(clips, records, *value.shape)`, and the clips' genres.

    Clips are in the order in which they first appear.

    Raises:
      UserError: the dataset is another one than the model's, or damaged.
    """
    if dataset.manifest.fingerprint != model.manifest.fingerprint:
        raise UserError(
            "--data must be the dataset that the model was trained on, whose "
            f"fingerprint is {model.manifest.fingerprint}. Received: {dataset.folder}, "
            f"whose fingerprint is {dataset.manifest.fingerprint}"
        )
    arrays = dataset.load(model.representation, split)
    place: dict[str, int] = {}
    clips = [place.setdefault(track, len(place)) for track in arrays.track_ids]
    if np.any(np.bincount(clips) != model.records):
        raise UserError(
            f"The {split} files of {model.representation} in {dataset.folder} do not "
            f"hold {model.records} records of each clip; preprocess the dataset again."
        )
    # Files are read by turns, so that a clip's records do not follow each other.
    order = np.argsort(clips, kind="stable")
    values = arrays.values[order].reshape(-1, model.records, *model.value.shape)
    return values, arrays.labels[order][:: model.records]


def _describe_inputs(model: Model, portable: Portable) -> dict[str, Any]:
    """By signature, the input's name, shape, dtype and meaning."""
    embeddings = model.representation == EMBEDDINGS
    words = {
        "serve_samples": f"one clip: {CLIP_SAMPLES} samples at {SAMPLE_RATE} Hz, mono, "
        f"full scale 1; of n samples of a file over {MAX_CLIP_SECONDS:g} s, those from "
        f"(n - {round(EXCERPT_SECONDS * SAMPLE_RATE)}) // 2 on; of a shorter one the "
        "first, and where there are too few they are repeated"
        + ("; embeddings then hear the repeats, unlike in training" * embeddings),
        "serve_records": f"records of {model.representation} as the manifest has them",
    }
    return {
        name: {
            "name": spec.name,
            "shape": [-1 if size is None else size for size in spec.shape],
            "dtype": spec.dtype.name,
            "meaning": words[name],
        }
        for name, (_, [spec]) in portable.signatures.items()
    }


def _make_card(
    files: Files, request: Request, source: str, facts: Mapping[str, Any]
) -> bytes:
    """The model's card, and what there is to say of each file in the folder."""
    known = {
        path.removesuffix(".json"): json.loads(
            files.read(join(request.folder, path), 1 << 30)
        )
        for path, _ in files.walk(request.folder)
        if path.endswith((".tflite.json", ".onnx.json"))
    }
    exports = format_exports(dict(sorted({**known, request.file_name: facts}.items())))
    card = (ModelFolder(source).read(CARD_FILE) or b"").decode()
    return (f"{card}\n{exports}" if card else exports).encode()


def summarise(facts: Mapping[str, Any]) -> str:
    """A line on a file's description, for people."""
    if not facts["test_clips"]:
        return "not held against the model: its dataset is not at hand (--data)"
    text = (
        f"largest difference of a probability over {facts['test_clips']} test clips: "
        f"{facts['largest_difference']:.1g}"
    )
    if facts["quantize"]:
        key = name_score(facts["score_name"])
        text += (
            f"; validation {facts['score_name']} {facts[key]:.3f}, in the file "
            f"{facts[f'{key}_quantized']:.3f}"
        )
    return text

"""Exports a trained model: `./launch.sh export --model MODELS/mel`.

Writes a SavedModel that needs neither this project nor Keras. Its signatures:

    serving_default  `audio_bytes`, string (clips,): WAV files as they are
    serve_pcm        `samples`, float32 (clips, n), mono of full scale 1, and
                     `sample_rate`, int32 ()
    serve_records    the representation itself (clips, ...), named as in the manifest
    describe         nothing; returns the manifest and the facts below as JSON

All but the last return `genre`, string (clips,); `genres`, string (clips, genres);
and `probabilities`, float32 (clips, genres), calibrated. Models that read feature
vectors have no way from audio in the graph: there, serving_default takes the records.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common import ownership
from pipeline.common.credentials import require_credentials
from pipeline.common.files import Files, join, temporary_name
from pipeline.common.owned_kinds import EXPORT
from pipeline.common.plain_text import allow_any_text, one_line, print_error
from pipeline.schema import MULTI_LABEL, Field, UserError

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.predict.network import Network

SAVED_MODEL_FILE = "saved_model.pb"
#: Folder of a SavedModel that TensorFlow leaves to others.
EXTRA = "assets.extra"
EXPORT_VERSION = 1


def export_model(predictor: Network, folder: str) -> dict[str, Any]:
    """Writes a SavedModel; returns what its signature `describe` says.

    Args:
      predictor: a trained model and what it was trained on.
      folder: local or remote; a SavedModel that is there is replaced.

    Raises:
      UserError: the folder holds something else or cannot be written to, or the
        dataset was made by another version of the pipeline.
    """
    import keras
    import tensorflow as tf

    from trainer.evaluation.model_files import files_of

    files = files_of(folder)
    ownership.check_folder(files, folder, EXPORT)
    serve = Serving(predictor)
    facts = describe(predictor, list(serve.signatures))
    content = json.dumps(facts, indent=1)

    def describe_export() -> Mapping[str, tf.Tensor]:
        return {"description": tf.constant(content)}

    archive = keras.export.ExportArchive()
    archive.track(predictor.model)
    for name, (function, inputs) in serve.signatures.items():
        archive.add_endpoint(name, function, input_signature=inputs)
    archive.add_endpoint("describe", describe_export, input_signature=[])
    try:
        with tempfile.TemporaryDirectory() as local:
            archive.write_out(local, verbose=False)
            contents = _read_folder(local)
        contents[f"{EXTRA}/description.json"] = f"{content}\n".encode()
        _replace_export(files, folder, contents)
    except (OSError, tf.errors.OpError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error
        raise UserError(
            f"--output cannot be written ({reason}); make room or choose another "
            f"folder. Received: {folder}"
        ) from error
    return facts


def _read_folder(folder: str) -> dict[str, bytes]:
    """The files of a local folder, by path relative to it."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _replace_export(files: Files, folder: str, contents: Mapping[str, bytes]) -> None:
    """Puts a whole export in the place of an earlier one.

    Nothing is touched before all is written. `saved_model.pb` goes first and comes
    last: whoever loads in between finds no model, and never one of two halves.

    Raises:
      UserError: the folder is not ours.
      OSError: it cannot be written to.
    """
    ownership.claim(files, folder, EXPORT)
    last = join(folder, SAVED_MODEL_FILE)
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


def describe(predictor: Network, signatures: Sequence[str]) -> dict[str, Any]:
    """All that a user of the export may want to know: JSON values."""
    manifest = predictor.manifest
    return {
        "export_version": EXPORT_VERSION,
        "genres": list(manifest.genres),
        "representation": predictor.representation,
        "temperature": predictor.temperature,
        **(
            {}
            if predictor.thresholds is None
            else {"thresholds": list(predictor.thresholds)}
        ),
        "fingerprint": manifest.fingerprint,
        "signatures": [*signatures, "describe"],
        "manifest": json.loads(manifest.to_json()),
    }


class Serving:
    """The functions of an exported model.

    Attributes:
      signatures: functions and the inputs that they take, by name.
    """

    def __init__(self, predictor: Network) -> None:
        import tensorflow as tf

        self._predictor = predictor
        layout = predictor.manifest.representations[predictor.representation]
        self._records = layout.records_per_clip
        records = _records_spec(layout.value, self._records)
        self.signatures: dict[
            str, tuple[Callable[..., Mapping[str, tf.Tensor]], list[tf.TensorSpec]]
        ] = {}
        make = find_graph(predictor)
        if make is None:
            self.signatures["serving_default"] = (self._serve_records, [records])
        else:
            self._make = make
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
        kind = tf.as_dtype(layout.value.dtype)
        clip = (self._records, *layout.value.shape)
        self._spec = tf.TensorSpec(clip, kind)
        # Traced once, for all signatures.
        self._answer = tf.function(
            self._compute, input_signature=[tf.TensorSpec((None, *clip), kind)]
        )

    def _serve_audio(self, audio_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        import tensorflow as tf

        from trainer.export.graph_wav import decode_wav

        def represent(data: tf.Tensor) -> tf.Tensor:
            return self._make(*decode_wav(data))

        records = tf.map_fn(represent, audio_bytes, fn_output_signature=self._spec)
        answer: Mapping[str, tf.Tensor] = self._answer(records)
        return answer

    def _serve_pcm(
        self, samples: tf.Tensor, sample_rate: tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        import tensorflow as tf

        def represent(mono: tf.Tensor) -> tf.Tensor:
            return self._make(mono[:, tf.newaxis], sample_rate)

        records = tf.map_fn(represent, samples, fn_output_signature=self._spec)
        answer: Mapping[str, tf.Tensor] = self._answer(records)
        return answer

    def _serve_records(self, records: tf.Tensor) -> Mapping[str, tf.Tensor]:
        import tensorflow as tf

        if self._records == 1:
            records = records[:, tf.newaxis]
        answer: Mapping[str, tf.Tensor] = self._answer(records)
        return answer

    def _compute(self, records: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """From records `(clips, records, ...)` to what a signature returns."""
        import tensorflow as tf

        from trainer.evaluation.calibration import FLOOR
        from trainer.evaluation.tasks.several_scores import FLOOR as PAIR_FLOOR

        predictor = self._predictor
        genres = len(predictor.manifest.genres)
        flat = tf.reshape(records, (-1, *records.shape[2:]))
        outputs = predictor.model(flat, training=False)
        mean = tf.reduce_mean(tf.reshape(outputs, (-1, self._records, genres)), axis=1)
        names = tf.constant(predictor.manifest.genres)
        given: dict[str, tf.Tensor] = {}
        if predictor.manifest.task == MULTI_LABEL:
            p = tf.clip_by_value(mean, PAIR_FLOOR, 1 - PAIR_FLOOR)
            odds = tf.math.log(p) - tf.math.log1p(-p)
            probabilities = tf.sigmoid(odds / predictor.temperature)
            thresholds = predictor.thresholds or [0.5] * genres
            given = {"given": probabilities >= tf.constant(thresholds, tf.float32)}
        else:
            scores = tf.math.log(tf.maximum(mean, FLOOR)) / predictor.temperature
            probabilities = tf.nn.softmax(scores)
        return given | {
            "genre": tf.gather(names, tf.argmax(probabilities, axis=1)),
            "genres": tf.tile(names[tf.newaxis], (tf.shape(mean)[0], 1)),
            "probabilities": probabilities,
        }


def _records_spec(value: Field, records: int) -> tf.TensorSpec:
    import tensorflow as tf

    shape = value.shape if records == 1 else (records, *value.shape)
    return tf.TensorSpec((None, *shape), tf.as_dtype(value.dtype), value.name)


def find_graph(
    predictor: Network,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """What makes records of frames `(n, channels)` and a rate, in the graph.

    Returns:
      None where the representation has no such way.

    Raises:
      UserError: the dataset was made by another version of the pipeline.
    """
    import tensorflow as tf

    from trainer.data.music_model import EMBEDDINGS
    from trainer.export import graph_audio, graph_embeddings
    from trainer.predict.music_model import open_music_model

    if predictor.representation not in (EMBEDDINGS, *graph_audio.COMPUTE):
        return None
    config = predictor.config
    if predictor.representation == EMBEDDINGS:
        weights = open_music_model(predictor.music_model, config.music_model)
        compute = graph_embeddings.find_embeddings(*weights)
    else:
        compute = graph_audio.COMPUTE[predictor.representation]

    def make(frames: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        return compute(graph_audio.make_clip(frames, rate, config), config)

    # Traced once, for all signatures.
    graph: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = tf.function(
        make,
        input_signature=[
            tf.TensorSpec((None, None), tf.float32),
            tf.TensorSpec((), tf.int32),
        ],
    )
    return graph


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh export",
        allow_abbrev=False,
        description=(
            "Exports a trained model as a SavedModel, which takes WAV files and "
            "returns genres with calibrated probabilities, in TensorFlow, TensorFlow "
            "Serving or Vertex AI, without this project."
        ),
    )
    parser.add_argument(
        "--model", required=True, help="model folder that trainer.task has written"
    )
    parser.add_argument(
        "--output", help="folder of the SavedModel (default: MODEL/export)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    allow_any_text()
    flags = make_parser().parse_args(argv)
    output = flags.output or f"{flags.model.rstrip('/')}/export"
    try:
        require_credentials([flags.model, output])
        from trainer.evaluation.model_files import files_of
        from trainer.predict.network import load_network

        ownership.check_folder(files_of(output), output, EXPORT)
        started = time.perf_counter()
        facts = export_model(load_network(flags.model), output)
    except UserError as error:
        print_error(error)
        return 2
    seconds = time.perf_counter() - started
    print(f"{', '.join(facts['signatures'])} ({seconds:.1f} s)")
    print(one_line(output))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Exports a trained model: `./launch.sh export --model MODELS/mel`.

`--format savedmodel` needs neither this project nor Keras to answer. Its signatures:

    serving_default  `audio_bytes`, string (clips,): WAV files as they are
    serve_pcm        `samples`, float32 (clips, n), mono of full scale 1, and
                     `sample_rate`, int32 ()
    serve_records    the representation itself (clips, ...), named as in the manifest
    describe         nothing; returns the manifest and the facts below as JSON

All but the last return `genre`, string (clips,); `genres`, string (clips, genres);
and `probabilities`, float32 (clips, genres), calibrated. Models that read what has no
way from audio in the graph take the records as serving_default.

`--format litert` and `--format onnx` write one file, which returns `probabilities`;
see `trainer.export.files`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.common import ownership
from pipeline.common.credentials import require_credentials
from pipeline.common.owned_kinds import EXPORT
from pipeline.common.plain_text import allow_any_text, print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.schema import UserError

if TYPE_CHECKING:
    from pipeline.schema import Manifest
    from trainer.data.dataset import Dataset
    from trainer.evaluation.tasks.task import AnyReport

FORMATS = ("savedmodel", "litert", "onnx")
#: What each format's file is written and tried with; extras bring it.
MODULES = {
    "savedmodel": (),
    "litert": ("ai_edge_litert",),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
}


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "export",
        description=(
            "Exports a trained model: as a SavedModel, which takes WAV files and "
            "returns genres with calibrated probabilities, in TensorFlow, TensorFlow "
            "Serving or Vertex AI, without this project; or as one file for LiteRT or "
            "ONNX, with its labels beside it."
        ),
        examples=[
            "export --model models/mel",
            "export --model models/mel --output served/1",
        ],
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "--model", required=True, help="model folder: a network's or a baseline's"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", help="folder to write to (default: MODEL/export)")
    output.add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="savedmodel; litert: model.tflite for phones; onnx: model.onnx for "
        "browsers and other languages (default: %(default)s)",
    )
    output.add_argument(
        "--quantize",
        choices=("int8", "float16"),
        help="keep weights so (litert: both, onnx: int8); refused where it costs more "
        "than two points of accuracy (of several genres a clip, of macro average "
        "precision) on the validation clips",
    )
    inputs.add_argument(
        "--data",
        help="dataset that the model was trained on, whose clips tell how near a file "
        "for LiteRT or ONNX is to the model (default: where it was then, if it is "
        "still there)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    allow_any_text()
    flags = make_parser().parse_args(argv)
    for module in MODULES[flags.format]:
        # Not imported yet: tf2onnx would have TensorFlow say all that it likes to.
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    output = flags.output or f"{flags.model.rstrip('/')}/export"
    try:
        return run(flags, output)
    except UserError as error:
        print_error(error)
        return 2


def run(flags: argparse.Namespace, output: str) -> int:
    """Exports; returns the exit code.

    Raises:
      UserError: a flag is wrong, or the model cannot be exported.
    """
    if flags.format == "savedmodel" and (flags.quantize or flags.data):
        name = "quantize" if flags.quantize else "data"
        raise UserError(
            f"--{name} goes with --format litert or onnx. Received: --format savedmodel"
        )
    require_credentials([flags.model, output, *([flags.data] if flags.data else [])])
    import trainer.runtime.quiet  # noqa: F401  (before what imports TensorFlow)
    from trainer.evaluation.model_files import files_of
    from trainer.export import files, saved_model
    from trainer.export.serving import make_model
    from trainer.predict.loading import load_predictor
    from trainer.predict.network import Network

    ownership.check_folder(files_of(output), output, EXPORT)
    started = time.perf_counter()
    predictor = load_predictor(flags.model)
    if flags.format != "savedmodel" and isinstance(predictor, Network):
        files.compute_in_float32(predictor.model)
    model = make_model(predictor)
    if flags.format == "savedmodel":
        facts = saved_model.export_model(model, output)
        path, told = output, ", ".join(facts["signatures"])
        tool = "tensorflow.python.tools.saved_model_cli"
        use = ["run", tool, "show", "--dir", output, "--all"]
    else:
        request = files.Request(
            form=flags.format,
            quantize=flags.quantize,
            folder=output,
            dataset=find_dataset(
                flags.data, flags.model, model.manifest, quantize=bool(flags.quantize)
            ),
        )
        facts = files.export_file(model, predictor, flags.model, request)
        path, told = f"{output}/{request.file_name}", files.summarise(facts)
        use = ["app", "--model", flags.model]
    seconds = time.perf_counter() - started
    Reporter().finish(f"Export: {path} ({told}; {seconds:.1f} s)", use)
    return 0


def find_dataset(
    data: str | None, model: str, manifest: Manifest, *, quantize: bool = False
) -> Dataset | None:
    """The dataset that a model was trained on.

    Args:
      data: its folder, None for where it was when the model was trained.
      model: the model's folder.
      manifest: the model's.
      quantize: whether its clips are to tell what quantization costs.

    Returns:
      None where nothing is named and it is not where it was. Of a cross-validation, the
      dataset of the folds, which had its records, under their fingerprint.

    Raises:
      UserError: what is named is no dataset, or the model heard all of its clips.
    """
    from trainer.data.dataset import open_dataset

    report = _read_report(model)
    if data is None and report is None:
        return None
    try:
        found = open_dataset(report.data if data is None and report else data or "")
    except UserError:
        if data is not None:
            raise
        return None
    same = found.manifest.fingerprint == manifest.fingerprint
    if same or report is None or "folds" not in report.parameters:
        return found if same or data is not None else None
    if quantize:
        raise UserError(
            "--quantize measures what is lost on clips that the model did not hear; "
            "that of a cross-validation has heard all. Export without it, or a model "
            f"of ./launch.sh train. Received: {model}"
        )
    if any(
        getattr(found.manifest, name) != getattr(manifest, name)
        for name in ("genres", "representations", "settings", "inputs")
    ):
        return found if data is not None else None
    return dataclasses.replace(
        found,
        manifest=dataclasses.replace(found.manifest, fingerprint=manifest.fingerprint),
    )


def _read_report(model: str) -> AnyReport | None:
    from trainer.evaluation.model_files import ModelFolder
    from trainer.evaluation.report import REPORT_FILE
    from trainer.evaluation.tasks.task import parse_report

    content = ModelFolder(model).read(REPORT_FILE)
    if content is None:
        return None
    try:
        return parse_report(content, source=REPORT_FILE)
    except UserError:
        return None


if __name__ == "__main__":
    sys.exit(main())

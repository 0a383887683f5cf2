"""Names the genres of a catalogue: `./launch.sh label --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import apache_beam as beam

from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import print_error
from pipeline.common.progress import (
    Reporter,
    add_progress_flags,
    format_seconds,
    take_reporter,
)
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.quiet import silence_beam
from pipeline.inputs.archives.paths import drop_scheme
from pipeline.launch import local, messages
from pipeline.launch.plan import parse_beam_options, run_steps
from pipeline.launch.runners import try_runner
from pipeline.schema import UserError
from pipeline.shards import runs
from trainer.predict.audio import AudioPredictor, add_model_flags
from trainer.predict.label.config import (
    FEW_SHARDS,
    FILES_A_SHARD,
    LEAST_FILES,
    MOST_SHARDS,
    LabelConfig,
)

if TYPE_CHECKING:
    from trainer.predict.label.handler import SharedPredictor

_EPILOG = """\
Any option of Apache Beam may follow, for example
  --direct_running_mode=multi_processing --direct_num_workers=4
Without one, threads of this process share one copy of the models: one for each core,
if memory has room for so many.
The same command goes on after an interruption.
"""
_EXAMPLES = (
    "label --model models/mel --audio music --output labels",
    "label --model models/mel --model models/features \\\n"
    "      --audio 'music/**.mp3' more.zip --output labels --by_excerpt",
)


def make_parser(
    name: str = "label", *, epilog: str = _EPILOG, examples: Sequence[str] = _EXAMPLES
) -> CommandParser:
    """The job's own flags.

    Args:
      name: of the command.
      epilog: what else may follow.
      examples: of the command.
    """
    parser = CommandParser(
        name,
        description="Names the genres of all files of a catalogue, as Parquet and "
        "JSONL.",
        epilog=epilog,
        examples=examples,
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "--audio",
        required=True,
        nargs="+",
        action="extend",
        type=drop_scheme,
        metavar="GLOB",
        help="a folder with all that it holds, a ZIP, or a quoted glob, also of ZIPs, "
        "here or on any Beam file system, as for preprocess; several are taken as one",
    )
    add_model_flags(parser, "model")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        required=True,
        type=drop_scheme,
        metavar="DIR",
        help="folder, local or gs://",
    )
    output.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="how many genres the column top names (default: %(default)s)",
    )
    output.add_argument(
        "--by_excerpt",
        action="store_true",
        help="a row for each 30 s excerpt, with its start, in place of one a file",
    )
    output.add_argument(
        "--embeddings",
        action="store_true",
        help="a column embedding: what the network's last layer reads",
    )
    output.add_argument(
        "--num_shards",
        type=int,
        metavar="N",
        help="files of each kind, and units of work (default: one for each "
        f"{FILES_A_SHARD} files, {MOST_SHARDS} at most; for few files, one for each "
        f"{LEAST_FILES}, {FEW_SHARDS} at most)",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace completed labels, which stay until the new ones are complete; of "
        "unfinished ones that replace none, keep nothing (default: the shards that an "
        "unfinished job has finished are kept)",
    )
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Labels; returns the exit code."""
    silence_beam()
    parser = make_parser()
    flags, rest = parser.parse_known_args(argv)
    reporter = take_reporter(flags)
    started = time.monotonic()
    job = None
    try:
        # Refuses unknown ones before any work.
        options = parse_beam_options(rest, parser.flags)
        rest += local.ask_for_threads(options, rest)
        options = parse_beam_options(rest)
        askers = 0 if local.has_spare_cores(options) else local.count_threads(options)
        config, files, models = check(flags, askers=askers)
        reporter.note(describe(config, files))
        try_runner(options, rest)
        config = job = prepare(config, reporter, overwrite=flags.overwrite)
        run(config, models, files, rest, reporter)
    except UserError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        reporter.warn(f"\ninterrupted; {messages.GO_ON}")
        return 130
    except Exception as error:
        # Beam wraps or, from a worker process, quotes what was raised.
        message = messages.explain_failure(error)
        if job is not None and runs.is_superseded(job):
            message = runs.describe(runs.home(job))
        if message is None:
            raise
        print_error(message)
        return 1
    from trainer.predict.label.launch import describe_result

    reporter.note(f"{describe_result(runs.home(config))}\n")
    seconds = format_seconds(time.monotonic() - started)
    reporter.finish(
        f"Labels: {runs.home(config)} ({seconds})",
        ["app", *(word for model in config.models for word in ("--model", model))],
    )
    return 0


def check(
    flags: argparse.Namespace, *, askers: int = 0
) -> tuple[LabelConfig, int, SharedPredictor]:
    """Checks models, inputs and output.

    Args:
      flags: of `make_parser`.
      askers: threads of this process that will ask the models, where there is one for
        each core; else 0.

    Returns:
      The job, the number of files, and the models for all threads of this process.

    Raises:
      UserError: the job could not run, or its output is there already.
    """
    require_credentials([*flags.model, flags.output])
    import trainer.runtime.quiet  # noqa: F401  (before what imports TensorFlow)
    from trainer.predict.label.handler import SharedPredictor, use_one_thread
    from trainer.predict.label.launch import make_config
    from trainer.predict.network import Embedder

    if askers:
        use_one_thread(askers)
    models = SharedPredictor(flags.model)
    predictor = models.load()
    # What is wrong with them is noticed here and not by every worker.
    AudioPredictor(predictor)
    if flags.embeddings:
        Embedder(predictor)
    config, files = make_config(flags, predictor)
    return config, len(files), models


def describe(config: LabelConfig, files: int) -> str:
    """A line on what a job is about to do."""
    models = f"{len(config.models)} models" if len(config.models) > 1 else "1 model"
    return (
        f"{files:,} files, {models}, {len(config.genres)} genres; "
        f"{config.num_shards} shards."
    )


def prepare(config: LabelConfig, reporter: Reporter, *, overwrite: bool) -> LabelConfig:
    """Takes over the output folder, and says what stays of an earlier job.

    Args:
      config: of the job.
      reporter: is told.
      overwrite: replace the labels of a completed job.

    Returns:
      The job with the folder to write to.
    """
    from trainer.predict.label.launch import prepare_output

    config, finished = prepare_output(config, overwrite=overwrite)
    if finished:
        reporter.note(messages.describe_resumption(finished, config.num_shards))
    return config


def run(
    config: LabelConfig,
    models: SharedPredictor,
    files: int,
    flags: Sequence[str],
    reporter: Reporter,
) -> None:
    """Runs the job on whatever runner Beam's flags name, and waits for its end.

    Args:
      config: of the job.
      models: its models.
      files: number of files to read.
      flags: of Beam.
      reporter: is told how far it is.
    """
    from trainer.predict.label.graph import build

    def add_steps(pipeline: beam.Pipeline, here: local.LocalRun) -> None:
        changed = dataclasses.replace(
            config,
            progress_file=here.progress_file,
            launcher=here.launcher,
            spare_cores=here.spare_cores,
        )
        build(pipeline, changed, models)

    run_steps(add_steps, files, flags, reporter)


if __name__ == "__main__":
    sys.exit(main())

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
from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import make_reporter
from pipeline.launch import local, messages
from pipeline.launch.plan import parse_beam_options, run_steps
from pipeline.launch.runners import try_runner
from pipeline.schema import UserError
from pipeline.shards import runs
from trainer.config import EXCERPTS

if TYPE_CHECKING:
    from trainer.predict.label.config import LabelConfig

_EPILOG = """\
Any option of Apache Beam may follow, for example
  --direct_running_mode=multi_processing --direct_num_workers=4
Without one, this machine's cores are used where the number of files is worth
starting workers. The same command goes on after an interruption.

example:
  ./launch.sh label --model models/mel --audio 'music/**.mp3' --output labels
"""


def make_parser(program: str = "label") -> argparse.ArgumentParser:
    """The job's own flags."""
    parser = argparse.ArgumentParser(
        prog=f"./launch.sh {program}",
        description="Names the genres of all files of a catalogue, as Parquet and "
        "JSONL.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="DIR",
        help="model folder; give it more than once for the mean of several models",
    )
    parser.add_argument(
        "--audio",
        required=True,
        metavar="GLOB",
        help="a folder with all that it holds, or a quoted glob, here or on any Beam "
        "file system, as for preprocess",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder, local or gs://"
    )
    parser.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="how many genres the column top names (default: %(default)s)",
    )
    parser.add_argument(
        "--excerpts",
        type=int,
        default=EXCERPTS,
        metavar="N",
        help="of a long file, so many excerpts at most (default: %(default)s)",
    )
    parser.add_argument(
        "--by_excerpt",
        action="store_true",
        help="a row for each 30 s excerpt, with its start, in place of one a file",
    )
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="a column embedding: what the network's last layer reads",
    )
    parser.add_argument(
        "--num_shards",
        type=int,
        metavar="N",
        help="files of each kind, and units of work (default: by the number of files)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the labels of a completed job",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Labels; returns the exit code."""
    local.quiet()
    flags, rest = make_parser().parse_known_args(argv)
    started = time.monotonic()
    config = None
    try:
        options = parse_beam_options(rest)  # Refuses unknown ones before any work.
        config, files = check(flags)
        print(describe(config, files), flush=True)
        try_runner(options, rest)
        prepare(config, overwrite=flags.overwrite)
        run(config, files, rest)
    except UserError as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {messages.GO_ON}", file=sys.stderr)
        return 130
    except Exception as error:
        # Beam wraps or, from a worker process, quotes what was raised.
        message = messages.explain_failure(error)
        if config is not None and runs.is_superseded(config):
            message = runs.describe(config.output)
        if message is None:
            raise
        print_error(message)
        return 1
    from trainer.predict.label.launch import describe_result

    print(describe_result(config.output))
    seconds = time.monotonic() - started
    print(f"\nLabels: {one_line(config.output)} ({seconds:.0f} s)")
    return 0


def check(flags: argparse.Namespace) -> tuple[LabelConfig, int]:
    """Checks models, inputs and output.

    Returns:
      The job, and the number of files.

    Raises:
      UserError: the job could not run, or its output is there already.
    """
    require_credentials([*flags.model, flags.output])
    import trainer.runtime.quiet  # noqa: F401  (before what imports TensorFlow)
    from trainer.predict.audio import AudioPredictor
    from trainer.predict.label.launch import make_config
    from trainer.predict.loading import load_predictors
    from trainer.predict.network import Embedder

    predictor = load_predictors(flags.model)
    # What is wrong with them is noticed here and not by every worker.
    AudioPredictor(predictor)
    if flags.embeddings:
        Embedder(predictor)
    config, files = make_config(flags, predictor)
    return config, len(files)


def describe(config: LabelConfig, files: int) -> str:
    """A line on what a job is about to do."""
    models = f"{len(config.models)} models" if len(config.models) > 1 else "1 model"
    return (
        f"{files:,} files, {models}, {len(config.genres)} genres; "
        f"{config.num_shards} shards."
    )


def prepare(config: LabelConfig, *, overwrite: bool) -> None:
    """Takes over the output folder, and says what stays of an earlier job.

    Args:
      config: of the job.
      overwrite: replace the labels of a completed job.
    """
    from trainer.predict.label.launch import prepare_output

    finished = prepare_output(config, overwrite=overwrite)
    if finished:
        print(
            f"{finished} of {config.num_shards} shards are there from a job that did "
            "not end; they are kept where files, models and options are the same.",
            flush=True,
        )


def run(config: LabelConfig, files: int, flags: Sequence[str]) -> None:
    """Runs the job on whatever runner Beam's flags name, and waits for its end.

    Args:
      config: of the job.
      files: number of files to read.
      flags: of Beam.
    """
    from trainer.predict.label.graph import build

    def add_steps(pipeline: beam.Pipeline, here: local.LocalRun) -> None:
        changed = dataclasses.replace(
            config, progress_file=here.progress_file, launcher=here.launcher
        )
        build(pipeline, changed)

    run_steps(add_steps, files, flags, make_reporter())


if __name__ == "__main__":
    sys.exit(main())

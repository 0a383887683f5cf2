"""Command line of the pipeline: `python -m pipeline.preprocess --help`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from pipeline import estimate, local, preflight, storage, summary
from pipeline.completion import (
    REPORT_FILE,
    CompletionConfig,
    IncompleteDatasetError,
)
from pipeline.config import EXCERPTS, MEL_CHANNELS, ClipConfig
from pipeline.job import JobConfig, build
from pipeline.metadata import SUBSETS, MetadataConfig, glob_base
from pipeline.representations import DEFAULTS, NAMES
from pipeline.schema import UserError
from pipeline.shards import DatasetConfig
from pipeline.splits import SPLIT_RULES, SplitConfig

_EPILOG = """\
Any option of Apache Beam may follow, for example
  --direct_running_mode=multi_processing --direct_num_workers=4
Without one, this machine's cores are used where the number of clips is worth
starting workers.

examples:
  python -m pipeline.preprocess --audio 'fma_small/**.mp3' \\
      --metadata fma_metadata/tracks.csv --subset small --output dataset
  python -m pipeline.preprocess --audio 'music/**.flac' --metadata genres.csv \\
      --output dataset
"""


def make_parser() -> argparse.ArgumentParser:
    """The pipeline's own flags."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.preprocess",
        description="Turns audio files and their genres into sharded TFRecords.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    clip, dataset = ClipConfig(), DatasetConfig
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "--audio",
        required=True,
        metavar="GLOB",
        help="audio files on any Beam file system, e.g. 'gs://bucket/fma_small/**.mp3'",
    )
    inputs.add_argument(
        "--metadata",
        required=True,
        metavar="FILE",
        help="FMA's tracks.csv, or a CSV path,genre[,track_id,artist_id,split] with "
        "paths relative to the glob's folder",
    )
    inputs.add_argument(
        "--subset",
        default="full",
        choices=SUBSETS,
        help="FMA subset; each includes the smaller ones (default: full, all tracks)",
    )
    inputs.add_argument(
        "--genres",
        default="",
        metavar="A,B,...",
        help="use only these genres, with labels in this order (default: all)",
    )
    inputs.add_argument(
        "--split",
        choices=SPLIT_RULES,
        help="fma: the split in the metadata; hash: by a hash of the artist "
        "(default: fma where the metadata has splits)",
    )
    inputs.add_argument(
        "--split_percent",
        default="80,10,10",
        metavar="A,B,C",
        help="share of training,validation,test with --split hash (default: "
        "%(default)s; the 2020 article: 80,0,20)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", metavar="DIR", help="dataset folder, local or gs://"
    )
    output.add_argument(
        "--estimate",
        action="store_true",
        help="write nothing; measure a few clips and print what the job will take",
    )
    output.add_argument(
        "--representations",
        nargs="+",
        default=list(DEFAULTS),
        choices=NAMES,
        metavar="NAME",
        help=f"which of {', '.join(NAMES)} (default: {' '.join(DEFAULTS)})",
    )
    output.add_argument(
        "--num_shards",
        type=int,
        default=dataset.num_shards,
        help="files of each split of each representation, and units of work: at least "
        "four a worker (default: %(default)s)",
    )
    output.add_argument(
        "--wav_output",
        default="",
        metavar="DIR",
        help="also keep each decoded clip as a WAV; a later run can read those",
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace a completed dataset"
    )
    output.add_argument(
        "--max_reject_ratio",
        type=float,
        default=0.5,
        metavar="X",
        help="fail if a larger share of the audio files cannot be used (default: "
        "%(default)s)",
    )
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--windows_per_clip",
        type=int,
        default=clip.windows_per_clip,
        metavar="N",
        help="raw windows of 10,000 samples a clip (default: %(default)s)",
    )
    clips.add_argument(
        "--mel_channels",
        choices=MEL_CHANNELS,
        default=clip.mel_channels,
        help="the image's channels: mean, maximum and minimum power, or the mean "
        "repeated (default: %(default)s)",
    )
    clips.add_argument(
        "--min_duration",
        type=float,
        default=clip.min_duration,
        metavar="SECONDS",
        help="reject shorter files; those that are longer but short of 30 s are "
        "repeated (default: %(default)s)",
    )
    clips.add_argument(
        "--excerpt",
        choices=EXCERPTS,
        default=clip.excerpt,
        help="which 30 s of a file over 31 s (default: %(default)s)",
    )
    return parser


def parse_beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parses Beam's options, refusing what it does not know.

    Raises:
      UserError: an option is neither ours nor Beam's.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for group in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):
            group._add_argparse_args(known)
    _, unknown = known.parse_known_args(list(arguments))
    if unknown:
        raise UserError(f"unknown option; see --help. Received: {' '.join(unknown)}")
    options = PipelineOptions(list(arguments))
    # Nothing lives in __main__, so nothing of it has to travel.
    options.view_as(SetupOptions).save_main_session = False
    return options


def make_job(arguments: argparse.Namespace) -> tuple[JobConfig, preflight.Inputs]:
    """Checks the arguments against the inputs.

    Raises:
      UserError: the job would make no sense.
    """
    if arguments.num_shards < 1:
        raise UserError(
            f"--num_shards must be 1 or more. Received: {arguments.num_shards}"
        )
    if not 0 <= arguments.max_reject_ratio <= 1:
        raise UserError(
            "--max_reject_ratio must lie between 0 and 1. Received: "
            f"{arguments.max_reject_ratio:g}"
        )
    clip = ClipConfig(
        windows_per_clip=arguments.windows_per_clip,
        mel_channels=arguments.mel_channels,
        min_duration=arguments.min_duration,
        excerpt=arguments.excerpt,
    )
    metadata = MetadataConfig(
        path=arguments.metadata,
        subset=arguments.subset,
        genres=tuple(g.strip() for g in arguments.genres.split(",") if g.strip()),
        split=_make_split(arguments),
        audio_base=glob_base(arguments.audio),
    )
    inputs = preflight.inspect_inputs(arguments.audio, metadata)
    dataset = DatasetConfig(
        output=arguments.output or "",
        # In their own order, each once, however they were given.
        representations=tuple(n for n in NAMES if n in arguments.representations),
        clip=clip,
        genres=inputs.genres,
        num_shards=arguments.num_shards,
        wav_output=arguments.wav_output,
        audio_base=metadata.audio_base,
    )
    completion = CompletionConfig(
        dataset=dataset,
        split_rule=inputs.layout.split.describe(),
        max_reject_ratio=arguments.max_reject_ratio,
        versions=preflight.find_versions(),
    )
    job = JobConfig(
        audio=arguments.audio,
        metadata=metadata,
        metadata_kind=inputs.layout.kind,
        completion=completion,
    )
    return job, inputs


def _make_split(arguments: argparse.Namespace) -> SplitConfig | None:
    if arguments.split is None:
        return None
    try:
        training, validation, test = map(float, arguments.split_percent.split(","))
    except ValueError as error:
        raise UserError(
            "--split_percent takes three numbers, e.g. 80,10,10. Received: "
            f"{arguments.split_percent}"
        ) from error
    return SplitConfig(rule=arguments.split, percent=(training, validation, test))


def run_job(job: JobConfig, inputs: preflight.Inputs, flags: Sequence[str]) -> None:
    """Runs a job on whatever runner Beam's flags name, and waits for its end."""
    options = parse_beam_options(flags)
    if not local.is_local(options):
        with beam.Pipeline(options=options) as pipeline:
            build(pipeline, job)
        return
    local.choose_mode(options, flags, len(inputs.clips), os.cpu_count() or 1)
    print(f"Running {local.describe_mode(options)}.", flush=True)
    with local.show_progress(len(inputs.clips)) as progress_file:
        dataset = dataclasses.replace(
            job.completion.dataset, progress_file=progress_file
        )
        completion = dataclasses.replace(job.completion, dataset=dataset)
        pipeline = beam.Pipeline(runner=local.make_runner(options), options=options)
        build(pipeline, dataclasses.replace(job, completion=completion))
        local.run(pipeline)


def estimate_job(job: JobConfig, inputs: preflight.Inputs) -> str:
    """Measures a few clips and says what the whole job takes."""
    if not inputs.clips:
        raise UserError(
            "No file of --audio belongs to a wanted track of --metadata. Received: "
            f"{job.audio} and {job.metadata.path}"
        )
    prices = estimate.Prices()
    files = estimate.spread(inputs.clips)
    sample = estimate.measure(files, job.completion.dataset)
    return estimate.describe(
        estimate.extrapolate(inputs.clips, sample, prices), sample, prices
    )


def read_report(output: str) -> dict[str, Any]:
    """Reads the counters and distributions of a finished job."""
    report = json.loads(storage.read_text(storage.join(output, REPORT_FILE)))
    if not isinstance(report, dict):
        raise TypeError(report)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Preprocesses; returns the exit code."""
    local.quiet()
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if not arguments.output and not arguments.estimate:
        parser.error("the following arguments are required: --output")
    started = time.monotonic()
    output = arguments.output
    try:
        parse_beam_options(rest)  # Refuses unknown ones before any work.
        job, inputs = make_job(arguments)
        print(summary.describe_inputs(inputs, job), flush=True)
        if arguments.estimate:
            print(f"\n{estimate_job(job, inputs)}")
            return 0
        preflight.prepare_output(output, overwrite=arguments.overwrite)
        preflight.make_folders(output, job.completion.dataset.representations)
        run_job(job, inputs, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        # Beam wraps or, from a worker process, quotes what was raised.
        message = summary.find_message(error, IncompleteDatasetError)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    print(summary.make_table(read_report(output)))
    seconds = time.monotonic() - started
    print(f"\nDataset: {output} ({seconds:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Command line of the pipeline: `python -m pipeline.preprocess --help`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from pipeline import estimate, local, preflight, storage, summary
from pipeline.cloud import gcs
from pipeline.completion import CompletionConfig
from pipeline.config import EXCERPTS, MEL_CHANNELS, ClipConfig
from pipeline.dataset_files import REPORT_FILE
from pipeline.job import JobConfig, build
from pipeline.leaks import POLICIES
from pipeline.metadata import SUBSETS, MetadataConfig, glob_base
from pipeline.progress import DatasetConfig
from pipeline.representations import DEFAULTS, NAMES
from pipeline.runners import check_runner
from pipeline.schema import MANIFEST_FILE, Manifest, UserError
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
    inputs.add_argument(
        "--leaks",
        choices=POLICIES,
        default=POLICIES[0],
        help="clips whose artist, or very audio, is also in another split: leave them "
        "out of training (and of validation, if it is in test), or keep them (default: "
        "%(default)s)",
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
        "--overwrite",
        action="store_true",
        help="replace a completed dataset, and keep nothing of an unfinished one; "
        "without it, the shards that an unfinished job has finished are kept",
    )
    output.add_argument(
        "--max_reject_ratio",
        type=float,
        default=0.5,
        metavar="X",
        help="fail if a larger share of the audio files cannot be used (default: "
        "%(default)s)",
    )
    output.add_argument(
        "--description",
        default="",
        metavar="TEXT",
        help="what the corpus is, in a sentence; the manifest, reports and model "
        "cards carry it (begin with Synthetic where nobody recorded the music)",
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
    clips.add_argument(
        "--ignore_checksums",
        action="store_true",
        help="take MP3 and FLAC files whose audio is not what their own checksum says: "
        "damaged ones, and those that were edited without decoding (as by mp3gain)",
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
    check_runner(options)
    # Nothing lives in __main__, so nothing of it has to travel.
    options.view_as(SetupOptions).save_main_session = False
    return options


def make_job(
    arguments: argparse.Namespace, inputs: preflight.Inputs | None = None
) -> tuple[JobConfig, preflight.Inputs]:
    """Checks the arguments against the inputs.

    Args:
      arguments: of `make_parser`.
      inputs: what is there; None: look.

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
        ignore_checksums=arguments.ignore_checksums,
    )
    metadata = MetadataConfig(
        path=arguments.metadata,
        subset=arguments.subset,
        genres=tuple(g.strip() for g in arguments.genres.split(",") if g.strip()),
        split=_make_split(arguments),
        audio_base=glob_base(arguments.audio),
    )
    if inputs is None:
        paths = [arguments.audio, arguments.metadata]
        gcs.check_readable([*paths, arguments.output, arguments.wav_output])
        inputs = preflight.inspect_inputs(arguments.audio, metadata)
    versions = preflight.find_versions()
    dataset = DatasetConfig(
        output=arguments.output or "",
        # In their own order, each once, however they were given.
        representations=tuple(n for n in NAMES if n in arguments.representations),
        clip=clip,
        genres=inputs.genres,
        num_shards=arguments.num_shards,
        wav_output=arguments.wav_output,
        audio_base=metadata.audio_base,
        tools=preflight.fingerprint_tools(versions),
        run=uuid.uuid4().hex,
    )
    completion = CompletionConfig(
        dataset=dataset,
        split_rule=inputs.layout.split.describe(),
        max_reject_ratio=arguments.max_reject_ratio,
        versions=versions,
        description=arguments.description,
    )
    job = JobConfig(
        audio=arguments.audio,
        metadata=metadata,
        metadata_kind=inputs.layout.kind,
        completion=completion,
        leaks=arguments.leaks,
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
            job.completion.dataset,
            progress_file=progress_file,
            launcher=os.getpid(),
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


def read_manifest(output: str) -> Manifest:
    """Reads the manifest of a finished job."""
    path = storage.join(output, MANIFEST_FILE)
    return Manifest.from_json(storage.read_text(path), source=path)


def note_command(job: JobConfig, argv: Sequence[str]) -> JobConfig:
    """Lets the dataset's report say what makes the same again."""
    command = shlex.join(["python", "-m", "pipeline.preprocess", *argv])
    completion = dataclasses.replace(job.completion, command=command)
    return dataclasses.replace(job, completion=completion)


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
        job = note_command(job, sys.argv[1:] if argv is None else argv)
        print(summary.describe_inputs(inputs, job), flush=True)
        if arguments.estimate:
            print(f"\n{estimate_job(job, inputs)}")
            return 0
        dataset = job.completion.dataset
        finished = preflight.prepare_output(dataset, overwrite=arguments.overwrite)
        if finished:
            print(summary.describe_resumption(finished, dataset), flush=True)
        run_job(job, inputs, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {summary.GO_ON}", file=sys.stderr)
        return 130
    except Exception as error:
        # Beam wraps or, from a worker process, quotes what was raised.
        message = summary.explain_failure(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    print(summary.make_table(read_report(output)))
    print(f"\n{summary.describe_integrity(read_manifest(output))}")
    seconds = time.monotonic() - started
    print(f"\nDataset: {output} ({seconds:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Command line of the pipeline: `./launch.sh preprocess --help`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from pipeline.common.clip_config import (
    EMBEDDING_RECORDS,
    EXCERPTS,
    MEL_CHANNELS,
    ClipConfig,
)
from pipeline.common.plain_text import print_error
from pipeline.common.progress import add_progress_flags, format_seconds, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.quiet import optional_hidden, silence_beam
from pipeline.inputs.archives.paths import drop_scheme
from pipeline.inputs.genres import LABELS, SEPARATOR
from pipeline.inputs.metadata import SUBSETS
from pipeline.inputs.splits import SPLIT_RULES
from pipeline.job.normalisation.process import select_schemas, start_analyst
from pipeline.representations import DEFAULTS, NAMES
from pipeline.representations.music_model import DEFAULT_MODEL, MODELS
from pipeline.schema import UserError
from pipeline.shards.leaks import POLICIES
from pipeline.shards.result import DatasetConfig

_EPILOG = """\
Any option of Apache Beam may follow, for example
  --direct_running_mode=multi_processing --direct_num_workers=4
Without one, this machine's cores are used where the number of clips is worth
starting workers.

examples:
  ./launch.sh preprocess --audio 'fma_small/**.mp3' \\
      --metadata fma_metadata/tracks.csv --subset small --output dataset
  ./launch.sh preprocess --audio 'music/**.flac' --metadata genres.csv \\
      --output dataset
"""


def make_parser() -> CommandParser:
    """The pipeline's own flags."""
    parser = CommandParser(
        "preprocess",
        description="Turns audio files and their genres into sharded TFRecords.",
        epilog=_EPILOG,
    )
    clip, dataset = ClipConfig(), DatasetConfig
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "--audio",
        required=True,
        nargs="+",
        action="extend",
        type=drop_scheme,
        metavar="GLOB",
        help="a folder with all that it holds, a ZIP (also in part: "
        "'fma_small.zip!/fma_small/00*/**'), or a quoted glob, also of ZIPs, here or "
        "on any Beam file system, e.g. 'gs://bucket/fma_small/**.mp3': * and ? within "
        "a name, ** across folders, **/ any folders or none, [ab], {a,b}, [[] for a "
        "bracket; case does not matter in extensions, linked folders are followed "
        "once; several are taken as one",
    )
    inputs.add_argument(
        "--metadata",
        required=True,
        type=drop_scheme,
        metavar="FILE",
        help="FMA's tracks.csv, or the ZIP that holds it, or a CSV "
        "path,genre[,track_id,artist_id,split] with paths relative to the glob's "
        "folder; a path without audio extension, or with another one, takes the file "
        "that fits where there is one alone",
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
        "--labels",
        choices=LABELS,
        default=LABELS[0],
        help="top: one genre a track (FMA: genre_top); all: every genre that it has, "
        "with its ancestors (FMA: genres_all); leaf: those that are no ancestor of "
        "another one (default: %(default)s)",
    )
    inputs.add_argument(
        "--genres_file",
        type=drop_scheme,
        default="",
        metavar="FILE",
        help="the tree of genres, a CSV with genre_id,parent,title, for --labels all "
        "and leaf (default: genres.csv beside FMA's tracks.csv; a plain CSV's genres "
        "are in no tree)",
    )
    inputs.add_argument(
        "--genre_separator",
        metavar="TEXT",
        help="between the genres of a plain CSV with --labels all or leaf (default: "
        f"{SEPARATOR})",
    )
    inputs.add_argument(
        "--min_tracks",
        type=int,
        default=0,
        metavar="N",
        help="leave out genres with fewer tracks that have a file, as if --genres did "
        "not name them (default: %(default)s)",
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
        choices=NAMES,
        metavar="NAME",
        help=f"which of {', '.join(NAMES)} (default: {' '.join(DEFAULTS)}, and "
        "embeddings where the music model's weights are there)",
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
        help="also keep each decoded clip as a WAV, which a later run can read; where "
        "two would have one name, .wav is added to the whole name",
    )
    output.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a completed dataset, which stays until the new one is complete; "
        "of an unfinished one that replaces none, keep nothing (default: the shards "
        "that an unfinished job has finished are kept)",
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
        "cards carry it",
    )
    output.add_argument(
        "--synthetic",
        action="store_true",
        help="nobody recorded the music: reports and model cards say that scores on it "
        "mean nothing for real music",
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
        "--mel_images_per_clip",
        type=int,
        default=clip.mel_images_per_clip,
        metavar="N",
        help="mel images a clip, of 3 s each and evenly spaced; 1: the whole clip in "
        "one image, as in the 2020 article (default: %(default)s)",
    )
    clips.add_argument(
        "--music_model",
        default="",
        metavar="NAME|FILE",
        help=f"network that makes the embeddings: {', '.join(MODELS)}, or a file of "
        f"weights, also on gs:// (default: {DEFAULT_MODEL} where ./launch.sh weights "
        "has fetched it)",
    )
    clips.add_argument(
        "--embedding_patches",
        type=int,
        default=clip.embedding_patches,
        metavar="N",
        help="patches of 3 s of a clip that the network hears (default: %(default)s)",
    )
    clips.add_argument(
        "--embedding_records",
        choices=EMBEDDING_RECORDS,
        default=clip.embedding_records,
        help="one embedding a clip, the mean over its patches, or one a patch "
        "(default: %(default)s)",
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
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Preprocesses; returns the exit code."""
    silence_beam()
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if not arguments.output and not arguments.estimate:
        parser.error("the following arguments are required: --output")
    command = sys.argv[1:] if argv is None else argv
    with _start_analyst(arguments, rest) as analyst:
        return preprocess(arguments, rest, command, analyst=analyst)


def _start_analyst(
    arguments: argparse.Namespace, rest: Sequence[str]
) -> contextlib.AbstractContextManager[str]:
    """Starts what takes longest first, where a job on this machine will ask it."""
    elsewhere = any(option.startswith("--runner") for option in rest)
    names = arguments.representations or DEFAULTS
    config = ClipConfig(music_model=DEFAULT_MODEL)
    if elsewhere or arguments.estimate or not select_schemas(names, config):
        return contextlib.nullcontext("")
    return start_analyst()


def preprocess(
    arguments: argparse.Namespace,
    rest: Sequence[str],
    command: Sequence[str],
    *,
    name: str = "preprocess",
    choose_shards: bool = False,
    detach: bool = False,
    analyst: str = "",
) -> int:
    """Does what a command line asks for; returns the exit code.

    Args:
      arguments: of `make_parser`.
      rest: Beam's options.
      command: as it was given, for the dataset's report.
      name: of the command.
      choose_shards: by the number of clips.
      detach: leave a job alone once it runs on a cluster.
      analyst: address of a process that has been started for the job.
    """
    # Beam takes a second to be imported; what can start without it does.
    with optional_hidden():
        from pipeline.inspect import reading
        from pipeline.launch import messages, plan
        from pipeline.launch import output as outputs
        from pipeline.launch.flink.run import ClusterJobError, DetachedError
        from pipeline.shards import runs

    reporter = take_reporter(arguments)
    started = time.monotonic()
    output = arguments.output
    dataset = None
    try:
        # Refuses unknown ones, and a cluster that is not there, before any work.
        cluster = plan.find_cluster(plan.parse_beam_options(rest, make_parser().flags))
        if cluster is not None:
            plan.make_paths_absolute(arguments)
            output = arguments.output
        job, inputs = plan.make_job(arguments)
        if choose_shards:
            job = job.with_dataset(num_shards=plan.suggest_shards(len(inputs.clips)))
        job = plan.note_command(job, command, name)
        reporter.note(messages.describe_inputs(inputs, job))
        for line in messages.describe_music_model(job, arguments.representations):
            reporter.note(line)
        if arguments.estimate:
            reporter.result(f"\n{plan.estimate_job(job, inputs)}")
            return 0
        with plan.checked_runner(
            job, inputs, rest, cluster, detach=detach, reporter=reporter
        ) as run:
            job, finished = outputs.prepare_job(
                job, inputs, overwrite=arguments.overwrite
            )
            dataset = job.dataset
            if finished:
                reporter.note(
                    messages.describe_resumption(finished, dataset.num_shards)
                )
            run(job.with_dataset(analyst=analyst))
    except UserError as error:
        print_error(error)
        return 2
    except DetachedError as detached:
        reporter.finish(str(detached).splitlines(), ["inspect", output])
        return 0
    except ClusterJobError as error:
        print_error(error)
        return 1
    except KeyboardInterrupt:
        reporter.warn(f"\ninterrupted; {messages.GO_ON}")
        return 130
    except Exception as error:
        # Beam wraps or, from a worker process, quotes what was raised.
        message = messages.explain_failure(error)
        if dataset is not None and runs.is_superseded(dataset):
            message = runs.describe(output)
        if message is None:
            raise
        print_error(message)
        return 1
    report = reading.read_report(output)
    reporter.detail(messages.make_table(report) + "\n")
    if not reporter.verbose:
        reporter.note(messages.summarise(report))
    reporter.note(messages.describe_integrity(reading.read_manifest(output)))
    seconds = format_seconds(time.monotonic() - started)
    size = sum(report["record_bytes"].values()) / 1e6
    reporter.finish(
        f"Dataset: {output}, {size:,.1f} MB ({seconds})",
        ["train", "--data", output],
        ["inspect", output],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

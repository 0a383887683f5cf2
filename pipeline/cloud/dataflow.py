"""Preprocesses on Google Cloud Dataflow: `./launch.sh dataflow --help`.

The job, its flags and its dataset are those of `pipeline.preprocess`. This module
adds what a submission needs: defaults for a bucket's layout, checks that cost
seconds here and would cost half an hour there, Dataflow's options, a follower.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import preprocess
from pipeline.cloud.dry_run import assume_job, describe_unchecked
from pipeline.cloud.follow import Follower
from pipeline.cloud.submission import (
    DISK_GB,
    AddSteps,
    DataflowConfig,
    check_service,
    console_link,
    make_options,
    make_request,
    submit,
)
from pipeline.common import gcs
from pipeline.common.credentials import SCHEME, UnreachableError
from pipeline.common.plain_text import print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser, is_given
from pipeline.common.quiet import silence_beam
from pipeline.inputs.archives.paths import drop_scheme
from pipeline.inputs.metadata import SUBSETS
from pipeline.inputs.survey import Inputs
from pipeline.inspect import reading
from pipeline.job.config import JobConfig
from pipeline.job.graph import build
from pipeline.launch import estimate, messages
from pipeline.launch.output import check_output, prepare_job
from pipeline.launch.plan import make_job, parse_beam_options, suggest_shards
from pipeline.schema import UserError
from pipeline.shards.runs import SupersededError

#: Clips decoded here for the estimate.
ESTIMATE_CLIPS = 6

_EPILOG = """\
With --label, the job names the genres of files with a model in place of making a
dataset: see --label --help.

All options of `pipeline.preprocess` (representations, shards, clips, ...) and all of
Apache Beam may follow, for example --representations mel --no_use_public_ips.

Without --container the workers install the locked dependencies when they start, which
takes minutes and needs access to PyPI; docker/dataflow.Dockerfile makes an image that
has them. docs/cloud.md tells the whole way.

example:
  ./launch.sh dataflow --project my-project --region europe-west1 \\
      --bucket my-bucket --subset medium --max_workers 20 --wait
"""


def make_parser() -> CommandParser:
    """Flags of the submission; `pipeline.preprocess` has the others."""
    parser = CommandParser(
        "dataflow",
        description="Turns audio files in a bucket into sharded TFRecords, on "
        "Dataflow.",
        epilog=_EPILOG,
    )
    add_cloud_flags(parser)
    data = parser.add_argument_group("data, all on gs://")
    data.add_argument("--subset", choices=SUBSETS, help="FMA subset (default: small)")
    data.add_argument(
        "--audio",
        nargs="+",
        action="extend",
        type=drop_scheme,
        metavar="GLOB",
        help="default: gs://BUCKET/fma_SUBSET/**.mp3",
    )
    data.add_argument(
        "--metadata",
        type=drop_scheme,
        metavar="FILE",
        help="default: gs://BUCKET/fma_metadata/tracks.csv",
    )
    data.add_argument(
        "--output", metavar="DIR", help="default: gs://BUCKET/dataset_SUBSET"
    )
    return parser


def add_cloud_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where and how a job runs."""
    cloud = parser.add_argument_group("cloud")
    gcs.add_place_flags(
        cloud, bucket="for inputs, output and staging; in that region, or reading costs"
    )
    cloud.add_argument(
        "--max_workers",
        type=int,
        default=10,
        metavar="N",
        help="machines at most (default: %(default)s)",
    )
    cloud.add_argument(
        "--machine_type", default="n1-standard-4", help="default: %(default)s"
    )
    cloud.add_argument(
        "--container",
        default="",
        metavar="IMAGE",
        help="worker image with the dependencies (default: workers install them)",
    )
    cloud.add_argument("--network", default="", help="default: the project's")
    cloud.add_argument(
        "--subnetwork", default="", help="regions/REGION/subnetworks/NAME"
    )
    cloud.add_argument(
        "--job_name", default="", metavar="NAME", help="default: fma-WHAT-TIME"
    )
    gcs.add_run_flags(cloud)


def make_config(
    flags: argparse.Namespace, now: datetime.datetime | None = None, *, what: str = ""
) -> DataflowConfig:
    """Flags as a checked configuration.

    Args:
      flags: of `make_parser`, or with those of `add_cloud_flags`.
      now: for the default job name; None for the present.
      what: likewise; empty for the subset.

    Raises:
      UserError: a value cannot be right.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    what = what or flags.subset or "small"
    return DataflowConfig(
        project=flags.project,
        region=flags.region,
        bucket=flags.bucket.removeprefix(SCHEME).rstrip("/"),
        max_workers=flags.max_workers,
        machine_type=flags.machine_type,
        container=flags.container,
        service_account=flags.service_account,
        network=flags.network,
        subnetwork=flags.subnetwork,
        job_name=flags.job_name or f"fma-{what}-{now:%Y%m%d-%H%M%S}",
    )


def make_data_flags(flags: argparse.Namespace, bucket: str) -> list[str]:
    """The flags of `pipeline.preprocess` that the bucket's layout gives.

    Raises:
      UserError: a path is not on Cloud Storage, where workers cannot reach it.
    """
    subset = flags.subset or "small"
    # FMA's large and full hold the same tracks, as clips and untrimmed.
    audio = flags.audio or [f"{SCHEME}{bucket}/fma_{subset}/**.mp3"]
    metadata = flags.metadata or f"{SCHEME}{bucket}/fma_metadata/tracks.csv"
    output = flags.output or f"{SCHEME}{bucket}/dataset_{subset}"
    paths = [*(("--audio", path) for path in audio)]
    paths += [("--metadata", metadata), ("--output", output)]
    for flag, path in paths:
        if not path.startswith(SCHEME):
            raise UserError(
                f"{flag} must be on gs://, since workers cannot reach this machine's "
                f"files. Received: {path}"
            )
    if flags.subset or not flags.metadata:
        paths.append(("--subset", subset))
    return [f"{flag}={value}" for flag, value in paths]


def describe_estimate(job: JobConfig, inputs: Inputs, config: DataflowConfig) -> str:
    """Decodes a few clips here and says what the job takes there."""
    dataset, machine = job.dataset, config.machine
    sample = estimate.measure_some(job, inputs, ESTIMATE_CLIPS)
    prices = dataclasses.replace(
        estimate.Prices(),
        memory_gb=machine.memory_gib / machine.vcpus,
        disk_gb=DISK_GB / machine.vcpus,
    )
    whole = estimate.extrapolate(inputs.clips, sample, prices)
    vcpus = config.max_workers * machine.vcpus
    busy = min(vcpus, dataset.num_shards)
    hours = (whole.cpu_seconds / busy + estimate.DATAFLOW_START) / 3600
    lines = [
        f"Estimate: {hours:.1f} hours on {config.max_workers} x {machine.name} "
        f"({vcpus} vCPUs), US$ {hours * vcpus * prices.worker_hour:.2f} at list prices "
        f"of {prices.dated} without storage and network; "
        f"{sum(whole.bytes_out.values()) / 1e9:.1f} GB of records.",
        f"Assumed: vCPUs as fast as this core ({sample.cpu_seconds * 1000:.0f} ms a "
        f"clip), {estimate.DATAFLOW_START / 60:.0f} minutes to start.",
    ]
    if 4 * vcpus > dataset.num_shards:
        lines.append(
            f"{dataset.num_shards} shards keep {dataset.num_shards // 4} vCPUs evenly "
            f"busy; --max_workers {max(1, dataset.num_shards // 4 // machine.vcpus)} "
            "costs less, more --num_shards is faster."
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Submits, and follows if asked; returns the exit code."""
    silence_beam()
    flags, rest = make_parser().parse_known_args(argv)
    # The request is what a dry run prints, so that it can be piped.
    stream = sys.stderr if flags.dry_run else sys.stdout
    try:
        config = make_config(flags)
        data = make_data_flags(flags, config.bucket)
        parser = preprocess.make_parser()
        arguments, beam_flags = parser.parse_known_args([*data, *rest])
        options = make_options(config, beam_flags)
        if flags.dry_run:
            options.append("--dry_run=True")
        dry_run = flags.dry_run or arguments.estimate
        known = [*make_parser().flags, *parser.flags]
        beam_options = parse_beam_options(options, known)
        try:
            job, inputs = check(arguments, rest, config, dry_run=dry_run)
        except UnreachableError as error:
            if not flags.dry_run or arguments.estimate:
                raise
            print(describe_unchecked(arguments, rest, error), file=stream, flush=True)
            print_request(assume_job(arguments), beam_options, offline=True)
            return 0
        print(messages.describe_inputs(inputs, job), file=stream)
        print(describe_estimate(job, inputs, config), file=stream, flush=True)
        if arguments.estimate:
            return 0
        if flags.dry_run:
            print_request(job, beam_options, offline=False)
            return 0
        check_service(beam_options)
        job, finished = prepare_job(job, inputs, overwrite=arguments.overwrite)
        if finished:
            shards = job.dataset.num_shards
            print(messages.describe_resumption(finished, shards), flush=True)
        job_id, client = submit(_steps(job), beam_options)
    except UserError as error:
        print_error(error)
        return 2
    except SupersededError as error:
        print_error(error)
        return 1
    submitted = [f"Submitted: {job_id}", console_link(config, job_id)]
    if not flags.wait:
        Reporter().finish(submitted, ["inspect", arguments.output])
        return 0
    say("\n".join(submitted))
    follower = Follower(client, job_id, len(inputs.clips), say)
    return wait(follower, config, job_id, arguments.output)


def _steps(job: JobConfig) -> AddSteps:
    return lambda pipeline: build(pipeline, job)


def print_request(job: JobConfig, options: PipelineOptions, *, offline: bool) -> None:
    """Prints the request of a dry run as JSON."""
    request = make_request(_steps(job), options, offline=offline)
    print(json.dumps(request, indent=1, sort_keys=True))


def check(
    arguments: argparse.Namespace,
    command_line: Sequence[str],
    config: DataflowConfig,
    *,
    dry_run: bool,
) -> tuple[JobConfig, Inputs]:
    """Checks buckets, inputs and output.

    Args:
      arguments: of `pipeline.preprocess`.
      command_line: what the user gave, to see whether shards were asked for.
      config: where the job will run.
      dry_run: try no writing.

    Raises:
      UserError: the job could not run, or its output is there already.
    """
    output = arguments.output
    paths = [f"{SCHEME}{config.bucket}", *arguments.audio, arguments.metadata, output]
    if arguments.wav_output:
        if not arguments.wav_output.startswith(SCHEME):
            raise UserError(
                "--wav_output must be on gs://, since workers cannot reach this "
                f"machine's files. Received: {arguments.wav_output}"
            )
        paths.append(arguments.wav_output)
    gcs.check_readable(paths, project=config.project)
    check_output(output, overwrite=arguments.overwrite)
    if not dry_run:
        for folder in filter(None, (output, arguments.wav_output, paths[0])):
            gcs.check_writable(folder, project=config.project)
    job, inputs = make_job(arguments)
    if not is_given(command_line, "--num_shards"):
        job = job.with_dataset(num_shards=suggest_shards(len(inputs.clips)))
    return job, inputs


def wait(follower: Follower, config: DataflowConfig, job_id: str, output: str) -> int:
    """Follows a job and tells what it made; its final state is the exit code."""
    code = follow(follower, config, job_id)
    if not code:
        print(messages.make_table(reading.read_report(output)))
        print(f"\n{messages.describe_integrity(reading.read_manifest(output))}")
        use = ["train", "--data", output], ["inspect", output]
        Reporter().finish(["", f"Dataset: {output}"], *use)
    return code


def follow(follower: Follower, config: DataflowConfig, job_id: str) -> int:
    """Follows a job; its final state is the exit code."""
    try:
        state = follower.follow()
    except KeyboardInterrupt:
        print(
            f"\nThe job goes on: {console_link(config, job_id)}\nTo cancel it: gcloud "
            f"dataflow jobs cancel {job_id} --project={config.project} "
            f"--region={config.region}",
            file=sys.stderr,
        )
        return 130
    if state != "DONE":
        print_error(
            f"the job ended as {state.lower()}; see {console_link(config, job_id)}. "
            "The same command, sent again, keeps the shards that are finished."
        )
        return 1
    return 0


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

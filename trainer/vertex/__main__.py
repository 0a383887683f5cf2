"""Trains on Vertex AI: `./launch.sh vertex --help`.

Sends a custom job that runs `trainer.task` in the trainer's container. The trainer
itself does not import this module.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pipeline.common import gcs
from pipeline.common.credentials import SCHEME, UnreachableError
from pipeline.common.plain_text import print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser, describe_unknown
from pipeline.schema import COMPLETED_FILE, MANIFEST_FILE, Manifest, UserError
from trainer import task
from trainer.config import MODELS, PATHS
from trainer.training.tracking.names import EXPERIMENT, TENSORBOARD
from trainer.vertex.job import (
    GPU_MACHINES,
    TPU_MACHINES,
    VertexConfig,
    console_link,
    follow,
    make_client,
    make_request,
    submit,
    to_json,
)

#: Where Vertex AI mounts all buckets.
MOUNT = "/gcs/"

_EPILOG = """\
All options of `trainer.task` may follow, for example --epochs 40 --weights
gs://bucket/weights.h5; --data and --weights must be on gs:// or /gcs/BUCKET.

The container is made by docker/trainer.Dockerfile; docs/cloud.md tells the whole way.
A job that is cut off, or sent again with the same --job_name and options, goes on
from its last checkpoint.

example:
  ./launch.sh vertex --project my-project --region europe-west1 \\
      --bucket my-bucket --data gs://my-bucket/dataset_small --model mel \\
      --accelerator NVIDIA_L4 --spot --wait
"""


def make_parser() -> CommandParser:
    """Flags of the submission; `trainer.task` has the others."""
    parser = CommandParser(
        "vertex", description="Trains a genre classifier on Vertex AI.", epilog=_EPILOG
    )
    cloud = parser.add_argument_group("cloud")
    gcs.add_place_flags(cloud, bucket="for checkpoints, logs and the model")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--data", required=True, metavar="DIR", help="dataset folder on gs:// or /gcs/"
    )
    training.add_argument(
        "--model", required=True, choices=MODELS, help="what to train, as of train"
    )
    cloud.add_argument(
        "--job_name",
        default="",
        metavar="NAME",
        help="also the folder in the bucket, vertex/NAME (default: fma-MODEL-TIME)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--accelerator", default="", choices=("", *GPU_MACHINES), metavar="GPU",
        help=f"one of {', '.join(GPU_MACHINES)} (default: none)",
    )  # fmt: skip
    machine.add_argument(
        "--accelerator_count",
        type=int,
        metavar="N",
        help="GPUs or TPU chips a machine (default: 1)",
    )
    machine.add_argument(
        "--tpu",
        default="",
        metavar="KIND",
        help=f"{', '.join(TPU_MACHINES)}; needs an image with TensorFlow for TPUs",
    )
    machine.add_argument(
        "--machine_type",
        default="",
        help="default: the one for the accelerator, else n1-standard-8",
    )
    machine.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="machines (default: 1)"
    )
    machine.add_argument(
        "--spot", action="store_true", help="cheap machines that may be taken away"
    )
    machine.add_argument(
        "--timeout_hours", type=float, default=24.0, help="default: %(default)g"
    )
    job = parser.add_argument_group("job")
    job.add_argument(
        "--container",
        default="",
        metavar="IMAGE",
        help="default: REGION-docker.pkg.dev/PROJECT/fma/trainer:latest",
    )
    job.add_argument("--network", default="", help="projects/N/global/networks/NAME")
    job.add_argument(
        "--tensorboard",
        default="",
        metavar="RESOURCE",
        help="projects/P/locations/R/tensorboards/ID; needs --service_account",
    )
    gcs.add_run_flags(job)
    job.add_argument(
        "--endpoint",
        default="",
        metavar="URL",
        help="of the service (default: https://REGION-aiplatform.googleapis.com)",
    )
    return parser


def make_config(
    flags: argparse.Namespace,
    trainer_flags: Sequence[str],
    now: datetime.datetime | None = None,
) -> VertexConfig:
    """Flags as a checked configuration.

    Args:
      flags: of `make_parser`.
      trainer_flags: all others.
      now: for the default job name; None for the present.

    Raises:
      UserError: a value cannot be right.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    arguments = (f"--data={flags.data}", f"--model={flags.model}", *trainer_flags)
    return VertexConfig(
        project=flags.project,
        region=flags.region,
        bucket=flags.bucket.removeprefix(SCHEME).rstrip("/"),
        job_name=flags.job_name or f"fma-{flags.model}-{now:%Y%m%d-%H%M%S}",
        arguments=arguments,
        environment=_track(flags, arguments),
        accelerator=flags.accelerator,
        accelerator_count=flags.accelerator_count,
        tpu=flags.tpu,
        machine_type=flags.machine_type,
        replicas=flags.replicas,
        spot=flags.spot,
        timeout_hours=flags.timeout_hours,
        container=flags.container
        or f"{flags.region}-docker.pkg.dev/{flags.project}/fma/trainer:latest",
        service_account=flags.service_account,
        network=flags.network,
        tensorboard=flags.tensorboard,
        endpoint=flags.endpoint or f"https://{flags.region}-aiplatform.googleapis.com",
    )


def _track(flags: argparse.Namespace, arguments: Sequence[str]) -> dict[str, str]:
    """What the job needs to know to tell Vertex AI Experiments, if it is asked to.

    Raises:
      UserError: it is to tell Weights & Biases, which takes a key.
    """
    track = task.make_parser().parse_known_args(list(arguments))[0].track or ""
    if "wandb" in track and not flags.container:
        raise UserError(
            "--track wandb needs a package and a key that the trainer's image does "
            "not have; use --track vertex, or an image of your own with --container. "
            f"Received: --track {track}"
        )
    if "vertex" not in track:
        return {}
    places = {
        "GOOGLE_CLOUD_PROJECT": flags.project,
        "GOOGLE_CLOUD_REGION": flags.region,
        TENSORBOARD: flags.tensorboard,
        EXPERIMENT: os.environ.get(EXPERIMENT),
    }
    return {name: value for name, value in places.items() if value}


def check_trainer_flags(config: VertexConfig) -> None:
    """Parses the trainer's flags here, where a mistake costs a second.

    Unknown flags end the process, as they would there.

    Raises:
      UserError: a value cannot be trained with on these machines, or a file would not
        be reachable.
    """
    parser, own = task.make_parser(), make_parser()
    parsed, unknown = parser.parse_known_args(list(config.arguments))
    if unknown:
        own.error(describe_unknown(unknown, [*own.flags, *parser.flags]))
    task.check(parsed)
    options = vars(parsed)
    for name in (*PATHS, "report", "audio"):
        path = options.get(name)
        if path and path not in ("imagenet", "none"):
            _require_remote(f"--{name}", path)
    alone = [name for name in ("tune", "report", "audio") if options[name]]
    if config.replicas > 1 and alone:
        raise UserError(
            f"--{alone[0]} is for one machine. Received: --replicas {config.replicas}"
        )
    together = parsed.strategy in ("auto", "multiworker")
    machine = 1 if parsed.strategy == "single" else config.count
    devices = machine * (config.replicas if together else 1)
    batch_size = parsed.batch_size or devices
    if batch_size % devices:
        raise UserError(
            f"--batch_size must be a multiple of {devices}, the devices that share it. "
            f"Received: {batch_size}"
        )
    if config.replicas > 1 and not together:
        print_error(
            f"with --strategy {parsed.strategy}, each of the {config.replicas} "
            "machines trains the whole model by itself; leave it out for one training.",
            label="warning",
        )


def check_data(data: str, model: str, project: str) -> Manifest:
    """Checks that the dataset is complete and has what the model reads.

    Raises:
      UserError: it is not, has not, or cannot be read.
    """
    _require_remote("--data", data)
    folder = data.rstrip("/")
    if folder.startswith(MOUNT):
        folder = SCHEME + folder.removeprefix(MOUNT)
    gcs.check_readable([folder], project=project)
    text = gcs.read_text(f"{folder}/{MANIFEST_FILE}", project=project)
    marker = gcs.read_text(f"{folder}/{COMPLETED_FILE}", project=project)
    if text is None or marker is None:
        missing = MANIFEST_FILE if text is None else COMPLETED_FILE
        raise UserError(
            f"--data is no complete dataset: it has no {missing}; preprocess it first. "
            f"Received: {data}"
        )
    path = f"{folder}/{MANIFEST_FILE}"
    manifest = Manifest.from_json(text, source=path)
    if model not in manifest.representations:
        raise UserError(
            f"--data has no {model} records, only "
            f"{', '.join(sorted(manifest.representations))}; preprocess with "
            f"--representations {model}. Received: {data}"
        )
    return manifest


def _require_remote(flag: str, path: str) -> None:
    if not path.startswith((SCHEME, MOUNT)):
        raise UserError(
            f"{flag} must be on gs:// or {MOUNT}BUCKET, since Vertex AI cannot reach "
            f"this machine's files. Received: {path}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Submits, and follows if asked; returns the exit code."""
    flags, rest = make_parser().parse_known_args(argv)
    try:
        config = make_config(flags, rest)
        check_trainer_flags(config)
        stream = sys.stderr if flags.dry_run else sys.stdout
        try:
            manifest = check_data(flags.data, flags.model, flags.project)
        except UnreachableError as error:
            if not flags.dry_run:
                raise
            summary = (
                f"Not checked: {error}\nNot checked: that {flags.data} is a complete "
                f"dataset with {flags.model} records, that {config.output} can be "
                "written to, that Vertex AI takes jobs for --project in --region"
            )
        else:
            summary = (
                f"{manifest.clip_totals['training']} training clips of "
                f"{len(manifest.genres)} genres"
            )
        print(f"{summary}; {config.describe_machines()}", file=stream, flush=True)
        request = make_request(config)
        if flags.dry_run:
            print(json.dumps(to_json(request), indent=1, sort_keys=True))
            return 0
        gcs.check_writable(config.output, project=config.project)
        client = make_client(config)
        name = submit(client, config, request)
    except UserError as error:
        print_error(error)
        return 2
    submitted = [f"Submitted: {name}", console_link(config, name)]
    if not flags.wait:
        Reporter().finish(submitted, _use(config))
        return 0
    print("\n".join(submitted), flush=True)
    return wait(client, config, name)


def _use(config: VertexConfig) -> list[str]:
    return ["predict", "--model", f"{config.output}/model", "FILE"]


def wait(client: Any, config: VertexConfig, name: str) -> int:
    """Follows a job; its final state is the exit code."""
    try:
        state, message = follow(client, name, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print(
            f"\nThe job goes on: {console_link(config, name)}\nTo cancel it: gcloud ai "
            f"custom-jobs cancel {name} --region={config.region}",
            file=sys.stderr,
        )
        return 130
    if state != "SUCCEEDED":
        reason = f" ({message})" if message else ""
        print_error(
            f"the job ended as {state.lower()}{reason}; see "
            f"{console_link(config, name)}"
        )
        return 1
    Reporter().finish(["", f"Model: {config.output}/model"], _use(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())

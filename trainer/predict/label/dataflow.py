"""Labels a catalogue on Google Cloud Dataflow: `./launch.sh dataflow --label`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import apache_beam as beam

from pipeline.cloud import dataflow
from pipeline.cloud.follow import Follower
from pipeline.cloud.submission import (
    check_service,
    console_link,
    make_options,
    make_request,
    submit,
)
from pipeline.common import gcs
from pipeline.common.credentials import SCHEME
from pipeline.common.plain_text import print_error
from pipeline.common.progress import take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.quiet import silence_beam
from pipeline.launch.plan import parse_beam_options
from pipeline.schema import UserError
from pipeline.shards.runs import SupersededError, home
from trainer.predict.label import __main__ as label

_EPILOG = """\
All of Apache Beam's options may follow. The model, the audio and the output lie on
gs://; docs/cloud.md tells what a project needs.
"""
_EXAMPLE = (
    "dataflow --label --project my-project --region europe-west1 \\\n"
    "      --bucket my-bucket --model gs://my-bucket/models/mel \\\n"
    "      --audio 'gs://my-bucket/music/**.mp3' --output gs://my-bucket/labels --wait"
)


def make_parser() -> CommandParser:
    """The flags of `./launch.sh label`, and those of a submission."""
    parser = label.make_parser("dataflow --label", epilog=_EPILOG, examples=[_EXAMPLE])
    dataflow.add_cloud_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Submits, and follows if asked; returns the exit code."""
    silence_beam()
    parser = make_parser()
    flags, rest = parser.parse_known_args(argv)
    reporter = take_reporter(flags)
    # The request is what a dry run prints, so that it can be piped.
    note = reporter.warn if flags.dry_run else reporter.note
    try:
        place = dataflow.make_config(flags, what="labels")
        for flag, path in [
            *(("--model", folder) for folder in flags.model),
            *(("--audio", pattern) for pattern in flags.audio),
            ("--output", flags.output),
        ]:
            if not path.startswith(SCHEME):
                raise UserError(
                    f"{flag} must be on gs://, since workers cannot reach this "
                    f"machine's files. Received: {path}"
                )
        options = make_options(place, rest)
        if flags.dry_run:
            options.append("--dry_run=True")
        beam_options = parse_beam_options(options, parser.flags)
        gcs.check_readable([f"{SCHEME}{place.bucket}"], project=place.project)
        config, files, models = label.check(flags)
        note(label.describe(config, files))
        from trainer.predict.label.graph import build
        from trainer.predict.label.launch import describe_result

        def add_steps(pipeline: beam.Pipeline) -> None:
            build(pipeline, config, models)

        if flags.dry_run:
            request = make_request(add_steps, beam_options)
            print(json.dumps(request, indent=1, sort_keys=True))
            return 0
        gcs.check_writable(flags.output, project=place.project)
        check_service(beam_options)
        config = label.prepare(config, reporter, overwrite=flags.overwrite)
        job_id, client = submit(add_steps, beam_options)
    except UserError as error:
        print_error(error)
        return 2
    except SupersededError as error:
        print_error(error)
        return 1
    use = ["app", *(word for model in config.models for word in ("--model", model))]
    submitted = [f"Submitted: {job_id}", console_link(place, job_id)]
    if not flags.wait:
        reporter.finish(submitted, use)
        return 0
    reporter.result("\n".join(submitted))
    follower = Follower(client, job_id, files, dataflow.say)
    code = dataflow.follow(follower, place, job_id)
    if not code:
        reporter.note(f"{describe_result(home(config))}\n")
        reporter.finish(f"Labels: {home(config)}", use)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Preprocesses on a pool of worker processes that get only what is staged.

usage: python -m tests.support.cloud.run_on_workers POOL OPTION ...

POOL is the address of Beam's worker pool; the options are those of
`pipeline.preprocess`, and of Beam (--setup_file, --direct_num_workers).
"""

from __future__ import annotations

import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.transforms import environments

from pipeline import preprocess
from pipeline.common.quiet import silence_beam
from pipeline.job.graph import build
from pipeline.launch import output
from pipeline.launch.plan import make_job, parse_beam_options


def main() -> None:
    silence_beam()
    pool, *argv = sys.argv[1:]
    arguments, rest = preprocess.make_parser().parse_known_args(argv)
    options = parse_beam_options(
        [
            *rest,
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
            "--experiments=disable_logging_submission_environment",
        ]
    )
    job, inputs = make_job(arguments)
    job, _ = output.prepare_job(job, inputs, overwrite=False)
    environment = environments.ExternalEnvironment.from_options(
        options.view_as(PortableOptions)
    )
    runner = fn_runner.FnApiRunner(default_environment=environment)
    pipeline = beam.Pipeline(runner=runner, options=options)
    build(pipeline, job)
    pipeline.run().wait_until_finish()


if __name__ == "__main__":
    main()

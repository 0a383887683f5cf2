"""Which of Beam's runners may run the job."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipeline.schema import UserError


def check_runner(options: PipelineOptions) -> None:
    """Refuses a runner that gives wrong results.

    Beam's DaskRunner sends every element to every output of a step with several,
    and runs the last branch of a graph only, without an error. This job has three
    such steps and several branches.

    Raises:
      UserError: the options name that runner.
    """
    runner = options.view_as(StandardOptions).runner or ""
    if runner.rpartition(".")[2] == "DaskRunner":
        raise UserError(
            "--runner DaskRunner is refused: it silently computes steps with several "
            "outputs wrongly; leave --runner out, or see docs/cloud.md. "
            f"Received: {runner}"
        )

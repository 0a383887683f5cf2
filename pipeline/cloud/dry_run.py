"""A job for a bucket that cannot be looked into: no credentials, or no network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.common.credentials import UnreachableError
from pipeline.common.progress.command_line import is_given
from pipeline.inputs.metadata import Layout, MetadataConfig
from pipeline.inputs.splits import SplitConfig
from pipeline.inputs.survey import Inputs
from pipeline.job.config import JobConfig
from pipeline.launch.plan import make_job

#: Stands for the genres of metadata that cannot be read.
UNKNOWN_GENRE = "<the genres of --metadata>"


def assume_job(arguments: argparse.Namespace) -> JobConfig:
    """The job of a bucket that cannot be looked into.

    Args:
      arguments: of `pipeline.preprocess`.

    Raises:
      UserError: the job would make no sense, whatever is there.
    """
    layout = Layout(
        kind="fma" if arguments.subset else "plain",
        columns={},
        width=0,
        split=SplitConfig(),
    )

    def assume_inputs(metadata: MetadataConfig) -> Inputs:
        return Inputs(
            layout=layout,
            metadata=metadata,
            genres=metadata.genres or (UNKNOWN_GENRE,),
            tracks=0,
            clips=(),
            files=0,
        )

    job, _ = make_job(arguments, assume_inputs)
    return job


def describe_unchecked(
    arguments: argparse.Namespace, command_line: Sequence[str], error: UnreachableError
) -> str:
    """Says which checks a dry run could not make, and what stands for the answers."""
    lines = [
        f"Not checked: {error}",
        f"Not checked: that {' '.join(arguments.audio)} and {arguments.metadata} are "
        f"there and fit together, that {arguments.output} can be written to and holds "
        "no dataset yet, that Dataflow takes jobs for --project in --region; no "
        "estimate.",
    ]
    if not arguments.genres:
        lines.append(
            f"The graph has {UNKNOWN_GENRE!r} in place of the genres that --metadata "
            "has; --genres gives them."
        )
    if not is_given(command_line, "--num_shards"):
        lines.append(
            f"The graph has {arguments.num_shards} shards in place of a number that "
            "suits the number of clips; --num_shards gives it."
        )
    return "\n".join(lines)

"""Preprocesses on a Flink cluster: `./launch.sh flink --help`.

The job, its flags and its dataset are those of `pipeline.preprocess`, which does all
of it; here are its flags under a name of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pipeline import preprocess
from pipeline.common.progress.command_line import CommandParser, is_given
from pipeline.common.quiet import silence_beam

_EPILOG = """\
All options of `pipeline.preprocess` and of Apache Beam are taken. Workers need this
project's dependencies (requirements.lock), not the project: it is sent along.
What they are started by is Beam's --environment_type and --environment_config:

  DOCKER    IMAGE                  a container for each TaskManager (Beam's default)
  EXTERNAL  localhost:50000        a side-car, as on Kubernetes
  PROCESS   {"command": "/path"}   a program on the TaskManager's machine

docs/flink.md tells the whole way.

example:
  ./launch.sh flink --flink_master flink.example.org:8081 \\
      --environment_type EXTERNAL --environment_config localhost:50000 \\
      --audio '/shared/fma_small/**.mp3' --subset small \\
      --metadata /shared/fma_metadata/tracks.csv --output /shared/dataset
"""


def make_parser() -> CommandParser:
    """Flags of `pipeline.preprocess`, and of the cluster."""
    parser = preprocess.make_parser()
    parser.prog = "./launch.sh flink"
    parser.description = (
        "Turns audio files and their genres into sharded TFRecords, on a Flink cluster."
    )
    parser.epilog = _EPILOG
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--flink_master",
        required=True,
        metavar="HOST:PORT",
        help="of the cluster's REST interface; Flink's version and the number of slots "
        "are asked there",
    )
    cluster.add_argument(
        "--detach",
        action="store_true",
        help="leave the job alone once the cluster runs it",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Preprocesses on a cluster; returns the exit code."""
    silence_beam()
    command = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    arguments, rest = parser.parse_known_args(command)
    if not arguments.output and not arguments.estimate:
        parser.error("the following arguments are required: --output")
    # The user's runner, if any, would be another one.
    rest += ["--runner=FlinkRunner", f"--flink_master={arguments.flink_master}"]
    return preprocess.preprocess(
        arguments,
        rest,
        command,
        name="flink",
        choose_shards=not is_given(command, "--num_shards"),
        detach=arguments.detach,
    )


if __name__ == "__main__":
    sys.exit(main())

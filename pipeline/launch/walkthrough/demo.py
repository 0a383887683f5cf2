"""`./launch.sh local`: everything once, on music that is computed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import add_progress_flags, format_seconds, make_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.launch.walkthrough.steps import StepError, Successor, number, run_step

OUTPUT = "demo-run"


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "local",
        description="Makes the demo corpus, preprocesses it, trains every model and "
        "compares them: one to three minutes on two cores. A model that an earlier run "
        "into the same folder has trained on the same data stays.",
        examples=["local", "local --output /tmp/first-run"],
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        default=OUTPUT,
        metavar="DIR",
        help="folder for all of it, 0.4 GB (default: %(default)s)",
    )
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all steps; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    reporter = make_reporter(quiet=arguments.quiet, verbose=arguments.verbose)
    shown = ["--quiet"] * arguments.quiet + ["--verbose"] * arguments.verbose
    output = arguments.output.rstrip("/") or "/"
    corpus, dataset, models = (
        f"{output}/{name}" for name in ("corpus", "dataset", "models")
    )
    audio = f"{corpus}/fma_demo"
    training = Successor(
        [
            *("train", "--data", dataset, "--output", models, "--report", output),
            *("--audio", audio, *shown),
        ]
    )
    commands: dict[str, list[str] | Successor] = {
        "demo corpus": ["demo", "--output", corpus, *shown],
        "preprocessing": [
            *("preprocess", "--audio", f"{audio}/**.mp3", "--subset", "small"),
            *("--metadata", f"{corpus}/fma_metadata/tracks.csv", "--synthetic"),
            *("--description", "Synthetic demo corpus, made by pipeline.demo"),
            *("--output", dataset, "--overwrite", *shown),
        ],
        "training, and comparison on held-out tracks": training,
    }
    begun = time.monotonic()
    reporter.note(
        "Everything once, on music that is computed: 193 clips of eight genres (85 MB) "
        "are made,\nturned into TFRecords (260 MB), and models are trained on them and "
        "compared. It takes\none to three minutes on two cores, and all of it goes "
        f"into {one_line(output)}."
    )
    try:
        run_step(["weights", "--optional"])
        with training:
            for step, heading in number(list(commands)):
                reporter.note(heading)
                run_step(commands[step], training)
    except StepError as error:
        if error.stopped:
            print_error("the same command goes on from there.", label="stopped")
        return error.code
    seconds = format_seconds(time.monotonic() - begun)
    reporter.finish(
        f"All of it: {output} ({seconds})",
        ["report", output],
        ["predict", "--model", models, f"{audio}/000/000002.mp3"],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

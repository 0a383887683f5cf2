"""``./launch.sh demo``: makes the demo corpus."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import add_progress_flags, format_seconds, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.demo.corpus import AUDIO_FOLDER, METADATA_FILE, make_corpus
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import BROKEN, DemoConfig, plan_layout
from pipeline.schema import UserError


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "demo",
        description="Makes a small, synthetic corpus in the layout of FMA: the eight "
        "genres of fma_small as thirty-second MP3s, tracks.csv with FMA's three header "
        "rows, and some files that are broken on purpose (listed in planted.json).",
        examples=[
            "demo --output demo-corpus",
            "demo --output small --genres Rock,Folk --clip_seconds 10",
        ],
    )
    add = parser.add_argument_group("corpus").add_argument
    add(
        "--output", type=Path, required=True, help="folder for the corpus (about 85 MB)"
    )
    add(
        "--seed", type=int, default=0, help="another seed gives other music (default 0)"
    )
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; the result is the same for any number (default %(default)s)",
    )
    text = "length of a clip, 6 to 60 seconds (default %(default)s)"
    add("--clip_seconds", type=float, default=30.0, help=text)
    add(
        "--genres",
        type=lambda names: tuple(names.split(",")),
        default=tuple(GENRES),
        metavar="NAME[,NAME...]",
        help="fewer genres make a smaller corpus (default all eight)",
    )
    add_progress_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the corpus; returns 0, or 2 for input that the user has to change."""
    arguments = make_parser().parse_args(argv)
    reporter = take_reporter(arguments)
    started = time.monotonic()
    try:
        config = DemoConfig(**vars(arguments))
        created = make_corpus(config, reporter)
    except UserError as error:
        print_error(error)
        return 2
    output = one_line(config.output)
    if not created:
        reporter.result(f"demo corpus: {output} is complete already; nothing to do")
        return 0
    tracks = plan_layout(config)
    clips = sum(track.is_good for track in tracks)
    broken = sum(track.kind in BROKEN for track in tracks)
    seconds = format_seconds(time.monotonic() - started)
    reporter.finish(
        f"Demo corpus: {output}, {clips} good clips and {broken} broken ones "
        f"({seconds})",
        [
            "preprocess",
            *("--audio", str(config.output / AUDIO_FOLDER)),
            *("--metadata", str(config.output / METADATA_FILE)),
            *("--output", "dataset"),
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m pipeline.demo``: makes the demo corpus."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.demo.corpus import make_corpus
from pipeline.demo.genres import GENRES
from pipeline.demo.layout import DemoConfig
from pipeline.schema import UserError

_PROGRESS_STEP = 20


def _report(done: int, total: int) -> None:
    if done % _PROGRESS_STEP == 0 or done == total:
        print(f"demo corpus: {done} of {total} clips", flush=True)


def _count_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.demo",
        description="Makes a small, synthetic corpus in the layout of FMA: the eight "
        "genres of fma_small as thirty-second MP3s, tracks.csv with FMA's three header "
        "rows, and some files that are broken on purpose (listed in planted.json).",
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the corpus (about 70 MB)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed gives other music (default 0)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=_count_cpus(),
        help="processes; the result is the same for any number (default %(default)s)",
    )
    parser.add_argument(
        "--clip_seconds",
        type=float,
        default=30.0,
        help="length of a clip, 6 to 60 seconds (default %(default)s)",
    )
    parser.add_argument(
        "--genres",
        type=lambda names: tuple(names.split(",")),
        default=tuple(GENRES),
        metavar="NAME[,NAME...]",
        help="fewer genres make a smaller corpus (default all eight)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the corpus; returns 0, or 2 for input that the user has to change."""
    arguments = _build_parser().parse_args(argv)
    started = time.monotonic()
    try:
        corpus = make_corpus(DemoConfig(**vars(arguments)), progress=_report)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    clips = sum(sum(genres.values()) for genres in corpus.counts.values())
    if not corpus.created:
        print(f"demo corpus: {corpus.output} is complete already; nothing to do")
        return 0
    print(
        f"demo corpus: {clips} good clips and {len(corpus.broken)} broken ones in "
        f"{corpus.output} ({time.monotonic() - started:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

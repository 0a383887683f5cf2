"""Fetches FMA's archives: `./launch.sh fma download --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from pipeline.common.plain_text import print_error
from pipeline.common.progress import (
    SILENT,
    Reporter,
    add_progress_flags,
    take_reporter,
)
from pipeline.common.progress.command_line import CommandParser
from pipeline.launch.fma import published
from pipeline.launch.fma.archives import Downloads, format_bytes
from pipeline.launch.fma.published import METADATA, Published
from pipeline.launch.fma.transfer import TIMEOUT, Options
from pipeline.schema import UserError

DEFAULT_OUTPUT = "fma-run"


def choose_base(mirror: str) -> str:
    """The address that archives' names follow.

    Raises:
      UserError: it is none of HTTP.
    """
    if not mirror.lower().startswith(("http://", "https://")):
        raise UserError(
            "--mirror must be an address that begins with http:// or https://, or a "
            f"folder of this machine that is there. Received: {mirror}"
        )
    return mirror.rstrip("/") + "/"


def use_folder(
    folder: str, archives: Sequence[Published], downloads: Downloads
) -> None:
    """Makes sure that a local folder has the archives; changes nothing there.

    Raises:
      UserError: one is missing, or not what was published.
    """
    missing = [
        archive.name
        for archive in archives
        if not os.path.isfile(os.path.join(folder, archive.name))
    ]
    if missing:
        raise UserError(
            f"--mirror lacks {', '.join(missing)}; put it there, or give an address. "
            f"Received: {folder}"
        )
    for archive in archives:
        downloads.verify(os.path.join(folder, archive.name), archive)
    downloads.note_verified(archives, folder)


def download(
    archives: Sequence[Published],
    output: str,
    mirror: str,
    *,
    more: int = 0,
    options: Options | None = None,
    reporter: Reporter = SILENT,
) -> None:
    """Fetches what is missing of some archives.

    Args:
      archives: wanted.
      output: folder for them.
      mirror: a folder that has them, or an address.
      more: bytes that other steps will write.
      options: how patient to be.
      reporter: is told how far it is.

    Raises:
      UserError: they cannot be had.
    """
    downloads = Downloads(output, reporter)
    if os.path.isdir(mirror):
        downloads.check_room([], more)
        use_folder(mirror, archives, downloads)
        return
    base = choose_base(mirror)
    downloads.claim(archives)
    missing = downloads.find_missing(archives)
    downloads.check_room(missing, more)
    for archive in missing:
        reporter.note(
            f"Fetching {base}{archive.name}, about {format_bytes(archive.size)}."
        )
        downloads.fetch(archive, base, options)


def add_flags(parser: CommandParser) -> None:
    """Adds what is fetched, and from where."""
    archives = parser.add_argument_group("archives")
    archives.add_argument(
        "--subset",
        choices=published.AUDIO,
        required=True,
        help="small 7.7 GB, medium 24 GB, large 100 GB, full 944 GB; and 0.4 GB of "
        "metadata",
    )
    archives.add_argument(
        "--mirror",
        default=published.BASE,
        metavar="URL|FOLDER",
        help="address that the archives' names follow, or a folder that has them, "
        "which is used as it is (default: %(default)s)",
    )
    archives.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="give a connection up after so long without a byte, and try again "
        "(default: %(default)g)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="the archives go to DIR/download (default: %(default)s)",
    )


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "download",
        description="Fetches FMA's metadata and the audio of a subset as the ZIPs that "
        "they are, goes on where an earlier attempt broke off, and checks their SHA-1.",
        examples=[
            "download --subset small",
            "download --subset full --output /data/fma --mirror https://example.org/",
        ],
    )
    add_flags(parser)
    # Bytes that later steps will write: there must be room for all.
    parser.add_argument("--room", type=int, default=0, help=argparse.SUPPRESS)
    add_progress_flags(parser)
    return parser


def main(
    argv: Sequence[str] | None = None,
    audio: Mapping[str, Published] = published.AUDIO,
    metadata: Published = METADATA,
) -> int:
    """Downloads; returns the exit code.

    Args:
      argv: the command line; None for this process's.
      audio: the archives by subset.
      metadata: the archive of the tables.
    """
    arguments = make_parser().parse_args(argv)
    reporter = take_reporter(arguments)
    subset = arguments.subset
    archives = [metadata, audio[subset]]
    folder = os.path.join(arguments.output, "download")
    try:
        if arguments.timeout <= 0:
            raise UserError(
                f"--timeout must be above 0. Received: {arguments.timeout:g}"
            )
        download(
            archives,
            folder,
            arguments.mirror,
            more=arguments.room,
            options=Options(timeout=arguments.timeout),
            reporter=reporter,
        )
    except UserError as error:
        print_error(error)
        return 2
    except OSError as error:
        print_error(f"{folder}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        print_error("run the same command again to go on.", label="stopped")
        return 130
    where = arguments.mirror if os.path.isdir(arguments.mirror) else folder
    names = [archive.name for archive in archives]
    tables, music = (os.path.join(where, name) for name in names)
    reporter.finish(
        f"{' and '.join(names)} are there, and what FMA published: {where}",
        [
            *("preprocess", "--audio", music, "--metadata", tables),
            *("--subset", subset, "--output", f"{arguments.output}/dataset"),
        ],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

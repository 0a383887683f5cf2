"""Fetches FMA's archives: `./launch.sh fma download --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from pipeline.common.plain_text import one_line, print_error
from pipeline.launch.fma import published
from pipeline.launch.fma.archives import Downloads, verify
from pipeline.launch.fma.progress import format_bytes
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


def use_folder(folder: str, archives: Sequence[Published], output: str) -> None:
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
    downloads = Downloads(output)
    for archive in archives:
        path = os.path.join(folder, archive.name)
        if not downloads.is_verified(path, archive):
            verify(path, archive)
    downloads.note_verified(archives, folder)


def download(
    archives: Sequence[Published],
    output: str,
    mirror: str,
    *,
    more: int = 0,
    options: Options | None = None,
) -> None:
    """Fetches what is missing of some archives.

    Args:
      archives: wanted.
      output: folder for them.
      mirror: a folder that has them, or an address.
      more: bytes that other steps will write.
      options: how patient to be.

    Raises:
      UserError: they cannot be had.
    """
    downloads = Downloads(output)
    if os.path.isdir(mirror):
        downloads.check_room([], more)
        use_folder(mirror, archives, output)
        return
    base = choose_base(mirror)
    downloads.claim(archives)
    missing = downloads.find_missing(archives)
    downloads.check_room(missing, more)
    for archive in missing:
        print(
            f"Fetching {base}{archive.name}, about {format_bytes(archive.size)}.",
            flush=True,
        )
        downloads.fetch(archive, base, options)


def make_parser() -> argparse.ArgumentParser:
    """The command's flags."""
    parser = argparse.ArgumentParser(
        prog="./launch.sh fma download",
        description="Fetches FMA's metadata and the audio of a subset as the ZIPs that "
        "they are, goes on where an earlier attempt broke off, and checks their SHA-1.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--subset",
        choices=published.AUDIO,
        required=True,
        help="small 7.7 GB, medium 24 GB, large 100 GB, full 944 GB; and 0.4 GB of "
        "metadata",
    )
    parser.add_argument(
        "--output",
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="the archives go to DIR/download (default: %(default)s)",
    )
    parser.add_argument(
        "--mirror",
        default=published.BASE,
        metavar="URL|FOLDER",
        help="address that the archives' names follow, or a folder that has them, "
        "which is used as it is (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="give a connection up after so long without a byte, and try again "
        "(default: %(default)g)",
    )
    parser.add_argument("--whole_run", action="store_true", help=argparse.SUPPRESS)
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
    subset = arguments.subset
    archives = [metadata, audio[subset]]
    more = 0
    if arguments.whole_run:
        more = published.CLIPS[subset] * published.CLIP_BYTES + published.MODELS_BYTES
    folder = os.path.join(arguments.output, "download")
    try:
        if arguments.timeout <= 0:
            raise UserError(
                f"--timeout must be above 0. Received: {arguments.timeout:g}"
            )
        options = Options(timeout=arguments.timeout)
        download(archives, folder, arguments.mirror, more=more, options=options)
    except UserError as error:
        print_error(error)
        return 2
    except OSError as error:
        print_error(f"{folder}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on.", file=sys.stderr)
        return 130
    where = arguments.mirror if os.path.isdir(arguments.mirror) else folder
    names = " and ".join(archive.name for archive in archives)
    print(f"{names} are there, and what FMA published: {one_line(where)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

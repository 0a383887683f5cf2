"""Inputs of any file system, in ZIPs or not, read patiently."""

from __future__ import annotations

import io
import posixpath
from typing import BinaryIO

from pipeline.common import storage
from pipeline.inputs.archives import directory, members, paths
from pipeline.schema import UserError


def opener(path: str) -> BinaryIO:
    """Opens an archive, of which parts will be read."""
    return storage.open_patiently(path, sparsely=True)


def open_input(path: str, *, sparsely: bool = False) -> BinaryIO:
    """As `storage.open_patiently`, also of a member of a ZIP, which is unpacked whole.

    Raises:
      AudioError: the member cannot be unpacked.
      OSError: or another of `storage.STORE_ERRORS`; the file cannot be read.
    """
    found = paths.split(path)
    if found is None:
        return storage.open_patiently(path, sparsely=sparsely)
    return members.open_member(*found, opener)


def stream_input(path: str, *, sparsely: bool = False) -> BinaryIO:
    """As `open_input`, but a member is unpacked while it is read, once."""
    found = paths.split(path)
    if found is None:
        return storage.open_patiently(path, sparsely=sparsely)
    return members.stream_member(*found, opener)


def read_archive(path: str, flag: str) -> directory.Archive:
    """An archive's directory.

    Raises:
      UserError: it cannot be had.
    """
    try:
        return directory.read_archive(path, opener)
    except directory.ArchiveError as error:
        raise UserError(
            f"{flag}: {path} {error.strerror}. Fetch or pack it anew; ./launch.sh fma "
            "download goes on with one of FMA's where it broke off."
        ) from error
    except storage.STORE_ERRORS as error:
        raise UserError(
            f"{flag}: the ZIP cannot be read ({storage.explain(error)}); name one that "
            f"is there. Received: {path}"
        ) from error


def find_csv(path: str, name: str, flag: str) -> str:
    """The file that holds a table: the path itself, or a CSV in the ZIP that it names.

    Args:
      path: of a file or a ZIP.
      name: of the table in a ZIP; where that is not there, its only CSV.
      flag: that named the path.

    Raises:
      UserError: the ZIP cannot be read, or it is unclear which of its files is meant.
    """
    found = paths.find_archive(path)
    if found is None:
        return path
    archive, inside = found
    tables = read_archive(archive, flag).members
    if inside and inside in tables:
        return paths.join(archive, inside)
    below = [
        table
        for table in tables
        if (not inside or table.startswith(f"{inside.rstrip('/')}/"))
        and not table.startswith("__MACOSX/")
    ]
    named = [table for table in below if posixpath.basename(table) == name]
    fits = named or [table for table in below if table.lower().endswith(".csv")]
    if len(fits) != 1:
        shown = f"; it holds {', '.join(sorted(fits)[:5])}" if fits else ""
        raise UserError(
            f"{flag}: {archive} must hold one {name}, or name the file in it as "
            f"{archive}!/folder/file.csv{shown}. Received: {path}"
        )
    return paths.join(archive, fits[0])


def read_text(path: str) -> io.TextIOWrapper:
    """A UTF-8 table as a stream of lines, with their ends as they are."""
    return io.TextIOWrapper(stream_input(path), encoding="utf-8", newline="")

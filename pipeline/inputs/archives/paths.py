"""Paths into ZIPs, `music.zip!/rock/a.mp3`, and globs of them.

A ZIP is named as the file that it is, local or not, and stands for all that it holds;
`!/` leads into it, where a name or a glob may follow. `zip://` may stand in front of
either. A folder that is really named `music.zip!` is a folder.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence

from pipeline.common.files import expand_home
from pipeline.common.regular_file import open_regular
from pipeline.inputs.archives.directory import Opener, read_archive
from pipeline.inputs.globs import (
    Entry,
    Glob,
    escape,
    is_remote,
    to_nfc,
    translate,
    unescape,
)
from pipeline.schema import UserError

SCHEME = "zip://"
#: What desktops pack beside the files themselves.
_DESKTOP = "__MACOSX/"
_MEMBER = re.compile(r"(.*?\.zip)!(?:/(.*))?", re.IGNORECASE | re.DOTALL)


def drop_scheme(path: str) -> str:
    """A path as it is used here, without `zip://`."""
    return path.removeprefix(SCHEME)


def split(path: str) -> tuple[str, str] | None:
    """The archive and the name within it; None for what is in no archive."""
    found = _MEMBER.fullmatch(path)
    if found is None or (not is_remote(path) and os.path.isdir(f"{found[1]}!")):
        return None
    return found[1], found[2] or ""


def join(archive: str, name: str) -> str:
    """The path of a member."""
    return f"{archive}!/{name}" if name else f"{archive}!"


def find_archive(text: str) -> tuple[str, str] | None:
    """The archive that a text names, and the pattern of members; None without one.

    The archive is known by its name's ending alone, except for a local folder that
    ends so.
    """
    text = expand_home(drop_scheme(text))
    found = split(text)
    if found is not None:
        return found
    if text.lower().endswith(".zip") and (is_remote(text) or os.path.isfile(text)):
        return text, ""
    return None


def parse(archive: str, pattern: str, names: Collection[str]) -> Glob:
    """Tells a glob's folder from its pattern, within an archive.

    A name that is there is meant literally; a folder stands for all that it holds. An
    archive of which all lies in one folder stands for that folder.

    Args:
      archive: its path.
      pattern: of members; empty for all.
      names: of all members.
    """
    if not pattern:
        return Glob(folder=join(archive, find_top(names)), rest="**")
    if pattern in names:
        folder, name = posixpath.split(pattern)
        return Glob(folder=join(archive, folder), rest=escape(name))
    literal, rest = list[str](), pattern.split("/")
    while rest and (part := unescape(rest[0])) is not None:
        literal.append(part)
        rest.pop(0)
    folder = _spell("/".join(literal).rstrip("/"), names)
    if not rest and not any(name.startswith(f"{folder}/") for name in names):
        literal, rest = literal[:-1], [escape(literal[-1])]
        folder = _spell("/".join(literal), names)
    return Glob(folder=join(archive, folder), rest="/".join(rest) or "**")


def find_top(names: Iterable[str]) -> str:
    """The folder at the top in which all members lie; empty if there is none."""
    folders = {
        posixpath.dirname(name) for name in names if not name.startswith(_DESKTOP)
    }
    if not folders or "" in folders:
        return ""
    tops = {folder.partition("/")[0] for folder in folders}
    return tops.pop() if len(tops) == 1 and tops.isdisjoint(("", "..")) else ""


def _spell(folder: str, names: Iterable[str]) -> str:
    """A folder's name as the archive has it, in NFC or NFD."""
    if folder.isascii():
        return folder
    for name in names:
        start = "/".join(name.split("/")[: folder.count("/") + 1])
        if to_nfc(start) == to_nfc(folder):
            return start
    return folder


def match(glob: Glob, opener: Opener = open_regular) -> list[Entry]:
    """Lists the members that a glob matches.

    Raises:
      OSError: or what `opener` raises; the archive cannot be read.
    """
    found = split(glob.folder)
    if found is None:
        raise ValueError(f"Expected a folder in a ZIP. Received: {glob.folder}")
    archive, folder = found
    fits = re.compile(translate(glob.rest)).fullmatch
    start = len(folder) + 1 if folder else 0
    return [
        Entry(name[start:], member.size, 0.0, member.problem, f"{member.crc:08x}")
        for name, member in read_archive(archive, opener).members.items()
        if (not folder or name.startswith(f"{folder}/")) and fits(to_nfc(name[start:]))
    ]


def check_usable(problems: Sequence[str], received: str) -> None:
    """Refuses ZIPs of which no member can be read.

    Args:
      problems: of all that would be read, empty for what can be.
      received: what names them.

    Raises:
      UserError: none can be.
    """
    if problems and all(problems):
        names = f"the {len(problems)} files" if len(problems) > 1 else "the file"
        raise UserError(
            f"the ZIP cannot be used: of {names} that would be read, none can be, the "
            f"first because {problems[0]}; pack it anew, without a password. "
            f"Received: {received}"
        )

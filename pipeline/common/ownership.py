"""Which files in a folder are ours, and all deletion and replacement of the product.

A folder is ours if it is missing or empty, or if it carries our mark and every file
in it has a name that its kind gives. Nothing else is ever written to, replaced or
deleted: whoever named it by mistake loses nothing. Commands call `check_folder` (or
`check_file`) before any work, `claim` before they write, and `remove` or
`replace_file` where something has to go.

The mark, `OWNER.json`, says the kind and, for kinds whose names are not known
beforehand (the WAVs), the files. It holds no times: it is the same for the same
inputs and options. Standard library only; the file system is handed in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.common.files import Files, join, temporary_name
from pipeline.common.owned_kinds import MARK_FILE, OWNER, UNFINISHED, FileKind, Kind
from pipeline.schema import UserError

#: Bytes of a mark, or of a file that proves whose an unmarked folder is.
_MOST_BYTES = 64 << 20
#: Bytes that tell what a file is.
_HEAD_BYTES = 1 << 16
#: What desktops leave in any folder: neither ours nor a reason to refuse.
_DESKTOP = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holding:
    """What lies in a folder.

    Attributes:
      marked: whether the folder carries the kind's mark, or the kind's proof.
      listed: files that the mark lists.
      strange: the first file that is not ours; None without any.
      empty: whether there is nothing.
    """

    marked: bool
    listed: frozenset[str]
    strange: str | None
    empty: bool


@contextlib.contextmanager
def _explaining(problem: str, received: str) -> Iterator[None]:
    """Makes a file system's error a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{problem}: {error.strerror or error}. Received: {received}"
        ) from error


def _check_way(path: str, flag: str) -> None:
    """Refuses `missing/..`: it leads nowhere until the missing folder is made."""
    if "://" in path:
        return
    parts = path.split("/")
    for end in (end for end, part in enumerate(parts) if part == ".."):
        way = "/".join(parts[:end])
        if way and not os.path.isdir(way):
            raise UserError(
                f"{flag} leads back (..) from {way}, which is no folder; nothing was "
                f"changed. Give {resolve(path)}, if that is meant. Received: {path}"
            )


# Folders


def inspect_folder(files: Files, folder: str, kind: Kind) -> Holding:
    """Looks at a folder, no further than to the first file that is not ours."""
    marked, listed = False, frozenset[str]()
    strange, empty = None, True
    for path, regular in files.walk(folder):
        if path.rpartition("/")[2] in _DESKTOP or (
            regular and UNFINISHED.fullmatch(path)
        ):
            continue
        if empty:
            # Not before: another process may be writing the mark, then the others.
            marked, listed = _read_mark(files, folder, kind)
            empty = False
        if kind.listed:
            # It would be replaced by ours.
            if not marked and files.is_file(join(folder, MARK_FILE)):
                strange = MARK_FILE
            break
        if not (marked and regular and kind.knows(path)):
            strange = path
            break
    return Holding(marked=marked, listed=listed, strange=strange, empty=empty)


def _read_mark(files: Files, folder: str, kind: Kind) -> tuple[bool, frozenset[str]]:
    """Whether a folder is of a kind, and the files that its mark lists."""
    mark = _read_json(files, join(folder, MARK_FILE))
    if not mark:
        found = (
            keys <= _read_json(files, join(folder, name)).keys()
            for name, keys in kind.proof.items()
        )
        return any(found), frozenset()
    marked = mark.get("owner") == OWNER and mark.get("kind") == kind.name
    names = mark.get("files") if marked else None
    return marked, frozenset(n for n in names or () if isinstance(n, str))


def check_folder(
    files: Files, folder: str, kind: Kind, *, flag: str = "--output"
) -> Holding:
    """Refuses a folder that holds anything that is not ours; writes nothing.

    Args:
      files: the folder's file system.
      folder: to be written to; may be missing.
      kind: what will be written.
      flag: that named the folder.

    Raises:
      UserError: a file in it is not ours, or the folder is a file.
    """
    _check_way(folder, flag)
    with _explaining(f"{flag} cannot be looked into", folder):
        if files.is_file(folder):
            raise UserError(
                f"{flag} is a file; give a folder that is new, empty, or holds a "
                f"{kind.name} to replace. Received: {folder}"
            )
        holding = inspect_folder(files, folder, kind)
    if holding.strange is not None:
        raise UserError(
            f"{flag} holds {holding.strange}, which is no part of a {kind.name} that "
            "this program made; nothing was changed. Give a folder that is new or "
            f"empty, or move that file away. Received: {folder}"
        )
    return holding


def claim(
    files: Files,
    folder: str,
    kind: Kind,
    *,
    names: Iterable[str] = (),
    flag: str = "--output",
) -> None:
    """Marks a folder as ours before anything else is written to it.

    Args:
      files: the folder's file system.
      folder: made where it is missing.
      kind: what will be written.
      names: for a kind whose mark lists its files: those that will be written,
        relative to the folder.
      flag: that named the folder.

    Raises:
      UserError: it is not ours, cannot be written to, or one of `names` is there
        and was not listed before.
    """
    holding = check_folder(files, folder, kind, flag=flag)
    targets = frozenset(names)
    if kind.listed:
        for path, _ in files.walk(folder) if targets else ():
            if path not in targets or _is_listed(files, folder, path, kind, holding):
                continue
            # As above, the mark may be newer.
            holding = inspect_folder(files, folder, kind)
            if not _is_listed(files, folder, path, kind, holding):
                raise UserError(
                    f"{flag} holds {path}, which this program did not write and would "
                    "replace; nothing was changed. Give another folder, or move that "
                    f"file away. Received: {folder}"
                )
    mark: dict[str, Any] = {"owner": OWNER, "kind": kind.name}
    if kind.listed:
        mark["files"] = sorted(holding.listed | targets)
    data = (json.dumps(mark, indent=1, sort_keys=True) + "\n").encode()
    path = join(folder, MARK_FILE)
    with _explaining(f"{flag} cannot be written to", folder):
        if not files.is_file(path) or files.read(path, len(data) + 1) != data:
            files.write(path, data)


def _is_listed(
    files: Files, folder: str, path: str, kind: Kind, holding: Holding
) -> bool:
    """Whether a file is one that the mark lists, and still looks like it."""
    if path not in holding.listed:
        return False
    # A store would take a request for each.
    return "://" in folder or kind.sign in files.read(join(folder, path), 256)


def remove(
    files: Files, folder: str, kind: Kind, *, keep: Iterable[str] = ()
) -> list[str]:
    """Deletes what is ours in a folder, the mark last, and folders left empty.

    Args:
      files: the folder's file system.
      folder: a missing one is no error.
      kind: whose files go.
      keep: paths relative to the folder that stay.

    Returns:
      Files that stay because they are not ours or are to be kept.

    Raises:
      UserError: the folder is not marked.
      OSError: a file cannot be deleted.
    """
    holding = inspect_folder(files, folder, kind)
    if not holding.marked and not holding.empty:
        raise UserError(
            f"{folder} holds {holding.strange}, which is no part of a {kind.name} that "
            "this program made; nothing was deleted. Move it away."
        )
    keepers = frozenset(keep)
    stays: list[str] = []
    for path, regular in list(files.walk(folder)):
        ours = path in holding.listed if kind.listed else kind.knows(path)
        if path in keepers or not (ours and regular):
            stays.append(path)
        elif path != MARK_FILE:
            files.delete(join(folder, path))
    if not stays:
        files.delete(join(folder, MARK_FILE))
    files.delete_folders(folder)
    return stays


# Inputs


def resolve(path: str) -> str:
    """A path without links, `..` and `.`, whole; of a store, without the latter."""
    if "://" not in path:
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{posixpath.normpath(rest)}"


def _fold(path: str) -> str:
    """The same for all spellings that some file system takes for one."""
    return unicodedata.normalize("NFC", path).casefold()


def _spellings(paths: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, set[str]]]:
    """Each (flag, path) with its folded spellings, as written and resolved."""
    folders: dict[str, str] = {}
    for flag, path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = resolve(folder or ("/" if path[:1] == "/" else "."))
        whole = f"{folders[folder].rstrip('/')}/{name}"
        if "://" in path:
            yield flag, path, {_fold(whole)}
        else:
            if os.path.islink(path) or name in ("", ".", ".."):
                whole = resolve(path)
            yield flag, path, {_fold(whole), _fold(os.path.abspath(path))}


def check_apart(output: str, inputs: Iterable[tuple[str, str]]) -> None:
    """Refuses an --output that holds something that is read.

    Links, `..`, other case and composition of letters, and other names of the same
    folder are seen through.

    Args:
      output: folder to be written to.
      inputs: flag and path of each file (or folder) that is read.

    Raises:
      UserError: names the first of them.
    """
    roots = {f"{_fold(resolve(output)).rstrip('/')}/"}
    known: dict[str, bool] = {}
    for flag, path, spellings in _spellings(inputs):
        inside = any(f"{s}/".startswith(root) for s in spellings for root in roots)
        if inside or _is_below(path, output, known):
            raise UserError(
                f"--output holds {path}, which {flag} reads; nothing was changed. "
                f"Give a folder that holds no input. Received: {output}"
            )


def _is_below(path: str, folder: str, known: dict[str, bool]) -> bool:
    """Whether a local path lies in a folder, by what the folders are."""
    if "://" in path or "://" in folder:
        return False
    parent = os.path.dirname(os.path.realpath(path))
    if parent not in known:
        above = os.path.dirname(parent)
        try:
            known[parent] = os.path.samefile(parent, folder)
        except OSError:
            known[parent] = False
        if not known[parent] and above != parent:
            known[parent] = _is_below(parent, folder, known)
    return known[parent]


def check_files_apart(
    folder: str, names: Iterable[str], inputs: Iterable[tuple[str, str]], *, flag: str
) -> None:
    """Refuses to write files that are read.

    Args:
      folder: to be written to.
      names: of the files, relative to it.
      inputs: flag and path of each file that is read.
      flag: that named the folder.

    Raises:
      UserError: names the first that is both.
    """
    targets = [(flag, join(folder, name)) for name in names]
    outputs = {s for _, _, spellings in _spellings(targets) for s in spellings}
    for input_flag, path, spellings in _spellings(inputs):
        if outputs & spellings:
            raise UserError(
                f"{flag} would replace {path}, which {input_flag} reads; nothing was "
                f"changed. Give another folder. Received: {folder}"
            )


# Single files


def check_file(files: Files, path: str, kind: FileKind, *, flag: str) -> None:
    """Refuses to replace a file that we did not write; writes nothing that stays.

    Raises:
      UserError: something else lies there, the name does not end as it should, or
        its folder cannot be written to.
    """
    if not path.lower().endswith(kind.suffixes):
        raise UserError(
            f"{flag} must end with {' or '.join(kind.suffixes)}. Received: {path}"
        )
    _check_way(path, flag)
    probe = temporary_name(path)
    with _explaining(f"{flag} cannot be written", path):
        if files.is_file(path) and kind.sign not in files.read(path, _HEAD_BYTES):
            raise UserError(
                f"{flag} is a file that this program did not write; nothing was "
                f"changed. Give another name, or move it away. Received: {path}"
            )
        files.write(probe, b"")
        files.delete(probe)


def replace_file(
    files: Files, path: str, data: bytes, kind: FileKind, *, flag: str
) -> None:
    """Writes a single file, whole or not at all.

    Raises:
      UserError: as `check_file`.
      ValueError: the data lack the kind's sign, and could never be replaced.
    """
    if kind.sign not in data[:_HEAD_BYTES]:
        raise ValueError(f"Expected {kind.sign!r} in a {kind.name}.")
    check_file(files, path, kind, flag=flag)
    with _explaining(f"{flag} cannot be written", path):
        files.write(path, data)


def _read_json(files: Files, path: str) -> dict[str, Any]:
    """A JSON object of a small file; empty where there is none."""
    try:
        if not files.is_file(path):
            return {}
        data = files.read(path, _MOST_BYTES + 1)
        content = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}

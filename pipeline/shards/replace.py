"""Makes a folder complete; a new one, whole in `_next/`, takes the old one's place.

On this machine's file systems both folders are exchanged in one step, where the system
can do that: whoever looks sees the old files or the new ones. Elsewhere, files are
moved one by one, and a list tells the next job how to go on if that is interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from collections.abc import Mapping

from pipeline.common import ownership, storage
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import MARK_FILE, Kind
from pipeline.schema import COMPLETED_FILE, UserError
from pipeline.shards.runs import NEXT_FOLDER, PROGRESS_FOLDER, UNFINISHED, Place

#: In `_next/`: the names of all its files, once they are being moved.
_LIST_FILE = "_files.json"
#: Of Linux' renameat2().
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def publish(place: Place, texts: Mapping[str, str], kind: Kind) -> None:
    """Makes a folder complete: its last files, and nothing that only a job needs.

    The files exist under other names before the finished shards' results go, so that
    little can go wrong, and little time passes, between the last steps. The caller
    holds the folder's lock.

    Args:
      place: the folder, and the one that it replaces.
      texts: contents of its last files, by name; the marker last.
      kind: of the folder.

    Raises:
      WriteError: the store does not do it.
    """
    output = place.output
    paths = {
        name: (join(output, UNFINISHED + name), join(output, name)) for name in texts
    }
    for name, (unfinished, path) in paths.items():
        with storage.writing(path), storage.create(unfinished) as file:
            file.write(texts[name].encode())
    # On stores without locks the file that names the run goes last.
    for folder in (storage.TEMPORARY_FOLDER, PROGRESS_FOLDER):
        storage.delete_tree(join(output, folder))
    for unfinished, path in paths.values():
        with storage.writing(path):
            storage.rename(unfinished, path)
    if place.replaces:
        replace_folder(place.replaces, kind)


def replace_folder(folder: str, kind: Kind) -> None:
    """Replaces what is in a folder by what is complete in its `_next/`.

    The caller holds the folder's lock. Safe to repeat after an interruption.

    Args:
      folder: with the old files.
      kind: of both.

    Raises:
      WriteError: the store does not do it; what is not moved yet stays in `_next/`.
    """
    with storage.writing(folder):
        if "://" in folder or not _exchange(folder, kind):
            _move_files(folder, kind)


def finish_replacing(folder: str, kind: Kind) -> None:
    """Ends what an interrupted job had begun; the caller holds the folder's lock."""
    built = join(folder, NEXT_FOLDER)
    if storage.exists(join(built, COMPLETED_FILE)):
        replace_folder(folder, kind)
    elif storage.exists(join(built, _LIST_FILE)):
        storage.delete(join(built, _LIST_FILE))
    if "://" not in folder:
        _remove_aside(_aside(folder), kind)


def _aside(folder: str) -> str:
    """The hidden name beside a local folder that the exchange goes through."""
    parent, name = os.path.split(os.path.realpath(folder))
    return os.path.join(parent, f".{name}.replaced")


def _remove_aside(aside: str, kind: Kind) -> None:
    if os.path.isdir(aside):
        with contextlib.suppress(UserError):
            ownership.remove(beam_files(aside), aside, kind)


def _exchange(folder: str, kind: Kind) -> bool:
    """Exchanges the folders and deletes the old one; False where that cannot be."""
    folder = os.path.realpath(folder)
    built, aside = join(folder, NEXT_FOLDER), _aside(folder)
    found = ownership.inspect_folder(beam_files(folder), folder, kind)
    _remove_aside(aside, kind)
    if found.strange or os.path.lexists(aside):
        return False
    with contextlib.suppress(OSError):
        os.chmod(built, os.stat(folder).st_mode & 0o7777)
    try:
        os.rename(built, aside)
    except OSError:  # A mount point, or no right to write beside it.
        return False
    if not _rename_exchange(aside, folder):
        os.rename(aside, built)
        return False
    _remove_aside(aside, kind)
    return True


def _rename_exchange(first: str, second: str) -> bool:
    """Exchanges two names in one step; False where the system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    names = os.fsencode(first), os.fsencode(second)
    found = renameat2(
        _AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)
    )
    return bool(found == 0)


def _move_files(folder: str, kind: Kind) -> None:
    """Moves the new files over the old ones; marker first out, last in."""
    files = beam_files(folder)
    built = join(folder, NEXT_FOLDER)
    listed = join(built, _LIST_FILE)
    if not storage.exists(listed):
        names = sorted(storage.list_sizes(built))
        files.write(listed, json.dumps(names).encode())
    new = set(json.loads(storage.read_text(listed))) - {_LIST_FILE}
    storage.delete(join(folder, COMPLETED_FILE))
    for path, regular in list(files.walk(folder)):
        inside = path.startswith(f"{NEXT_FOLDER}/")
        if regular and not inside and path not in new and kind.knows(path):
            files.delete(join(folder, path))
    last = (*kind.proof, COMPLETED_FILE)
    for name in sorted(new, key=lambda n: (n in last, n == COMPLETED_FILE, n)):
        source, target = (join(start, name) for start in (built, folder))
        if storage.exists(source):
            storage.make_folder(os.path.dirname(target))
            storage.rename(source, target)
    # Not before: without the list, all that is not in `_next/` counts as old.
    storage.delete(listed)
    files.delete(join(built, MARK_FILE))
    files.delete_folders(built)

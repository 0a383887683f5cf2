"""Puts a new dataset, whole in `_next/`, in the place of the old one around it.

On this machine's file systems both folders are exchanged in one step, where the system
can do that: whoever looks sees the old dataset or the new one. Elsewhere, files are
moved one by one, and a list tells the next job how to go on if that is interrupted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os

from pipeline.common import ownership, storage
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import DATASET, MARK_FILE
from pipeline.schema import COMPLETED_FILE, MANIFEST_FILE, UserError
from pipeline.shards.runs import NEXT_FOLDER

#: In `_next/`: the names of all its files, once they are being moved.
_LIST_FILE = "_files.json"
_LAST = (MANIFEST_FILE, COMPLETED_FILE)
#: Of Linux' renameat2().
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def replace_dataset(folder: str) -> None:
    """Replaces a dataset by the complete one in its `_next/`.

    The caller holds the folder's lock. Safe to repeat after an interruption.

    Args:
      folder: of the old dataset.

    Raises:
      WriteError: the store does not do it; what is not moved yet stays in `_next/`.
    """
    with storage.writing(folder):
        if "://" in folder or not _exchange(folder):
            _move_files(folder)


def finish_replacing(folder: str) -> None:
    """Ends what an interrupted job had begun; the caller holds the folder's lock."""
    built = storage.join(folder, NEXT_FOLDER)
    if storage.exists(storage.join(built, COMPLETED_FILE)):
        replace_dataset(folder)
    elif storage.exists(storage.join(built, _LIST_FILE)):
        storage.delete(storage.join(built, _LIST_FILE))
    if "://" not in folder:
        _remove_aside(_aside(folder))


def _aside(folder: str) -> str:
    """The hidden name beside a local folder that the exchange goes through."""
    parent, name = os.path.split(os.path.realpath(folder))
    return os.path.join(parent, f".{name}.replaced")


def _remove_aside(aside: str) -> None:
    if os.path.isdir(aside):
        with contextlib.suppress(UserError):
            ownership.remove(beam_files(aside), aside, DATASET)


def _exchange(folder: str) -> bool:
    """Exchanges the folders and deletes the old one; False where that cannot be."""
    folder = os.path.realpath(folder)
    built, aside = join(folder, NEXT_FOLDER), _aside(folder)
    found = ownership.inspect_folder(beam_files(folder), folder, DATASET)
    _remove_aside(aside)
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
    _remove_aside(aside)
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


def _move_files(folder: str) -> None:
    """Moves the new files over the old ones; marker and manifest leave first."""
    files = beam_files(folder)
    built = storage.join(folder, NEXT_FOLDER)
    listed = storage.join(built, _LIST_FILE)
    if not storage.exists(listed):
        names = sorted(storage.list_sizes(built))
        files.write(listed, json.dumps(names).encode())
    new = set(json.loads(storage.read_text(listed))) - {_LIST_FILE}
    storage.delete(storage.join(folder, COMPLETED_FILE))
    for path, regular in list(files.walk(folder)):
        inside = path.startswith(f"{NEXT_FOLDER}/")
        if regular and not inside and path not in new and DATASET.knows(path):
            files.delete(join(folder, path))
    for name in sorted(new, key=lambda n: (n in _LAST, n == COMPLETED_FILE, n)):
        source, target = (
            storage.join(start, *name.split("/")) for start in (built, folder)
        )
        if storage.exists(source):
            storage.make_folder(os.path.dirname(target))
            storage.rename(source, target)
    # Not before: without the list, all that is not in `_next/` counts as old.
    storage.delete(listed)
    files.delete(join(built, MARK_FILE))
    files.delete_folders(built)

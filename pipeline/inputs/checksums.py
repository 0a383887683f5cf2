"""SHA-1 of single audio files, from the `checksums` that FMA puts beside them.

The format is that of `sha1sum`: forty hexadecimal digits, two blanks (or a blank and an
asterisk), a path relative to the file. It is looked for in the folder of the audio
glob, in the one above, in those below it while they are few, and among the files that
the glob matches.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

from pipeline.common import storage
from pipeline.common.rejects import AudioError, Reason
from pipeline.inputs.archives import paths, reading
from pipeline.inputs.audio_files import match_audio, parse_globs
from pipeline.inputs.globs import is_remote, to_nfc
from pipeline.inputs.join import AudioFile
from pipeline.inputs.names import relative_path
from pipeline.schema import UserError, shorten

CHECKSUMS_FILE = "checksums"
#: FMA's largest has 106,574 lines of 57 bytes.
MOST_BYTES = 64 << 20
#: Folders of one depth, below the glob's, that are looked into.
MOST_FOLDERS = 8

_LINE = re.compile(r"([0-9a-f]{40}) [ *](.+)")


def list_audio(*patterns: str) -> list[AudioFile]:
    """The files of globs, each with its SHA-1 where that is known.

    Raises:
      UserError: as `match_audio`, or a file of checksums is not what it should be.
    """
    files = match_audio(*patterns)
    globs = [glob for pattern in patterns for glob in parse_globs(pattern)]
    return _add_checksums(files, list(dict.fromkeys(glob.folder for glob in globs)))


def _add_checksums(
    files: Sequence[AudioFile], folders: Sequence[str]
) -> list[AudioFile]:
    """Tells each file its SHA-1, where that is known."""
    known: dict[str, str] = {}
    for path in _find_tables([file.path for file in files], folders):
        parent = posixpath.dirname(path)
        for name, sha1 in read_checksums(path).items():
            known.setdefault(to_nfc(posixpath.join(parent, name)), sha1)
    if not known:
        return list(files)
    return [
        file._replace(sha1=known.get(to_nfc(file.path), file.sha1)) for file in files
    ]


def _find_tables(files: Sequence[str], folders: Sequence[str]) -> Iterator[str]:
    """Paths of files of checksums that are there."""
    listed = {path for path in files if posixpath.basename(path) == CHECKSUMS_FILE}
    yield from sorted(listed)
    ordered = sorted(files)
    for folder in folders:
        start = f"{folder.rstrip('/')}/" if folder else ""
        first, end = 0, len(ordered)
        if start:
            first = bisect.bisect_left(ordered, start)
            end = bisect.bisect_left(ordered, f"{start[:-1]}0")  # The next to a slash.
        for place in _list_places(ordered[first:end], folder):
            path = posixpath.join(place, CHECKSUMS_FILE)
            if path not in listed and _is_there(path):
                yield path


def _list_places(files: Sequence[str], folder: str) -> Iterator[str]:
    """Folders in which the checksums of a folder's files may lie."""
    yield folder
    if folder and folder not in (".", "/") and not folder.endswith("!"):
        yield posixpath.dirname(folder)
    below = {posixpath.dirname(relative_path(path, folder)) for path in files}
    depth = 1
    while level := {
        "/".join(parts[:depth])
        for parts in (name.split("/") for name in below if name)
        if len(parts) >= depth
    }:
        if len(level) > MOST_FOLDERS:
            break  # A store would take a request for each.
        for name in sorted(level):
            yield posixpath.join(folder, name)
        depth += 1


def _is_there(path: str) -> bool:
    found = paths.split(path)
    if found is not None:
        return found[1] in reading.read_archive(found[0], "--audio").members
    if is_remote(path) and path.count("/") < 3:
        return False  # Above a bucket.
    return storage.exists(path)


def read_checksums(path: str) -> Mapping[str, str]:
    """SHA-1 by relative path; empty for a file that holds something else.

    Raises:
      UserError: it cannot be read, or a line of it is none of `sha1sum`'s.
    """
    try:
        with reading.open_input(path) as file:
            data = file.read(MOST_BYTES + 1)
    except (*storage.STORE_ERRORS, AudioError) as error:
        raise UserError(
            f"--audio: the checksums beside it cannot be read ({error}); mend or "
            f"remove them. Received: {path}"
        ) from error
    lines = data.decode("utf-8", "replace").splitlines()
    return _parse(lines, path) if len(data) <= MOST_BYTES else {}


def _parse(lines: Iterable[str], path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    strange: tuple[int, str] | None = None
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is not None:
            found[posixpath.normpath(match[2])] = match[1]
        elif line.strip() and strange is None:
            strange = number, line
    if found and strange is not None:
        number, line = strange
        raise UserError(
            f"--audio: line {number} of {path} is none that sha1sum writes; mend or "
            f"remove that file. Received: {shorten(line)}"
        )
    return found


def check_sha1(file: BinaryIO, expected: str) -> None:
    """Holds a whole file, from its start on, against its SHA-1, and rewinds it.

    Args:
      file: seekable.
      expected: forty hexadecimal digits; empty where it is not known.

    Raises:
      AudioError: it is another.
    """
    if not expected:
        return
    found = hashlib.file_digest(cast(io.BytesIO, file), "sha1").hexdigest()
    file.seek(0)
    if found != expected:
        raise AudioError(
            Reason.SHA1_MISMATCH,
            f"its SHA-1 is {found}, not {expected} as in the {CHECKSUMS_FILE} beside "
            "it: damaged, or changed (then remove its line there)",
        )

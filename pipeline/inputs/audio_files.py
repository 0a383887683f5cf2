"""The files of an audio glob, on any file system, and which of them are audio."""

from __future__ import annotations

import collections
import concurrent.futures
import difflib
import itertools
import os
import posixpath
import re
from collections.abc import Callable

from apache_beam.io.filesystem import BeamIOError

from pipeline.common import storage
from pipeline.common.rejects import AudioError
from pipeline.inputs import globs
from pipeline.inputs.archives import paths, reading
from pipeline.inputs.audio_names import HEAD_BYTES, is_audio_name, looks_like_audio
from pipeline.inputs.globs import Glob, is_remote
from pipeline.inputs.join import AudioFile
from pipeline.inputs.names import AudioFolder, find_common, name_aliases, normalise
from pipeline.schema import UserError

#: ZIPs whose directories are read at the same time.
OPENED_AT_ONCE = 16
#: Files that are looked at to explain why a glob matches none.
LOOKED_AT = 10_000


def match_audio(*patterns: str) -> list[AudioFile]:
    """Lists the files of globs (see `pipeline.inputs.globs`), each once.

    Raises:
      UserError: one matches none, or a file or folder cannot be used.
    """
    files: dict[str, AudioFile] = {}
    for pattern in patterns:
        found = _match(pattern)
        if len(patterns) > 1:
            found = [file for file in found if normalise(file.path) not in files]
        files |= {normalise(file.path): file for file in found}
    return list(files.values())


def _match(pattern: str) -> list[AudioFile]:
    """Lists the files of one pattern."""
    if not pattern:
        raise UserError(
            "--audio must name a folder, or a quoted glob such as 'fma_small/**.mp3'. "
            f"Received: {pattern!r}"
        )
    parts = parse_globs(pattern)
    files = [file for glob in parts for file in _match_glob(glob, pattern)]
    if not files:
        why = _explain(parts[0])
        if len(parts) > 1:
            why = f"nothing in these {len(parts)} ZIPs is named {parts[0].rest}."
        raise UserError(f"--audio matches no file: {why} Received: {pattern}")
    if all(paths.split(glob.folder) for glob in parts):
        paths.check_usable([file.problem for file in files], pattern)
    if all(file.path.lower().endswith(".zip") for file in files):
        raise UserError(
            "--audio matches ZIPs alone, which are read where their names end the "
            "glob, as 'music/**.zip'; unpack those that lie in another ZIP. "
            f"Received: {pattern}"
        )
    for file in files:
        if not file.path.isprintable() and not _is_text(file.path):
            raise UserError(
                "--audio matches a file whose name is not UTF-8 text; rename it. "
                f"Received: {file.path!r}"
            )
    return files


def _match_glob(glob: Glob, pattern: str) -> list[AudioFile]:
    try:
        if is_remote(glob.folder) and paths.split(glob.folder) is None:
            return _match_remote(glob)
        return _match_here(glob)
    except (ValueError, BeamIOError) as error:
        raise UserError(
            f"--audio cannot be matched: {error}. Received: {pattern}"
        ) from error


def parse_globs(pattern: str) -> list[Glob]:
    """Tells a pattern's folder, which may lie in a ZIP, from its glob.

    A pattern that matches several ZIPs has as many.

    Raises:
      UserError: a ZIP cannot be read.
    """
    found = paths.find_archive(pattern) or _find_archives(pattern)
    if found is None:
        return [globs.parse(pattern)]
    names, inside = _list_archives(found[0]), found[1]
    with concurrent.futures.ThreadPoolExecutor(OPENED_AT_ONCE) as executor:
        archives = executor.map(lambda n: reading.read_archive(n, "--audio"), names)
        return [paths.parse(found.path, inside, found.members) for found in archives]


def _find_archives(pattern: str) -> tuple[str, str] | None:
    """A glob of ZIPs, and the pattern of all their members; None for another one."""
    pattern = paths.drop_scheme(pattern)
    if not pattern.lower().endswith((".zip", ".zip}")) or os.path.isdir(pattern):
        return None
    name = globs.unescape(pattern)
    return (pattern, "") if name is None or os.path.isfile(name) else None


def _list_archives(pattern: str) -> list[str]:
    """Paths of the ZIPs that a glob matches; of a name without wildcards, itself."""
    if not is_remote(pattern) and os.path.isfile(pattern):
        return [pattern]
    name = globs.unescape(pattern)
    if name is not None:
        return [name]
    glob = globs.parse(pattern)
    names = [file.path for file in _match_glob(glob, pattern)]
    found = sorted(name for name in names if name.lower().endswith(".zip"))
    if not found:
        raise UserError(f"--audio matches no ZIP: {_explain(glob)} Received: {pattern}")
    return found


def locate_audio(*patterns: str) -> AudioFolder:
    """The folder of some globs, from which the metadata's paths start.

    One that is on an object store and has no wildcards is a file, or a folder.

    Raises:
      UserError: a ZIP cannot be read, or the globs have no folder in common.
    """
    folders = dict.fromkeys(
        glob_folder(glob) for pattern in patterns for glob in parse_globs(pattern)
    )
    path = find_common(list(folders))
    if path is None:
        raise UserError(
            "--audio must lie in one bucket, or on this machine alone, where several "
            f"are given. Received: {' '.join(patterns)}"
        )
    roots = [folder for folder in folders if folder != path]
    return AudioFolder(path=path, aliases=(*name_aliases(path), *roots))


def glob_folder(glob: Glob) -> str:
    """The folder of a glob; on an object store also one that is named as a file."""
    if is_remote(glob.folder) and not paths.split(glob.folder) and _names_folder(glob):
        return glob.join(globs.unescape(glob.rest) or "")
    return glob.folder


def _names_folder(glob: Glob) -> bool:
    """Whether a remote glob without wildcards names no file, but what begins so."""
    name = globs.unescape(glob.rest)
    if name is None:
        return False
    path = globs.escape(glob.join(name))
    return not storage.match(path) and bool(storage.match(f"{path}/**"))


def _match_here(glob: Glob) -> list[AudioFile]:
    """What a glob matches on this machine, or in a ZIP."""
    try:
        if paths.split(glob.folder) is None:
            entries = globs.match(glob)
        else:
            entries = paths.match(glob, reading.opener)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"--audio: {error.filename} cannot be listed ({error.strerror}); change "
            "its permissions, or leave it out of the glob."
        ) from error
    return [
        AudioFile(glob.join(name), size, modified, problem, crc)
        for name, size, modified, problem, crc in entries
    ]


def _match_remote(glob: Glob) -> list[AudioFile]:
    """Lists what begins as the glob does, in one go, and filters it."""
    if _names_folder(glob):
        glob = Glob(folder=glob.join(globs.unescape(glob.rest) or ""), rest="**")
    # Letters with accents may be written in other ways.
    start = re.split(r"[*?\[{]|[^\0-\x7f]", glob.rest, maxsplit=1)[0]
    fits = re.compile(globs.translate(glob.rest)).fullmatch
    below = len(glob.join(""))
    found = storage.match(globs.escape(glob.join(start)) + "**")
    return [
        AudioFile(item.path, item.size_in_bytes, item.last_updated_in_seconds or 0.0)
        for item in found
        # Some stores hold an object for a folder.
        if fits(globs.to_nfc(item.path[below:])) and not item.path.endswith("/")
    ]


def _explain(glob: Glob) -> str:
    """Why a glob matches nothing, and the next thing to try."""
    quote = "give a folder, or a quoted glob such as 'fma_small/**.mp3'."
    member = paths.split(glob.folder)
    if member is not None:
        if paths.split(member[1]):
            return f"what lies in a ZIP in a ZIP is not read; unpack {member[0]}."
        if not member[1] and glob.rest == "**":
            return f"{member[0]} holds none; fetch or pack it anew."
        return f"nothing in {glob.folder} is named {glob.rest}; give {member[0]} alone."
    if is_remote(glob.folder):
        return f"nothing below {glob.folder} is named {glob.rest}; {quote}"
    folder = glob.folder or "the current folder"
    if not os.path.isdir(glob.folder or "."):
        return f"there is no folder {folder}{_ask_for_similar(glob.folder)}; {quote}"
    name = globs.unescape(glob.rest)
    if name is not None:
        similar = _ask_for_similar(glob.join(name))
        return f"there is no {name} in {folder}{similar}; {quote}"
    try:
        found = itertools.islice(globs.walk(glob.folder), LOOKED_AT)
        names = [entry.name for entry in found]
    except OSError as error:
        return f"{error.filename} cannot be listed ({error.strerror}); {quote}"
    if not names:
        return f"{folder} holds no file; {quote}"
    endings = collections.Counter(
        posixpath.splitext(name)[1].lower() for name in names if is_audio_name(name)
    )
    if not endings:
        return f"none of the {len(names)} files in {folder} is named as audio; {quote}"
    [(ending, count)] = endings.most_common(1)
    literally = " (for a bracket or brace itself, write [[] or [{])" * any(
        char in glob.rest for char in "[{"
    )
    return (
        f"no file in {folder} is named {glob.rest}{literally}, but it holds {count} "
        f"{ending} files; give '{glob.join('**' + ending)}', or the folder alone."
    )


def _ask_for_similar(path: str) -> str:
    """Where the way to a path ends, what is there of a similar name."""
    parent, name = posixpath.split(path)
    while parent and not os.path.isdir(parent):
        parent, name = posixpath.split(parent.rstrip("/"))
    try:
        found = os.listdir(parent or ".")
    except OSError:
        return ""
    similar = difflib.get_close_matches(name, set(found) - {name}, 1)
    return f" (is it {posixpath.join(parent, similar[0])}?)" if similar else ""


def _is_text(path: str) -> bool:
    """Whether a path can be sent to a worker: it may hold bytes of no encoding."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_audio_check() -> Callable[[AudioFile], bool]:
    """A function that tells audio, by name or else by its first bytes.

    It keeps what it has found. A file that cannot be read counts as audio.
    """
    known: dict[str, bool] = {}

    def is_audio(file: AudioFile) -> bool:
        by_name = is_audio_name(file.path)
        if by_name is not None:
            return by_name
        if len(known) > LOOKED_AT:
            known.clear()
        if file.path not in known:
            known[file.path] = _has_audio_head(file)
        return known[file.path]

    return is_audio


def _has_audio_head(file: AudioFile) -> bool:
    member = paths.split(file.path) is not None
    if not (member or is_remote(file.path) or os.path.isfile(file.path)):
        return False  # A pipe may never answer.
    try:
        with reading.stream_input(file.path, sparsely=True) as opened:
            return looks_like_audio(opened.read(HEAD_BYTES))
    except (*storage.STORE_ERRORS, AudioError):
        return True

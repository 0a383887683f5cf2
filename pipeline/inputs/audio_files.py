"""The files of an audio glob, on any file system, and which of them are audio."""

from __future__ import annotations

import collections
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
from pipeline.schema import UserError

#: Files that are looked at to explain why a glob matches none.
LOOKED_AT = 10_000


def match_audio(pattern: str) -> list[AudioFile]:
    """Lists the files of a glob (see `pipeline.inputs.globs`).

    Raises:
      UserError: there are none, or a file or folder cannot be used.
    """
    if not pattern:
        raise UserError(
            "--audio must name a folder, or a quoted glob such as 'fma_small/**.mp3'. "
            f"Received: {pattern!r}"
        )
    glob = parse_glob(pattern)
    try:
        if paths.split(glob.folder) is None and is_remote(pattern):
            files = _match_remote(glob)
        else:
            files = _match_here(glob)
    except (ValueError, BeamIOError) as error:
        raise UserError(
            f"--audio cannot be matched: {error}. Received: {pattern}"
        ) from error
    if not files:
        raise UserError(
            f"--audio matches no file: {_explain(glob)} Received: {pattern}"
        )
    for file in files:
        if not file.path.isprintable() and not _is_text(file.path):
            raise UserError(
                "--audio matches a file whose name is not UTF-8 text; rename it. "
                f"Received: {file.path!r}"
            )
    return files


def parse_glob(pattern: str) -> Glob:
    """Tells a glob's folder, which may lie in a ZIP, from its pattern.

    Raises:
      UserError: the ZIP cannot be read.
    """
    found = paths.find_archive(pattern)
    if found is None:
        return globs.parse(pattern)
    archive, inside = found
    names = reading.read_archive(archive, "--audio").members
    return paths.parse(archive, inside, names)


def glob_base(pattern: str) -> str:
    """The folder of a glob, from which the metadata's paths start.

    One that is on an object store and has no wildcards is a file, or a folder.

    Raises:
      UserError: the ZIP that holds it cannot be read.
    """
    glob = parse_glob(pattern)
    if paths.split(glob.folder):
        return glob.folder
    if is_remote(pattern) and _names_folder(glob):
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

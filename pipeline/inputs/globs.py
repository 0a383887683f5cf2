"""Globs as people type them, and what a folder holds. Standard library only.

`*` and `?` stand for characters of a name, `**` for any of a path, `**/` for any number
of folders, none included, `[ab]` for one character and `{a,b}` for one of some texts.
`[[]` is a bracket. Letters of an extension match both cases, and letters with accents
are the same in NFC and NFD.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.common.files import expand_home


@dataclasses.dataclass(frozen=True, kw_only=True)
class Glob:
    """A glob, cut where its wildcards begin.

    Attributes:
      folder: in which all matches lie; empty for the current one.
      rest: pattern of their paths below it.
    """

    folder: str
    rest: str

    def join(self, name: str) -> str:
        """The path of what lies below the folder."""
        return f"{self.folder}{'/' * (self.folder not in ('', '/'))}{name}"


class Entry(NamedTuple):
    """Something in a folder that is no folder.

    Attributes:
      name: path below the folder.
      size: in bytes.
      modified: seconds since 1970.
      problem: why nothing can be read from it; empty where that is not known.
      crc: CRC-32 of what is in a ZIP, in hexadecimal; else empty.
    """

    name: str
    size: int
    modified: float
    problem: str = ""
    crc: str = ""


def is_remote(path: str) -> bool:
    """Whether a path names its file system."""
    return "://" in path


def parse(text: str) -> Glob:
    """Tells a glob's folder from its pattern.

    What exists, on this machine, is meant literally, also where it has wildcards in
    its name; a folder stands for all that it holds.
    """
    if is_remote(text):
        return _cut(text)
    text = _spell(expand_home(text))
    if os.path.isdir(text):
        folder = text.rstrip("/") or "/"
        return Glob(folder="" if folder == "." else folder, rest="**")
    if os.path.lexists(text):
        folder, name = posixpath.split(text)
        return Glob(folder=folder, rest=escape(name))
    return _cut(text)


def _cut(text: str) -> Glob:
    """Takes off the leading folders that have no wildcards, or exist as they are."""
    if is_remote(text) and "/" not in text.partition("://")[2]:
        text += "/"  # A bucket alone.
    start = text.index("://") + 3 if is_remote(text) else 0
    folder = text[:start]
    while (end := text.find("/", start)) >= 0:
        name = text[start:end]
        literal = name
        if not _is_there(folder + name):
            found = _unescape(text, start, end)
            if found is None:
                break
            literal = found
        folder += literal + "/"
        start = end + 1
    if not folder.endswith("://"):
        folder = folder.rstrip("/") or folder[:1]
    rest = text[start:]
    return Glob(folder=folder, rest=f"{rest}**" if rest[-1:] in ("", "/") else rest)


def _spell(text: str) -> str:
    """Writes the leading folders as they are on the disk, in NFC or NFD."""
    if text.isascii():
        return text
    path, rest = "", text
    while rest and not os.path.lexists(path + rest):
        name, slash, rest = rest.partition("/")
        if not (name.isascii() or os.path.lexists(path + name)):
            try:
                names = os.listdir(path or ".")
            except OSError:
                return text
            same = [other for other in names if to_nfc(other) == to_nfc(name)]
            name = same[0] if len(same) == 1 else name
        path += name + slash
    return path + rest


def to_nfc(text: str) -> str:
    """Letters with accents as one code point each."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _is_there(path: str) -> bool:
    return bool(path) and not is_remote(path) and os.path.isdir(path)


def unescape(pattern: str) -> str | None:
    """The one name that a pattern stands for; None if it has wildcards."""
    return _unescape(pattern, 0, len(pattern))


def _unescape(text: str, start: int, end: int) -> str | None:
    out, at = "", start
    while at < end:
        char = text[at]
        close = _class_end(text, at) if char == "[" else -1
        if close == at + 2 and text[at + 1] not in "!^":
            char, at = text[at + 1], close
        elif (
            char in "*?"
            or 0 < close < end
            or (char == "{" and _brace_end(text, at) > 0)
        ):
            return None
        out += char
        at += 1
    return out


def escape(name: str) -> str:
    """A pattern that only this name matches."""
    return re.sub(r"([*?\[{])", r"[\1]", name)


def _class_end(pattern: str, start: int) -> int:
    """Index of the bracket that closes the class at `start`; -1 without one."""
    first = start + 2 if pattern[start + 1 : start + 2] in ("!", "^") else start + 1
    return pattern.find("]", first + 1)


def _brace_end(pattern: str, start: int) -> int:
    """Index of the brace that closes that at `start`; -1 without one or a comma."""
    depth, commas, at = 0, 0, start
    while at < len(pattern):
        if pattern[at] == "[" and _class_end(pattern, at) > 0:
            at = _class_end(pattern, at)
        elif pattern[at] == "{":
            depth += 1
        elif pattern[at] == "," and depth == 1:
            commas += 1
        elif pattern[at] == "}":
            depth -= 1
            if depth == 0:
                return at if commas else -1
        at += 1
    return -1


def translate(pattern: str) -> str:
    """A glob as a regular expression for `re.fullmatch` of names in NFC."""
    pattern = to_nfc(pattern)
    out, at, open_braces = [], 0, list[int]()
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            start = at
            while pattern[at : at + 1] == "*":
                at += 1
            if at == start + 1:
                out.append("[^/]*")
            elif pattern[at : at + 1] == "/" and pattern[start - 1 : start] in "/{,":
                out.append("(?:.*/)?")
                at += 1
            else:
                out.append(".*")
            continue
        if char == "?":
            out.append("[^/]")
        elif char == "[" and (end := _class_end(pattern, at)) > 0:
            out.append(_translate_class(pattern[at + 1 : end]))
            at = end
        elif char == "{" and (end := _brace_end(pattern, at)) > 0:
            open_braces.append(end)
            out.append("(?:")
        elif char == "," and open_braces:
            out.append("|")
        elif char == "}" and open_braces and at == open_braces[-1]:
            open_braces.pop()
            out.append(")")
        elif char.isascii() and char.isalpha() and _is_in_extension(pattern, at):
            out.append(f"[{char.lower()}{char.upper()}]")
        else:
            out.append(re.escape(char))
        at += 1
    return "(?s:" + "".join(out) + ")"


def _translate_class(content: str) -> str:
    negated = content[0] in "!^"
    content = content[1:] if negated else content
    ranges, at = [], 0
    while at < len(content):
        low = high = content[at]
        if content[at + 1 : at + 2] == "-" and at + 2 < len(content):
            high = content[at + 2]
            at += 2
        at += 1
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return "[^/]" if negated else "(?!)"
    inside = "".join(ranges)
    return f"(?!/)[^{inside}]" if negated else f"(?!/)[{inside}]"


def _is_in_extension(pattern: str, at: int) -> bool:
    """Whether a letter comes after the last dot of a file's name."""
    before = re.split(r"[/,]", pattern[:at])[-1]
    opened = pattern[:at].rfind("{")
    if opened > pattern[:at].rfind("/") and pattern[opened - 1 : opened] == ".":
        before = "."  # As in `*.{wav,mp3}`.
    after = re.split(r"[,}]", pattern[at:])[0]
    return "." in before and "." not in after and "/" not in pattern[at:]


def match(glob: Glob) -> list[Entry]:
    """What a glob matches on this machine.

    Raises:
      OSError: a folder cannot be listed.
    """
    name = unescape(glob.rest)
    if name is not None and os.path.isfile(glob.join(name)):
        status = os.stat(glob.join(name))
        return [Entry(name, status.st_size, status.st_mtime)]
    fits = re.compile(translate(glob.rest)).fullmatch
    entries = walk(glob.folder, _find_entrance(glob.rest))
    return [entry for entry in entries if fits(to_nfc(entry.name))]


def _find_entrance(pattern: str) -> Callable[[str], bool]:
    """Tells of a folder, by its path, whether what it holds may match."""
    parts = pattern.split("/")[:-1]
    if any(part.count("{") != part.count("}") for part in parts):
        fixed, deep = [], True
    else:
        fixed = list(itertools.takewhile(lambda part: "**" not in part, parts))
        deep = "**" in pattern
    fits = [re.compile(translate(part)).fullmatch for part in fixed]

    def enter(name: str) -> bool:
        depth = name.count("/")
        if depth < len(fits):
            return fits[depth](to_nfc(name.rpartition("/")[2])) is not None
        return deep

    return enter


def walk(
    folder: str,
    enter: Callable[[str], bool] | None = None,
    on_error: Callable[[OSError], object] | None = None,
) -> Iterator[Entry]:
    """All that a folder holds, apart from folders.

    Each folder is entered once: by its own place before any link to it, and links in
    alphabetical order. A link to a folder above is a loop.

    Args:
      folder: empty for the current one.
      enter: tells of a folder, by its path below this one, whether to enter it.
      on_error: is told of a folder that cannot be listed, which is then left out.

    Raises:
      OSError: a folder cannot be listed, or is not there, and `on_error` is not given.
    """
    entered = set(map(_identify, _name_parents(os.path.realpath(folder or "."))))
    waiting, links = [""], list[str]()
    while waiting or links:
        if waiting:
            name = waiting.pop()
        else:
            name = heapq.heappop(links)
            key = _identify(posixpath.join(folder, name))
            if key in entered:
                continue
            entered.add(key)
        try:
            listing = os.scandir(posixpath.join(folder, name) or ".")
        except OSError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        with listing:
            for item in listing:
                path = f"{name}/{item.name}" if name else item.name
                if not item.is_dir(follow_symlinks=False) and not (
                    item.is_symlink() and os.path.isdir(item.path)
                ):
                    entry = _describe(item, path)
                    if entry is not None:
                        yield entry
                elif enter is not None and not enter(path):
                    continue
                elif item.is_symlink():
                    heapq.heappush(links, path)
                elif (key := _identify(item)) not in entered:
                    entered.add(key)
                    waiting.append(path)


def _identify(folder: str | os.DirEntry[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _name_parents(path: str) -> Iterator[str]:
    """A path and those above it."""
    yield path
    while path != (path := posixpath.dirname(path)):
        yield path


def _describe(item: os.DirEntry[str], name: str) -> Entry | None:
    try:
        status = item.stat()
    except OSError as error:
        if not item.is_symlink():
            return None  # It has just been deleted.
        target = os.readlink(item.path)
        return Entry(name, 0, 0.0, f"it is a link to {target}: {error.strerror}")
    return Entry(name, status.st_size, status.st_mtime)

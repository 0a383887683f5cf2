"""How rows and files name audio: what a path may mean, and what joins the two."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import posixpath
import re
from collections.abc import Collection, Sequence

from pipeline.inputs.archives import paths
from pipeline.inputs.audio_names import split_extension
from pipeline.inputs.globs import is_remote, to_nfc


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFolder:
    """The folder of an audio glob, as files and rows may name it.

    Attributes:
      path: what the files' paths start with.
      aliases: other paths of it with which rows may start, such as its absolute one;
        and, where several are given, those of them that lie below it: paths may start
        in each, and in one that is a ZIP as if it were unpacked.
    """

    path: str = ""
    aliases: tuple[str, ...] = ()

    @functools.cached_property
    def _prefixes(self) -> tuple[str, ...]:
        paths = map(normalise, (self.path, *self.aliases))
        return tuple(dict.fromkeys(f"{path.rstrip('/')}/" for path in paths if path))

    @functools.cached_property
    def _start(self) -> str:
        return self._prefixes[0] if self.path and self._prefixes[0] != "./" else ""

    @functools.cached_property
    def _roots(self) -> dict[str, tuple[str, ...]]:
        """Folders below this one in which paths start, and other names of each."""
        roots = {}
        for path in map(normalise, self.aliases):
            below = path.startswith(self._start) and path != "."
            if below and (self._start or not _is_absolute(path)):
                root = path[len(self._start) :]
                roots[root] = _name_unpacked(root)
        return roots

    @functools.cached_property
    def _starts(self) -> frozenset[str]:
        names = self._roots.items()
        return frozenset(name for root, others in names for name in (root, *others))

    def name_file(self, path: str) -> str:
        """A file's path below the folder; the whole path of one that lies elsewhere."""
        return normalise(path).removeprefix(self._start)

    def rename_file(self, path: str) -> tuple[str, ...]:
        """Other names of a file, by the folder below this one in which it lies."""
        name = self.name_file(path)
        cut = _find_start(name, self._roots)
        if not cut:
            return ()
        below = name[cut:]
        return (below, *(f"{r}/{below}" for r in self._roots[name[: cut - 1]]))

    def readings(self, path: str) -> tuple[str, ...]:
        """Names below the folder that a row's path may mean.

        A relative path starts from the folder, or from where the aliases do.
        """
        path = normalise(path)
        found = [
            path[len(prefix) :] for prefix in self._prefixes if path.startswith(prefix)
        ]
        if not found or not _is_absolute(path):
            found.append(path)
        return tuple(dict.fromkeys(found))

    def key(self, path: str) -> str:
        """What all paths share that may mean one another."""
        name = normalise(path.replace("\\", "/") if "\\" in path else path)
        shortened = True
        while shortened:
            shortened = False
            for prefix in self._prefixes:
                if name.startswith(prefix):
                    name, shortened = name[len(prefix) :], True
            if cut := _find_start(name, self._starts):
                name, shortened = name[cut:], True
        stem, extension = split_extension(name)
        while extension:
            stem, extension = split_extension(stem)
        return stem

    def name_row(self, path: str, *, whole: bool) -> str:
        """Names a row that has no id of its own.

        Args:
          path: in the metadata.
          whole: keep the extension, and the folder of a relative path.
        """
        if whole:
            return self.readings(path)[-1]
        name = normalise(path)
        for prefix in self._prefixes:
            if name.startswith(prefix):
                name = name[len(prefix) :]
                break
        return split_extension(name)[0]


def _name_unpacked(root: str) -> tuple[str, ...]:
    """Names that a folder in a ZIP may have once it is unpacked; none for others."""
    found = paths.split(root)
    if found is None:
        return ()
    stem, inside = found[0][: -len(".zip")], found[1]
    return (stem, f"{stem}/{inside}", inside) if inside else (stem,)


def _find_start(name: str, starts: Collection[str]) -> int:
    """Where a name goes on behind the longest of some folders; 0 without one."""
    at = len(name) if starts else 0
    while (at := name.rfind("/", 0, max(at, 0))) > 0:
        if name[:at] in starts:
            return at + 1
    return 0


def find_common(folders: Sequence[str]) -> str | None:
    """The folder that holds some folders.

    Returns:
      None for some on several file systems or in several buckets, and for relative
      ones beside absolute ones.
    """
    if len(folders) == 1:
        return folders[0]
    parts = [
        [] if folder in ("", ".") else normalise(folder, keep_form=True).split("/")
        for folder in folders
    ]
    heads = {
        "/".join(names[:3]) if is_remote(folder) else folder[:1] == "/"
        for folder, names in zip(folders, parts, strict=True)
    }
    if len(heads) > 1:
        return None
    levels = itertools.takewhile(
        lambda names: len(set(names)) == 1, zip(*parts, strict=False)
    )
    common = [names[0] for names in levels]
    return "/" if common == [""] else "/".join(common)


def name_aliases(folder: str) -> tuple[str, ...]:
    """Other paths of a local folder: absolute, from the current folder, and real.

    Of one in a ZIP also the one within.
    """
    found = paths.split(folder)
    inside = (found[1],) if found and found[1] else ()
    if is_remote(folder):
        return inside
    path = folder or "."
    whole = os.path.abspath(path), os.path.relpath(path), os.path.realpath(path)
    return (*whole, *inside)


def audio_key(path: str, kind: str, folder: AudioFolder) -> str:
    """The key under which an audio file and its track meet.

    For FMA the number in the file's name; otherwise the path without audio
    extensions, below the folder of the audio glob where it lies there.

    Args:
      path: of the audio file, or in the metadata.
      kind: of the metadata, `fma` or `plain`.
      folder: of the audio glob.
    """
    if kind == "fma":
        stem = posixpath.splitext(posixpath.basename(path))[0]
        return str(int(stem)) if stem.isdecimal() else path
    return folder.key(path)


def relative_path(path: str, base: str) -> str:
    """The path below `base`; the whole path if it does not lie there."""
    path, base = normalise(path, keep_form=True), normalise(base, keep_form=True)
    return path[len(base) + 1 :] if path.startswith(base + "/") else path


def wav_name(name: str, *, whole: bool) -> str:
    """The name of a kept WAV: the extension replaced, or added to the whole name."""
    return (name if whole else split_extension(name)[0]) + ".wav"


def normalise(path: str, *, keep_form: bool = False) -> str:
    """Drops `./` and doubled slashes, not a scheme's own; letters are in NFC.

    Args:
      path: of any file system.
      keep_form: leave the letters as they are.
    """
    if not keep_form:
        path = to_nfc(path)
    if "//" not in path and "./" not in path and path[-2:] not in ("/.", ".."):
        return path if path[-1:] != "/" else path.rstrip("/") or "/"
    scheme, separator, rest = path.rpartition("://")
    return scheme + separator + posixpath.normpath(rest)


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or is_remote(path)


def unify_artist(artist_id: str) -> str:
    """An artist's id, the same however it is spelt.

    pandas writes a column of numbers as floats where one is missing (7.0), and one who
    is taken for two has clips in training and test.
    """
    number = re.fullmatch(r"(\d+)\.0", artist_id, re.ASCII)
    return number[1] if number else to_nfc(artist_id)

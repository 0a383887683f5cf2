"""The file that somebody may have meant who named one that is not there."""

from __future__ import annotations

import bisect
import difflib
import posixpath
from collections.abc import Iterable

from pipeline.inputs.audio_names import split_extension

#: Names of a folder that are compared with the one asked for, on either side of it.
NEIGHBOURS = 50


class NearestFile:
    """Finds the nearest of many names in little time.

    Args:
      names: paths below one folder.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_folder: dict[str, list[str]] = {}
        self._by_letters: dict[str, list[str]] = {}
        for name in sorted(names):
            folder, base = posixpath.split(name)
            self._by_folder.setdefault(folder, []).append(base)
            self._by_letters.setdefault(_letters(base), []).append(name)

    def find(self, name: str) -> str | None:
        """The nearest name; None where nothing is near.

        That is one with the same letters and digits, wherever it lies, or a similar
        one in the same folder.
        """
        name = name.replace("\\", "/")
        same = self._by_letters.get(_letters(posixpath.basename(name)), [])
        if same:
            return _most_similar(name, same[:NEIGHBOURS], 0.0)
        folder, base = posixpath.split(name)
        names = self._by_folder.get(folder, [])
        at = bisect.bisect(names, base)
        near = names[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS]
        found = _most_similar(base, near, 0.6)
        return posixpath.join(folder, found) if found else None


def _letters(base: str) -> str:
    """A name without its extension, case, spaces and punctuation."""
    stem = split_extension(base)[0].casefold()
    return "".join(filter(str.isalnum, stem)) or stem


def _most_similar(name: str, names: list[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, 1, cutoff)), None)

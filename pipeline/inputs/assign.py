"""Which row takes which file, among those whose names are alike."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from pipeline.inputs.audio_names import split_extension
from pipeline.inputs.names import AudioFolder


@dataclasses.dataclass(kw_only=True)
class Assignment:
    """What becomes of rows and files, by their indices.

    Attributes:
      takes: the file that a row takes.
      repeats: of a row, the one that takes the file which it names, too.
      unclear: why it cannot be told which file a row means.
      copies: of a file that no row names, the row that takes another of its name.
      candidates: rows that a file may belong to, where that is unclear.
    """

    takes: dict[int, int] = dataclasses.field(default_factory=dict)
    repeats: dict[int, int] = dataclasses.field(default_factory=dict)
    unclear: dict[int, str] = dataclasses.field(default_factory=dict)
    copies: dict[int, int] = dataclasses.field(default_factory=dict)
    candidates: dict[int, list[int]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def is_open(self, row: int) -> bool:
        """Whether nothing is known of a row yet."""
        return not any(row in part for part in (self.takes, self.repeats, self.unclear))


class Assigner:
    """Assigns the files of one key to rows.

    Args:
      folder: of the audio glob.
      rows: paths in the metadata; the first of several that name one file takes it.
      files: paths of files.
      is_audio: of a file's index, whether it takes part where no row names it.
    """

    def __init__(
        self,
        folder: AudioFolder,
        rows: Sequence[str],
        files: Sequence[str],
        is_audio: Callable[[int], bool],
    ) -> None:
        self._rows = rows
        self._files = files
        self._is_audio = functools.cache(is_audio)
        self._readings = list(map(folder.readings, rows))
        # A backslash may be a letter of a name; else it is Windows' slash.
        self._slashed = [folder.readings(row.replace("\\", "/")) for row in rows]
        self._names = list(map(folder.name_file, files))
        self._stems = [split_extension(name)[0] for name in self._names]
        self._others = list(map(folder.rename_file, files))
        self._found = Assignment()

    def assign(self) -> Assignment:
        """Whole names first, then without audio extensions."""
        self._take_whole_names()
        self._take_stems(lambda name: name)
        self._take_stems(lambda name: split_extension(name)[0])
        self._find_copies()
        return self._found

    def _take_whole_names(self) -> None:
        by_name, by_other = (
            collections.defaultdict(list),
            collections.defaultdict(list),
        )
        for file, name in enumerate(self._names):
            by_name[name].append(file)
            for other in self._others[file]:
                by_other[other].append(file)
        fits = {}
        for row in range(len(self._rows)):
            for known, readings in itertools.product(
                (by_name, by_other), (self._readings[row], self._slashed[row])
            ):
                found = [file for name in readings for file in known.get(name, ())]
                if found:
                    fits[row] = self._prefer_same_letters(row, found)
                    break
        taken: dict[int, int] = {}
        while True:
            clear = [row for row, files in fits.items() if len(files) == 1]
            for row in clear:
                [file] = fits.pop(row)
                if file in taken:
                    self._found.repeats[row] = taken[file]
                else:
                    taken[file] = row
                    self._found.takes[row] = file
            if not clear:
                break
            # A path with two meanings has the one that no other row has.
            for row, files in fits.items():
                fits[row] = [file for file in files if file not in taken] or files
        self._leave_open(fits)

    def _prefer_same_letters(self, row: int, files: Sequence[int]) -> list[int]:
        """Of names that look the same, the one of the same code points."""
        path = self._rows[row]
        same = [file for file in files if self._files[file].endswith(path)]
        if len({unicodedata.normalize("NFC", self._files[f]) for f in files}) == 1:
            return same if len(same) == 1 else list(files)
        return list(files)

    def _take_stems(self, shorten: Callable[[str], str]) -> None:
        """Gives a row that names no file the one whose stem is its shortened name."""
        taken = set(self._found.takes.values()) | set(self._found.candidates)
        stems = [
            {stem, *(split_extension(name)[0] for name in others)}
            for stem, others in zip(self._stems, self._others, strict=True)
        ]
        fits, rivals = {}, collections.defaultdict(list)
        for row in filter(self._found.is_open, range(len(self._rows))):
            names = {shorten(name) for name in self._slashed[row]}
            fits[row] = [
                file
                for file, known in enumerate(stems)
                if known & names and file not in taken and self._is_audio(file)
            ]
            for file in fits[row]:
                rivals[file].append(row)
        unclear = {}
        for row, files in fits.items():
            if not files:
                continue
            others = [r for file in files for r in rivals[file]]
            if len(files) > 1 or len({self._slashed[other] for other in others}) > 1:
                unclear[row] = files
            elif others[0] == row:
                self._found.takes[row] = files[0]
            else:
                self._found.repeats[row] = others[0]
        self._leave_open(unclear)

    def _leave_open(self, fits: Mapping[int, Sequence[int]]) -> None:
        for row, files in fits.items():
            shown = name_some([self._files[file] for file in files])
            if len(files) > 1:
                message = f"{shown} fit it; write which one, from the audio's folder"
            else:
                message = f"{shown} fits other rows, too, and none by its whole name"
            self._found.unclear[row] = message
            for file in files:
                if file not in self._found.takes.values():
                    self._found.candidates[file].append(row)

    def _find_copies(self) -> None:
        owners = collections.defaultdict(list)
        for row, file in self._found.takes.items():
            owners[self._stems[file]].append(row)
        taken = set(self._found.takes.values()) | set(self._found.candidates)
        for file, stem in enumerate(self._stems):
            if file not in taken and len(owners[stem]) == 1 and self._is_audio(file):
                self._found.copies[file] = owners[stem][0]


def name_some(names: Sequence[str]) -> str:
    """The first five of some names in words."""
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)

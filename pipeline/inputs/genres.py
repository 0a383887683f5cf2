"""What a row says of its genres: one, or several of a tree.

FMA's `genres.csv` (genre_id, #tracks, parent, title, top_level) is a tree of 163
genres; a parent of 0 is a root. `tracks.csv` has the root that is a track's alone
(`genre_top`), what its artist chose (`genres`) and that with all ancestors
(`genres_all`); the last two are lists of ids, as `[17, 103]`.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import html
import html.entities
import io
import re
import string
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pipeline.inputs.globs import to_nfc
from pipeline.schema import MULTI_LABEL, SINGLE_LABEL, UserError, shorten

#: Which genres of a track are its labels: the one root, all with their ancestors, or
#: those that are no ancestor of another one.
LABELS = ("top", "all", "leaf")
#: Between the genres of a plain CSV's cell.
SEPARATOR = ";"

#: The sixteen root genres of FMA.
FMA_GENRES = (
    *("Blues", "Classical", "Country", "Easy Listening", "Electronic", "Experimental"),
    *("Folk", "Hip-Hop", "Instrumental", "International", "Jazz"),
    *("Old-Time / Historic", "Pop", "Rock", "Soul-RnB", "Spoken"),
)

#: What programs write for nothing: Python, pandas, R, SQL and spreadsheets.
_NOTHING = frozenset(("nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"))
_COLUMNS = ("genre_id", "parent", "title")
#: Characters of a field; more follow a quote that nothing closes. csv's own limit is
#: that of the whole process, which reading tracks raises.
_FIELD_LIMIT = 1 << 17
#: What a list of ids looks like; FMA's ids have four digits.
_IDS = re.compile(r"\[\s*(?:\d{1,18}\s*(?:,\s*\d{1,18}\s*)*)?\]", re.ASCII)
#: A table of genres that is larger is none: FMA's has 4 kB.
MOST_TREE_BYTES = 16 << 20
#: An entity of HTML, with which web pages and their databases write letters.
_ENTITY = re.compile(r"&(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
#: Joined files and copied texts bring these along; nobody sees them.
_UNSEEN = "\0\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" + string.whitespace
#: Distinct cells whose genres are kept: FMA has a few thousand.
_KNOWN_CELLS = 1 << 14


def is_nothing(value: str) -> bool:
    """Whether a cell holds what programs write for nothing."""
    return len(value) <= 4 and value.lower() in _NOTHING


def _read_entities(text: str) -> str:
    """Text with the letters that entities of HTML stand for: `R&amp;B` is `R&B`."""

    def read(match: re.Match[str]) -> str:
        known = match[1][0] == "#" or f"{match[1]};" in html.entities.html5
        return html.unescape(match[0]) if known else match[0]

    return _ENTITY.sub(read, text) if "&" in text else text


def _read_name(text: str) -> str:
    """A genre's name in NFC, without what cannot be seen around it."""
    return to_nfc(text.strip().strip(_UNSEEN).strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenreTree:
    """Genres and what they are kinds of.

    Attributes:
      names: by id, each once. A title that several genres have is told with those
        of its ancestors.
      parents: name of each genre's parent, by name; roots have none.
    """

    names: Mapping[int, str]
    parents: Mapping[str, str]

    def find_path(self, name: str) -> tuple[str, ...]:
        """Names from the root to a genre, which may be in no tree."""
        path = [name]
        while path[-1] in self.parents:
            path.append(self.parents[path[-1]])
        return tuple(reversed(path))

    def add_ancestors(self, names: Iterable[str]) -> frozenset[str]:
        """Genres with all of their ancestors."""
        return frozenset(part for name in names for part in self.find_path(name))

    def find_leaves(self, names: Iterable[str]) -> frozenset[str]:
        """Those of some genres that are no ancestor of another one."""
        found = frozenset(names)
        return found - {part for name in found for part in self.find_path(name)[:-1]}


#: Of a plain CSV without a file of genres: each is a root.
NO_TREE = GenreTree(names={}, parents={})


def read_genre_tree(text: Iterable[str], source: str) -> GenreTree:
    """Reads a table of genres.

    Args:
      text: lines of a CSV with the columns genre_id, parent and title.
      source: names the file in errors.

    Raises:
      UserError: it is no such table, or its genres are no tree.
    """
    reader = csv.reader(text, strict=True)
    try:
        numbered = [
            (reader.line_num, _check_lengths(row)) for row in reader if any(row)
        ]
    except csv.Error as error:
        raise UserError(f"{source} is no CSV ({error}); see --genres_file.") from error
    header = [name.strip() for name in numbered[0][1]] if numbered else []
    if not set(_COLUMNS) <= set(header):
        raise UserError(
            f"{source} must have the columns genre_id, parent and title, as FMA's "
            f"genres.csv; name another one with --genres_file. Its first row is: "
            f"{shorten(','.join(header))}"
        )
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise UserError(
            f"{source}: several columns are named {', '.join(twice)}; leave one of "
            f"each. Received: {shorten(','.join(header))}"
        )
    titles: dict[int, str] = {}
    parents: dict[int, int] = {}
    for line, row in numbered[1:]:
        where = f"{source} line {line}"
        if any(row[len(header) :]):
            raise UserError(
                f"{where}: expected {len(header)} columns as in the header; a title "
                f"with a comma stands in quotes. Received: {len(row)}"
            )
        values = dict.fromkeys(header, "") | dict(zip(header, row, strict=False))
        genre = _parse_id(values["genre_id"], "genre_id", where)
        title = _read_name(_read_entities(values["title"]))
        if not genre or not title or genre in titles:
            raise UserError(
                f"{where}: each genre needs an id of its own, over 0, and a title. "
                f"Received: {shorten((values['genre_id'], values['title']))}"
            )
        titles[genre] = title
        parents[genre] = _parse_id(values["parent"], "parent", where)
    if not titles:
        raise UserError(f"{source} has no genres; name another one with --genres_file.")
    return _make_tree(titles, parents, source)


def _check_lengths(row: list[str]) -> list[str]:
    if max(map(len, row)) > _FIELD_LIMIT:
        raise csv.Error(f"field larger than field limit ({_FIELD_LIMIT})")
    return row


def _parse_id(text: str, column: str, where: str) -> int:
    value = text.strip()
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise UserError(
            f"{where}: {column} must be a number. Received: {shorten(text)}"
        )
    return int(value)


def _make_tree(
    titles: Mapping[int, str], parents: Mapping[int, int], source: str
) -> GenreTree:
    paths: dict[int, tuple[int, ...]] = {}
    for genre in titles:
        path = [genre]
        while parent := parents[path[-1]]:
            if parent not in titles:
                raise UserError(
                    f"{source}: the parent of {titles[path[-1]]!r}, {parent}, is not "
                    "in the table; 0 makes it a root."
                )
            if parent in path:
                circle = [*path[path.index(parent) :], parent]
                raise UserError(
                    f"{source}: a genre is its own ancestor: "
                    f"{' < '.join(titles[part] for part in circle)}."
                )
            path.append(parent)
        paths[genre] = tuple(reversed(path))
    counts = collections.Counter(titles.values())
    names = {
        genre: title
        if counts[title] == 1
        else " > ".join(titles[part] for part in paths[genre])
        for genre, title in titles.items()
    }
    twice = [n for n, count in collections.Counter(names.values()).items() if count > 1]
    if twice:
        raise UserError(
            f"{source}: several genres are called {twice[0]!r}; give each a title of "
            "its own."
        )
    return GenreTree(
        names=names,
        parents={
            names[genre]: names[parents[genre]] for genre in titles if parents[genre]
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Which genres of a row are its labels.

    Attributes:
      kind: one of `LABELS`.
      tree: of the genres, where there is one.
      separator: between several genres of a plain CSV.
    """

    kind: str = LABELS[0]
    tree: GenreTree = NO_TREE
    separator: str = SEPARATOR

    def __post_init__(self) -> None:
        """Refuses what means nothing."""
        if self.kind not in LABELS:
            raise UserError(
                f"--labels must be one of {', '.join(LABELS)}. Received: {self.kind!r}"
            )
        if not self.separator.strip():
            raise UserError(
                "--genre_separator must be what stands between two genres, as ';'. "
                f"Received: {self.separator!r}"
            )

    @property
    def several(self) -> bool:
        """Whether a row may have several."""
        return self.kind != LABELS[0]

    def split(self, cell: str) -> list[str]:
        """The parts of a plain CSV's cell, which may be blank."""
        return cell.split(self.separator)

    @property
    def task(self) -> str:
        """As the manifest names it."""
        return MULTI_LABEL if self.several else SINGLE_LABEL


class RowGenres(NamedTuple):
    """What a row says of its genres.

    Attributes:
      genres: the wanted ones; all of them where the row is not wanted.
      wanted: whether one is asked for, or there is none: such a row is rejected, so
        that nothing is lost.
      below_top: whether it has genres, though no top one.
    """

    genres: tuple[str, ...]
    wanted: bool
    below_top: bool = False


class CellReader:
    """Turns a row's cells into its labels; equal ones share their tuple.

    Args:
      rule: which genres are labels.
      wanted: genres that are asked for; all if empty.
    """

    def __init__(self, rule: LabelRule, wanted: Collection[str] = ()) -> None:
        self._rule = rule
        self._wanted = frozenset(wanted)
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.read_fma = functools.lru_cache(_KNOWN_CELLS)(self._read_fma)
        self.read_plain = functools.lru_cache(_KNOWN_CELLS)(self._read_plain)

    def _read_fma(self, top: str, *lists: str) -> RowGenres:
        """Genres of FMA's cells: the top one, and lists of ids."""
        if not self._rule.several:
            if top and top not in FMA_GENRES:
                raise ValueError(
                    f"unknown genre. Received: {top!r}; it must be one of "
                    f"{', '.join(FMA_GENRES)}."
                )
            below_top = not top and any(map(str.isdecimal, "".join(lists)))
            return self._choose((top,) if top else (), below_top)
        names = self._rule.tree.names
        found = set()
        for cell in lists:
            if not _IDS.fullmatch(cell):
                raise ValueError(
                    f"genres must be ids, as [17, 103]. Received: {shorten(cell)}"
                )
            for number in map(int, re.findall(r"\d+", cell)):
                if number not in names:
                    raise ValueError(
                        f"genre {number} is not in the table of genres; name one that "
                        "has it with --genres_file."
                    )
                found.add(names[number])
        return self._choose(self._select(found))

    def _read_plain(self, cell: str) -> RowGenres:
        """Genres of a plain CSV's cell; one of separators alone has none."""
        cell = _read_entities(cell)
        names = {_read_name(name) for name in self._rule.split(cell)}
        names = {name for name in names if name and not is_nothing(name)}
        if not self._rule.several:
            return self._choose((_read_name(cell),) if names else ())
        return self._choose(self._select(names))

    def _select(self, names: Collection[str]) -> tuple[str, ...]:
        """Names with their ancestors, or without those that are ancestors."""
        tree = self._rule.tree
        chosen = tree.add_ancestors(names)
        if self._rule.kind == "leaf":
            chosen = tree.find_leaves(chosen)
        return tuple(sorted(chosen))

    def _choose(self, genres: tuple[str, ...], below_top: bool = False) -> RowGenres:
        chosen = genres
        if self._wanted:
            chosen = tuple(genre for genre in genres if genre in self._wanted)
        kept = chosen or genres
        kept = self._shared.setdefault(kept, kept)
        return RowGenres(kept, bool(chosen or not genres), below_top)


def read_tree_file(data: bytes, source: str) -> GenreTree:
    """Reads a table of genres, of its bytes.

    Raises:
      UserError: it is too large, no UTF-8 text, or no such table.
    """
    if len(data) > MOST_TREE_BYTES:
        raise UserError(
            f"{source} has more than {MOST_TREE_BYTES >> 20} MiB, which no table of "
            "genres has; name another one with --genres_file."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source} must be UTF-8 text ({error}).") from error
    return read_genre_tree(io.StringIO(text, newline=""), source)

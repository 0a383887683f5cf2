"""Tracks from FMA's `tracks.csv` or from a plain CSV, read as a stream.

The genuine `tracks.csv` is 260 MB of 106,574 rows with three header rows and
quoted fields that span lines. Nothing here holds more than a row.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from pipeline.inputs.genres import CellReader, LabelRule, is_nothing
from pipeline.inputs.names import AudioFolder, unify_artist
from pipeline.inputs.splits import SplitConfig, split_by_hash
from pipeline.schema import SPLITS, UserError, shorten

if TYPE_CHECKING:
    from _csv import Reader

#: Each contains those before it. FMA's large and full hold the same tracks, as
#: 30 s clips and untrimmed.
SUBSETS = ("small", "medium", "large", "full")

#: Longest field; FMA's longest biography has some 100,000 characters.
_FIELD_LIMIT = 1 << 24
_limit_lock = threading.Lock()

_PLAIN_REQUIRED = ("path", "genre")
_PLAIN_OPTIONAL = ("track_id", "artist_id", "split")
#: What pandas writes for the name of a column that has none, and for its index.
_PANDAS_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*(_level_\d+)?")
_PANDAS_INDEX = re.compile(r"\d+(\.0)?")
_PLAIN_SPLITS = {s: s for s in SPLITS} | {"train": "training", "val": "validation"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetadataConfig:
    """Where the tracks come from and which ones are wanted.

    Attributes:
      path: `tracks.csv` or a plain CSV, on any file system.
      subset: FMA subset; the larger ones include the smaller.
      genres: genres wanted; all if empty.
      split: how splits are assigned; None: by the metadata if it says, else by
        hash.
      folder: of the audio glob, from which a plain CSV's paths start.
      shared_keys: of rows whose ids keep their extensions, as without they would be
        those of other rows.
      labels: which genres of a row are its labels.
    """

    path: str
    subset: str = "full"
    genres: tuple[str, ...] = ()
    split: SplitConfig | None = None
    folder: AudioFolder = dataclasses.field(default_factory=AudioFolder)
    shared_keys: frozenset[str] = frozenset()
    labels: LabelRule = dataclasses.field(default_factory=LabelRule)

    def __post_init__(self) -> None:
        """Refuses subsets that FMA does not have."""
        if self.subset not in SUBSETS:
            raise UserError(
                f"--subset must be one of {', '.join(SUBSETS)}. "
                f"Received: {self.subset!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Track:
    """A row of the metadata.

    Attributes:
      key: joins it with its audio file (see `names.audio_key`).
      track_id: unique name.
      artist_id: empty where it is not known.
      genres: the wanted ones, sorted, each once; at most one with `--labels top`, none
        where they are not known.
      split: one of `schema.SPLITS`.
      path: where its audio should be, for messages.
      wanted: whether subset and genre are asked for.
      no_genre: what stands for nothing in the genre's place, as `nan`.
      below_top: whether it has genres, though no top one.
    """

    key: str
    track_id: str
    artist_id: str
    genres: tuple[str, ...]
    split: str
    path: str
    wanted: bool
    no_genre: str = ""
    below_top: bool = False

    @property
    def genre(self) -> str:
        """Its genres in words."""
        return ", ".join(self.genres)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a metadata file's columns are laid out.

    Attributes:
      kind: `fma` or `plain`.
      columns: index of each column used, by its name here.
      width: number of columns.
      split: the rule in force.
      unnamed: indices of columns without a name, which must be empty or pandas' index.
    """

    kind: str
    columns: dict[str, int]
    width: int
    split: SplitConfig
    unnamed: tuple[int, ...] = ()


def read_tracks(text: TextIO, config: MetadataConfig) -> Iterator[Track]:
    """Yields all tracks of a metadata file, wanted or not.

    Args:
      text: the file, opened with `newline=""`.
      config: names the file in errors.

    Raises:
      UserError: the file has the wrong shape, or a value is unknown.
    """
    reader = csv.reader(text, strict=True)
    layout = read_layout(reader, config)
    cells = CellReader(config.labels, config.genres)
    for row in _read_rows(reader, config):
        if not any(map(str.strip, row)):
            continue
        where = f"{config.path} line {reader.line_num}"
        if len(row) != layout.width:
            row = _fit_width(row, layout, where)
        values = {name: row[index].strip() for name, index in layout.columns.items()}
        if layout.kind == "fma":
            yield _fma_track(values, layout, config, cells, where)
        else:
            # Blanks are letters of a file's name.
            values["path"] = row[layout.columns["path"]]
            for index in layout.unnamed:
                _check_unnamed(row, index, layout, where)
            for name, index in layout.columns.items():
                _check_quotes(name, row[index], where)
            yield _plain_track(values, layout, config, cells, where)


def _fit_width(row: list[str], layout: Layout, where: str) -> list[str]:
    """Takes or adds the empty cells of commas at the end of a line."""
    rest = row[layout.width :]
    missing = range(len(row), layout.width)
    if layout.kind == "fma" or any(rest) or not set(missing) <= set(layout.unnamed):
        raise UserError(
            f"{where}: expected {layout.width} columns as in the header. Received: "
            f"{len(row)}"
        )
    return row[: layout.width] + [""] * len(missing)


def _check_unnamed(row: Sequence[str], index: int, layout: Layout, where: str) -> None:
    """Refuses what a column without a name holds, unless it is pandas' index."""
    value = row[index].strip()
    leads = index < min(layout.columns.values())
    if value and not (leads and _PANDAS_INDEX.fullmatch(value)):
        raise UserError(
            f"{where}: column {index + 1} has no name in the header; name it, or leave "
            f"it out. Received: {value!r}"
        )


def _check_quotes(name: str, value: str, where: str) -> None:
    """Refuses quotes that are letters of the value, or hide rows, which have commas."""
    if name != "path" and re.search(r"[\r\n].*,", value.strip(), re.DOTALL):
        raise UserError(
            f"{where}: the {name} goes on behind a line's end; close the quote that "
            f"it begins with. Received: {shorten(value)}"
        )
    if value[:1].isspace() and re.fullmatch(r'\s+".*"\s*', value, re.DOTALL):
        raise UserError(
            f"{where}: a blank stands before the quotes of the {name}; remove it, as "
            f"they are taken for a part of it. Received: {shorten(value)}"
        )


def read_layout(reader: Reader, config: MetadataConfig) -> Layout:
    """Recognises a metadata file by its header rows, and consumes them.

    Raises:
      UserError: it is neither kind, or `config` does not fit it.
    """
    rows = _read_rows(reader, config)
    # csv takes quotes after a byte order mark for a part of the name.
    header = [name.strip().lstrip("\ufeff").strip('"') for name in next(rows, [])]
    if set(_PLAIN_REQUIRED) <= set(header):
        return _plain_layout(header, config)
    if {"artist", "set", "track"} <= set(header):
        layout = _fma_layout(header, next(rows, []), next(rows, []), config)
        if layout is not None:
            return layout
    shown = ",".join(header[:6]) or "nothing"
    raise UserError(
        f"{config.path} is neither FMA's tracks.csv (three header rows with artist id, "
        "set split, set subset and track genre_top) nor a CSV with the columns "
        f"path,genre[,track_id,artist_id,split]. Its first row is: {shown}"
    )


def _read_rows(reader: Reader, config: MetadataConfig) -> Iterator[list[str]]:
    """Passes rows on; what csv cannot parse is the user's to change."""
    begin = reader.line_num + 1
    try:
        while (row := _read_row(reader)) is not None:
            yield row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{config.path} line {begin}: the row that begins there is no CSV "
            f"({error}). Close its quotes, or give FMA's tracks.csv, or a CSV with "
            "the columns path,genre[,track_id,artist_id,split]."
        ) from error


def _read_row(rows: Iterator[list[str]]) -> list[str] | None:
    """The next row, which may have long fields; None at the end."""
    # csv knows one limit for the whole process: others get theirs back at once.
    with _limit_lock:
        limit = csv.field_size_limit(_FIELD_LIMIT)
        try:
            return next(rows, None)
        finally:
            csv.field_size_limit(limit)


def _fma_layout(
    groups: Sequence[str],
    fields: Sequence[str],
    index: Sequence[str],
    config: MetadataConfig,
) -> Layout | None:
    names = list(zip(groups, fields, strict=False))
    wanted = {"artist_id": ("artist", "id"), "split": ("set", "split")}
    wanted |= {"subset": ("set", "subset"), "genre": ("track", "genre_top")}
    if index[:1] != ["track_id"] or not set(wanted.values()) <= set(names):
        return None
    used = {*wanted.values(), *(("track", name) for name in _FMA_LISTS)}
    _refuse_repeats([" ".join(name) for name in names if name in used], config)
    columns = {name: names.index(column) for name, column in wanted.items()}
    for name in _FMA_LISTS:
        if ("track", name) in names:
            columns[name] = names.index(("track", name))
        elif config.labels.several:
            raise UserError(
                f"--labels {config.labels.kind} needs the column track {name}, which "
                f"{config.path} lacks; use --labels top."
            )
    return Layout(
        kind="fma",
        columns=columns | {"track_id": 0},
        width=len(groups),
        split=config.split or SplitConfig(rule="fma"),
    )


def _refuse_repeats(names: Sequence[str], config: MetadataConfig) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"{config.path}: several columns are named {', '.join(twice)}; leave one of"
            f" each. Received: {','.join(names)}"
        )


def _plain_layout(header: Sequence[str], config: MetadataConfig) -> Layout:
    columns = {
        name: index
        for index, name in enumerate(header)
        if name and not _PANDAS_UNNAMED.fullmatch(name)
    }
    unnamed = tuple(sorted(set(range(len(header))) - set(columns.values())))
    _refuse_repeats([name for name in header if name in columns], config)
    if unknown := set(columns) - {*_PLAIN_REQUIRED, *_PLAIN_OPTIONAL}:
        raise UserError(
            f"{config.path}: unknown columns {', '.join(sorted(unknown))}; the columns "
            "are path,genre[,track_id,artist_id,split]."
        )
    if config.subset != "full":
        raise UserError(
            "--subset is for FMA's tracks.csv; a plain CSV has no subsets. "
            f"Received: --subset {config.subset} with {config.path}"
        )
    split = config.split
    if split is None:
        split = SplitConfig(rule="fma" if "split" in header else "hash")
    elif split.rule == "fma" and "split" not in header:
        raise UserError(
            f"--split fma needs a split column, which {config.path} lacks; add one or "
            "use --split hash."
        )
    return Layout(
        kind="plain", columns=columns, width=len(header), split=split, unnamed=unnamed
    )


#: Columns of a track's genres, each a list of ids.
_FMA_LISTS = ("genres", "genres_all")
#: FMA's ids have six.
_MOST_DIGITS = 18


def _fma_track(
    values: dict[str, str],
    layout: Layout,
    config: MetadataConfig,
    cells: CellReader,
    where: str,
) -> Track:
    raw_id, subset = values["track_id"], values["subset"]
    if not raw_id.isdecimal() or len(raw_id) > _MOST_DIGITS:
        raise UserError(
            f"{where}: track_id must be a number of at most {_MOST_DIGITS} digits. "
            f"Received: {shorten(raw_id)}"
        )
    if subset not in SUBSETS:
        raise _unknown(where, "subset", subset, SUBSETS)
    if layout.split.rule == "fma" and values["split"] not in SPLITS:
        raise _unknown(where, "split", values["split"], SPLITS)
    lists = [values[name] for name in _FMA_LISTS if name in values]
    try:
        found = cells.read_fma(values["genre"], *lists)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    track_id, artist_id = str(int(raw_id)), unify_artist(values["artist_id"])
    return Track(
        key=track_id,
        track_id=track_id,
        artist_id=artist_id,
        genres=found.genres,
        split=_assign(layout.split, values["split"], artist_id, track_id),
        path=f"{int(raw_id) // 1000:03d}/{int(raw_id):06d}.mp3",
        wanted=SUBSETS.index(subset) <= SUBSETS.index(config.subset) and found.wanted,
        below_top=found.below_top,
    )


def _plain_track(
    values: dict[str, str],
    layout: Layout,
    config: MetadataConfig,
    cells: CellReader,
    where: str,
) -> Track:
    path, no_genre = values["path"], values["genre"]
    for name, value in values.items():
        if is_nothing(value):
            values[name] = ""
    found = cells.read_plain(values["genre"])
    # Others of these words may well be names of files.
    if not path.strip() or path.lower() == "nan":
        raise UserError(f"{where}: the path is empty; name an audio file.")
    split = ""
    if layout.split.rule == "fma":
        split = _PLAIN_SPLITS.get(values["split"].lower(), "")
        if not split:
            raise _unknown(where, "split", values["split"], SPLITS)
    key = config.folder.key(path)
    track_id = values.get("track_id") or config.folder.name_row(
        path, whole=key in config.shared_keys
    )
    artist_id = unify_artist(values.get("artist_id", ""))
    return Track(
        key=key,
        track_id=track_id,
        artist_id=artist_id,
        genres=found.genres,
        split=_assign(layout.split, split, artist_id, track_id),
        path=path,
        wanted=found.wanted,
        no_genre="" if found.genres else no_genre,
    )


def _assign(config: SplitConfig, split: str, artist_id: str, track_id: str) -> str:
    if config.rule == "fma":
        return split
    return split_by_hash(artist_id, track_id, config.percent)


def _unknown(where: str, column: str, value: str, allowed: Iterable[str]) -> UserError:
    return UserError(
        f"{where}: unknown {column}. Received: {value!r}; it must be one of "
        f"{', '.join(allowed)}."
    )

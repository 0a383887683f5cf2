"""Tracks from FMA's `tracks.csv` or from a plain CSV, read as a stream.

The genuine `tracks.csv` is 260 MB of 106,574 rows with three header rows and
quoted fields that span lines. Nothing here holds more than a row.
"""

from __future__ import annotations

import csv
import dataclasses
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from pipeline.inputs.splits import SplitConfig, split_by_hash
from pipeline.schema import SPLITS, UserError

#: Each contains those before it. FMA's large and full hold the same tracks, as
#: 30 s clips and untrimmed.
SUBSETS = ("small", "medium", "large", "full")

#: The sixteen root genres of FMA.
FMA_GENRES = (
    "Blues",
    "Classical",
    "Country",
    "Easy Listening",
    "Electronic",
    "Experimental",
    "Folk",
    "Hip-Hop",
    "Instrumental",
    "International",
    "Jazz",
    "Old-Time / Historic",
    "Pop",
    "Rock",
    "Soul-RnB",
    "Spoken",
)

#: Longest field; FMA's longest biography has some 100,000 characters.
_FIELD_LIMIT = 1 << 24

_PLAIN_REQUIRED = ("path", "genre")
_PLAIN_OPTIONAL = ("track_id", "artist_id", "split")
_PLAIN_SPLITS = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetadataConfig:
    """Where the tracks come from and which ones are wanted.

    Attributes:
      path: `tracks.csv` or a plain CSV, on any file system.
      subset: FMA subset; the larger ones include the smaller.
      genres: genres wanted; all if empty.
      split: how splits are assigned; None: by the metadata if it says, else by
        hash.
      audio_base: folder that a plain CSV's paths start from.
    """

    path: str
    subset: str = "full"
    genres: tuple[str, ...] = ()
    split: SplitConfig | None = None
    audio_base: str = ""

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
      key: joins it with its audio file (see `audio_key`).
      track_id: unique name.
      artist_id: empty where it is not known.
      genre: empty where it is not known.
      split: one of `schema.SPLITS`.
      path: where its audio should be, for messages.
      wanted: whether subset and genre are asked for.
    """

    key: str
    track_id: str
    artist_id: str
    genre: str
    split: str
    path: str
    wanted: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a metadata file's columns are laid out.

    Attributes:
      kind: `fma` or `plain`.
      columns: index of each column used, by its name here.
      width: number of columns.
      split: the rule in force.
    """

    kind: str
    columns: dict[str, int]
    width: int
    split: SplitConfig


def read_tracks(text: TextIO, config: MetadataConfig) -> Iterator[Track]:
    """Yields all tracks of a metadata file, wanted or not.

    Args:
      text: the file, opened with `newline=""`.
      config: names the file in errors.

    Raises:
      UserError: the file has the wrong shape, or a value is unknown.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(text)
    layout = read_layout(reader, config)
    for row in _read_rows(reader, config):
        if not row:
            continue
        if len(row) != layout.width:
            raise UserError(
                f"{config.path} line {reader.line_num}: expected {layout.width} "
                f"columns as in the header. Received: {len(row)}"
            )
        values = {name: row[index].strip() for name, index in layout.columns.items()}
        where = f"{config.path} line {reader.line_num}"
        if layout.kind == "fma":
            yield _fma_track(values, layout, config, where)
        else:
            yield _plain_track(values, layout, config, where)


def read_layout(rows: Iterator[list[str]], config: MetadataConfig) -> Layout:
    """Recognises a metadata file by its header rows, and consumes them.

    Raises:
      UserError: it is neither kind, or `config` does not fit it.
    """
    rows = _read_rows(rows, config)
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


def _read_rows(
    rows: Iterator[list[str]], config: MetadataConfig
) -> Iterator[list[str]]:
    """Passes rows on; what csv cannot parse is the user's to change."""
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(
            f"{config.path} is no CSV ({error}); give FMA's tracks.csv, or a CSV with "
            "the columns path,genre[,track_id,artist_id,split]."
        ) from error


def _fma_layout(
    groups: Sequence[str],
    fields: Sequence[str],
    index: Sequence[str],
    config: MetadataConfig,
) -> Layout | None:
    names = list(zip(groups, fields, strict=False))
    wanted = {
        "artist_id": ("artist", "id"),
        "split": ("set", "split"),
        "subset": ("set", "subset"),
        "genre": ("track", "genre_top"),
    }
    if index[:1] != ["track_id"] or not set(wanted.values()) <= set(names):
        return None
    columns = {name: names.index(column) for name, column in wanted.items()}
    return Layout(
        kind="fma",
        columns=columns | {"track_id": 0},
        width=len(groups),
        split=config.split or SplitConfig(rule="fma"),
    )


def _plain_layout(header: Sequence[str], config: MetadataConfig) -> Layout:
    unknown = set(header) - {*_PLAIN_REQUIRED, *_PLAIN_OPTIONAL}
    if unknown:
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
        kind="plain",
        columns={name: index for index, name in enumerate(header)},
        width=len(header),
        split=split,
    )


def _fma_track(
    values: dict[str, str], layout: Layout, config: MetadataConfig, where: str
) -> Track:
    raw_id, genre, subset = values["track_id"], values["genre"], values["subset"]
    if not raw_id.isdecimal():
        raise UserError(f"{where}: track_id must be a number. Received: {raw_id!r}")
    if subset not in SUBSETS:
        raise _unknown(where, "subset", subset, SUBSETS)
    if genre and genre not in FMA_GENRES:
        raise _unknown(where, "genre", genre, FMA_GENRES)
    if values["split"] not in SPLITS:
        raise _unknown(where, "split", values["split"], SPLITS)
    track_id = str(int(raw_id))
    return Track(
        key=track_id,
        track_id=track_id,
        artist_id=values["artist_id"],
        genre=genre,
        split=_assign(layout.split, values["split"], values["artist_id"], track_id),
        path=f"{int(raw_id) // 1000:03d}/{int(raw_id):06d}.mp3",
        wanted=SUBSETS.index(subset) <= SUBSETS.index(config.subset)
        and _genre_wanted(genre, config),
    )


def _plain_track(
    values: dict[str, str], layout: Layout, config: MetadataConfig, where: str
) -> Track:
    path, genre = values["path"], values["genre"]
    if not path:
        raise UserError(f"{where}: the path is empty; name an audio file.")
    split = ""
    if layout.split.rule == "fma":
        split = _PLAIN_SPLITS.get(values["split"].lower(), "")
        if not split:
            raise _unknown(where, "split", values["split"], SPLITS)
    key = audio_key(path, config.audio_base, "plain")
    track_id = values.get("track_id") or key
    artist_id = values.get("artist_id", "")
    return Track(
        key=key,
        track_id=track_id,
        artist_id=artist_id,
        genre=genre,
        split=_assign(layout.split, split, artist_id, track_id),
        path=path,
        wanted=_genre_wanted(genre, config),
    )


def _assign(config: SplitConfig, split: str, artist_id: str, track_id: str) -> str:
    if config.rule == "fma":
        return split
    return split_by_hash(artist_id, track_id, config.percent)


def _genre_wanted(genre: str, config: MetadataConfig) -> bool:
    # A track without a genre is wanted and then rejected: nothing is lost.
    return not genre or not config.genres or genre in config.genres


def _unknown(where: str, column: str, value: str, allowed: Iterable[str]) -> UserError:
    return UserError(
        f"{where}: unknown {column}. Received: {value!r}; it must be one of "
        f"{', '.join(allowed)}."
    )


def audio_key(path: str, base: str, kind: str) -> str:
    """The key that joins an audio file with its track.

    For FMA the number in the file's name; otherwise the path without its
    extension, below the fixed part of the audio glob where it lies there. The
    WAVs of `--wav_output` therefore join as the files they were made from.

    Args:
      path: of the audio file.
      base: the glob up to its first wildcard's folder.
      kind: of the metadata, `fma` or `plain`.
    """
    if kind == "fma":
        stem = _without_extension(posixpath.basename(path))
        return str(int(stem)) if stem.isdecimal() else path
    return _without_extension(relative_path(path, base))


def relative_path(path: str, base: str) -> str:
    """The path below `base`; the whole path if it does not lie there."""
    path, base = _normalise(path), _normalise(base)
    return path[len(base) + 1 :] if path.startswith(base + "/") else path


def glob_base(pattern: str) -> str:
    """The folder of a glob, up to its first wildcard."""
    fixed = pattern
    for wildcard in "*?[":
        fixed = fixed.split(wildcard)[0]
    return posixpath.dirname(fixed)


def _normalise(path: str) -> str:
    """Drops `./` and doubled slashes, not a scheme's own."""
    scheme, separator, rest = path.rpartition("://")
    return scheme + separator + posixpath.normpath(rest)


def _without_extension(path: str) -> str:
    return posixpath.splitext(path)[0]

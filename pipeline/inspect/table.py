"""A dataset's clips and their statistics as one Parquet file, for pandas and the like.

A row a clip, in the order of the shards:

    dataset     what made the file, and the dataset's fingerprint; the same in all rows
    track_id, artist_id, split, path, decoder, audio    text, as in `clips/`
    genre       text; of a dataset of several genres a clip: genres, a list
    size, seconds
    NAME        float32, for each of the 518 statistics, where the dataset has them:
                chroma_cens_kurtosis_01 and so on, not normalised
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import OWNER, PARQUET
from pipeline.common.ownership import replace_file
from pipeline.inspect import reading
from pipeline.representations import statistics
from pipeline.schema import SINGLE_LABEL, SPLITS, Manifest, UserError
from pipeline.shards.finish import clips_file

#: Whose values tell a file of ours; not compressed.
MARK_COLUMN = "dataset"


def make_schema(manifest: Manifest) -> pa.Schema:
    """Columns and their types."""
    several = manifest.task != SINGLE_LABEL
    genre = ("genres", pa.list_(pa.string())) if several else ("genre", pa.string())
    names = ("track_id", "artist_id", "split", "path", "decoder", "audio")
    layout = manifest.representations.get(statistics.NAME)
    segments = layout.segments if layout is not None else ()
    return pa.schema(
        [
            (MARK_COLUMN, pa.string()),
            *((name, pa.string()) for name in names),
            genre,
            ("size", pa.int64()),
            ("seconds", pa.float64()),
            *((segment.name, pa.float32()) for segment in segments),
        ]
    )


def make_tables(folder: str, manifest: Manifest) -> Iterator[pa.Table]:
    """The rows of each shard that has any.

    Raises:
      UserError: the dataset is damaged.
    """
    schema = make_schema(manifest)
    for shard in range(manifest.num_shards):
        pattern = join(folder, clips_file(shard, manifest.num_shards))
        clips = list(reading.read_lines(pattern))
        if clips:
            values = _read_statistics(folder, manifest, shard)
            yield _make_table(clips, values, schema, manifest, pattern)


def _make_table(
    clips: list[Mapping[str, Any]],
    values: Mapping[str, NDArray[np.float32]] | None,
    schema: pa.Schema,
    manifest: Manifest,
    source: str,
) -> pa.Table:
    mark = f"{OWNER} {manifest.fingerprint}"
    rows = [{MARK_COLUMN: mark, **clip} for clip in clips]
    columns = [name for name in schema.names if schema.field(name).type != pa.float32()]
    try:
        arrays = [
            pa.array([row[name] for row in rows], schema.field(name).type)
            for name in columns
        ]
        if values is not None:
            matrix = np.array([values[row["track_id"]] for row in rows], np.float32)
            arrays += [pa.array(column) for column in matrix.T]
        return pa.Table.from_arrays(arrays, schema=schema)
    except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"{source} does not fit its shard ({error}); inspect --verify says what is "
            "wrong."
        ) from error


def _read_statistics(
    folder: str, manifest: Manifest, shard: int
) -> dict[str, NDArray[np.float32]] | None:
    """The vectors of a shard by track id; None in a dataset without them."""
    layout = manifest.representations.get(statistics.NAME)
    if layout is None:
        return None
    found: dict[str, NDArray[np.float32]] = {}
    for split in SPLITS:
        path = join(folder, manifest.shard_files(statistics.NAME, split)[shard])
        values = reading.read_values(path, layout)
        found |= {track: vectors[0] for track, vectors in values.items()}
    return found


def write_parquet(
    folder: str, manifest: Manifest, path: str, *, flag: str
) -> tuple[int, bytes]:
    """Writes the file whole, over nothing but one of ours; returns rows and content.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      path: of the file, on any file system. All of it is held in memory: 2 kB a clip.
      flag: that named the path.

    Raises:
      UserError: the dataset is damaged, or the file cannot be written.
    """
    schema, rows = make_schema(manifest), 0
    sink = pa.BufferOutputStream()
    compression = {
        name: "NONE" if name == MARK_COLUMN else "ZSTD" for name in schema.names
    }
    with pyarrow.parquet.ParquetWriter(
        sink, schema, compression=compression, use_dictionary=[MARK_COLUMN]
    ) as writer:
        for table in make_tables(folder, manifest):
            writer.write_table(table)
            rows += table.num_rows
    if not rows:
        raise UserError(f"There is no clip for {flag}. Received: {folder}")
    data: bytes = sink.getvalue().to_pybytes()
    replace_file(beam_files(path), path, data, PARQUET, flag=flag)
    return rows, data

"""A song's genres as rows, and rows as the bytes of Parquet and JSONL."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from trainer.predict.audio import find_given
from trainer.predict.label.config import LabelConfig
from trainer.predict.label.songs import SongLabels

#: A row by the names of its columns.
Row = Mapping[str, Any]


def make_schema(config: LabelConfig) -> pa.Schema:
    """Columns and their types; JSONL has the same keys."""
    number = pa.float64()
    excerpt = [pa.field("excerpt", pa.int32()), pa.field("start", number)]
    top = pa.struct([pa.field("genre", pa.string()), pa.field("probability", number)])
    every = pa.struct([pa.field(genre, number) for genre in config.genres])
    return pa.schema(
        [
            pa.field("path", pa.string()),
            *(excerpt if config.by_excerpt else []),
            pa.field("genre", pa.string()),
            pa.field("probability", number),
            pa.field("top", pa.list_(top)),
            *([pa.field("given", pa.list_(top))] if config.thresholds else []),
            pa.field("probabilities", every),
            pa.field("excerpts", pa.int32()),
            pa.field("seconds", number),
            pa.field("model", pa.string()),
            *(
                [pa.field("embedding", pa.list_(pa.float32()))]
                if config.embeddings
                else []
            ),
        ]
    )


def make_rows(path: str, song: SongLabels, config: LabelConfig) -> Iterator[Row]:
    """One row of a song, or one for each of its excerpts.

    Args:
      path: of the file, as the glob gave it.
      song: its genres.
      config: of the job.
    """
    common = {
        "excerpts": len(song.starts),
        "seconds": round(song.seconds, 3),
        "model": config.fingerprint,
    }
    if not config.by_excerpt:
        embedding = song.embeddings.mean(axis=0) if config.embeddings else None
        genres = _name_genres(song.probabilities.mean(axis=0), config)
        yield {"path": path} | genres | common | _embed(embedding)
        return
    for index, start in enumerate(song.starts):
        place = {"excerpt": index, "start": round(start, 3)}
        embedding = song.embeddings[index] if config.embeddings else None
        genres = _name_genres(song.probabilities[index], config)
        yield {"path": path} | place | genres | common | _embed(embedding)


def find_genres(song: SongLabels, config: LabelConfig) -> tuple[str, ...]:
    """A song's genres: the most probable; of several a clip, those it is given."""
    probabilities = song.probabilities.mean(axis=0)
    if config.thresholds:
        return tuple(find_given(probabilities, config.thresholds, config.genres))
    return (config.genres[int(probabilities.argmax())],)


def _name_genres(probabilities: np.ndarray, config: LabelConfig) -> dict[str, Any]:
    """Columns of the genres; the highest first, of equal ones the first in order."""
    values = probabilities.tolist()
    order = sorted(range(len(values)), key=lambda index: -values[index])
    top = [
        {"genre": config.genres[index], "probability": values[index]}
        for index in order[: config.top]
    ]
    every = dict(zip(config.genres, values, strict=True))
    given = {}
    if config.thresholds:
        found = find_given(probabilities, config.thresholds, config.paths)
        given["given"] = [{"genre": g, "probability": p} for g, p in found.items()]
    return {**top[0], "top": top, **given, "probabilities": every}


def _embed(embedding: np.ndarray | None) -> dict[str, Any]:
    return {} if embedding is None else {"embedding": embedding.tolist()}


def to_jsonl(rows: Sequence[Row]) -> bytes:
    """An object a line."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def to_parquet(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    """A Parquet file, with no time in it."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows), schema), buffer)
    return buffer.getvalue()

"""Rows of some files: written whole or not at all, and kept after an interruption.

As with a dataset's shards, files go to a shard by a hash of their path, a shard is made
in one place, and `_progress/` knows those that are finished (see `pipeline.shards`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.rejects import AudioError, Reject
from pipeline.inputs.join import AudioFile
from pipeline.shards import runs
from pipeline.shards.resume import result_file
from pipeline.shards.shard import count_progress
from trainer.predict.label.config import (
    LABELS_FOLDER,
    LabelConfig,
    fingerprint_shard,
)
from trainer.predict.label.rows import (
    Row,
    find_genres,
    make_rows,
    make_schema,
    to_jsonl,
    to_parquet,
)
from trainer.predict.label.songs import SongLabels

#: As `SongLabeller.label`.
Label = Callable[
    [Iterable[AudioFile]], Iterator[tuple[AudioFile, SongLabels | AudioError]]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowFile:
    """A file of rows.

    Attributes:
      rows: number of them.
      size: in bytes.
      sha256: of its bytes.
    """

    rows: int
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledShard:
    """What became of the files of a shard.

    Attributes:
      shard: index.
      fingerprint: of all that shapes it (see `config.fingerprint_shard`).
      files: of rows, by path relative to the output folder.
      songs: path and genres (see `rows.find_genres`) of each file that has rows.
      rejects: files that cannot be used.
      not_audio: paths of files that are none.
      seconds: of music in all songs.
      kept: whether an earlier run made it.
    """

    shard: int
    fingerprint: str
    files: Mapping[str, RowFile]
    songs: Sequence[tuple[str, tuple[str, ...]]]
    rejects: Sequence[Reject]
    not_audio: Sequence[str]
    seconds: float
    kept: bool = False

    def to_json(self) -> str:
        """Serialises."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LabelledShard:
        """Parses what `to_json` made.

        Raises:
          ValueError: it is something else.
        """
        try:
            raw = json.loads(text)
            files = {name: RowFile(**file) for name, file in raw.pop("files").items()}
            songs = tuple((path, tuple(genres)) for path, genres in raw.pop("songs"))
            rejects = tuple(map(Reject.from_dict, raw.pop("rejects")))
            others = tuple(raw.pop("not_audio"))
            return cls(
                files=files, songs=songs, rejects=rejects, not_audio=others, **raw
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"Expected a shard's result. Received: {error}") from error


def rows_file(shard: int, num_shards: int, kind: str) -> str:
    """Path of a shard's rows, relative to the output folder."""
    return f"{LABELS_FOLDER}/{shard:05d}-of-{num_shards:05d}.{kind}"


def keep_or_make_shard(
    shard: int,
    files: Iterable[AudioFile],
    config: LabelConfig,
    label: Label,
    is_audio: Callable[[AudioFile], bool],
) -> LabelledShard:
    """Names the genres of a shard's files, unless an earlier run has done so.

    Args:
      shard: index, below `config.num_shards`.
      files: in any order; rows are in the order of their paths.
      config: of the job.
      label: decodes and asks the models.
      is_audio: tells what is left out.

    Raises:
      WriteError: the store does not take the files.
      SupersededError: a later run has taken over the folder.
    """
    files = sorted(files)
    fingerprint = fingerprint_shard(shard, files, config)
    path = join(config.output, result_file(shard, config.num_shards))
    earlier = _find_finished(path, fingerprint, config)
    if earlier is not None:
        for _ in files:
            count_progress(config.progress_file)
        return earlier
    with runs.writing(config):
        storage.delete(path)
    rows: list[Row] = []
    songs, rejects, seconds = [], [], 0.0
    audio = [file for file in files if is_audio(file)]
    found = {}
    for file, result in label(audio):
        found[file.path] = result
        count_progress(config.progress_file)
        if isinstance(result, SongLabels):
            seconds += result.seconds
    for file in audio:
        result = found[file.path]
        if isinstance(result, SongLabels):
            rows += make_rows(file.path, result, config)
            songs.append((file.path, find_genres(result, config)))
        else:
            rejects.append(_make_reject(file.path, result))
    made = LabelledShard(
        shard=shard,
        fingerprint=fingerprint,
        files=_write(shard, rows, config),
        songs=tuple(songs),
        rejects=tuple(rejects),
        not_audio=tuple(file.path for file in files if not is_audio(file)),
        seconds=round(seconds, 3),
    )
    with runs.writing(config):
        storage.write_atomically(path, made.to_json().encode(), scratch=config.output)
    return made


def _find_finished(
    path: str, fingerprint: str, config: LabelConfig
) -> LabelledShard | None:
    """What an earlier run made of the very same files, if that is still there."""
    if not storage.exists(path):
        return None
    try:
        result = LabelledShard.from_json(storage.read_text(path))
    except ValueError:
        return None
    if result.fingerprint != fingerprint:
        return None
    for name, file in result.files.items():
        written = storage.match(join(config.output, name))
        if [item.size_in_bytes for item in written] != [file.size]:
            return None
    return dataclasses.replace(result, kept=True)


def _write(shard: int, rows: Sequence[Row], config: LabelConfig) -> dict[str, RowFile]:
    contents = {
        "jsonl": to_jsonl(rows),
        "parquet": to_parquet(rows, make_schema(config)),
    }
    files = {}
    with runs.writing(config):
        for kind, content in contents.items():
            name = rows_file(shard, config.num_shards, kind)
            storage.write_atomically(
                join(config.output, name),
                content,
                scratch=config.output,
            )
            files[name] = RowFile(
                rows=len(rows),
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
    return files


def _make_reject(path: str, error: AudioError) -> Reject:
    return Reject(
        path=path,
        track_id="",
        stage="decode",
        reason=error.reason,
        message=str(error),
    )

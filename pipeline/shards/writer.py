"""The TFRecord files of one shard: whole or not at all."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Self, cast

import google_crc32c

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.schema import SPLITS, ShardFile, shard_file
from pipeline.shards.result import DatasetConfig
from pipeline.shards.tfrecord import write_record

#: Representation and split: what a file holds.
Key = tuple[str, str]


class ShardWriter:
    """Writes one file for each representation and split, then names them all.

    A file is written under a name that no other attempt uses and renamed when
    it is complete, so that a retried or doubled attempt cannot mix with this
    one. Use as a context manager; leaving it without `commit` removes what was
    written. All methods raise `storage.WriteError` where the store does not
    take a file.

    Args:
      output: dataset folder.
      representations: names.
      shard: index of the shard.
      num_shards: number of shards.
      executor: opens, closes and renames the files at the same time, since
        each is a round trip on an object store.
    """

    def __init__(
        self,
        *,
        output: str,
        representations: Sequence[str],
        shard: int,
        num_shards: int,
        executor: concurrent.futures.Executor,
    ) -> None:
        self._executor = executor
        self._names: dict[Key, str] = {}
        self._paths: dict[Key, tuple[str, str]] = {}
        for name in representations:
            for split in SPLITS:
                target = shard_file(name, split, shard, num_shards)
                self._names[name, split] = target
                self._paths[name, split] = (
                    storage.temporary_path(output, target.replace("/", "-")),
                    join(output, target),
                )
        self._files = {
            key: executor.submit(_open_counted, temporary, target)
            for key, (temporary, target) in self._paths.items()
        }

    @property
    def files(self) -> dict[str, ShardFile]:
        """What was written so far, by path relative to the dataset folder."""
        return {
            self._names[key]: opened.result().summarise()
            for key, opened in self._files.items()
        }

    def write(self, representation: str, split: str, records: Iterable[bytes]) -> None:
        """Appends serialised Examples."""
        file = self._files[representation, split].result()
        with storage.writing(file.target):
            for record in records:
                write_record(cast(BinaryIO, file), record)
                file.records += 1

    def commit(self, permission: AbstractContextManager[None] | None = None) -> None:
        """Closes the files and gives them their names.

        Args:
          permission: entered when all files are complete and none has its name yet,
            left when all have; what it raises leaves nothing.
        """
        self._for_each_file(self._close)
        with permission or contextlib.nullcontext():
            self._for_each_file(self._rename)
        self._paths.clear()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes what was not committed."""
        for key, (temporary, _) in self._paths.items():
            with contextlib.suppress(storage.WriteError):
                self._close(key)
            with contextlib.suppress(*storage.STORE_ERRORS):
                storage.delete(temporary)

    def _for_each_file(self, action: Callable[[Key], None]) -> None:
        for future in [self._executor.submit(action, key) for key in self._paths]:
            future.result()

    def _close(self, key: Key) -> None:
        file = self._files[key].result()
        with storage.writing(file.target):
            file.close()

    def _rename(self, key: Key) -> None:
        temporary, target = self._paths[key]
        with storage.writing(target):
            storage.rename(temporary, target)


@contextlib.contextmanager
def open_writer(
    shard: int, config: DatasetConfig, threads: int
) -> Iterator[tuple[ShardWriter, concurrent.futures.Executor]]:
    """A shard's writer and the threads that it uses, for other work as well.

    Args:
      shard: index.
      config: dataset parameters.
      threads: number of them.
    """
    with (
        concurrent.futures.ThreadPoolExecutor(threads) as executor,
        ShardWriter(
            output=config.output,
            representations=config.representations,
            shard=shard,
            num_shards=config.num_shards,
            executor=executor,
        ) as writer,
    ):
        yield writer, executor


class _CountedFile:
    """Keeps the size and the checksum of what is written to a file.

    Attributes:
      target: name that the file will have.
      records: to be counted by the writer.
    """

    def __init__(self, file: BinaryIO, target: str) -> None:
        self.target = target
        self.records = 0
        self._file = file
        self._size = 0
        self._crc = 0

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._size += len(data)
        self._crc = google_crc32c.extend(self._crc, data)
        return len(data)

    def close(self) -> None:
        self._file.close()

    def summarise(self) -> ShardFile:
        return ShardFile(
            records=self.records, size=self._size, crc32c=f"{self._crc:08x}"
        )


def _open_counted(temporary: str, target: str) -> _CountedFile:
    with storage.writing(target):
        return _CountedFile(storage.create(temporary), target)


def total_sizes(files: Mapping[str, ShardFile]) -> dict[str, int]:
    """Bytes of all files by representation."""
    sizes: dict[str, int] = {}
    for path, file in files.items():
        name = path.partition("/")[0]
        sizes[name] = sizes.get(name, 0) + file.size
    return sizes

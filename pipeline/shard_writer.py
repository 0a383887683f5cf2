"""The TFRecord files of one shard: whole or not at all."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from pipeline import storage
from pipeline.schema import SPLITS, shard_file
from pipeline.tfrecord import write_record

#: Representation and split: what a file holds.
Key = tuple[str, str]


class ShardWriter:
    """Writes one file for each representation and split, then names them all.

    A file is written under a name that no other attempt uses and renamed when
    it is complete, so that a retried or doubled attempt cannot mix with this
    one. Use as a context manager; leaving it without `commit` removes what was
    written.

    Args:
      output: dataset folder.
      representations: names.
      shard: index of the shard.
      num_shards: number of shards.
      executor: opens, closes and renames the files at the same time, since
        each is a round trip on an object store.

    Attributes:
      records: number of records, by representation and split.
      record_bytes: size of the files, by representation.
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
        self.records: collections.Counter[Key] = collections.Counter()
        self.record_bytes: collections.Counter[str] = collections.Counter()
        self._executor = executor
        self._paths: dict[Key, tuple[str, str]] = {}
        for name in representations:
            for split in SPLITS:
                target = shard_file(name, split, shard, num_shards)
                self._paths[name, split] = (
                    storage.temporary_path(output, target.replace("/", "-")),
                    storage.join(output, *target.split("/")),
                )
        self._files = {
            key: executor.submit(storage.create, temporary)
            for key, (temporary, _) in self._paths.items()
        }

    def write(self, representation: str, split: str, records: Iterable[bytes]) -> None:
        """Appends serialised Examples."""
        file = self._files[representation, split].result()
        for record in records:
            self.record_bytes[representation] += write_record(file, record)
            self.records[representation, split] += 1

    def commit(self) -> None:
        """Closes the files and gives them their names."""
        self._for_each_file(self._close)
        self._for_each_file(self._rename)
        self._paths.clear()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes what was not committed."""
        for key, (temporary, _) in self._paths.items():
            with contextlib.suppress(*storage.STORE_ERRORS):
                self._close(key)
            storage.delete(temporary)

    def _for_each_file(self, action: Callable[[Key], None]) -> None:
        for future in [self._executor.submit(action, key) for key in self._paths]:
            future.result()

    def _close(self, key: Key) -> None:
        self._files[key].result().close()

    def _rename(self, key: Key) -> None:
        storage.rename(*self._paths[key])

"""A local file system that fails at first, as object stores do now and then."""

import collections
import io
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.localfilesystem import LocalFileSystem

from pipeline.common import storage

#: Failures of each operation before it works.
FAILURES = 2


class _FlakyFile(io.FileIO):
    """Fails where the counter says so, after 100 kB of reading."""

    failures: ClassVar[collections.Counter[str]] = collections.Counter()

    def read(self, size: int = -1) -> bytes:
        late = self.tell() >= 100_000
        if late and self.failures["read"] < FAILURES:
            self.failures["read"] += 1
            raise ConnectionResetError("reset by peer")
        return super().read(size)


def make_store_flaky(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    """Lets every operation fail twice before it works once and for all.

    Returns the failures so far, by operation.
    """
    failures: ClassVar[collections.Counter[str]] = collections.Counter()
    monkeypatch.setattr(storage, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(_FlakyFile, "failures", failures)

    def break_operation(name: str, error: Exception) -> None:
        original = getattr(LocalFileSystem, name)

        def flaky(self, *arguments, **options):
            if failures[name] < FAILURES:
                failures[name] += 1
                raise error
            if name == "open":
                return _FlakyFile(arguments[0])
            return original(self, *arguments, **options)

        monkeypatch.setattr(LocalFileSystem, name, flaky)

    break_operation("open", ConnectionResetError("reset by peer"))
    break_operation("create", ConnectionResetError("reset by peer"))
    break_operation("match", BeamIOError("busy", {"x": TimeoutError("late")}))
    break_operation("rename", BeamIOError("busy", {"x": TimeoutError("late")}))
    return failures

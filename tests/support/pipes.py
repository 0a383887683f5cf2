"""Standard streams whose reader has ended."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest


@contextmanager
def nobody_reads(
    monkeypatch: pytest.MonkeyPatch, *names: str
) -> Iterator[list[TextIO]]:
    """Puts pipes into the places of streams of `sys`, which `names` names."""
    streams = []
    for name in names:
        reader, writer = os.pipe()
        os.close(reader)
        streams.append(os.fdopen(writer, "w"))
        monkeypatch.setattr(sys, name, streams[-1])
    try:
        yield streams
    finally:
        for stream in streams:
            stream.close()


def goes_nowhere(stream: TextIO) -> bool:
    """Whether it is `/dev/null`."""
    return os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))

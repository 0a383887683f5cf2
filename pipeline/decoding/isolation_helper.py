"""The process that `pipeline.decoding.isolation` decodes in; not for use by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, BinaryIO, cast

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.excerpts import decode_parts
from pipeline.decoding.isolation import (
    WAITING,
    receive,
    request_range,
    send,
    share_waveforms,
)
from pipeline.decoding.mp3 import Excerpt
from pipeline.decoding.waveform import Loader, load_waveform

#: Of a larger file, only what the decoder asks for is read.
WHOLE_FILE_BYTES = 4 << 20
_BUFFER = 1 << 18


class _RemoteFile(io.RawIOBase):
    """A file whose bytes the other process reads."""

    def __init__(self, size: int, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._size = size
        self._position = 0
        self._requests = requests
        self._answers = answers

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"Expected a position of 0 or more. Received: {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self._size - self._position, 0))
        data = self.fetch(self._position, count) if count else b""
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = self.fetch(self._position, max(self._size - self._position, 0))
        self._position += len(data)
        return data

    def fetch(self, offset: int, count: int) -> bytes:
        """Asks for bytes; the store's time is not the decoder's."""
        with _waiting(), _end_with_the_other():
            request_range(self._answers, offset, count)
            _, data = receive(self._requests)
        return data


def serve(load: Loader, arguments: Sequence[str]) -> int:
    """Decodes files until the other process goes away; returns the exit code.

    A message of kind D asks for a file's clip, answered by W; of kind E for excerpts
    of it, each of which is shown by C and taken by N, until W. X is a reject.

    Args:
      load: decodes the clip of one.
      arguments: descriptor of the shared memory, time and memory limits.
    """
    descriptor, time_limit, memory_limit = arguments
    requests = sys.stdin.buffer
    # What libraries print must not get between the messages.
    answers = cast(IO[bytes], os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    # An alarm ends the process, also inside native code; an interrupt is for
    # the other process to handle.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(memory_limit)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if sys.platform == "linux":  # Others count what is not there.
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    # No file of a crash's memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    waveforms = share_waveforms(int(descriptor))
    answer: dict[str, Any]
    while True:
        try:
            demand, payload = receive(requests)
        except EOFError:
            return 0
        request = json.loads(payload)
        config = ClipConfig(**request["config"])
        remote = _RemoteFile(request["size"], requests, answers)
        file: BinaryIO = io.BufferedReader(remote, _BUFFER)
        if remote.seek(0, os.SEEK_END) <= WHOLE_FILE_BYTES:
            file = io.BytesIO(remote.fetch(0, request["size"]))
        if "seconds" in request:
            file = Excerpt(file.read(), request["seconds"], request["lead"])
        # CPU time, so that a busy machine rejects nothing; and for what waits.
        signal.setitimer(signal.ITIMER_PROF, float(time_limit))
        signal.setitimer(signal.ITIMER_REAL, WAITING * float(time_limit))
        kind, answer, shared = b"W", {}, waveforms[request["place"]]
        try:
            if demand == b"E":
                for part in decode_parts(file, config, request["limit"], load):
                    shared[:] = part.samples
                    place = part._asdict()
                    del place["samples"]
                    _hand_over(requests, answers, place)
            else:
                waveform = load(file, config)
                answer = {
                    "length": waveform.length,
                    "decoder": waveform.decoder,
                    "seconds": waveform.seconds,
                }
                shared[:] = waveform.samples
        except AudioError as error:
            kind, answer = b"X", {"reason": error.reason, "message": str(error)}
        except MemoryError:
            reason = Reason.DECODER_CRASHED
            message = f"decoding takes more than {limit >> 20:,} MiB of memory"
            kind, answer = b"X", {"reason": reason, "message": message}
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        with _end_with_the_other():
            send(answers, kind, json.dumps(answer).encode())


def _hand_over(
    requests: IO[bytes], answers: IO[bytes], place: Mapping[str, float]
) -> None:
    """Shows an excerpt, and waits until the other process has it."""
    with _waiting(), _end_with_the_other():
        send(answers, b"C", json.dumps(place).encode())
        receive(requests)


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    """Stops the clock while the other process works."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, left)


@contextlib.contextmanager
def _end_with_the_other() -> Iterator[None]:
    """Ends this process at once if the other one is gone: nobody waits for it."""
    try:
        yield
    except (EOFError, BrokenPipeError):
        os._exit(0)


if __name__ == "__main__":
    sys.exit(serve(load_waveform, sys.argv[1:]))

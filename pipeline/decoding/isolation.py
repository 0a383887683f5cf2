"""Decodes in a process of its own: a file that crashes a decoder costs a reject.

Native decoders read untrusted bytes. Where one of them crashes, hangs or takes
all memory, that ends a small helper process in place of the worker with all its
other clips. A helper serves one file after the other, so that the boundary costs
two copies of the samples and no start of a process.

The helper asks for the bytes that it needs, and so works with any file system
without knowing it. Messages are framed bytes and JSON; the waveform is in shared
memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, Generic, TypeVar, cast

import numpy as np

from pipeline.common.child_process import python_command
from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.plain_text import explain_no_room
from pipeline.common.regular_file import NotAFileError, open_regular
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.excerpts import Part
from pipeline.decoding.ffmpeg import ATTEMPTS, signal_name
from pipeline.decoding.mp3 import Excerpt
from pipeline.decoding.waveform import Float32, Waveform
from pipeline.schema import UserError

#: A clip takes some 0.05 s; ten minutes of AAC take two.
TIME_LIMIT = 20.0
#: Time that decoding may take, as a multiple of the CPU time that it may.
WAITING = 6
#: Seconds beyond that in which a helper starts and answers. Its own clock ends it
#: before, unless it is stopped: nothing goes on then but the clock on this side.
GRACE = 60.0
#: Address space of a helper; clips of eight channels at 192 kHz take a tenth.
MEMORY_LIMIT = 4 << 30
#: Waveforms in shared memory: while one is used, the next is decoded.
WAVEFORMS = 2
#: The module that a helper runs.
HELPER = "pipeline.decoding.isolation_helper"

_Used = TypeVar("_Used")
#: What was made of the clips that were handed over, and the answer at the end.
_Result = tuple[list[_Used], dict[str, Any]]

_SHARED_BYTES = WAVEFORMS * CLIP_SAMPLES * 4
#: A clip's file goes through in one piece.
_PIPE_BYTES = 1 << 20
_HEADER = struct.Struct("<cQ")
_RANGE = struct.Struct("<QQ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Demand(Generic[_Used]):
    """What the helper is asked for.

    Attributes:
      file: to decode.
      kind: of the message that asks, see `isolation_helper.serve`.
      config: clip parameters.
      place: of the waveform that it decodes to.
      limit: of excerpts; None for the clip that training takes.
      use: takes each excerpt that is handed over.
    """

    file: BinaryIO
    kind: bytes
    config: ClipConfig
    place: int = 0
    limit: int | None = None
    use: Callable[[Part], _Used]

    def to_json(self, size: int) -> bytes:
        """The message, for a file of so many bytes."""
        content = {
            "config": dataclasses.asdict(self.config),
            "place": self.place,
            "limit": self.limit,
            "size": size,
        }
        if isinstance(self.file, Excerpt):
            content |= {"seconds": self.file.seconds, "lead": self.file.lead}
        return json.dumps(content).encode()


class IsolatedDecoder:
    """Runs `load_waveform` and `load_excerpts` in a helper process.

    For one thread at a time; another one may use what was decoded. Use as a context
    manager, or call `close`. The helper starts with the object, and again after it
    died.

    Args:
      time_limit: seconds of CPU time that decoding a file may take. It may take six
        times as long if it has to wait; reading does not count.
      helper: module to run in place of `HELPER`.
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT, helper: str = "") -> None:
        self._time_limit = time_limit
        self._helper = helper or HELPER
        self._file = _make_shared_file(_SHARED_BYTES)
        self._waveforms = share_waveforms(self._file.fileno(), prot=mmap.PROT_READ)
        self._next = 0
        self._process: subprocess.Popen[bytes] | None = self._start()

    def load_waveform(self, file: BinaryIO, config: ClipConfig) -> Waveform:
        """As `waveform.load_waveform`, but for where the samples are.

        The next call leaves them alone, the one after it replaces them.

        Raises:
          AudioError: as there; also where decoding crashes or takes too long.
          RuntimeError: the helper ended by a programming error, which it printed.
        """
        place, self._next = self._next, (self._next + 1) % WAVEFORMS
        demand = _Demand(file=file, kind=b"D", config=config, place=place, use=_keep)
        _, answer = self._decode(demand)
        return Waveform(samples=self._waveforms[place], **answer)

    def load_excerpts(
        self, path: str, config: ClipConfig, limit: int
    ) -> tuple[Part, ...]:
        """As `excerpts.load_excerpts`; the caller may keep what it gets.

        Raises:
          AudioError: the file cannot be used, also where decoding it crashes or
            takes too long, or where the name leads to no file.
          OSError: it cannot be read.
          RuntimeError: the helper ended by a programming error, which it printed.
        """
        try:
            with open_regular(path) as file:
                return self.load_parts(file, config, limit)
        except NotAFileError as error:
            raise AudioError(Reason.NOT_A_FILE, str(error.strerror)) from error

    def load_parts(
        self, file: BinaryIO, config: ClipConfig, limit: int
    ) -> tuple[Part, ...]:
        """As `excerpts.decode_parts`; the caller may keep what it gets.

        Raises what `use_parts` does.
        """
        return tuple(self.use_parts(file, config, limit, _keep))

    def use_parts(
        self,
        file: BinaryIO,
        config: ClipConfig,
        limit: int,
        use: Callable[[Part], _Used],
    ) -> list[_Used]:
        """What a function makes of each clip, while the next one is decoded.

        Args:
          file: see `excerpts.decode_parts`.
          config: likewise.
          limit: likewise.
          use: takes a clip, and may keep it; again, where the helper died.

        Raises:
          AudioError: the file cannot be used, also where decoding it crashes or
            takes too long.
          OSError: it cannot be read.
          RuntimeError: the helper ended by a programming error, which it printed.
        """
        used, _ = self._decode(
            _Demand(file=file, kind=b"E", config=config, limit=limit, use=use)
        )
        return used

    def _decode(self, demand: _Demand[_Used]) -> _Result[_Used]:
        """Has a file decoded, also where the helper dies of something else."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask(demand)
            except _HelperDiedError as error:
                code = error.code
            # The alarm also goes off where all was stopped, as by Ctrl-Z, and goes on.
            waited = code == -signal.SIGALRM and attempt == ATTEMPTS
            if code == -signal.SIGPROF or waited:
                raise AudioError(
                    Reason.DECODER_TIMED_OUT,
                    f"decoding takes more than {self._time_limit:g} s",
                )
            if code >= 0:
                raise RuntimeError(
                    f"The decoding process ended with exit code {code}; what it "
                    "printed says why."
                )
        raise AudioError(
            Reason.DECODER_CRASHED,
            f"the process that decodes it died {ATTEMPTS} times ({signal_name(-code)})",
        )

    def close(self) -> None:
        """Ends the helper."""
        self._stop()
        self._file.close()

    def __enter__(self) -> IsolatedDecoder:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the helper."""
        self.close()

    def _ask(self, demand: _Demand[_Used]) -> _Result[_Used]:
        """Has the running helper decode a file, and serves what it reads."""
        if self._process is None:
            self._process = self._start()
        try:
            answer = self._converse(self._process, demand)
        except (EOFError, BrokenPipeError) as error:
            raise _HelperDiedError(self._stop()) from error
        except BaseException:
            # Reading the file failed: the helper still waits for the bytes.
            self._stop()
            raise
        if isinstance(answer, AudioError):
            raise answer
        return answer

    def _converse(
        self, process: subprocess.Popen[bytes], demand: _Demand[_Used]
    ) -> _Result[_Used] | AudioError:
        requests, answers = process.stdin, process.stdout
        if requests is None or answers is None:
            raise TypeError("The helper has no pipes.")
        limit = WAITING * self._time_limit + GRACE
        file = demand.file
        kind, content = demand.kind, demand.to_json(file.seek(0, os.SEEK_END))
        used: list[_Used] = []
        part = None
        while True:
            with _killed_after(limit, process):
                send(requests, kind, content)
            if part is not None:
                used.append(demand.use(part))
                part = None
            with _killed_after(limit, process):
                kind, payload = receive(answers)
            if kind == b"R":
                offset, count = _RANGE.unpack(payload)
                file.seek(offset)
                kind, content = b"B", file.read(count)
                continue
            if kind == b"C":
                samples = self._waveforms[demand.place].copy()
                part = Part(samples, **json.loads(payload))
                kind, content = b"N", b""
                continue
            answer = json.loads(payload)
            if kind == b"X":
                return AudioError(Reason(answer["reason"]), answer["message"])
            return used, answer

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [self._file.fileno(), self._time_limit, MEMORY_LIMIT]
        return subprocess.Popen(
            python_command(self._helper, *map(str, arguments)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._file.fileno()],
            pipesize=_PIPE_BYTES,
            # BLAS would reserve memory for threads that are never used.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def _stop(self) -> int:
        """Ends the helper, if there is one; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            # It ends by itself when its input does.
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


@contextlib.contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kills a helper that neither reads nor answers, which ends the wait for it."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _keep(part: Part) -> Part:
    return part


class _HelperDiedError(Exception):
    """The helper is gone; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def share_waveforms(descriptor: int, **access: int) -> Float32:
    """The memory that a helper decodes to: shape (2, 1321967), float32.

    Args:
      descriptor: of the shared file.
      access: of `mmap.mmap`.
    """
    memory = mmap.mmap(descriptor, _SHARED_BYTES, **access)
    return np.frombuffer(memory, np.float32).reshape(WAVEFORMS, CLIP_SAMPLES)


def send(stream: IO[bytes], kind: bytes, payload: bytes) -> None:
    """Writes a message: its kind, its length, its content."""
    stream.write(_HEADER.pack(kind, len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Reads a message: kind and content.

    Raises:
      EOFError: the other side is gone.
    """
    kind, length = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    return kind, _read_exactly(stream, length)


def request_range(stream: IO[bytes], offset: int, count: int) -> None:
    """Asks for bytes of the file that is being decoded."""
    send(stream, b"R", _RANGE.pack(offset, count))


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _make_shared_file(size: int) -> BinaryIO:
    """A file in memory, where the system has that, to share with a child.

    Raises:
      UserError: there is no room for it.
    """
    try:
        if hasattr(os, "memfd_create"):
            file = cast(BinaryIO, os.fdopen(os.memfd_create("waveform"), "w+b"))
        else:
            file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        os.ftruncate(file.fileno(), size)
    except OSError as error:
        advice = explain_no_room(error)
        if advice is None:
            raise
        raise UserError(f"Decoded clips need {size:,} bytes: {advice}.") from error
    return file

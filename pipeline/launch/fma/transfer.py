"""One file by HTTP, going on where it broke off, however often.

What has come lies in `NAME.part`, and in `NAME.part.json` which version of the file
that is. An attempt asks for the rest by a range; one of another version, or of a server
that takes no ranges, begins anew. The SHA-1 of the whole decides in the end. Standard
library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import BinaryIO

from pipeline.common.plain_text import one_line
from pipeline.schema import UserError

#: Bytes that are asked for again after this program ended: the last may not have
#: reached the disk.
BLOCK_BYTES = 1 << 16
#: Seconds without a byte after which a connection is given up.
TIMEOUT = 60.0
#: Attempts in a row that bring nothing, after which it is given up.
ATTEMPTS = 8
#: Pause before the second attempt; it doubles up to the longest.
PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: How a ZIP begins.
SIGNATURE = b"PK\3\4"

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_HASH_BYTES = 1 << 22
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How patient a transfer is (see the constants of the module)."""

    timeout: float = TIMEOUT
    attempts: int = ATTEMPTS
    pause: float = PAUSE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """Which content a server gave a part of.

    Attributes:
      url: where.
      etag: its ETag; empty without one.
      modified: its time of modification; empty without one.
      total: bytes of the whole; None where the server does not say.
    """

    url: str
    etag: str = ""
    modified: str = ""
    total: int | None = None

    def is_continued_by(self, other: Version) -> bool:
        """Whether another answer's bytes fit behind those of this one.

        Of another address, the size must do: the SHA-1 decides in the end.
        """
        if self.total != other.total:
            return False
        return self.url != other.url or (self.etag, self.modified) == (
            other.etag,
            other.modified,
        )


class _ChangedError(Exception):
    """The server has another content than that of which there is a part."""


class _BrokenOffError(Exception):
    """An attempt that ended before its time; another may do better.

    Attributes:
      wait: seconds that the server asks to wait.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


#: Is told how many bytes there are, of how many (None: not known).
Report = Callable[[int, int | None], object]


def fetch(url: str, path: str, report: Report, options: Options | None = None) -> None:
    """Fetches a file to `PATH.part`, of which a part may be there.

    Args:
      url: http or https.
      path: where the whole file will be.
      report: is told of progress.
      options: how patient to be.

    Raises:
      UserError: the server does not give the file, or the disk does not take it.
    """
    options = options or Options()
    with _open_part(f"{path}.part") as part:
        size = part.seek(0, os.SEEK_END)
        part.seek(max(size - BLOCK_BYTES, 0))
        part.truncate()
        failures, versions, most = 0, 0, part.tell()
        while True:
            try:
                _attempt(url, part, report, options)
                return
            except _ChangedError as error:
                reason, wait = str(error), 0.0
                versions += 1
                most = 0
            except _BrokenOffError as error:
                reason, wait = str(error), error.wait
            except OSError as error:
                reason, wait = error.strerror or str(error), 0.0
                if error.filename is not None or isinstance(error, _DiskError):
                    raise UserError(
                        f"{path}.part cannot be written: {reason}; make room, then run "
                        "the same command again to go on."
                    ) from error
            # An attempt that begins anew must come further than all before.
            failures = 0 if part.tell() > most else failures + 1
            most = max(most, part.tell())
            if options.attempts in (failures, versions):
                raise UserError(
                    f"{url} does not come any further: {one_line(reason[:200])}, as "
                    f"in {options.attempts} attempts. Run the same command again to go "
                    "on, or name a --mirror."
                )
            if failures:
                pause = min(options.pause * 2 ** (failures - 1), LONGEST_PAUSE)
                time.sleep(max(wait, pause))


class _DiskError(OSError):
    """The disk does not take what has come."""


@contextlib.contextmanager
def _open_part(path: str) -> Iterator[BinaryIO]:
    """Opens a part for this process alone, without a buffer."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another process is fetching {path.removesuffix('.part')}; wait for "
                "it, or give another --output."
            ) from error
        yield file


def _attempt(url: str, part: BinaryIO, report: Report, options: Options) -> None:
    """Fetches what is missing; returns when all is there.

    Raises:
      _ChangedError: the server has another content.
      _BrokenOffError: it ended too early.
      OSError: likewise, or the disk takes no more.
      UserError: the server will never give it.
    """
    state = f"{part.name}.json"
    version = _read_version(state)
    start = part.tell()
    if version is None and start:
        start = _begin_anew(part)
    if version is not None and version.total == start and start:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "fma-genre-classifiers"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version is not None and version.url == url:
            condition = version.etag or version.modified
            if condition and not condition.startswith("W/"):
                headers["If-Range"] = condition
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=options.timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # It has no more, or less than this.
                _begin_anew(part)
                raise _BrokenOffError("the server has no such range") from error
            _explain(url, error)
    except urllib.error.URLError as error:
        reason = error.reason
        text = getattr(reason, "strerror", None) or str(reason)
        raise _BrokenOffError(f"it cannot be reached ({text})") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _BrokenOffError(f"its answer is no HTTP ({error})") from error
    with response:
        given, offset = _read_answer(url, response, start)
        changed = start > 0 and version != given
        if version is not None and changed and not version.is_continued_by(given):
            _begin_anew(part)
            raise _ChangedError("the file on the server changes")
        if offset != start:
            _begin_anew(part)
        if version != given:
            _write_version(state, given)
        _receive(response, part, given.total, report)


def _explain(url: str, error: urllib.error.HTTPError) -> None:
    """Raises what a status says."""
    if error.code in _PASSING:
        wait = error.headers.get("Retry-After", "")
        seconds = min(float(wait), LONGEST_PAUSE) if wait.isdecimal() else 0.0
        raise _BrokenOffError(f"it answers {error.code} {error.reason}", seconds)
    raise UserError(
        f"{url} cannot be fetched: the server answers {error.code} "
        f"{one_line(error.reason)}; name a --mirror, or fetch it by hand."
    )


def _read_answer(
    url: str, response: http.client.HTTPResponse, start: int
) -> tuple[Version, int]:
    """The version that is given, and the place where the bytes begin."""
    headers: Message = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise UserError(
            f"{url} is sent as {headers['Content-Encoding']}, although its own bytes "
            "were asked for; name another --mirror."
        )
    length = headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    offset = 0
    if response.status == 206:
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start:
            raise _BrokenOffError("it gives another range than was asked for")
        offset, total = start, int(found[2])
    given = Version(
        url=url,
        etag=headers.get("ETag", ""),
        modified=headers.get("Last-Modified", ""),
        total=total,
    )
    return given, offset


def _receive(
    response: http.client.HTTPResponse,
    part: BinaryIO,
    total: int | None,
    report: Report,
) -> None:
    size = part.tell()
    while True:
        try:
            data = response.read1(BLOCK_BYTES)
        except http.client.HTTPException as error:
            raise _BrokenOffError(f"it broke off ({error})") from error
        except TimeoutError as error:
            raise _BrokenOffError("no byte came for a while") from error
        if not data:
            break
        if not size and not data.startswith(SIGNATURE[: len(data)]):
            raise UserError(
                f"{response.url} is no ZIP: it begins with {data[:40]!r}; name "
                "another --mirror."
            )
        _write(part, data)
        size += len(data)
        report(size, total)
    if total is not None and size < total:
        raise _BrokenOffError(f"it broke off at {size:,} of {total:,} bytes")


def _write(part: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[part.write(view) :]
    except OSError as error:
        raise _DiskError(error.errno, error.strerror) from error


def _begin_anew(part: BinaryIO) -> int:
    part.seek(0)
    part.truncate()
    return 0


def _read_version(path: str) -> Version | None:
    try:
        with open(path, encoding="utf-8") as file:
            return Version(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def _write_version(path: str, version: Version) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(version), file)


def digest(path: str, report: Report) -> str:
    """SHA-1 of a local file.

    Raises:
      OSError: it cannot be read.
    """
    total, done = os.stat(path).st_size, 0
    sha1 = hashlib.sha1(usedforsecurity=False)
    with open(path, "rb") as file:
        while data := file.read(_HASH_BYTES):
            sha1.update(data)
            done += len(data)
            report(done, total)
    return sha1.hexdigest()

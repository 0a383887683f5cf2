"""A server of one file on loopback that behaves as badly as it is told."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Behaviour:
    """What a server does.

    Attributes:
      content: of the file.
      etag: of it; empty for none.
      ranges: whether it answers them.
      respects_if_range: whether it looks at If-Range.
      length: whether it says how long its answers are.
      cut: bytes after which an answer breaks off, by its number; None: never.
      stall: whether it waits there, to the end, before it closes the connection.
      chunk, pause: bytes sent at a time, and seconds between them.
      status: by the number of the request; 0 for an ordinary answer.
      before: is called with the number of the request, and may change all this.
      sent: bytes sent in all, by position of their first: (first, count).
      requests: the Range headers that came.
    """

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    respects_if_range: bool = True
    length: bool = True
    cut: Callable[[int], int | None] = lambda number: None
    stall: bool = False
    chunk: int = 1 << 14
    pause: float = 0.0
    status: Callable[[int], int] = lambda number: 0
    before: Callable[[int], object] = lambda number: None
    sent: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    requests: list[str | None] = dataclasses.field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour: Behaviour = self.server.behaviour
        number = len(behaviour.requests)
        wanted = self.headers.get("Range")
        behaviour.requests.append(wanted)
        behaviour.before(number)
        status = behaviour.status(number)
        if status:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        condition = self.headers.get("If-Range")
        fits = (
            condition is None
            or condition == behaviour.etag
            or not behaviour.respects_if_range
        )
        if wanted is not None and behaviour.ranges and fits:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(behaviour.content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        data = behaviour.content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(behaviour.content) - 1
            of = len(behaviour.content)
            self.send_header("Content-Range", f"bytes {start}-{last}/{of}")
        if behaviour.length:
            self.send_header("Content-Length", str(len(data)))
        if behaviour.etag:
            self.send_header("ETag", behaviour.etag)
        self.end_headers()
        cut = behaviour.cut(number)
        part = data if cut is None else data[:cut]
        count = 0
        with contextlib.suppress(OSError):
            for at in range(0, len(part), behaviour.chunk):
                self.wfile.write(part[at : at + behaviour.chunk])
                count += len(part[at : at + behaviour.chunk])
                time.sleep(behaviour.pause)
        behaviour.sent.append((start, count))
        if cut is not None and behaviour.stall:
            self.server.over.wait()
        self.close_connection = True


@contextlib.contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Serves until the end of the block; yields the address of its folder."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    # Closing the server waits for its answers: what they note is then complete.
    server.daemon_threads = False
    server.behaviour, server.over = behaviour, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()

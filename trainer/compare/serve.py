"""Shows a report in the browser: `./launch.sh report REPORT_DIR`.

Where there is no browser to open it in, it is served, to this machine alone.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.plain_text import allow_any_text, print_error
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.common.regular_file import open_regular
from pipeline.schema import UserError

HTML_FILE = "report.html"
HOST = "127.0.0.1"
HTTP_PORT, MAX_PORT = 80, 65_535
#: A connection that says nothing for so long is closed.
IDLE_SECONDS = 10
MAX_CONNECTIONS = 32


_USE = ["predict", "--model", "MODEL", "FILE"]


def find_report(path: str) -> str:
    """The page in a folder, or the page itself.

    Raises:
      UserError: there is none.
    """
    page = os.path.join(path, HTML_FILE) if os.path.isdir(path) else path
    if not os.path.isfile(page):
        raise UserError(
            f"There is no {HTML_FILE} in {path}; make one with "
            "./launch.sh compare --models MODELS."
        )
    return page


class LoopbackServer(http.server.ThreadingHTTPServer):
    """Serves this machine alone, under its own names.

    Args:
      handler: answers requests.
      port: 0 for any that is free.

    Raises:
      OSError: the port is taken.
    """

    def __init__(
        self, handler: type[http.server.BaseHTTPRequestHandler], port: int
    ) -> None:
        self._connections: list[socket.socket] = []
        super().__init__((HOST, port), handler)

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser may call this server: nobody else's name leads here.

        A page on the web may have its own name lead to this machine, and would then
        read what is served under it.
        """
        port = self.server_address[1]
        names = {f"{name}:{port}" for name in (HOST, "localhost")}
        return frozenset(names | ({HOST, "localhost"} if port == HTTP_PORT else set()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Has the longest connection make room where there are too many."""
        self._connections = [c for c in self._connections if c.fileno() >= 0]
        for connection in self._connections[: -MAX_CONNECTIONS + 1]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of browsers that go away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class PageServer(LoopbackServer):
    """Serves one page and nothing else.

    Args:
      page: path; read anew for each request.
      port: 0 for any that is free.

    Raises:
      OSError: the port is taken.
    """

    def __init__(self, page: str, port: int) -> None:
        self.page = page
        super().__init__(_Handler, port)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the page."""

    server: PageServer
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Sends the page."""
        content = self._send_head()
        if content is not None:
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        """Sends what comes before the page."""
        self._send_head()

    def _send_head(self) -> bytes | None:
        """Sends status and headers; returns the page, None where there is none."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self.send_error(421, "This server has another name")
            return None
        if self.path.split("?")[0] not in ("/", f"/{HTML_FILE}"):
            self.send_error(404)
            return None
        try:
            with open_regular(self.server.page) as file:
                content = file.read()
        except OSError as error:
            self.send_error(404, f"The report is gone ({error.strerror})")
            return None
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


def make_server(page: str, port: int) -> PageServer:
    """A server of one page.

    Raises:
      UserError: there is no such port, or it is taken.
    """
    with checked_port(port):
        return PageServer(page, port)


@contextlib.contextmanager
def checked_port(port: int) -> Iterator[None]:
    """Makes a server's errors sentences.

    Raises:
      UserError: there is no such port, or it is taken.
    """
    if not 0 <= port <= MAX_PORT:
        raise UserError(f"--port must be from 0 to {MAX_PORT}. Received: {port}")
    try:
        yield
    except OSError as error:
        # `socket.create_server` puts the address into the error's own text.
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"Port {port} cannot be used ({reason}); give another --port."
        ) from error


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "report",
        description="Opens a report in the browser, and serves it where there is none.",
        examples=["report demo-run", "report demo-run --serve --port 0"],
    )
    shown = parser.add_argument_group("report")
    shown.add_argument("report", help="folder of report.html, or the file itself")
    shown.add_argument(
        "--port", type=int, default=8000, help="0: any (default: %(default)s)"
    )
    shown.add_argument(
        "--serve",
        action="store_true",
        help="serve it even where a browser can open the file, until Ctrl-C",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    allow_any_text()
    flags = make_parser().parse_args(argv)
    try:
        page = find_report(flags.report)
        address = Path(page).absolute().as_uri()
        if not flags.serve and _has_display() and webbrowser.open(address):
            Reporter().finish(address, _USE)
            return 0
        with make_server(page, flags.port) as server:
            print(
                f"http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends it)",
                flush=True,
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                Reporter().finish("", _USE)
    except UserError as error:
        print_error(error)
        return 2
    return 0


def _has_display() -> bool:
    """Whether a browser could show a window."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or sys.platform in ("darwin", "win32")


if __name__ == "__main__":
    sys.exit(main())

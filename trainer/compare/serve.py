"""Shows a report in the browser: `python -m trainer.compare.serve REPORT_DIR`.

Where there is no browser to open it in, it is served, to this machine alone.
"""

from __future__ import annotations

import argparse
import http.server
import os
import sys
import webbrowser
from collections.abc import Sequence

from pipeline.schema import UserError

HTML_FILE = "report.html"
HOST = "127.0.0.1"


def find_report(path: str) -> str:
    """The page in a folder, or the page itself.

    Raises:
      UserError: there is none.
    """
    page = os.path.join(path, HTML_FILE) if os.path.isdir(path) else path
    if not os.path.isfile(page):
        raise UserError(
            f"There is no {HTML_FILE} in {path}; make one with python -m "
            "trainer.compare --models MODELS."
        )
    return page


def make_server(page: str, port: int) -> http.server.ThreadingHTTPServer:
    """A server of one page and nothing else, on this machine alone.

    Args:
      page: path; read anew for each request.
      port: 0 for any that is free.

    Raises:
      UserError: the port is taken.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers every address with the page."""

        def do_GET(self) -> None:
            """Sends the page."""
            if self.path.split("?")[0] not in ("/", f"/{HTML_FILE}"):
                self.send_error(404)
                return
            with open(page, "rb") as file:
                content = file.read()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    try:
        return http.server.ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            f"Port {port} cannot be used ({error.strerror}); give another --port."
        ) from error


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.compare.serve",
        allow_abbrev=False,
        description="Opens a report in the browser, and serves it where there is none.",
    )
    parser.add_argument("report", help="folder of report.html, or the file itself")
    parser.add_argument(
        "--port", type=int, default=8000, help="0: any (default: %(default)s)"
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="serve it even where a browser can open the file, until Ctrl-C",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    flags = make_parser().parse_args(argv)
    try:
        page = find_report(flags.report)
        address = "file://" + os.path.abspath(page)
        if not flags.serve and _has_display() and webbrowser.open(address):
            print(address)
            return 0
        with make_server(page, flags.port) as server:
            print(
                f"http://{HOST}:{server.server_address[1]}/ (Ctrl-C ends it)",
                flush=True,
            )
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _has_display() -> bool:
    """Whether a browser could show a window."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or sys.platform in ("darwin", "win32")


if __name__ == "__main__":
    sys.exit(main())

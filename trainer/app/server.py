"""The page's server: who is answered, how much is taken, and what is sent."""

from __future__ import annotations

import http.server
import json
import mimetypes
import re
import socket
import tempfile
import time
import urllib.parse
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.common.rejects import AudioError
from pipeline.inputs.archives.members import open_local
from pipeline.inputs.audio_names import AUDIO_EXTENSIONS
from trainer.app.listen import BusyError, Listener
from trainer.compare.serve import IDLE_SECONDS, LoopbackServer
from trainer.predict.audio import find_paths

#: Bytes of a song, and seconds in which all of it must have come.
MAX_BYTES = 256 << 20
UPLOAD_SECONDS = 120
_PIECE = 1 << 18
_WEB = Path(__file__).with_name("web")
_FILES = {"/": "page.html", "/app.css": "app.css", "/app.js": "app.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
#: The page loads nothing from elsewhere, and nobody shows it in theirs.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class AppServer(LoopbackServer):
    """Serves the page, and listens to songs.

    Args:
      listener: names the genres.
      model: names of the models, for people.
      synthetic: whether they know music alone that nobody recorded.
      port: 0 for any that is free.

    Raises:
      OSError: the port is taken.
    """

    def __init__(
        self, listener: Listener, port: int, *, model: str, synthetic: bool = False
    ) -> None:
        self.listener = listener
        self.model = model
        self.synthetic = synthetic
        super().__init__(_Handler, port)

    @property
    def origins(self) -> frozenset[str]:
        """What a browser calls a page of this server."""
        return frozenset(f"http://{host}" for host in self.hosts)

    def describe(self) -> dict[str, Any]:
        """What the page has to know before a song comes."""
        similar = self.listener.similar
        predictor = self.listener.audio.predictor
        several = predictor.thresholds is not None
        return {
            "model": self.model,
            "synthetic": self.synthetic,
            "genres": list(predictor.genres),
            "thresholds": list(predictor.thresholds or ()),
            "paths": find_paths(predictor) if several else [],
            "max_bytes": MAX_BYTES,
            "extensions": sorted(AUDIO_EXTENSIONS),
            "training_clips": similar.total if similar else 0,
            "training_clips_heard": similar.held if similar else 0,
        }


class _RefusedError(Exception):
    """A request that is not answered as asked: a status and a sentence."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request a connection."""

    server: AppServer
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Sends a part of the page, or a clip's file."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """Sends what comes before."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Listens to the song in the request's body."""
        self._answer(self._post)

    def _answer(self, act: Any) -> None:
        try:
            self._check_sender()
            act()
        except _RefusedError as refusal:
            self._send_json({"error": str(refusal)}, refusal.status)

    def _check_sender(self) -> None:
        """Answers pages of this server alone: see `LoopbackServer.hosts`."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            raise _RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST, "This server has another name."
            )
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        own = origin is None or origin.lower() in self.server.origins
        # A link on another page may lead here; nothing else of it may.
        navigates = self.headers.get("Sec-Fetch-Mode") == "navigate"
        if not own or not (
            site in ("none", "same-origin") or (navigates and self.command == "GET")
        ):
            raise _RefusedError(
                HTTPStatus.FORBIDDEN, "Only this server's own page is answered."
            )

    def _get(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path in _FILES:
            name = _FILES[path]
            kind = f"{_TYPES[Path(name).suffix]}; charset=utf-8"
            self._send((_WEB / name).read_bytes(), kind)
        elif path == "/model":
            self._send_json(self.server.describe())
        elif path.startswith("/clip/"):
            self._send_clip(urllib.parse.unquote(path.removeprefix("/clip/")))
        else:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _post(self) -> None:
        if self.path != "/listen":
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is no such page.")
        with tempfile.TemporaryFile(prefix="song-") as file:
            self._receive(file)
            try:
                answer = self.server.listener.listen(file)
            except AudioError as error:
                # An answer like another: a browser calls statuses of errors faults.
                answer = {"error": f"It cannot be used: {error}."}
            except BusyError as error:
                raise _RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "Too many songs wait already; try again in a moment.",
                ) from error
        self._send_json(answer)

    def _receive(self, file: BinaryIO) -> None:
        """Writes the body to a file, as far as size and time allow."""
        text = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", text):
            raise _RefusedError(
                HTTPStatus.LENGTH_REQUIRED, "The request does not tell its length."
            )
        left = int(text)
        if not left:
            raise _RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "The file is empty.")
        if left > MAX_BYTES:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file has {left / 1e6:,.0f} MB; up to {MAX_BYTES / 1e6:,.0f} MB "
                "are taken.",
            )
        end = time.monotonic() + UPLOAD_SECONDS
        while left:
            try:
                piece = self.rfile.read1(min(left, _PIECE))
            except TimeoutError:
                piece = b""
            if not piece or time.monotonic() > end:
                raise _RefusedError(
                    HTTPStatus.REQUEST_TIMEOUT, "The file did not come in time."
                )
            try:
                file.write(piece)
            except OSError as error:
                raise _RefusedError(
                    HTTPStatus.INSUFFICIENT_STORAGE,
                    f"The temporary folder does not take the file ({error.strerror}).",
                ) from error
            left -= len(piece)
        file.seek(0)

    def _send_clip(self, track_id: str) -> None:
        """Sends the file of a clip of the training set, or a part of it."""
        similar = self.server.listener.similar
        path = similar.find_file(track_id) if similar else None
        try:
            if path is None:
                raise FileNotFoundError
            with open_local(path) as file:
                content = file.read(MAX_BYTES)
        except (OSError, AudioError) as error:
            raise _RefusedError(
                HTTPStatus.NOT_FOUND, "The clip's file is not there."
            ) from error
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        total = len(content)
        asked = re.fullmatch(
            r"bytes=(\d{1,15})-(\d{0,15})", self.headers.get("Range", "")
        )
        if not asked or int(asked[1]) >= total:
            self._send(content, kind, extra={"Accept-Ranges": "bytes"})
            return
        first = int(asked[1])
        last = min(int(asked[2] or total - 1), total - 1)
        self._send(
            content[first : last + 1],
            kind,
            HTTPStatus.PARTIAL_CONTENT,
            {"Content-Range": f"bytes {first}-{last}/{total}"},
        )

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = json.dumps(value, allow_nan=False).encode()
        self._send(content, "application/json", status)

    def _send(
        self,
        content: bytes,
        kind: str,
        status: HTTPStatus = HTTPStatus.OK,
        extra: dict[str, str] | None = None,
    ) -> None:
        self.close_connection = True
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in (headers | _HEADERS | (extra or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if status >= HTTPStatus.BAD_REQUEST and self.command == "POST":
            self._swallow()

    def _swallow(self) -> None:
        """Reads on a little: a browser that still sends would not see the answer."""
        self.wfile.flush()
        end = time.monotonic() + 2
        try:
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            while time.monotonic() < end and self.connection.recv(_PIECE):
                pass
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

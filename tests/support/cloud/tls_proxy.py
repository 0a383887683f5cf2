"""A proxy that leads TensorFlow's own gs:// client to servers on loopback.

The client talks TLS to www.googleapis.com and storage.googleapis.com, which cannot
be changed; but it obeys https_proxy and CURL_CA_BUNDLE. So this ends the TLS with a
certificate made for the tests and passes requests on, tokens to the fake services
and all else to the storage emulator.
"""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

_STORAGE_HOSTS = ("www.googleapis.com", "storage.googleapis.com")
#: Headers of one connection, which the next one must not get.
_OWN = {
    "connection",
    "content-length",
    "date",
    "expect",
    "proxy-connection",
    "server",
    "te",
    "transfer-encoding",
}


class TlsProxy:
    """The proxy, listening on `port`."""

    def __init__(
        self, context: ssl.SSLContext, storage_port: int, services_port: int
    ) -> None:
        class Handler(_Handler):
            tls = context
            storage = storage_port
            services = services_port

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def make_multipart(name: str, content: bytes) -> tuple[bytes, str]:
    """An upload of Cloud Storage in two parts: body and content type."""
    boundary = "boundary"
    parts = [
        b"Content-Type: application/json\r\n\r\n" + json.dumps({"name": name}).encode(),
        b"Content-Type: application/octet-stream\r\n\r\n" + content,
    ]
    body = b"".join(b"--boundary\r\n" + part + b"\r\n" for part in parts)
    return body + b"--boundary--\r\n", f"multipart/related; boundary={boundary}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else an answer's second packet waits 40 ms for word of the first one.
    disable_nagle_algorithm = True
    tls: ssl.SSLContext
    storage: int
    services: int

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.close_connection = False

    def _forward(self) -> None:
        body = self._read_body()
        url = urlsplit(self.path)
        query = url.query
        content_type = self.headers.get("Content-Type")
        if not body and "uploadType=media" in query:
            # The emulator stumbles over an empty upload, a folder's marker, but not
            # over the same in two parts.
            name = parse_qs(query)["name"][0]
            query = query.replace("uploadType=media", "uploadType=multipart")
            body, content_type = make_multipart(name, body)
        path = url.path + (f"?{query}" if query else "")
        host = (self.headers.get("Host") or url.netloc).partition(":")[0]
        # The emulator does not know the question for a bucket's layout.
        elsewhere = "/oauth2/" in path or url.path.endswith("/storageLayout")
        is_storage = host in _STORAGE_HOSTS and not elsewhere
        port = self.storage if is_storage else self.services
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in {*_OWN, "content-type"}
        }
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if content_type:
            headers["Content-Type"] = content_type
        if body or self.command in ("POST", "PUT"):
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, path, body=body or None, headers=headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _forward  # noqa: N815

    def _read_body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

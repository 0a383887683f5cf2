"""Cloud Storage on loopback in a process of its own.

usage: python -m tests.support.cloud.storage_server CERTIFICATE BUCKET

Starts the emulator and the TLS proxy before it, prints their ports as JSON, and runs
until its standard input ends. TensorFlow holds Python's lock during some of its
requests, so the servers that it talks to cannot be threads beside it.
"""

from __future__ import annotations

import http.server
import json
import logging
import ssl
import sys
import threading

from gcp_storage_emulator import server

from tests.support.cloud.services import Services
from tests.support.cloud.tls_proxy import TlsProxy
from tests.support.ports import find_free_ports


def main() -> None:
    certificate, bucket = sys.argv[1:]
    logging.disable()
    [port] = find_free_ports()
    take_connections_at_once()
    emulator = server.create_server(
        "127.0.0.1", port, in_memory=True, default_bucket=bucket
    )
    emulator.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = TlsProxy(context, port, Services().port)
    print(json.dumps({"storage": port, "proxy": proxy.port}), flush=True)
    sys.stdin.read()
    emulator.stop()
    proxy.close()


def take_connections_at_once() -> None:
    """Has the emulator wait for several requests, and answer one after the other.

    Alone it takes one connection after the other, so that an idle one blocks the rest.
    """
    lock, handle = threading.Lock(), server.Router.handle

    def handle_alone(router: server.Router, method: str) -> None:
        with lock:
            handle(router, method)

    server.Router.handle = handle_alone
    server.RequestHandler.disable_nagle_algorithm = True
    server.server.HTTPServer = http.server.ThreadingHTTPServer


if __name__ == "__main__":
    main()

"""Cloud Storage on loopback in a process of its own.

usage: python -m tests.support.cloud.storage_server CERTIFICATE BUCKET

Starts the emulator and the TLS proxy before it, prints their ports as JSON, and runs
until its standard input ends. TensorFlow holds Python's lock during some of its
requests, so the servers that it talks to cannot be threads beside it.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import sys

from gcp_storage_emulator.server import RequestHandler, create_server

from tests.support.cloud.services import Services
from tests.support.cloud.tls_proxy import TlsProxy


def main() -> None:
    certificate, bucket = sys.argv[1:]
    logging.disable()
    port = find_free_port()
    # It serves one connection after the other: an idle one must not block the next.
    RequestHandler.timeout = 2
    RequestHandler.disable_nagle_algorithm = True
    emulator = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    emulator.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = TlsProxy(context, port, Services().port)
    print(json.dumps({"storage": port, "proxy": proxy.port}), flush=True)
    sys.stdin.read()
    emulator.stop()
    proxy.close()


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()

"""Google Cloud on loopback, as environment variables of this process see it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from apache_beam.internal.gcp import auth
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.cloud.services import Services

BUCKET = "fma-test"
#: Everything that could lead a client to the real cloud, or keep it from this one.
_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


class Cloud:
    """A bucket, the services, and a service account.

    Attributes:
      services: Dataflow and Vertex AI.
      variables: the environment that leads clients here.
      key: content of the service account's key file.
    """

    def __init__(
        self, services: Services, variables: dict[str, str], key: dict[str, str]
    ) -> None:
        self.services = services
        self.variables = variables
        self.key = key

    @property
    def endpoint(self) -> str:
        """URL of the services; Beam wants the name, not the number."""
        return f"http://localhost:{self.services.port}"

    def upload(self, folder: Path, prefix: str) -> None:
        """Copies a folder's files into the bucket."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.put(name, path.read_bytes())

    def put(self, name: str, content: bytes) -> None:
        self._bucket().blob(name).upload_from_string(content)

    def get(self, name: str) -> bytes:
        content: bytes = self._bucket().blob(name).download_as_bytes()
        return content

    def list(self, prefix: str) -> list[str]:
        """Names of the bucket's objects, without folder markers."""
        blobs = self._bucket().list_blobs(prefix=prefix)
        return sorted(blob.name for blob in blobs if not blob.name.endswith("/"))

    def clear(self) -> None:
        for blob in list(self._bucket().list_blobs()):
            blob.delete()
        self.services.reset()

    def _bucket(self) -> Any:
        from google.cloud import storage

        return storage.Client.create_anonymous_client().bucket(BUCKET)


@contextlib.contextmanager
def loopback_cloud(folder: Path) -> Iterator[Cloud]:
    """Starts everything and points this process' clients to it."""
    services = Services()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("*.googleapis.com")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    key = make_key(services.port)
    (folder / "key.json").write_text(json.dumps(key))
    command = [sys.executable, "-m", "tests.support.cloud.storage_server"]
    server = subprocess.Popen(
        [*command, str(folder / "server.pem"), BUCKET],
        cwd=Path(__file__).resolve().parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ports = json.loads(server.stdout.readline())
    variables = {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{ports['storage']}",
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "key.json"),
        "GOOGLE_CLOUD_PROJECT": key["project_id"],
        "NO_GCE_CHECK": "true",
        "CURL_CA_BUNDLE": str(folder / "ca.pem"),
        "REQUESTS_CA_BUNDLE": str(folder / "ca.pem"),
        "https_proxy": f"http://127.0.0.1:{ports['proxy']}",
        "http_proxy": f"http://127.0.0.1:{ports['proxy']}",
        "no_proxy": "localhost,127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in _VARIABLES:
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        # Beam keeps the credentials of its first look for the process' whole life.
        patch.setattr(auth._Credentials, "_credentials_init", False)
        patch.setattr(auth._Credentials, "_credentials", None)
        # With its first look Beam gives all sockets a time limit.
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(60)
        try:
            yield Cloud(services, variables, key)
        finally:
            socket.setdefaulttimeout(before)
    server.communicate()  # Closes its input, which ends it.
    services.close()


def make_key(token_port: int) -> dict[str, str]:
    """A service account's key file, whose tokens come from loopback."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "fma-project",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "tests@fma-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"http://127.0.0.1:{token_port}/token",
    }

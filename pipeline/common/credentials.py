"""Whether this machine can sign in to Google Cloud, found out in seconds.

Google's libraries look for credentials for half a minute before they give up,
and try each request for two. Standard library only.
"""

from __future__ import annotations

import http.client
import os
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from pipeline.schema import UserError

#: The scheme of Cloud Storage.
SCHEME = "gs://"
#: Seconds to wait for the metadata server, which answers in milliseconds.
METADATA_TIMEOUT = 3.0

_CREDENTIALS_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


class UnreachableError(UserError):
    """Google Cloud could not be asked: no credentials that it takes, or no network."""


def require_credentials(paths: Iterable[str | None]) -> None:
    """Checks that there are credentials if a path is on Cloud Storage.

    Args:
      paths: of any file system; None and empty ones are skipped.

    Raises:
      UnreachableError: there are none.
    """
    remote = [path for path in paths if path and path.startswith(SCHEME)]
    if remote and not has_credentials():
        raise UnreachableError(
            f"{remote[0]} needs Google Cloud credentials, and there are none on this "
            "machine; run `gcloud auth application-default login`, or set "
            f"{_CREDENTIALS_VARIABLE} to a service account's key file."
        )


def has_credentials() -> bool:
    """Whether Application Default Credentials can be found.

    In the order in which Google's libraries look: the variable, the file that
    gcloud leaves, the metadata server of Google's machines.

    Raises:
      UserError: the variable names a file that does not exist.
    """
    named = os.environ.get(_CREDENTIALS_VARIABLE)
    if named:
        if not os.path.isfile(named):
            raise UserError(
                f"{_CREDENTIALS_VARIABLE} names a file that does not exist; correct "
                f"or unset it. Received: {named}"
            )
        return True
    return _gcloud_file().is_file() or _metadata_server_answers()


def _gcloud_file() -> Path:
    config = os.environ.get("CLOUDSDK_CONFIG")
    folder = Path(config) if config else Path.home() / ".config" / "gcloud"
    return folder / "application_default_credentials.json"


def _metadata_server_answers() -> bool:
    if os.environ.get("NO_GCE_CHECK", "").lower() == "true":
        return False
    host = os.environ.get("GCE_METADATA_HOST") or os.environ.get(
        "GCE_METADATA_IP", "169.254.169.254"
    )
    request = urllib.request.Request(
        f"http://{host}/", headers={"Metadata-Flavor": "Google"}
    )
    # Never through a proxy: the address is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=METADATA_TIMEOUT) as response:
            return bool(response.headers.get("Metadata-Flavor") == "Google")
    except (OSError, http.client.HTTPException):
        return False

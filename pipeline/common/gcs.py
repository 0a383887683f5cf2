"""Google Cloud before a job starts: are its names any, may the bucket be written to.

Everything else reads and writes `gs://` through Beam or TensorFlow. Those repeat
a failing request for minutes; here each is made once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.common.credentials import SCHEME, UnreachableError, require_credentials
from pipeline.schema import UserError

#: Seconds that one request may take.
TIMEOUT = 15.0

_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_ZONE = re.compile(r"([a-z]+-[a-z]+\d+)-[a-z]")
_JOB = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_BUCKET = re.compile(r"[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]")


def split_path(path: str) -> tuple[str, str]:
    """Splits `gs://bucket/name` into bucket and name."""
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    return bucket, name


def check_bucket_name(bucket: str, flag: str) -> None:
    """Refuses names that no bucket has.

    Beam would take one for a missing option and try, for two minutes, to create
    a bucket of its own.

    Raises:
      UserError: it is not a bucket's name.
    """
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            f"{flag} must name a bucket: 3 to 63 lower-case letters, digits, dashes "
            f"and dots. Received: {bucket!r}"
        )


def add_place_flags(group: argparse._ActionsContainer, *, bucket: str) -> None:
    """Adds the flags that say where a job of Google Cloud runs.

    Args:
      group: of a command line.
      bucket: what the bucket is for.
    """
    group.add_argument("--project", required=True, help="id of the project to bill")
    group.add_argument("--region", required=True, help="e.g. europe-west1")
    group.add_argument("--bucket", required=True, help=bucket)


def add_run_flags(group: argparse._ActionsContainer) -> None:
    """Adds the flags that say as whom a job runs, and what the command does with it."""
    group.add_argument(
        "--service_account", default="", metavar="EMAIL", help="that the job acts as"
    )
    group.add_argument(
        "--wait",
        action="store_true",
        help="follow the job to its end; interrupting does not cancel it",
    )
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="check what can be checked from here, print the request, submit nothing",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job of Google Cloud runs, and as whom.

    What Google Cloud would refuse minutes later is refused here.

    Attributes:
      project: id of the project that is billed.
      region: Compute Engine's name.
      bucket: of the job, without `gs://`.
      job_name: of Dataflow or Vertex AI.
      service_account: e-mail address; empty for the project's default.
    """

    project: str
    region: str
    bucket: str
    job_name: str
    service_account: str

    def __post_init__(self) -> None:
        """Names the flag whose value cannot be right."""
        if not _PROJECT.fullmatch(self.project):
            raise UserError(
                "--project must be a project's id, not its name or number. "
                f"Received: {self.project!r}"
            )
        _check_region(self.region)
        check_bucket_name(self.bucket, "--bucket")
        if not _JOB.fullmatch(self.job_name):
            raise UserError(
                "--job_name must have at most 63 lower-case letters, digits and "
                f"dashes, and start with a letter. Received: {self.job_name!r}"
            )
        if self.service_account and "@" not in self.service_account:
            raise UserError(
                "--service_account must be an e-mail address. "
                f"Received: {self.service_account!r}"
            )


def _check_region(region: str) -> None:
    if zone := _ZONE.fullmatch(region):
        raise UserError(
            f"--region takes a region, not a zone: {zone[1]}. Received: {region!r}"
        )
    if not _REGION.fullmatch(region):
        raise UserError(
            f"--region must be a region such as europe-west1. Received: {region!r}"
        )


def check_readable(paths: Iterable[str | None], *, project: str | None = None) -> None:
    """Checks that the buckets of some paths answer, in one request each.

    Paths on other file systems are skipped.

    Args:
      paths: files, folders or globs; None and empty ones are skipped.
      project: that is billed for the requests.

    Raises:
      UserError: there are no credentials, they are refused, or a bucket does not
        exist or must not be read.
    """
    remote = [path for path in paths if path and path.startswith(SCHEME)]
    require_credentials(remote)
    buckets = {split_path(path)[0]: path for path in reversed(remote)}
    for bucket, path in sorted(buckets.items()):
        check_bucket_name(bucket, path)
        with _explain(bucket, "read"):
            listing = _connect(project).list_blobs(
                bucket, max_results=1, retry=None, timeout=TIMEOUT
            )
            next(iter(listing), None)


def check_writable(folder: str, *, project: str | None = None) -> None:
    """Checks that files can be made and deleted in a folder, by doing so.

    Raises:
      UserError: they cannot.
    """
    bucket, name = split_path(folder)
    probe = f"{name.rstrip('/')}/_probe-{uuid.uuid4().hex}".lstrip("/")
    with _explain(bucket, "written to"):
        blob = _connect(project).bucket(bucket).blob(probe)
        blob.upload_from_string(b"", retry=None, timeout=TIMEOUT)
        blob.delete(retry=None, timeout=TIMEOUT)


def read_text(path: str, *, project: str | None = None) -> str | None:
    """Reads a small UTF-8 file; None if it does not exist.

    Raises:
      UserError: the bucket does not exist, or must not be read.
    """
    from google.api_core.exceptions import NotFound

    bucket, name = split_path(path)
    with _explain(bucket, "read"):
        blob = _connect(project).bucket(bucket).blob(name)
        try:
            content: bytes = blob.download_as_bytes(retry=None, timeout=TIMEOUT)
        except NotFound:
            return None
    return content.decode("utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a small object.

    Attributes:
      content: text; empty where there is no object.
      generation: number of the version; 0 where there is no object, None where the
        store does not number versions (an emulator).
      age: seconds since it was written.
    """

    content: str
    generation: int | None
    age: float


def read_version(path: str) -> Version:
    """Reads a small UTF-8 object and which version of it that is."""
    from google.api_core.exceptions import NotFound

    bucket, name = split_path(path)
    blob = _connect(None).bucket(bucket).blob(name)
    try:
        blob.reload(timeout=TIMEOUT)
        content: bytes = blob.download_as_bytes(timeout=TIMEOUT)
    except NotFound:
        return Version(content="", generation=0, age=0.0)
    now = datetime.datetime.now(datetime.UTC)
    return Version(
        content=content.decode(),
        generation=None if blob.generation is None else int(blob.generation),
        age=(now - (blob.updated or now)).total_seconds(),
    )


def replace_version(path: str, content: str, version: Version) -> bool:
    """Writes an object if it is still of a version; returns whether it was."""
    from google.api_core.exceptions import PreconditionFailed

    bucket, name = split_path(path)
    blob = _connect(None).bucket(bucket).blob(name)
    try:
        blob.upload_from_string(
            content, if_generation_match=version.generation, timeout=TIMEOUT
        )
    except PreconditionFailed:
        return False
    return True


def _connect(project: str | None) -> Any:
    # Takes a second; a job without gs:// paths does without.
    import google.auth
    import google.cloud.storage as storage

    scopes = ["https://www.googleapis.com/auth/devstorage.read_write"]
    credentials, default_project = google.auth.default(scopes=scopes)
    # The client wants a project, which only some requests need.
    return storage.Client(
        project=project or default_project or "none", credentials=credentials
    )


@contextlib.contextmanager
def _explain(bucket: str, action: str) -> Iterator[None]:
    """Turns what a request raises into a sentence."""
    import requests
    from google.api_core.exceptions import (
        Forbidden,
        GoogleAPICallError,
        NotFound,
        Unauthorized,
    )
    from google.auth.exceptions import GoogleAuthError

    where = f"{SCHEME}{bucket}"
    try:
        yield
    except NotFound as error:
        raise UserError(
            f"There is no bucket {where}; create it with `gcloud storage buckets "
            f"create {where}`, or name another."
        ) from error
    except (Forbidden, Unauthorized) as error:
        raise UserError(
            f"{where} must not be {action} with these credentials ({error.message}); "
            "give them the role Storage Object Admin on the bucket, or use others."
        ) from error
    except GoogleAuthError as error:
        raise UnreachableError(
            f"Google refuses the credentials for {where} ({error}); renew them with "
            "`gcloud auth application-default login`."
        ) from error
    except (GoogleAPICallError, requests.exceptions.RequestException) as error:
        raise UnreachableError(f"{where} cannot be {action} now ({error}).") from error

"""What Google Cloud's regions and jobs may be called."""

from __future__ import annotations

import re

from pipeline.schema import UserError

_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_JOB = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


def check_region(region: str) -> None:
    """Refuses what no region is called.

    Raises:
      UserError: it is none.
    """
    if not _REGION.fullmatch(region):
        raise UserError(
            f"--region must be a region such as europe-west1. Received: {region!r}"
        )


def check_job_name(name: str) -> None:
    """Refuses names that neither Dataflow nor Vertex AI takes for a job.

    Raises:
      UserError: it is one.
    """
    if not _JOB.fullmatch(name):
        raise UserError(
            "--job_name must have at most 63 lower-case letters, digits and "
            f"dashes, and start with a letter. Received: {name!r}"
        )

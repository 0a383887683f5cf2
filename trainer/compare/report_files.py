"""The files of a comparison's report, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pipeline.common import ownership
from pipeline.common.owned_kinds import COMPARISON, HTML, MARKDOWN, PICTURE
from trainer.compare.serve import HTML_FILE
from trainer.evaluation.model_files import files_of

COMPARISON_FILE = "report.json"
MARKDOWN_FILE = "report.md"
SCORES_FILE = "comparison.png"
CONFUSIONS_FILE = "confusions.png"
FILES = {
    HTML_FILE: HTML,
    COMPARISON_FILE: COMPARISON,
    MARKDOWN_FILE: MARKDOWN,
    SCORES_FILE: PICTURE,
    CONFUSIONS_FILE: PICTURE,
}


def check_output(folder: str) -> None:
    """Checks that the report's files replace nothing but an earlier report.

    Raises:
      UserError: a file of such a name is not ours, or the folder cannot be written to.
    """
    files = files_of(folder)
    for name, kind in FILES.items():
        path = os.path.join(folder, name)
        ownership.check_file(files, path, kind, flag="--output")


def write_files(folder: str, contents: Mapping[str, bytes]) -> list[str]:
    """Writes files of the report, by name in `FILES`; returns their paths.

    Raises:
      UserError: the folder cannot be written to, or a file in it is not ours.
    """
    files = files_of(folder)
    paths = []
    for name, content in contents.items():
        path = os.path.join(folder, name)
        ownership.replace_file(files, path, content, FILES[name], flag="--output")
        paths.append(path)
    return paths

"""The folder of an ensemble: which models beside it are averaged, and how.

    {"format": 1,
     "members": [{"folder": "mel", "weight": 0.5, "sha256": "..."}, ...]}

The members lie beside the folder; `sha256` is that of their `model.json`, which holds
the digests of all their files: a member that was trained again is another one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re

from pipeline.schema import UserError, shorten
from trainer.evaluation import model_digests
from trainer.evaluation.model_digests import DIGESTS_FILE, digest_bytes
from trainer.evaluation.model_files import read_file
from trainer.evaluation.typed_json import parse_json, to_dataclass
from trainer.predict.model_folder import ADVICE, open_model_folder

ENSEMBLE = "ensemble"
ENSEMBLE_FILE = "ensemble.json"
FORMAT = 1
MAX_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A model of an ensemble.

    Attributes:
      folder: its name, beside the ensemble's own folder.
      weight: of its probabilities in the mean; positive.
      sha256: of its `model.json`.
    """

    folder: str
    weight: float
    sha256: str

    def __post_init__(self) -> None:
        """Refuses what names no folder, or is no weight."""
        name = self.folder
        if name in ("", ".", "..", ENSEMBLE):
            raise ValueError(f"{name!r:.80} is no member")
        if re.search(r"[/\\\0]", name):
            raise ValueError(f"{name!r:.80} is no folder beside it")
        if not self.weight > 0:
            raise ValueError(f"the weight is {self.weight!r:.40}")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r:.80} is no SHA-256")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleContent:
    """What an ensemble's folder holds.

    Attributes:
      members: paths of the members, and their weights.
      temperature: calibrates the mean.
    """

    members: tuple[tuple[str, float], ...]
    temperature: float


def make_member(folder: str, name: str, weight: float) -> Member:
    """Describes a model in a folder of models.

    Raises:
      UserError: it has no digests.
    """
    path = os.path.join(folder, name)
    content = read_file(os.path.join(path, DIGESTS_FILE), limit=model_digests.MAX_BYTES)
    if content is None:
        raise UserError(f"{path} has no {DIGESTS_FILE}; train the model again.")
    return Member(folder=name, weight=weight, sha256=digest_bytes(content).sha256)


def to_json(members: list[Member]) -> str:
    """The content of `ensemble.json`."""
    content = {
        "format": FORMAT,
        "members": [dataclasses.asdict(member) for member in members],
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_ensemble(path: str) -> EnsembleContent:
    """Reads an ensemble's folder, and looks whether its members are the same.

    Raises:
      UserError: it is damaged, or a member is missing or another one.
    """
    folder = open_model_folder(path)
    content = folder.require(ENSEMBLE_FILE, limit=MAX_BYTES)
    source = folder.join(ENSEMBLE_FILE)
    try:
        values = parse_json(content)
        if values["format"] != FORMAT:
            raise ValueError(f"it is of format {values['format']!r:.40}")
        members = [to_dataclass(Member, member) for member in values["members"]]
        if not members or len({member.folder for member in members}) < len(members):
            raise ValueError("it must name one member or more, each once")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{source} does not describe an ensemble ({shorten(error, 200)}); {ADVICE}"
        ) from error
    # A path that ends with "." or ".." has its parent above what it names.
    whole = path if "://" in path else os.path.relpath(os.path.abspath(path))
    parent = os.path.dirname(whole.rstrip("/"))
    paths = []
    for member in members:
        beside = os.path.join(parent, member.folder)
        data = read_file(
            os.path.join(beside, DIGESTS_FILE), limit=model_digests.MAX_BYTES
        )
        if data is None:
            raise UserError(
                f"{source} names the model {member.folder}, which is not there "
                f"({beside}); copy the whole folder of models, or make the ensemble "
                f"again: ./launch.sh compare --models {parent}"
            )
        if digest_bytes(data).sha256 != member.sha256:
            raise UserError(
                f"{beside} is not the model that {source} was made with, it was "
                "trained again; make the ensemble again: ./launch.sh compare --models "
                f"{parent}"
            )
        paths.append((beside, member.weight))
    return EnsembleContent(members=tuple(paths), temperature=folder.temperature())

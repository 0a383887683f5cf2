"""Checkpoints that are whole or not there, with the one before kept.

A checkpoint is one file: a mark, the SHA-256 of what follows, and an uncompressed
`.npz` archive of arrays and of one JSON text. It is written under a temporary name
and renamed, which on an object store only makes it appear when it is complete; and
what was cut off or altered all the same is recognised by its digest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.common import ownership
from pipeline.common.owned_kinds import CHECKPOINTS
from pipeline.common.plain_text import print_error
from pipeline.schema import UserError
from trainer.evaluation.model_files import files_of
from trainer.runtime.whole_file import whole_file

MARK = b"fma checkpoint 1"
SUFFIX = ".checkpoint"
#: Checkpoints that are kept, the newest ones.
KEPT = 2

#: File of a name of the run, see `CheckpointFolder.read_run_id`.
RUN_ID = "run_id"

_STATE = "state"
_NAME = re.compile(r"(\d{12})" + re.escape(SUFFIX))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """What a run needs to go on.

    Attributes:
      step: orders the checkpoints of a run.
      state: JSON values.
      arrays: by name.
    """

    step: int
    state: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]


class DamagedCheckpointError(Exception):
    """A file is not a whole checkpoint."""


def pack(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    buffer = io.BytesIO()
    text = json.dumps({"step": checkpoint.step, "state": checkpoint.state})
    state = np.frombuffer(text.encode(), np.uint8)
    arrays: dict[str, Any] = {_STATE: state, **checkpoint.arrays}
    np.savez(buffer, **arrays)
    body = buffer.getvalue()
    return MARK + hashlib.sha256(body).digest() + body


def unpack(content: bytes) -> Checkpoint:
    """Inverse of `pack`.

    Raises:
      DamagedCheckpointError: the content is not what `pack` made.
    """
    digest = content[len(MARK) :][:32]
    body = content[len(MARK) + 32 :]
    if not content.startswith(MARK) or hashlib.sha256(body).digest() != digest:
        raise DamagedCheckpointError(f"{len(content)} bytes with another digest")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        text = json.loads(arrays.pop(_STATE).tobytes())
        return Checkpoint(step=text["step"], state=text["state"], arrays=arrays)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedCheckpointError(repr(error)) from error


@contextlib.contextmanager
def _written(path: str) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, UserError) as error:
        reason = getattr(error, "message", None) or error
        print_error(
            f"the checkpoint {path} cannot be written ({reason}); training goes on "
            "without it.",
            label="warning",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """The checkpoints of one phase of one run, in any file system.

    Attributes:
      path: folder; made when it is needed.
      run_folder: folder of all phases of the run, which carries the mark that it is
        ours; None if there is one phase only.
      chief: whether this process writes; all others only read.
    """

    path: str
    run_folder: str | None = None
    chief: bool = True

    @property
    def root(self) -> str:
        """The folder that carries the mark."""
        return self.path if self.run_folder is None else self.run_folder

    def check(self) -> None:
        """Checks that the folder of the run holds nothing but checkpoints.

        Raises:
          UserError: something else.
        """
        ownership.check_folder(
            files_of(self.root), self.root, CHECKPOINTS, flag="--checkpoint_dir"
        )

    def claim(self) -> None:
        """Marks the folder of the run as ours.

        Raises:
          UserError: it is not, or cannot be written to.
        """
        ownership.claim(
            files_of(self.root), self.root, CHECKPOINTS, flag="--checkpoint_dir"
        )

    def save(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint and removes all but the newest.

        A store that cannot be written to is no reason to lose the run: that is
        said, and the run goes on.
        """
        if not self.chief:
            return
        with _written(path := self._file(checkpoint.step)):
            self.claim()
            tf.io.gfile.makedirs(self.path)
            with whole_file(path) as part, tf.io.gfile.GFile(part, "wb") as file:
                file.write(pack(checkpoint))
            for step in self._steps()[:-KEPT]:
                tf.io.gfile.remove(self._file(step))

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None where there is none.

        Damaged ones are passed over, which is said, and removed.
        """
        for step in reversed(self._steps()):
            path = self._file(step)
            try:
                with tf.io.gfile.GFile(path, "rb") as file:
                    return unpack(file.read())
            except (DamagedCheckpointError, tf.errors.OpError) as error:
                print_error(
                    f"the checkpoint {path} is damaged ({error}); the one before is "
                    "used.",
                    label="warning",
                )
                if self.chief:
                    tf.io.gfile.remove(path)
        return None

    def read_run_id(self) -> str | None:
        """By what name the run is told to others; None where it has none yet."""
        try:
            with tf.io.gfile.GFile(f"{self.root}/{RUN_ID}") as file:
                return str(file.read()) or None
        except tf.errors.NotFoundError:
            return None

    def save_run_id(self, run_id: str) -> None:
        """Keeps that name, as `save` keeps a checkpoint."""
        with _written(path := f"{self.root}/{RUN_ID}"):
            self.claim()
            with whole_file(path) as part, tf.io.gfile.GFile(part, "w") as file:
                file.write(run_id)

    def remove(self) -> None:
        """Removes all checkpoints of the run, and what else it keeps with them.

        The others of its processes must be done: their disks may be this one's.
        """
        files = files_of(self.root)
        if any(files.walk(self.root)):
            ownership.remove(files, self.root, CHECKPOINTS)

    def _file(self, step: int) -> str:
        return f"{self.path}/{step:012d}{SUFFIX}"

    def _steps(self) -> Sequence[int]:
        if not tf.io.gfile.isdir(self.path):
            return []
        names = (_NAME.fullmatch(name) for name in tf.io.gfile.listdir(self.path))
        return sorted(int(name[1]) for name in names if name)

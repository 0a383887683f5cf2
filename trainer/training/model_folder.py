"""Writes a model folder: tried first, complete or resumable, nobody else's replaced.

The files of a finished model are written into `_unpublished/` in the model folder,
`publish.json` last, which says which run they are of. From then on they are what
counts: they are moved to their places, the checkpoints go, and `publish.json` goes as
the last of all. A run that is killed on the way is completed by the next one, which
need not train again. `model.json`, with the digests of all others, is moved first, so
that an older model and a newer one are never taken for one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import tensorflow as tf

from pipeline.common import ownership
from pipeline.common.files import Files, join
from pipeline.common.owned_kinds import MARK_FILE, MODEL
from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import SILENT, Reporter
from pipeline.schema import MANIFEST_FILE, Manifest, UserError
from trainer.evaluation import history, model_files
from trainer.evaluation.model_digests import DIGESTS_FILE, ModelDigests, digest_bytes
from trainer.evaluation.model_files import files_of
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import (
    HISTORY_FILE,
    MODEL_FILE,
    REPORT_FILE,
    find_library_versions,
)
from trainer.evaluation.report_folder import read_report, write_report
from trainer.evaluation.tasks.task import AnyReport
from trainer.training.run import FittedModel

HISTORY_PLOT = "history.png"
CHECKPOINTS = "checkpoints"
EXPORT = "export"
UNPUBLISHED = "_unpublished"
PUBLISH_FILE = "publish.json"
RESERVE_FILE = "reserve"

#: Bytes of a model folder beside the weights and the predictions: pictures, texts,
#: and what the names and shapes of the weights take.
EXTRA_BYTES = 2 << 20
#: Bytes of a line of predictions, beside those of each genre.
LINE_BYTES = 64
GENRE_BYTES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder that a run writes.

    Attributes:
      path: of the folder, local or remote.
      files: its file system.
    """

    path: str
    files: Files

    @classmethod
    def at(cls, path: str) -> ModelFolder:
        """The model folder of that path, which may be missing."""
        path = path.rstrip("/") or path
        return cls(path=path, files=files_of(path))

    def check(self) -> None:
        """Checks that writing a model here destroys nothing else; writes nothing.

        Raises:
          UserError: it is a file, or holds something that is no part of a model.
        """
        ownership.check_folder(self.files, self.path, MODEL)

    def claim(self) -> None:
        """Marks the folder as ours, and tries to write to it.

        Raises:
          UserError: it is not ours, or cannot be written to.
        """
        ownership.claim(self.files, self.path, MODEL)
        # The mark may be there already.
        self.reserve(0)

    def reserve(self, size: int) -> None:
        """Takes the room that the model will need, until `write`.

        Where room cannot be taken, on an object store, this tries to write only.

        Raises:
          UserError: it cannot be written to, or has less room.
        """
        path = self._unpublished(RESERVE_FILE)
        remote = "://" in self.path
        try:
            self.files.write(path, b"" if remote else bytes(size))
        except OSError as error:
            raise UserError(
                f"--output cannot be written to: {error.strerror or error}; the model "
                f"will need {max(size, 1) / 1e6:.1f} MB; nothing was trained. Make "
                f"room, or give another folder. Received: {self.path}"
            ) from error

    def release(self) -> None:
        """Gives the reserved room back, and the folder where nothing else is in it."""
        with contextlib.suppress(OSError, UserError):
            self._remove(lambda name: name == f"{UNPUBLISHED}/{RESERVE_FILE}")
            rest = {name for name, _ in self.files.walk(self.path)}
            if rest == {MARK_FILE}:
                self._remove(lambda name: name == MARK_FILE)

    def remove_empty(self) -> None:
        """Removes what is left where there is no model: folders without a file."""
        holds = any(self.files.walk(self.path))
        self.files.delete_folders(join(self.path, CHECKPOINTS) if holds else self.path)

    def write(
        self,
        make: Callable[[], Mapping[str, bytes]],
        *,
        representation: str,
        genres: int,
        run: str,
        settings: str = "",
    ) -> None:
        """Keeps a finished model until it is published.

        Args:
          make: gives all files by name, but for `model.json`.
          representation: that the model reads.
          genres: number of them.
          run: name of all that decides what the model is, see `Run.key`.
          settings: see `is_trained`.

        Raises:
          UserError: it cannot be written.
        """
        with self._saying_what_to_do():
            contents = make()
            digests = ModelDigests(
                representation=representation,
                genres=genres,
                settings=settings,
                versions=find_library_versions(),
                files={
                    name: digest_bytes(content) for name, content in contents.items()
                },
            )
            self._remove(lambda name: name.startswith(f"{UNPUBLISHED}/"))
            for name, content in contents.items():
                self.files.write(self._unpublished(name), content)
            names = [DIGESTS_FILE, *contents]
            self.files.write(
                self._unpublished(DIGESTS_FILE), digests.to_json().encode()
            )
            plan = json.dumps({"run": run, "files": names}, indent=1)
            self.files.write(self._unpublished(PUBLISH_FILE), plan.encode())

    def publish(self, remove_checkpoints: Callable[[str], None]) -> str | None:
        """Moves a finished model to its place, also where that was begun before.

        Args:
          remove_checkpoints: of a run; called when all files are in their places.

        Returns:
          The run that it is of, None where there is no finished model.

        Raises:
          UserError: it cannot be moved.
        """
        with self._saying_what_to_do():
            plan = self._read_plan()
            if plan is None:
                return None
            run, names = plan
            for name in names:
                if self.files.is_file(self._unpublished(name)):
                    tf.io.gfile.rename(
                        self._unpublished(name), join(self.path, name), overwrite=True
                    )
            model_files = {*names, MARK_FILE}
            # Of an older model, or of one whose writing was cut off.
            self._remove(lambda name: "/" not in name and name not in model_files)
            remove_checkpoints(run)
            self._remove(lambda name: name.startswith(f"{CHECKPOINTS}/"))
            self._remove(lambda name: name == f"{UNPUBLISHED}/{PUBLISH_FILE}")
            left = [name for name, _ in self.files.walk(self.path)]
            if any(name.startswith(f"{EXPORT}/") for name in left):
                print_error(
                    f"{join(self.path, EXPORT)} is of the model that was here before; "
                    "export this one anew.",
                    label="warning",
                )
            return run

    def _read_plan(self) -> tuple[str, list[str]] | None:
        path = self._unpublished(PUBLISH_FILE)
        if not self.files.is_file(path):
            return None
        try:
            plan = json.loads(self.files.read(path, EXTRA_BYTES))
            run, names = plan["run"], plan["files"]
            known = all(MODEL.knows(name) and "/" not in name for name in names)
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if not known or not isinstance(run, str):
            raise UserError(
                f"{path} does not tell which files belong to a model; remove "
                f"{self._unpublished('')} and train again."
            )
        return run, names

    def _remove(self, doomed: Callable[[str], bool]) -> None:
        names = [name for name, _ in self.files.walk(self.path)]
        keep = [name for name in names if not doomed(name)]
        if len(keep) < len(names):
            ownership.remove(self.files, self.path, MODEL, keep=keep)

    def _unpublished(self, name: str) -> str:
        return join(self.path, f"{UNPUBLISHED}/{name}")

    @contextlib.contextmanager
    def _saying_what_to_do(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "message", None) or getattr(error, "strerror", None)
            raise UserError(
                f"The model cannot be written to {self.path} ({reason or error}); make "
                "room there, or make it writable, and give the same command again."
            ) from error


def try_folders(paths: Iterable[str]) -> None:
    """Checks that models can be written into folders, and leaves these as they were.

    Raises:
      UserError: one is not ours, or cannot be written to.
    """
    folders = [ModelFolder.at(path) for path in paths]
    for folder in folders:
        folder.check()
    for folder in folders:
        try:
            folder.claim()
        finally:
            folder.release()


def is_trained(path: str, settings: str, reporter: Reporter = SILENT) -> bool:
    """Whether a folder holds a whole model that was trained with these settings.

    It is the libraries' that are installed: one of other versions is told.

    Args:
      path: of the folder, local or remote.
      settings: name of all that the user decides of a model, and of its data.
      reporter: is told why it is trained anew.
    """
    try:
        folder = model_files.ModelFolder(path)
        if folder.digests is None or folder.digests.settings != settings:
            return False
        contents = {name: folder.read(name) for name in folder.digests.files}
        if REPORT_FILE in contents:
            read_report(path)
    except UserError:  # Damaged, or of another version: it is trained again.
        return False
    if folder.holds(f"{UNPUBLISHED}/{PUBLISH_FILE}"):
        return False
    before, versions = folder.digests.versions, find_library_versions()
    if before == versions:
        return True
    changes = ", ".join(
        f"{name} {before.get(name, '(not recorded)')} where {version} is installed"
        for name, version in versions.items()
        if before.get(name) != version
    )
    reporter.note(f"{one_line(path)} is trained anew: it was made with {changes}.")
    return False


def write_report_folder(
    path: str,
    result: AnyReport,
    test: ClipPredictions,
    *,
    validation: ClipPredictions | None = None,
    files: Mapping[str, bytes] | None = None,
    settings: str = "",
) -> None:
    """Writes the folder of a model that is finished at once.

    Args:
      path: of the folder, local or remote.
      result: how it was trained and how well it does.
      test: the predictions that the report is about.
      validation: predictions that ensembles are chosen with.
      files: the model itself, and what belongs to it; none: only a report is kept.
      settings: see `is_trained`.

    Raises:
      UserError: it is not ours, or cannot be written.
    """
    folder = ModelFolder.at(path)
    folder.claim()
    folder.publish(lambda _: None)
    folder.write(
        lambda: {**(files or {}), **_report_contents(result, test, validation)},
        representation=result.representation,
        genres=len(result.genres),
        run=result.fingerprint,
        settings=settings,
    )
    folder.publish(lambda _: None)


def _report_contents(
    result: AnyReport, test: ClipPredictions, validation: ClipPredictions | None
) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_report(folder, result, test, validation)
        return read_files(folder)


def read_files(folder: str) -> dict[str, bytes]:
    """The files of a local folder by name, without those in folders."""
    contents = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                contents[name] = file.read()
    return contents


def needed_bytes(model: keras.Model, manifest: Manifest) -> int:
    """Bytes that a model's folder takes at most."""
    genres = len(manifest.genres)
    clips = manifest.clip_totals
    predicted = clips["test"] + clips["validation"]
    predictions = predicted * (LINE_BYTES + GENRE_BYTES * genres)
    return 4 * int(model.count_params()) + predictions + EXTRA_BYTES


def make_contents(
    fitted: FittedModel,
    manifest: Manifest,
    result: AnyReport | None,
    music_model: Mapping[str, bytes],
) -> dict[str, bytes]:
    """All files of a model folder by name, but for `model.json`; the report last.

    Args:
      fitted: the model.
      manifest: the dataset's; prediction takes its settings from here.
      result: the report, if there is one.
      music_model: see `trainer.data.music_model.read_music_model`.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Without the optimizer's state the file is a third as large.
        model = fitted.model
        bare = keras.Model(model.input, model.output, name=model.name)
        bare.save(os.path.join(folder, MODEL_FILE))
        contents = read_files(folder)
    if result is not None:
        of = fitted.predictions
        contents |= _report_contents(result, of["test"], of.get("validation"))
    title = "loss and accuracy, record by record"
    return {
        MANIFEST_FILE: manifest.to_json().encode(),
        HISTORY_FILE: history.history_json(fitted.phases).encode(),
        HISTORY_PLOT: history.history_png(fitted.phases, title),
        **music_model,
        **contents,
    }

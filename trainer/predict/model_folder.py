"""A model folder that prediction and export may believe: read and checked, not loaded.

All that can be wrong with it is found here, without Keras.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

import tensorflow as tf

from pipeline.schema import (
    MANIFEST_FILE,
    MULTI_LABEL,
    MUSIC_MODEL_FILE,
    Manifest,
    UserError,
    fingerprint,
)
from trainer.data.music_model import MAX_BYTES as MAX_MUSIC_MODEL_BYTES
from trainer.evaluation.calibration import check_temperature
from trainer.evaluation.model_digests import DIGESTS_FILE, digest_bytes
from trainer.evaluation.model_files import ModelFolder
from trainer.evaluation.report import MODEL_FILE, REPORT_FILE
from trainer.evaluation.tasks.multi_label import MultiLabelReport
from trainer.evaluation.tasks.thresholds import DEFAULT
from trainer.evaluation.typed_json import parse_json
from trainer.predict.model_archive import MAX_BYTES, ModelArchive, check_archive

#: Bytes of a dataset's manifest; one of 1,000 shards has 1 MB.
MAX_MANIFEST_BYTES = 64 << 20
ADVICE = "copy the model folder again, or train the model again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelContent:
    """What a model folder holds, as far as prediction needs it.

    Attributes:
      path: of the folder.
      content: `model.keras`.
      archive: what was found in it.
      manifest: the dataset's: genres, and how audio becomes records.
      temperature: calibrates the probabilities.
      thresholds: of several genres a clip, from which each is given.
      music_model: weights of the music model, where the folder holds them.
    """

    path: str
    content: bytes
    archive: ModelArchive
    manifest: Manifest
    temperature: float
    thresholds: Sequence[float] | None
    music_model: bytes | None = None

    @property
    def source(self) -> str:
        """Path of the model's file, for errors."""
        return f"{self.path}/{MODEL_FILE}"

    @property
    def fingerprint(self) -> str:
        """See `trainer.predict.protocol.Predictor`."""
        manifest = self.manifest
        return fingerprint(
            [
                digest_bytes(self.content).sha256,
                list(manifest.genres),
                dict(manifest.settings),
                self.temperature,
                *([] if self.thresholds is None else [list(self.thresholds)]),
            ]
        )


class PredictorFolder(ModelFolder):
    """A model folder, with what predictors of all kinds have in it."""

    def require(self, name: str, *, limit: int) -> bytes:
        """Reads a file that has to be there; see `ModelFolder.read`.

        Raises:
          UserError: there is none, or it is damaged.
        """
        content = self.read(name, limit=limit)
        if content is None:
            raise UserError(f"{self.path} holds no {name}; {ADVICE}")
        return content

    def manifest(self) -> Manifest:
        """The dataset's manifest.

        Raises:
          UserError: it is missing or damaged.
        """
        source = self.join(MANIFEST_FILE)
        content = self.require(MANIFEST_FILE, limit=MAX_MANIFEST_BYTES)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{source} is no text ({error}); {ADVICE}") from error
        return Manifest.from_json(text, source=source)

    def music_model(self) -> bytes | None:
        """Weights of the music model, where the folder holds them."""
        return self.read(MUSIC_MODEL_FILE, limit=MAX_MUSIC_MODEL_BYTES)

    def temperature(self) -> float:
        """The temperature in the model's report; 1 where none was fitted.

        Raises:
          UserError: the report is damaged.
        """
        content = self.read(REPORT_FILE)
        if content is None:
            return 1.0
        try:
            calibration = parse_json(content)["calibration"]
            if calibration is None:
                return 1.0
            temperature = calibration["temperature"]
            if isinstance(temperature, bool) or not isinstance(
                temperature, (int, float)
            ):
                raise ValueError(f"the temperature is {temperature!r:.40}")
            return check_temperature(temperature)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(
                f"{self.join(REPORT_FILE)} does not hold a model's report ({error!r}); "
                "train the model again or remove this file."
            ) from error

    def thresholds(self, manifest: Manifest) -> Sequence[float] | None:
        """Of several genres a clip, from which each is given; else None.

        Those in the model's report; a model without one, as there were no test clips,
        has the same for all genres.

        Raises:
          UserError: the report is damaged, or of other genres.
        """
        if manifest.task != MULTI_LABEL:
            return None
        content = self.read(REPORT_FILE)
        if content is None:
            return (DEFAULT,) * len(manifest.genres)
        source = self.join(REPORT_FILE)
        report = MultiLabelReport.from_json(content, source=source)
        if report.genres != manifest.genres:
            raise UserError(f"{source} tells of other genres than the model; {ADVICE}")
        return report.thresholds


def open_model_folder(path: str) -> PredictorFolder:
    """Opens a model folder of any kind.

    Raises:
      UserError: there is none, or its digests are damaged.
    """
    path = path.rstrip("/") or path
    if not tf.io.gfile.isdir(path):
        raise UserError(f"There is no model folder {path}; give --model another.")
    return PredictorFolder(path)


def read_model_folder(path: str) -> ModelContent:
    """Reads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder or no Keras model in it, or a file in it is
        damaged, strange, or not what the folder's digests say.
    """
    folder = open_model_folder(path)
    path = folder.path
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not folder.holds(name):
            raise UserError(_explain_missing(path, name))
    manifest = folder.manifest()
    content = folder.read(MODEL_FILE, limit=MAX_BYTES)
    if content is None:
        raise UserError(_explain_missing(path, MODEL_FILE))
    source = folder.join(MODEL_FILE)
    try:
        archive = check_archive(content)
    except ValueError as error:
        raise UserError(f"{source} cannot be loaded ({error}); {ADVICE}") from error
    if archive.name not in manifest.representations:
        raise UserError(
            f"{source} reads {archive.name!r:.80}, which its {MANIFEST_FILE} does not "
            f"describe; {ADVICE}"
        )
    digests = folder.digests
    if digests is not None and (digests.representation, digests.genres) != (
        archive.name,
        len(manifest.genres),
    ):
        raise UserError(
            f"{folder.join(DIGESTS_FILE)} tells of a model of {digests.genres} genres "
            f"that reads {digests.representation!r:.80}, which is not the one beside "
            f"it; {ADVICE}"
        )
    return ModelContent(
        path=path,
        content=content,
        archive=archive,
        manifest=manifest,
        temperature=folder.temperature(),
        thresholds=folder.thresholds(manifest),
        music_model=folder.music_model(),
    )


def _explain_missing(path: str, name: str) -> str:
    folds = sorted(
        (entry.rstrip("/") for entry in tf.io.gfile.listdir(path)), key=_fold_number
    )
    folds = [entry for entry in folds if _fold_number(entry) >= 0]
    if folds and name == MODEL_FILE:
        models = " ".join(f"--model {os.path.join(path, fold)}" for fold in folds)
        return (
            f"{path} was cross-validated and holds no {name} of its own, but one in "
            f"each of {folds[0]} to {folds[-1]}: give one of these, or all for their "
            f"mean: {models}"
        )
    if name == MODEL_FILE and tf.io.gfile.exists(os.path.join(path, REPORT_FILE)):
        return (
            f"The model in {path} was measured only: it holds a report and no "
            f"{MODEL_FILE}; give --model another, or train this one again."
        )
    return f"{path} holds no {name}; give --model the folder of a trained model."


def _fold_number(name: str) -> int:
    """The number of a cross-validated model's folder; -1 for others."""
    match = re.fullmatch(r"fold-(\d{1,6})", name)
    return int(match[1]) if match else -1

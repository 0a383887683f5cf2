"""A model folder that prediction and export may believe: read and checked, not loaded.

All that can be wrong with it is found here, without Keras.
"""

from __future__ import annotations

import dataclasses
import os
import re

import tensorflow as tf

from pipeline.schema import (
    MANIFEST_FILE,
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
from trainer.evaluation.typed_json import parse_json
from trainer.predict.model_archive import MAX_BYTES, ModelArchive, check_archive

#: Bytes of a dataset's manifest; one of 1,000 shards has 1 MB.
MAX_MANIFEST_BYTES = 64 << 20
_ADVICE = "copy the model folder again, or train the model again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelContent:
    """What a model folder holds, as far as prediction needs it.

    Attributes:
      path: of the folder.
      content: `model.keras`.
      archive: what was found in it.
      manifest: the dataset's: genres, and how audio becomes records.
      temperature: calibrates the probabilities.
      music_model: weights of the music model, where the folder holds them.
    """

    path: str
    content: bytes
    archive: ModelArchive
    manifest: Manifest
    temperature: float
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
            ]
        )


def read_model_folder(path: str) -> ModelContent:
    """Reads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder or no Keras model in it, or a file in it is
        damaged, strange, or not what the folder's digests say.
    """
    path = path.rstrip("/") or path
    if not tf.io.gfile.isdir(path):
        raise UserError(f"There is no model folder {path}; give --model another.")
    folder = ModelFolder(path)
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not folder.holds(name):
            raise UserError(_explain_missing(path, name))
    manifest = _read_manifest(folder)
    content = folder.read(MODEL_FILE, limit=MAX_BYTES)
    if content is None:
        raise UserError(_explain_missing(path, MODEL_FILE))
    source = folder.join(MODEL_FILE)
    try:
        archive = check_archive(content)
    except ValueError as error:
        raise UserError(f"{source} cannot be loaded ({error}); {_ADVICE}") from error
    if archive.name not in manifest.representations:
        raise UserError(
            f"{source} reads {archive.name!r:.80}, which its {MANIFEST_FILE} does not "
            f"describe; {_ADVICE}"
        )
    digests = folder.digests
    if digests is not None and (digests.representation, digests.genres) != (
        archive.name,
        len(manifest.genres),
    ):
        raise UserError(
            f"{folder.join(DIGESTS_FILE)} tells of a model of {digests.genres} genres "
            f"that reads {digests.representation!r:.80}, which is not the one beside "
            f"it; {_ADVICE}"
        )
    return ModelContent(
        path=path,
        content=content,
        archive=archive,
        manifest=manifest,
        temperature=_read_temperature(folder),
        music_model=folder.read(MUSIC_MODEL_FILE, limit=MAX_MUSIC_MODEL_BYTES),
    )


def _read_manifest(folder: ModelFolder) -> Manifest:
    source = folder.join(MANIFEST_FILE)
    content = folder.read(MANIFEST_FILE, limit=MAX_MANIFEST_BYTES)
    try:
        text = (content or b"").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is no text ({error}); {_ADVICE}") from error
    return Manifest.from_json(text, source=source)


def _read_temperature(folder: ModelFolder) -> float:
    """The temperature in a model's report; 1 where none was fitted."""
    content = folder.read(REPORT_FILE)
    if content is None:
        return 1.0
    try:
        calibration = parse_json(content)["calibration"]
        if calibration is None:
            return 1.0
        temperature = calibration["temperature"]
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
            raise ValueError(f"the temperature is {temperature!r:.40}")
        return check_temperature(temperature)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{folder.join(REPORT_FILE)} does not hold a model's report ({error!r}); "
            "train the model again or remove this file."
        ) from error


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
    return (
        f"{path} holds no {name}; give --model the folder of a Keras model "
        "(windows, mel, features or statistics)."
    )


def _fold_number(name: str) -> int:
    """The number of a cross-validated model's folder; -1 for others."""
    match = re.fullmatch(r"fold-(\d{1,6})", name)
    return int(match[1]) if match else -1

"""Model folders to predictors."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from pipeline.schema import UserError
from trainer.config import EXCERPTS
from trainer.evaluation.report import MODEL_FILE
from trainer.predict.audio import AudioPredictor, LoadExcerpts
from trainer.predict.baseline import DESCRIPTION_FILE, load_baseline
from trainer.predict.ensemble import Ensemble
from trainer.predict.ensemble_folder import ENSEMBLE, ENSEMBLE_FILE, read_ensemble
from trainer.predict.model_folder import open_model_folder
from trainer.predict.network import load_network
from trainer.predict.protocol import Predictor


def load_predictor(folder: str) -> Predictor:
    """Loads a model folder of any kind, or the ensemble of a folder of models.

    Raises:
      UserError: there is no such folder, or what is in it is no whole model of ours.
    """
    contents = open_model_folder(folder)
    if contents.holds(ENSEMBLE_FILE):
        return _load_ensemble(folder)
    if contents.holds(DESCRIPTION_FILE) or contents.holds(MODEL_FILE):
        return _load_single(folder)
    inside = contents.join(ENSEMBLE)
    if tf.io.gfile.exists(f"{inside}/{ENSEMBLE_FILE}"):
        return _load_ensemble(inside)
    _check_is_no_folder_of_models(contents.path)
    return _load_single(folder)


def _load_single(folder: str) -> Predictor:
    if open_model_folder(folder).holds(DESCRIPTION_FILE):
        return load_baseline(folder)
    return load_network(folder)


def _load_ensemble(folder: str) -> Ensemble:
    content = read_ensemble(folder)
    members = [_load_single(path) for path, _ in content.members]
    manifest = next(iter(members[0].sources.values()))
    return Ensemble(
        members,
        weights=[weight for _, weight in content.members],
        temperature=content.temperature,
        thresholds=open_model_folder(folder).thresholds(manifest),
    )


def _check_is_no_folder_of_models(path: str) -> None:
    """Refuses a folder that holds several models and no ensemble."""
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(path))
    models = [
        name
        for name in names
        if not name.startswith("fold-")
        and any(
            tf.io.gfile.exists(os.path.join(path, name, file))
            for file in (MODEL_FILE, DESCRIPTION_FILE)
        )
    ]
    if models:
        raise UserError(
            f"{path} is a folder of models without an ensemble; give --model one of "
            f"them ({', '.join(models)}), or make their ensemble: ./launch.sh compare "
            f"--models {path}"
        )


def load_predictors(folders: Sequence[str]) -> Predictor:
    """Loads one or more model folders; of several, the predictor is their mean.

    Args:
      folders: at least one.

    Raises:
      UserError: one cannot be loaded, or they do not go together.
    """
    predictors = [load_predictor(folder) for folder in folders]
    for folder, predictor in zip(folders, predictors, strict=True):
        if predictor.genres != predictors[0].genres:
            raise UserError(
                f"{folder} names other genres than {folders[0]} "
                f"({', '.join(predictor.genres)}); give --model folders that "
                "were trained on the same genres."
            )
    return predictors[0] if len(predictors) == 1 else Ensemble(predictors)


def load_audio_predictor(
    folders: Sequence[str],
    *,
    excerpts: int = EXCERPTS,
    load: LoadExcerpts | None = None,
) -> AudioPredictor:
    """Loads one or more model folders, to name the genres of audio files.

    Args:
      folders: at least one.
      excerpts: see `AudioPredictor`.
      load: likewise.

    Raises:
      UserError: one cannot be loaded, they do not go together, or a dataset was made
        by another version of the pipeline.
    """
    return AudioPredictor(load_predictors(folders), excerpts=excerpts, load=load)

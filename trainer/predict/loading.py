"""Model folders to predictors."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.schema import UserError
from trainer.config import EXCERPTS
from trainer.predict.audio import AudioPredictor, LoadExcerpts
from trainer.predict.ensemble import Ensemble
from trainer.predict.network import load_network
from trainer.predict.protocol import Predictor


def load_predictor(folder: str) -> Predictor:
    """Loads a model folder of any kind.

    Raises:
      UserError: there is no such folder, or what is in it is no whole model of ours.
    """
    return load_network(folder)


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

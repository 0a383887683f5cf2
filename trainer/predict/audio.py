"""From audio files to genres, by any predictor."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import MANIFEST_FILE, MUSIC_MODEL_FILE, Manifest, UserError
from trainer.config import EXCERPTS
from trainer.predict.protocol import Predictor

#: What `pipeline.decoding.excerpts.load_excerpts` does.
LoadExcerpts = Callable[[str, Any, int], Sequence[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The genres of one file.

    Attributes:
      genres: probability of each genre, highest first.
      excerpts: number of 30 s excerpts that they are the mean over.
      given: of several genres a clip, those that reach their thresholds, each with its
        ancestors ("Electronic > IDM"), highest first; None of one genre a clip.
    """

    genres: dict[str, float]
    excerpts: int
    given: dict[str, float] | None = None


def add_model_flags(parser: argparse.ArgumentParser, title: str) -> None:
    """Adds `--model` and `--excerpts`, as all commands that name genres have them.

    Args:
      parser: gets the flags.
      title: of a new group for them.
    """
    group = parser.add_argument_group(title)
    group.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="DIR",
        help="model folder; give it more than once for the mean of several models",
    )
    group.add_argument(
        "--excerpts",
        type=int,
        default=EXCERPTS,
        metavar="N",
        help="of a file over 31 s, up to so many excerpts of 30 s, spread evenly; 1 "
        "takes the one that training would have taken (default: %(default)s)",
    )


def check_excerpts(excerpts: int) -> None:
    """Refuses a number that cannot be meant.

    Raises:
      UserError: it is below 1.
    """
    if excerpts < 1:
        raise UserError(f"--excerpts must be 1 or more. Received: {excerpts}")


class AudioPredictor:
    """Names the genres of audio files.

    Attributes:
      predictor: what names the genres of their records.
      excerpts: take no more than this many of a long file.
      config: how files are decoded (`pipeline.common.clip_config.ClipConfig`).
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        excerpts: int = EXCERPTS,
        load: LoadExcerpts | None = None,
    ) -> None:
        """Loads what audio needs to become records, before the first file.

        Args:
          predictor: what names the genres of their records.
          excerpts: take no more than this many of a long file.
          load: decodes a file's excerpts; `IsolatedDecoder.load_excerpts` does so in
            a process of its own. By default, they are decoded in this one.

        Raises:
          UserError: this version of the pipeline does not make the records that the
            predictor reads, or the music model's weights are not there.
        """
        from pipeline.decoding.excerpts import load_excerpts

        self.predictor = predictor
        self.excerpts = excerpts
        self._load = load or load_excerpts
        # What two models read of one kind is made once.
        self._groups: list[tuple[Any, list[str]]] = []
        for name, manifest in predictor.sources.items():
            config = read_config(name, manifest)
            for known, names in self._groups:
                if known == config:
                    names.append(name)
                    break
            else:
                self._groups.append((config, [name]))
        self._workspaces = [
            _make_workspace(config, names, predictor.music_model)
            for config, names in self._groups
        ]
        # A damaged frame is a click in a file that somebody wants to know about.
        self.config = dataclasses.replace(self._groups[0][0], ignore_checksums=True)

    @property
    def genres(self) -> tuple[str, ...]:
        """Names, in the order of the probabilities."""
        return self.predictor.genres

    def make_records(
        self, clips: Sequence[Any], look: Callable[[Any], object] | None = None
    ) -> dict[str, NDArray[Any]]:
        """What the predictor reads, made as for training; for one thread.

        Args:
          clips: `pipeline.decoding.excerpts.Part`s, at least one.
          look: is shown each clip's `pipeline.representations.spectrum.Spectrum`.

        Returns:
          By representation, `(clips, records_per_clip, *value.shape)`.
        """
        from pipeline.representations import compute_representations

        records: dict[str, NDArray[Any]] = {}
        for (config, names), workspace in zip(
            self._groups, self._workspaces, strict=True
        ):
            made = [
                compute_representations(
                    clip.samples,
                    names,
                    config,
                    workspace,
                    length=clip.length,
                    look=look if workspace is self._workspaces[0] else None,
                )
                for clip in clips
            ]
            records |= {name: np.stack([one[name] for one in made]) for name in names}
        return records

    def predict_clips(self, clips: Sequence[Any]) -> NDArray[np.float64]:
        """Calibrated probabilities `(genres,)`: the mean over clips.

        Args:
          clips: `pipeline.decoding.excerpts.Part`s, at least one.

        Raises:
          UserError: the model gives no numbers.
        """
        probabilities: NDArray[np.float64] = self.predictor.predict(
            self.make_records(clips)
        ).mean(axis=0)
        return probabilities

    def predict(self, path: str) -> Prediction:
        """Names the genres of one audio file.

        Raises:
          pipeline.common.rejects.AudioError: the file cannot be used as audio.
          OSError: it cannot be read.
          UserError: the model gives no numbers.
        """
        clips = self._load(path, self.config, self.excerpts)
        probabilities = dict(
            zip(self.genres, self.predict_clips(clips).tolist(), strict=True)
        )
        genres = dict(sorted(probabilities.items(), key=lambda pair: -pair[1]))
        given = None
        if self.predictor.thresholds is not None:
            values = np.array([*probabilities.values()])
            paths = find_paths(self.predictor)
            given = find_given(values, self.predictor.thresholds, paths)
        return Prediction(genres=genres, excerpts=len(clips), given=given)


def find_paths(predictor: Predictor) -> list[str]:
    """Each genre with its ancestors ("Electronic > IDM"), in the models' order."""
    manifest = next(iter(predictor.sources.values()))
    return [" > ".join(manifest.genre_path(genre)) for genre in predictor.genres]


def find_given(
    probabilities: NDArray[np.float64],
    thresholds: Sequence[float],
    paths: Sequence[str],
) -> dict[str, float]:
    """Of several genres a clip, those that reach their thresholds.

    Args:
      probabilities: `(genres,)`.
      thresholds: of each genre.
      paths: see `find_paths`.

    Returns:
      Probabilities by path, highest first.
    """
    order = rank_given(probabilities, thresholds)
    return {paths[genre]: float(probabilities[genre]) for genre in order}


def rank_given(
    probabilities: NDArray[np.float64], thresholds: Sequence[float]
) -> list[int]:
    """Indices of the genres that reach their thresholds, most probable first.

    Args:
      probabilities: `(genres,)`.
      thresholds: of each genre.
    """
    given = np.flatnonzero(probabilities >= np.array(thresholds))
    order: list[int] = given[np.argsort(-probabilities[given], kind="stable")].tolist()
    return order


def read_config(name: str, manifest: Manifest) -> Any:
    """Clip parameters (`pipeline.common.clip_config.ClipConfig`) of a dataset.

    Args:
      name: a representation of it.
      manifest: the dataset's.

    Raises:
      UserError: this version of the pipeline does not make the records that the
        dataset had.
    """
    from pipeline.common.clip_config import ClipConfig
    from pipeline.representations import NAMES, make_schemas

    try:
        config = ClipConfig.from_dict(manifest.settings)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The settings in {MANIFEST_FILE} of the {name} model are damaged "
            f"({error}); copy the model folder again, or train the model again."
        ) from error
    layout = manifest.representations[name]
    if name not in NAMES or make_schemas([name], config, layout.label)[name] != layout:
        raise UserError(
            f"The {name!r:.40} records of {MANIFEST_FILE} are not those that this "
            "version of the pipeline makes; preprocess and train again, or use "
            "the version that made them."
        )
    return config


def _make_workspace(
    config: Any, names: Sequence[str], music_model: bytes | None
) -> Any:
    from pipeline.representations import embeddings
    from pipeline.representations.music_model import load_network
    from pipeline.representations.spectrum import Workspace

    if embeddings.NAME not in names:
        return Workspace()
    return Workspace(load_network(*open_music_model(music_model, config.music_model)))


def open_music_model(content: bytes | None, wanted: str) -> tuple[bytes, str]:
    """The file of weights that a predictor carries, or else the user's cache has.

    Args:
      content: what the predictor carries.
      wanted: name of the music model that made the training set.

    Returns:
      The file, and where it comes from.

    Raises:
      UserError: it is not there, or another one than is wanted.
    """
    from pipeline.representations.music_model import identify, read_weights

    if content is None:
        from pipeline.representations.weights import read_cached

        return read_cached(wanted)
    found = identify(read_weights(content, MUSIC_MODEL_FILE), MUSIC_MODEL_FILE)
    if found.name != wanted:
        raise UserError(
            f"{MUSIC_MODEL_FILE} holds {found.name}, the model beside it was trained "
            f"on {wanted}; copy the model folder again, or train the model again."
        )
    return content, MUSIC_MODEL_FILE

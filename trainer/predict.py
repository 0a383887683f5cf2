"""Names the genres of audio files: `python -m trainer.predict --model DIR a.mp3`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.credentials import require_credentials
from pipeline.schema import MANIFEST_FILE, Manifest, UserError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

MODEL_FILE = "model.keras"
REPORT_FILE = "report.json"

#: Files in a folder that are taken for audio.
AUDIO_EXTENSIONS = frozenset(
    (
        *("aac", "ac3", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf"),
        *("flac", "m4a", "m4b", "mka", "mp2", "mp3", "mp4", "mpc", "oga", "ogg"),
        *("opus", "rf64", "snd", "spx", "tta", "w64", "wav", "wave", "weba", "webm"),
        *("wma", "wv"),
    )
)
#: Excerpts of a long file, unless told otherwise: five minutes.
EXCERPTS = 10


class Predictor:
    """A trained model and what it was trained on.

    Attributes:
      model: from records of its representation to probabilities.
      representation: name of that representation.
      manifest: the dataset's: genres, and how audio becomes records.
      temperature: calibrates the probabilities (see `trainer.calibration`).
    """

    def __init__(
        self,
        *,
        model: keras.Model,
        representation: str,
        manifest: Manifest,
        temperature: float = 1.0,
    ) -> None:
        self.model = model
        self.representation = representation
        self.manifest = manifest
        self.temperature = temperature

    @functools.cached_property
    def config(self) -> Any:
        """Clip parameters (`pipeline.config.ClipConfig`).

        Raises:
          UserError: the dataset was made by another version of the pipeline.
        """
        from pipeline.config import ClipConfig

        return ClipConfig.from_dict(self.manifest.settings)

    @functools.cached_property
    def _workspace(self) -> Any:
        from pipeline.spectrum import Workspace

        return Workspace()

    @functools.cached_property
    def _compiled(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        value = self.manifest.representations[self.representation].value
        spec = tf.TensorSpec((None, *value.shape), tf.as_dtype(value.dtype))
        compiled: Callable[[Any], Any] = tf.function(
            lambda records: self.model(records, training=False), input_signature=[spec]
        )
        return compiled

    def predict_clips(
        self, clips: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities `(genres,)`: the mean over clips.

        Each becomes records exactly as the training clips did, whose probabilities
        are averaged.

        Args:
          clips: waveforms `(1321967,)`, at least one.
        """
        import numpy as np

        from pipeline.representations import compute_representations
        from trainer.calibration import apply_temperature

        name = self.representation
        records = np.concatenate(
            [
                compute_representations(clip, [name], self.config, self._workspace)[
                    name
                ]
                for clip in clips
            ]
        )
        each = np.asarray(self._compiled(records), np.float64)
        by_clip = each.reshape(len(clips), -1, each.shape[1]).mean(axis=1)
        probabilities: NDArray[np.float64] = apply_temperature(
            by_clip, self.temperature
        ).mean(axis=0)
        return probabilities


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The genres of one file.

    Attributes:
      genres: probability of each genre, highest first.
      excerpts: number of 30 s excerpts that they are the mean over.
    """

    genres: dict[str, float]
    excerpts: int


class Ensemble:
    """One or more predictors of the same genres, which are averaged.

    Attributes:
      predictors: at least one.
      excerpts: take no more than this many of a long file.
    """

    def __init__(
        self, predictors: Sequence[Predictor], *, excerpts: int = EXCERPTS
    ) -> None:
        self.predictors = tuple(predictors)
        self.excerpts = excerpts
        # Of the first; an unknown version of any is noticed here and not file by file.
        self._config, *_ = [predictor.config for predictor in predictors]

    @property
    def genres(self) -> tuple[str, ...]:
        """Names, in the manifests' order."""
        return self.predictors[0].manifest.genres

    def predict(self, path: str) -> Prediction:
        """Names the genres of one audio file.

        Raises:
          pipeline.rejects.AudioError: the file cannot be used as audio.
          OSError: it cannot be read.
        """
        import numpy as np

        from pipeline.decoding.excerpts import load_excerpts

        clips = load_excerpts(path, self._config, self.excerpts)
        each = [predictor.predict_clips(clips) for predictor in self.predictors]
        pairs = zip(self.genres, np.mean(each, axis=0).tolist(), strict=True)
        return Prediction(
            genres=dict(sorted(pairs, key=lambda pair: -pair[1])), excerpts=len(clips)
        )


def load_predictor(folder: str) -> Predictor:
    """Loads a model folder that `trainer.task` has written.

    Raises:
      UserError: there is no such folder, or no Keras model in it.
    """
    from trainer import quiet  # noqa: F401  isort: skip
    import keras
    import tensorflow as tf

    folder = folder.rstrip("/") or folder
    if not tf.io.gfile.isdir(folder):
        raise UserError(f"There is no model folder {folder}; give --model another.")
    for name in (MODEL_FILE, MANIFEST_FILE):
        if not tf.io.gfile.exists(f"{folder}/{name}"):
            raise UserError(
                f"{folder} holds no {name}; give --model the folder of a Keras model "
                "(windows, mel, features or statistics)."
            )
    path = f"{folder}/{MANIFEST_FILE}"
    with tf.io.gfile.GFile(path) as file:
        manifest = Manifest.from_json(file.read(), source=path)
    try:
        model = keras.models.load_model(f"{folder}/{MODEL_FILE}", compile=False)
    except (ValueError, OSError) as error:
        raise UserError(
            f"{folder}/{MODEL_FILE} cannot be loaded ({error}); train it again."
        ) from error
    if model.name not in manifest.representations:
        raise UserError(
            f"{folder}/{MODEL_FILE} reads {model.name!r}, which its {MANIFEST_FILE} "
            "does not describe; train it again."
        )
    return Predictor(
        model=model,
        representation=model.name,
        manifest=manifest,
        temperature=read_temperature(f"{folder}/{REPORT_FILE}"),
    )


def read_temperature(path: str) -> float:
    """The temperature in a model's report; 1 where none was fitted.

    Raises:
      UserError: the file is no report.
    """
    import tensorflow as tf

    if not tf.io.gfile.exists(path):
        return 1.0
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        calibration = json.loads(text)["calibration"]
        return 1.0 if calibration is None else float(calibration["temperature"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold a model's report ({error!r}); train the model again "
            "or remove this file."
        ) from error


def load_ensemble(folders: Sequence[str], *, excerpts: int = EXCERPTS) -> Ensemble:
    """Loads one or more model folders.

    Raises:
      UserError: one cannot be loaded, they do not name the same genres, or a dataset
        was made by another version of the pipeline.
    """
    predictors = [load_predictor(folder) for folder in folders]
    for folder, predictor in zip(folders, predictors, strict=True):
        if predictor.manifest.genres != predictors[0].manifest.genres:
            raise UserError(
                f"{folder} names other genres than {folders[0]} "
                f"({', '.join(predictor.manifest.genres)}); give --model folders that "
                "were trained on the same genres."
            )
    return Ensemble(predictors, excerpts=excerpts)


def find_files(paths: Sequence[str]) -> list[str]:
    """Replaces folders by the audio files in them, by name.

    Raises:
      UserError: there is none in a folder.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        inside = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if os.path.splitext(name)[1][1:].lower() in AUDIO_EXTENSIONS
        )
        if not inside:
            raise UserError(
                f"{path} holds no file with an extension that is known for audio "
                "(mp3, wav, flac, ...); name the files."
            )
        found += inside
    return found


def predict_files(
    ensemble: Ensemble, paths: Sequence[str]
) -> Iterator[tuple[str, Prediction | str]]:
    """Yields each path with its prediction, or with what is wrong with the file."""
    from pipeline.rejects import AudioError

    for path in paths:
        try:
            yield path, ensemble.predict(path)
        except AudioError as error:
            yield path, str(error)
        except OSError as error:
            yield path, error.strerror or str(error)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.predict",
        allow_abbrev=False,
        description=(
            "Prints the most probable genres of audio files, with their probabilities. "
            "Of a file longer than a clip, several 30 s excerpts are taken and their "
            "probabilities averaged. Several models are averaged too."
        ),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="MP3, WAV, FLAC, ... of any length, or a folder",
    )
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="DIR",
        help="model folder that trainer.task has written; give it more than once for "
        "the mean of several models",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="how many genres to print (default: %(default)s)",
    )
    parser.add_argument(
        "--excerpts",
        type=int,
        default=EXCERPTS,
        metavar="N",
        help="of a long file, so many excerpts at most; 1 takes the one that training "
        "would have taken (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: path, excerpts, genres with probabilities",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 if a file could not be used, 2 for a wrong flag."""
    flags = build_parser().parse_args(argv)
    failed = False
    try:
        for name in ("top", "excerpts"):
            value = getattr(flags, name)
            if value < 1:
                raise UserError(f"--{name} must be 1 or more. Received: {value}")
        require_credentials(flags.model)
        paths = find_files(flags.files)
        ensemble = load_ensemble(flags.model, excerpts=flags.excerpts)
        table = Table(paths, ensemble.genres, min(flags.top, len(ensemble.genres)))
        if not flags.json:
            print(table.header(), flush=True)
        for path, result in predict_files(ensemble, paths):
            if isinstance(result, str):
                failed = True
                print(f"{path}: {result}", file=sys.stderr, flush=True)
            elif flags.json:
                print(format_json(path, result, flags.top), flush=True)
            else:
                print(table.row(path, result), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(failed)


class Table:
    """Aligned lines that can be printed one by one.

    Args:
      paths: all files.
      genres: all genres.
      top: how many genres a line names.
    """

    def __init__(self, paths: Sequence[str], genres: Sequence[str], top: int) -> None:
        self._path_width = max(map(len, (*paths, "file")))
        self._genre_width = max(map(len, genres)) + len(" 0.000")
        self._top = top

    def header(self) -> str:
        """The first line."""
        return self._align("file", [str(place + 1) for place in range(self._top)])

    def row(self, path: str, prediction: Prediction) -> str:
        """One file's line."""
        best = list(prediction.genres.items())[: self._top]
        return self._align(path, [f"{genre} {share:.3f}" for genre, share in best])

    def _align(self, path: str, cells: Sequence[str]) -> str:
        padded = [cell.ljust(self._genre_width) for cell in cells]
        return "  ".join([path.ljust(self._path_width), *padded]).rstrip()


def format_json(path: str, prediction: Prediction, top: int) -> str:
    """One file's JSON line."""
    best = list(prediction.genres.items())[:top]
    return json.dumps(
        {
            "path": path,
            "excerpts": prediction.excerpts,
            "genres": {genre: round(share, 6) for genre, share in best},
        }
    )


if __name__ == "__main__":
    sys.exit(main())

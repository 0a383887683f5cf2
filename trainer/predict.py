"""Names the genres of audio files: `python -m trainer.predict --model DIR a.mp3`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.schema import MANIFEST_FILE, Manifest, UserError

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.keras"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Predictor:
    """A trained model and what it was trained on.

    Attributes:
      model: from records of its representation to probabilities.
      representation: name of that representation.
      manifest: the dataset's: genres, and how audio becomes records.
    """

    model: keras.Model
    representation: str
    manifest: Manifest

    def predict(self, path: str) -> dict[str, float]:
        """Probability of each genre for one audio file, highest first.

        The file becomes records exactly as the training clips did; the
        probabilities are the mean over its records.

        Raises:
          pipeline.rejects.AudioError: the file cannot be used as audio.
          OSError: it cannot be read.
          UserError: the dataset was made by another version of the pipeline.
        """
        import numpy as np

        from pipeline.clip import represent_file
        from pipeline.config import ClipConfig

        config = ClipConfig.from_dict(self.manifest.settings)
        records = represent_file(path, config, [self.representation])
        values = records[self.representation]
        probabilities = np.mean(self.model(values, training=False), axis=0)
        pairs = zip(self.manifest.genres, probabilities.tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))


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
    return Predictor(model=model, representation=model.name, manifest=manifest)


def predict_files(
    predictor: Predictor, paths: Sequence[str]
) -> Iterator[tuple[str, dict[str, float] | str]]:
    """Yields each path with its genres, or with what is wrong with the file."""
    from pipeline.rejects import AudioError

    for path in paths:
        try:
            yield path, predictor.predict(path)
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
            "Prints the most probable genres of audio files, one line each. Of a file "
            "longer than a clip, the excerpt that training would have taken is used."
        ),
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="MP3, WAV, FLAC, ...")
    parser.add_argument(
        "--model", required=True, help="model folder that trainer.task has written"
    )
    parser.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="how many genres to print (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: path, and genres with probabilities",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 if a file could not be used, 2 for a wrong flag."""
    flags = build_parser().parse_args(argv)
    failed = False
    try:
        if flags.top < 1:
            raise UserError(f"--top must be 1 or more. Received: {flags.top}")
        predictor = load_predictor(flags.model)
        for path, result in predict_files(predictor, flags.files):
            if isinstance(result, str):
                failed = True
                print(f"{path}: {result}", file=sys.stderr, flush=True)
            else:
                top = dict(list(result.items())[: flags.top])
                print(format_line(path, top, as_json=flags.json), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(failed)


def format_line(path: str, genres: dict[str, float], *, as_json: bool) -> str:
    """One file's line."""
    if as_json:
        rounded = {genre: round(value, 6) for genre, value in genres.items()}
        return json.dumps({"path": path, "genres": rounded})
    return f"{path}: " + ", ".join(f"{name} {p:.3f}" for name, p in genres.items())


if __name__ == "__main__":
    sys.exit(main())

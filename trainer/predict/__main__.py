"""Names the genres of audio files: `python -m trainer.predict --model DIR a.mp3`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.common.credentials import require_credentials
from pipeline.schema import UserError
from trainer.config import EXCERPTS

if TYPE_CHECKING:
    from trainer.predict.predictor import Ensemble, Prediction

#: Files in a folder that are taken for audio.
AUDIO_EXTENSIONS = frozenset(
    (
        *("aac", "ac3", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf"),
        *("flac", "m4a", "m4b", "mka", "mp2", "mp3", "mp4", "mpc", "oga", "ogg"),
        *("opus", "rf64", "snd", "spx", "tta", "w64", "wav", "wave", "weba", "webm"),
        *("wma", "wv"),
    )
)


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
    from pipeline.common.rejects import AudioError

    for path in paths:
        try:
            yield path, ensemble.predict(path)
        except AudioError as error:
            yield path, str(error)
        except OSError as error:
            yield path, error.strerror or str(error)


def make_parser() -> argparse.ArgumentParser:
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
    flags = make_parser().parse_args(argv)
    failed = False
    try:
        for name in ("top", "excerpts"):
            value = getattr(flags, name)
            if value < 1:
                raise UserError(f"--{name} must be 1 or more. Received: {value}")
        require_credentials(flags.model)
        paths = find_files(flags.files)
        from trainer.predict.predictor import load_ensemble  # Imports TensorFlow.

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

"""Names the genres of audio files: `./launch.sh predict --model DIR a.mp3`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import (
    allow_any_text,
    columns_of,
    one_line,
    pad,
    print_error,
)
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.inputs import globs
from pipeline.inputs.archives import paths
from pipeline.inputs.archives.directory import read_archive
from pipeline.inputs.archives.members import open_member
from pipeline.inputs.audio_names import is_audio_name
from pipeline.inputs.globs import Glob
from pipeline.schema import UserError
from trainer.predict.audio import add_model_flags, check_excerpts

if TYPE_CHECKING:
    from pipeline.common.clip_config import ClipConfig
    from pipeline.decoding.excerpts import Part
    from trainer.predict.audio import AudioPredictor, Prediction


def find_members(text: str) -> list[str]:
    """The audio files of a ZIP, or those that a glob of it matches, by name.

    Raises:
      UserError: there are none, or the ZIP cannot be used.
    """
    found = paths.find_archive(text)
    if found is None:
        raise ValueError(f"Expected a ZIP, or files in one. Received: {text}")
    archive, pattern = found
    try:
        names = read_archive(archive).members
        glob = paths.parse(archive, pattern, names)
        entries = paths.match(glob)
    except OSError as error:
        raise UserError(
            f"{archive} cannot be used ({error.strerror}); name a whole ZIP that is "
            f"there. Received: {text}"
        ) from error
    paths.check_usable([entry.problem for entry in entries], text)
    files = [glob.join(entry.name) for entry in entries]
    # One that is named is tried, whatever its extension.
    inside = files if pattern in names else [f for f in files if is_audio_name(f)]
    if not inside:
        raise UserError(
            f"{text} holds no file with an extension that is known for audio (mp3, "
            "wav, flac, ...); name the files."
        )
    return sorted(inside)


def find_matches(pattern: str) -> list[str]:
    """The audio files of a glob (see `pipeline.inputs.globs`), by name.

    A file of that very name is meant itself; of ZIPs, as in 'music/**.zip', what they
    hold.

    Raises:
      UserError: there are none.
    """
    if os.path.lexists(pattern) or globs.is_remote(pattern):
        return [pattern]
    glob = globs.parse(pattern)
    try:
        names = sorted(glob.join(entry.name) for entry in globs.match(glob))
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be listed ({error.strerror}). Received: {pattern}"
        ) from error
    files = [name for name in names if is_audio_name(name)]
    if pattern.lower().endswith(".zip"):
        files = [file for name in names for file in find_members(name)]
    if not files:
        raise UserError(
            f"{pattern} matches no file with an extension that is known for audio "
            "(mp3, wav, flac, ...); name the files."
        )
    return files


def find_files(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Replaces folders, ZIPs and globs by the audio files in them, by name.

    Links are followed.

    Returns:
      Paths; and what is wrong with those that are folders which cannot be read.

    Raises:
      UserError: a folder holds none, or a glob matches none.
    """
    files: list[str] = []
    problems: dict[str, str] = {}
    for path in names:
        path = paths.drop_scheme(path)
        if paths.find_archive(path):
            files += find_members(path)
            continue
        if not os.path.isdir(path):
            files += [path] if globs.unescape(path) == path else find_matches(path)
            continue
        folder = Glob(folder=path.rstrip("/") or "/", rest="**")
        errors: list[OSError] = []
        inside = sorted(
            folder.join(entry.name)
            for entry in globs.walk(folder.folder, on_error=errors.append)
            if is_audio_name(entry.name)
        )
        if not inside and not errors:
            raise UserError(
                f"{path} holds no file with an extension that is known for audio "
                "(mp3, wav, flac, ...); name the files."
            )
        problems |= {
            str(error.filename or path): error.strerror or str(error)
            for error in errors
        }
        files += inside
    return [*files, *problems], problems


def predict_files(
    predictor: AudioPredictor, files: Sequence[str], problems: Mapping[str, str]
) -> Iterator[tuple[str, Prediction | str]]:
    """Yields each path with its prediction, or with what is wrong with the file.

    Args:
      predictor: the models.
      files: paths of files, and the folders of `problems`.
      problems: what is known to be wrong, by path.
    """
    from pipeline.common.rejects import AudioError

    for path in files:
        if path in problems:
            yield path, problems[path]
            continue
        try:
            yield path, predictor.predict(path)
        except AudioError as error:
            yield path, str(error)
        except OSError as error:
            yield path, error.strerror or str(error)


def make_parser() -> CommandParser:
    """The command line."""
    parser = CommandParser(
        "predict",
        description=(
            "Prints the most probable genres of audio files, with their probabilities. "
            "Of a file longer than a clip, several 30 s excerpts are taken and their "
            "probabilities averaged. Several models are averaged too."
        ),
        examples=[
            "predict --model models/mel song.mp3",
            "predict --model models/mel --model models/features --top 3 music",
        ],
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="MP3, WAV, FLAC, ... of any length, a folder, a ZIP, or files in one, as "
        "'music.zip!/rock/*.mp3', or a quoted glob, also of ZIPs",
    )
    add_model_flags(parser, "model")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="N",
        help="how many genres to print (default: %(default)s)",
    )
    output.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: path, excerpts, genres with probabilities; "
        "path and error of a file that cannot be used",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 if a file could not be used, 2 for a wrong flag."""
    allow_any_text()
    flags = make_parser().parse_args(argv)
    try:
        return run(flags)
    except UserError as error:
        print_error(error)
        return 2


def run(flags: argparse.Namespace) -> int:
    """Predicts; returns 1 if a file could not be used.

    Raises:
      UserError: a flag is wrong, or a model cannot be used.
    """
    if flags.top < 1:
        raise UserError(f"--top must be 1 or more. Received: {flags.top}")
    check_excerpts(flags.excerpts)
    require_credentials(flags.model)
    files, problems = find_files(flags.files)
    from threadpoolctl import threadpool_limits

    import trainer.runtime.quiet  # noqa: F401  (before what imports TensorFlow)
    from pipeline.decoding.isolation import IsolatedDecoder
    from trainer.predict.loading import load_audio_predictor  # Imports TensorFlow.

    failed = False
    # As in preprocessing and labelling: with threads of BLAS, some grey levels of mel
    # images are others, for twice the CPU time and no less of the clock.
    with IsolatedDecoder() as decoder, threadpool_limits(1):

        def load(path: str, config: ClipConfig, limit: int) -> tuple[Part, ...]:
            member = paths.split(path)
            if member is None:
                return decoder.load_excerpts(path, config, limit)
            with open_member(*member) as file:
                return decoder.load_parts(file, config, limit)

        predictor = load_audio_predictor(
            flags.model, excerpts=flags.excerpts, load=load
        )
        table = Table(
            files,
            predictor.genres,
            min(flags.top, len(predictor.genres)),
            several=predictor.predictor.thresholds is not None,
        )
        if not flags.json:
            print(table.header(), flush=True)
        for path, result in predict_files(predictor, files, problems):
            failed = failed or isinstance(result, str)
            if flags.json:
                print(format_json(path, result, flags.top), flush=True)
            elif isinstance(result, str):
                line = f"{one_line(path)}: {one_line(result)}"
                print(line, file=sys.stderr, flush=True)
            else:
                print(table.row(path, result), flush=True)
    if not flags.json:
        models = (word for model in flags.model for word in ("--model", model))
        Reporter().finish([], ["app", *models], aside=True)
    return int(failed)


class Table:
    """Aligned lines that can be printed one by one.

    Args:
      paths: all files.
      genres: all genres.
      top: how many genres a line names.
      several: whether a line names those that reach their thresholds instead.
    """

    def __init__(
        self,
        paths: Sequence[str],
        genres: Sequence[str],
        top: int,
        *,
        several: bool = False,
    ) -> None:
        self._path_width = max(columns_of(one_line(path)) for path in (*paths, "file"))
        self._genre_width = max(
            columns_of(f"{one_line(genre)} 0.000") for genre in genres
        )
        self._top = top
        self._several = several

    def header(self) -> str:
        """The first line."""
        if self._several:
            return self._align("file", ["genres over their thresholds"])
        return self._align("file", [str(place + 1) for place in range(self._top)])

    def row(self, path: str, prediction: Prediction) -> str:
        """One file's line."""
        if prediction.given is not None:
            # Of several genres, those that are given, however many.
            given = ", ".join(
                f"{one_line(name)} {share:.3f}"
                for name, share in prediction.given.items()
            )
            return self._align(one_line(path), [given or "none"])
        best = list(prediction.genres.items())[: self._top]
        cells = [f"{one_line(genre)} {share:.3f}" for genre, share in best]
        return self._align(one_line(path), cells)

    def _align(self, path: str, cells: Sequence[str]) -> str:
        padded = [pad(cell, self._genre_width) for cell in cells]
        return "  ".join([pad(path, self._path_width), *padded]).rstrip()


def format_json(path: str, result: Prediction | str, top: int) -> str:
    """One file's JSON line: its genres, or what is wrong with it.

    Bytes of a name that are no UTF-8 are lone surrogates, as Python has them
    (`os.fsencode` gives the bytes).
    """
    content: dict[str, object] = {"path": path}
    if isinstance(result, str):
        content["error"] = result
    else:
        best = list(result.genres.items())[:top]
        content["excerpts"] = result.excerpts
        content["genres"] = {genre: round(share, 6) for genre, share in best}
        if result.given is not None:
            content["given"] = {n: round(s, 6) for n, s in result.given.items()}
    return json.dumps(content, allow_nan=False)


if __name__ == "__main__":
    sys.exit(main())

"""`./launch.sh fma`: from FMA's archives to a report on the models trained on them."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.common.plain_text import one_line, print_error
from pipeline.common.progress import Reporter, add_progress_flags, make_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.launch.commands import COMMANDS, find_module
from pipeline.launch.fma import published
from pipeline.launch.fma.__main__ import add_flags
from pipeline.launch.walkthrough.steps import StepError, number, route, run_step
from pipeline.schema import COMPLETED_FILE, JOB_REPORT_FILE, UserError

STEPS = ("download", "preprocess", "train", "compare")
#: Training compares, too.
WHOLE = STEPS[:3]
#: Files of each split of each representation.
SHARDS = {"small": 32, "medium": 128, "large": 512, "full": 512}
#: Commands whose options may be given, and those that only their own command takes.
_OPEN = ("preprocess", "train")
_OURS = {"--audio", "--metadata", "--overwrite", "--estimate", "--data", "--report"}
#: Options that do not decide what is made: where things are, and how much is printed.
_PLACES = {"audio", "metadata", "output", "overwrite", "quiet", "verbose"}
_EPILOG = """\
STEP is one of download, preprocess, train and compare; without it, all of them. What an
interrupted run has made is kept: bytes, shards, models.

Every other option of preprocess (also Apache Beam's) and of train may follow, such as
--labels, --min_tracks, --representations, --model, --epochs, --tune and --weights; see
  ./launch.sh preprocess --help
  ./launch.sh train --help"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    """A run, and where its parts are.

    Attributes:
      subset: of FMA.
      output: folder of all of it.
      mirror: where the archives come from: an address, or a folder of them.
      timeout: of a connection, in seconds.
      preprocess: further options of that command.
      train: likewise.
      shown: options on what is printed.
      clips: that will be used; None for those with a top genre.
    """

    subset: str
    output: str
    mirror: str
    timeout: float
    preprocess: Sequence[str] = ()
    train: Sequence[str] = ()
    shown: Sequence[str] = ()
    clips: int | None = None

    @property
    def room(self) -> int:
        """Bytes that the records, models and reports take."""
        clips = published.CLIPS[self.subset] if self.clips is None else self.clips
        return clips * published.CLIP_BYTES + published.MODELS_BYTES

    @property
    def zips(self) -> str:
        """Folder of the archives."""
        in_place = os.path.isdir(self.mirror)
        return self.mirror if in_place else f"{self.output}/download"

    @property
    def audio(self) -> str:
        """The archive of the audio."""
        return f"{self.zips}/{published.AUDIO[self.subset].name}"

    @property
    def dataset(self) -> str:
        """Folder of the records."""
        return f"{self.output}/dataset"

    @property
    def models(self) -> str:
        """Folder of the models."""
        return f"{self.output}/models"

    def best(self) -> str | None:
        """Folder to predict with: of the ensemble, or the best model that was kept."""
        if os.path.isdir(f"{self.models}/ensemble"):
            return self.models
        with open(f"{self.output}/report.json", encoding="utf-8") as file:
            names = [model["name"] for model in json.load(file)["models"]]
        folders = [f"{self.models}/{name}" for name in names]
        kept = [path for path in folders if os.path.exists(f"{path}/manifest.json")]
        return kept[0] if kept else None

    def words(self, step: str) -> list[str]:
        """The command of a step, as typed after `./launch.sh`."""
        data = ["--data", self.dataset]
        report = ["--output", self.output, "--audio", self.audio]
        options: dict[str, list[str]] = {
            "download": [
                *("--subset", self.subset, "--output", self.output),
                *("--mirror", self.mirror, "--timeout", f"{self.timeout:g}"),
            ],
            "preprocess": [
                *("--audio", self.audio, "--output", self.dataset),
                *("--metadata", f"{self.zips}/{published.METADATA.name}"),
                *("--subset", self.subset, "--num_shards", str(SHARDS[self.subset])),
                *("--description", f"Free Music Archive, fma_{self.subset}"),
                *self.preprocess,
            ],
            "train": [
                *(*data, "--output", self.models, "--report", *report[1:]),
                *self.train,
            ],
            "compare": ["--models", self.models, *data, *report],
        }
        return [step, *options[step], *self.shown]

    def is_preprocessed(self) -> bool:
        """Whether the dataset is complete.

        Raises:
          UserError: it is, and was made with other options.
        """
        if not os.path.exists(f"{self.dataset}/{COMPLETED_FILE}"):
            return False
        path = f"{self.dataset}/{JOB_REPORT_FILE}"
        try:
            with open(path, encoding="utf-8") as file:
                made = shlex.split(json.load(file)["command"])[1:]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} does not tell how the dataset was made ({error!r}); remove "
                f"{self.dataset}, and it is made again."
            ) from error
        wanted = self.words("preprocess")
        try:
            same = _find_options(made) == _find_options(wanted)
        except UserError:  # Made by another version, or another command.
            same = False
        if not same:
            raise UserError(
                f"{self.dataset} was made with other options; give another --output, "
                f"or remove {self.dataset} and {self.models}. It was made by: "
                f"{shlex.join(made)}. Received: {shlex.join(wanted)}"
            )
        return True


def _find_options(words: Sequence[str]) -> dict[str, Any]:
    """What decides what is made, of the words of `preprocess`.

    Raises:
      UserError: there is an unknown one, or one is missing.
    """
    # Takes seconds, and none where nothing is asked for.
    from pipeline.launch.plan import parse_beam_options

    parser = find_module(COMMANDS["preprocess"][0]).make_parser()
    parser.error = _refuse
    arguments, rest = parser.parse_known_args(words[1:])
    # They say how it is made, and not what.
    parse_beam_options(rest)
    options = vars(arguments).items()
    return {name: value for name, value in options if name not in _PLACES}


def _refuse(message: str) -> NoReturn:
    raise UserError(message)


def make_parser() -> CommandParser:
    """The command's own flags."""
    parser = CommandParser(
        "fma",
        usage="./launch.sh fma [STEP] --subset SUBSET [OPTION ...]",
        description="Fetches a subset of the Free Music Archive, preprocesses it, "
        "trains every model and compares them.",
        epilog=_EPILOG,
        examples=[
            "fma --subset small",
            "fma --subset large --labels all --min_tracks 100 --output /data/fma",
            "fma --subset small --mirror ~/zips --model mel baselines --epochs 20",
            "fma download --subset full --output /data/fma",
        ],
    )
    add_flags(parser)
    add_progress_flags(parser)
    return parser


def plan(words: Sequence[str]) -> Whole:
    """A run by its command line; wrong options end the process.

    Raises:
      UserError: a value cannot be used.
    """
    parser = make_parser()
    parsers, modules = {"fma": parser}, {}
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    for flag in _OURS & flags:
        parser.error(f"{flag} is for a step by itself: ./launch.sh preprocess, train")
    # Both take seconds to import.
    if not flags <= set(parser.flags):
        modules = {name: find_module(COMMANDS[name][0]) for name in _OPEN}
        parsers |= {name: module.make_parser() for name, module in modules.items()}
    routed = route(words, parsers, "preprocess" if modules else "fma")
    own = parser.parse_args(routed.pop("fma"))
    if "://" in own.output:
        raise UserError(
            "--output must be a folder of this machine; the steps' own commands take "
            f"others, see docs/fma.md. Received: {own.output}"
        )
    whole = Whole(
        subset=own.subset,
        output=own.output.rstrip("/") or "/",
        mirror=own.mirror,
        timeout=own.timeout,
        shown=["--quiet"] * own.quiet + ["--verbose"] * own.verbose,
        preprocess=routed.get("preprocess", ()),
        train=routed.get("train", ()),
    )
    # Wrong values are told now, not after the download.
    for name in routed:
        arguments, rest = parsers[name].parse_known_args(whole.words(name)[1:])
        if rest:
            from pipeline.launch.plan import parse_beam_options

            known = [flag for each in parsers.values() for flag in each.flags]
            parse_beam_options(rest, known)
        if name == "train":
            modules[name].check(arguments)
        elif arguments.labels != "top":
            whole = dataclasses.replace(whole, clips=published.LABELLED[own.subset])
    return whole


def run(whole: Whole, step: str | None, reporter: Reporter) -> None:
    """Runs a step, or all of them; what is done stays.

    Raises:
      UserError: what is there was made with other options.
      StepError: a step did not end well.
    """
    steps = WHOLE if step is None else (step,)
    for name, heading in number(steps, f"FMA, {whole.subset}: "):
        reporter.note(heading)
        words = whole.words(name)
        if name == "download" and step is None:
            words += ["--room", str(whole.room)]
        if name == "preprocess":
            if whole.is_preprocessed():
                reporter.note(f"{one_line(whole.dataset)} is complete.")
                continue
            run_step(["weights", "--optional"])
        run_step(words)
    if steps[-1] in ("train", "compare"):
        best = whole.best()
        reporter.finish(
            [
                f"audio    {whole.audio}",
                f"dataset  {whole.dataset}",
                f"models   {whole.models}",
            ],
            ["report", whole.output],
            *([] if best is None else [["predict", "--model", best, "some-song.mp3"]]),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all steps, or one; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    step = words.pop(0) if words and not words[0].startswith("-") else None
    if step is not None and step not in STEPS:
        known = ", ".join(map(repr, STEPS))
        make_parser().error(f"STEP: invalid choice: {step!r} (choose from {known})")
    shown = {"quiet": "--quiet" in words, "verbose": "--verbose" in words}
    try:
        run(plan(words), step, make_reporter(**shown))
    except UserError as error:
        print_error(error)
        return 2
    except StepError as error:
        if error.stopped:
            print_error("the same command goes on from there.", label="stopped")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())

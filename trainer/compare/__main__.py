"""Compares the trained models of one dataset in a report.

    ./launch.sh compare --models MODELS --output REPORT_DIR

Writes report.html (one file that needs nothing else), report.json (all numbers),
report.md, comparison.png (scores) and, of one genre a clip, confusions.png (confusion
matrices).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.common.credentials import require_credentials
from pipeline.common.plain_text import allow_any_text, one_line, print_error
from pipeline.common.progress import Reporter, add_progress_flags, take_reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.inputs.archives.paths import drop_scheme
from pipeline.schema import UserError
from trainer.compare.comparison import (
    Comparison,
    check_comparable,
    comparison_json,
    find_use,
    make_comparison,
)
from trainer.compare.ensemble import (
    MEMBERS,
    TITLE,
    check_folder,
    score_ensemble,
    write_ensemble,
)
from trainer.compare.html.clip_media import (
    clip_picture,
    find_audio,
    find_values,
    sound_uris,
)
from trainer.compare.html.facts import DataFacts, read_facts
from trainer.compare.html.hard_clips import HardClip, Media, find_hard_clips
from trainer.compare.html.page import format_page
from trainer.compare.report_files import (
    COMPARISON_FILE,
    MARKDOWN_FILE,
    SCORES_FILE,
    check_output,
    write_files,
)
from trainer.compare.serve import HTML_FILE
from trainer.compare.text import format_markdown, format_text
from trainer.data.artists import read_artists
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation import plots
from trainer.evaluation.predictions import with_artists
from trainer.evaluation.report_folder import Result, read_results
from trainer.evaluation.tasks.task import AnyReport, judge, task_of


def find_dataset(reports: Sequence[AnyReport], folder: str | None) -> Dataset | None:
    """Opens the dataset that the models were tested on.

    Args:
      reports: of the models.
      folder: where it is; None: where the models were trained from, if it is still
        there.

    Raises:
      UserError: the folder that was given holds no dataset, or another one.
    """
    first = reports[0]
    if folder is None:
        folders = [report.data for report in reports if report.data]
        try:
            dataset = open_dataset(folders[0]) if folders else None
        except UserError:
            return None
    else:
        dataset = open_dataset(folder)
    if dataset is None:
        return None
    # Cross-validation makes datasets of its own from one that is kept.
    same = dataset.manifest.fingerprint == first.fingerprint
    if same or (
        "folds" in first.parameters and dataset.manifest.genres == first.genres
    ):
        return dataset
    if folder is None:
        return None
    raise UserError(
        f"--data {folder} is not the dataset that the models were tested on "
        f"({first.fingerprint[:12]}); give that one. Received: "
        f"{dataset.manifest.fingerprint[:12]}"
    )


def add_artists(results: Sequence[Result], dataset: Dataset) -> list[Result]:
    """Takes the artists of test clips from the dataset, where a model lacks them."""
    incomplete = [
        result
        for result in results
        if result.predictions is not None and not result.predictions.artist_ids
    ]
    if not incomplete:
        return list(results)
    artists = {
        track: artist
        for tracks in read_artists(dataset).values()
        for track, artist in tracks.items()
    }
    completions = []
    for result in results:
        if result in incomplete and result.predictions is not None:
            predictions = with_artists(result.predictions, artists)
            of = result.report
            test, _ = judge(task_of(of), [predictions], [of.fit], of.fit, of.paths)
            report = dataclasses.replace(of, test=test)
            result = dataclasses.replace(result, report=report, predictions=predictions)
        completions.append(result)
    return completions


def make_media(
    clips: Sequence[HardClip], dataset: Dataset | None, audio: Sequence[str]
) -> Media:
    """Pictures of clips from the dataset, and their sounds from local files.

    Raises:
      UserError: there are no such audio files.
    """
    tracks = {clip.track_id for clip in clips}
    images = {}
    if dataset is not None and "mel" in dataset.manifest.representations:
        values_by_track = find_values(dataset, "mel", tracks)
        images = {
            track: clip_picture(values) for track, values in values_by_track.items()
        }
    sounds = {}
    if audio:
        sounds = sound_uris(find_audio(audio, tracks))
    return Media(images=images, sounds=sounds)


def _gather(
    clips: Sequence[HardClip], dataset: Dataset | None, audio: Sequence[str]
) -> tuple[DataFacts | None, Media]:
    """What the report shows of a dataset, and pictures and sounds of clips."""
    facts = None if dataset is None else read_facts(dataset)
    return facts, make_media(clips, dataset, audio)


def write_comparison(
    folder: str,
    comparison: Comparison,
    *,
    dataset: Dataset | None = None,
    audio: Sequence[str] = (),
    command: str = "",
    created: str = "",
) -> list[str]:
    """Writes the report's files; returns their paths.

    Args:
      folder: local or remote.
      comparison: the models.
      dataset: shown in the report, where it is at hand.
      audio: folders, ZIPs and globs of audio files that the report plays.
      command: see `trainer.compare.html.page.format_page`.
      created: likewise.

    Raises:
      UserError: the folder cannot be written to, or a file in it is not ours.
    """
    reports = comparison.reports
    evaluations = [report.test for report in reports]
    labels = comparison.labels
    title = f"{reports[0].test.clips} test clips, {len(reports[0].test.genres)} genres"
    clips = find_hard_clips(comparison)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        # Waits for native code: reads records, decodes and encodes sounds.
        shown = thread.submit(_gather, clips, dataset, audio)
        scores = plots.comparison_png(evaluations, labels, title)
        pictures = comparison.view.pictures(reports, labels)
        facts, media = shown.result()
    page = format_page(
        comparison,
        data=facts,
        hard_clips=clips,
        media=media,
        command=command,
        created=created,
    )
    contents = {
        HTML_FILE: page.encode(),
        COMPARISON_FILE: comparison_json(comparison).encode(),
        MARKDOWN_FILE: format_markdown(comparison).encode(),
        SCORES_FILE: scores,
        **pictures,
    }
    return write_files(folder, contents)


def add_ensemble(
    results: Sequence[Result], folder: str, most: int
) -> tuple[list[Result], str]:
    """Scores the mean of the best few models and keeps it, where that can be.

    Args:
      results: of the models in `folder`.
      folder: of the models; gets `ensemble/`.
      most: members at most.

    Returns:
      `results` and the ensemble's; and what is to be said about it.
    """
    scored = score_ensemble(results, folder, most)
    if isinstance(scored, str):
        return list(results), scored
    try:
        write_ensemble(scored, folder)
    except UserError as error:
        return [*results, scored], f"The ensemble is not kept: {error}"
    return [*results, scored], ""


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "compare",
        description="Compare the models trained on one dataset: a table, and a report "
        "in one HTML file.",
        examples=[
            "compare --models models",
            "compare --models models --data dataset --audio music --output report",
        ],
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument(
        "--models",
        required=True,
        help="folder that holds a folder with report.json for each model",
    )
    outputs = parser.add_argument_group("output")
    outputs.add_argument(
        "--output",
        metavar="REPORT_DIR",
        help="where to write the report (default: the folder above --models)",
    )
    inputs.add_argument(
        "--data",
        metavar="DATASET",
        help="the dataset, for counts and pictures (default: where the models were "
        "trained from, if it is still there)",
    )
    inputs.add_argument(
        "--audio",
        default=[],
        nargs="+",
        action="extend",
        type=drop_scheme,
        metavar="GLOB",
        help="audio files, as for preprocess: the report plays parts of the clips that "
        "models get most wrong",
    )
    outputs.add_argument(
        "--ensemble",
        type=int,
        default=MEMBERS,
        metavar="N",
        help="score the mean of the best models, N at most, which are chosen on the "
        "validation split or within the folds, and keep it in MODELS/ensemble; 0 for "
        "none (default: %(default)s)",
    )
    add_progress_flags(parser)
    return parser


def compare(args: argparse.Namespace, reporter: Reporter) -> None:
    """Prints the table and writes the report.

    Args:
      args: of `make_parser`.
      reporter: is told the outcome.

    Raises:
      UserError: the models cannot be compared, or the report cannot be written.
    """
    folder = args.models.rstrip("/") or "/"
    output = args.output or os.path.dirname(folder) or "."
    if args.ensemble < 0 or args.ensemble == 1:
        raise UserError(
            f"--ensemble must be 2 or more, or 0 for none. Received: {args.ensemble}"
        )
    require_credentials([folder, output, args.data])
    results = [
        result for result in read_results(folder) if result.report.model != TITLE
    ]
    check_comparable([result.report for result in results], folder)
    check_output(output)
    if args.ensemble:
        check_folder(folder)
    dataset = find_dataset([result.report for result in results], args.data)
    if dataset is not None:
        results = add_artists(results, dataset)
    remark = ""
    if args.ensemble:
        results, remark = add_ensemble(results, folder, args.ensemble)
    comparison = make_comparison(results, folder)
    reporter.result(format_text(comparison))
    if remark:
        reporter.note(one_line(remark))
    for path in write_comparison(
        output,
        comparison,
        dataset=dataset,
        audio=args.audio,
        command=command_line(args),
        created=datetime.date.today().isoformat(),
    ):
        reporter.detail(f"wrote {one_line(path)}")
    if dataset is None:
        reporter.note(
            "The dataset is not at hand: with --data, the report shows it too."
        )
    page = os.path.join(output, HTML_FILE)
    if "://" not in page:  # Terminals open an address with a click.
        page = Path(page).absolute().as_uri()
    reporter.finish(f"Report: {page}", ["report", output], *find_use(comparison))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    allow_any_text()
    args = make_parser().parse_args(argv)
    reporter = take_reporter(args)
    try:
        compare(args, reporter)
    except UserError as error:
        print_error(error)
        return 2
    return 0


def command_line(args: argparse.Namespace) -> str:
    """The command that these flags came from."""
    words = []
    for name, value in vars(args).items():
        if value not in (None, []) and (name, value) != ("ensemble", MEMBERS):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, values)]
    return shlex.join(["./launch.sh", "compare", *words])


if __name__ == "__main__":
    sys.exit(main())

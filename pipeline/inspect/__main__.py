"""Says what is in a dataset: `./launch.sh inspect --help`."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.common.credentials import require_credentials
from pipeline.common.files import beam_files
from pipeline.common.owned_kinds import CROISSANT, PARQUET, PICTURE
from pipeline.common.ownership import check_file
from pipeline.common.plain_text import align, one_line, print_error, quantity
from pipeline.common.progress import Reporter
from pipeline.common.progress.command_line import CommandParser
from pipeline.inspect import reading
from pipeline.schema import MULTI_LABEL, SPLITS, Manifest, UserError

#: Seconds between lines of progress.
PROGRESS_SECONDS = 5.0
#: Contradicting labels that are named.
MOST_NAMED = 20
_COLUMNS = ("mean", "min", "p5", "median", "p95", "max")


def describe(
    manifest: Manifest,
    report: Mapping[str, Any],
    rejects: Mapping[tuple[str, str], int],
    clips: Sequence[Mapping[str, Any]],
    *,
    completed: bool,
) -> str:
    """A dataset in tables.

    Args:
      manifest: of the dataset.
      report: of the job; empty if it is not kept.
      rejects: numbers by stage and reason.
      clips: what is known of each clip.
      completed: whether the completion marker fits the manifest.
    """
    parts = [_describe_whole(manifest, completed=completed)]
    genres = [
        [
            " > ".join(manifest.genre_path(genre)),
            *(f"{manifest.clips[split].get(genre, 0):,}" for split in SPLITS),
        ]
        for genre in manifest.genres
    ]
    totals = [manifest.clip_totals[split] for split in SPLITS]
    genres.append(["all", *(f"{total:,}" for total in totals)])
    parts.append(align(["clips", *SPLITS], genres))
    representations = [
        [
            name,
            f"{schema.value.dtype} {'x'.join(map(str, schema.value.shape))}",
            *(f"{manifest.records[name][split]:,}" for split in SPLITS),
            f"{manifest.record_bytes.get(name, 0) / 1e6:,.1f} MB",
        ]
        for name, schema in sorted(manifest.representations.items())
    ]
    parts.append(align(["records", "value", *SPLITS, "size"], representations))
    if rejects:
        rows = [
            [reason, stage, f"{count:,}"]
            for (stage, reason), count in sorted(rejects.items())
        ]
        parts.append(align(["rejects", "stage", "inputs"], rows))
    if clips:
        decoders = collections.Counter(str(clip.get("decoder")) for clip in clips)
        rows = [[name, f"{count:,}"] for name, count in sorted(decoders.items())]
        parts.append(align(["decoder", "clips"], rows))
    distributions = {
        label: report.get(key, {})
        for label, key in (
            ("to decode (ms)", "decode_ms"),
            ("to compute the records (ms)", "feature_ms"),
        )
    }
    if clips:
        lengths = [clip.get("seconds") for clip in clips]
        seconds = sorted(float(s) for s in lengths if isinstance(s, int | float))
        if seconds:
            length = {"length of the file (s)": _distribute(seconds)}
            distributions = length | distributions
    rows = [
        [label, *(f"{numbers[column]:,.1f}" for column in _COLUMNS)]
        for label, numbers in distributions.items()
        if isinstance(numbers, dict)
        and all(isinstance(numbers.get(c), int | float) for c in _COLUMNS)
    ]
    if rows:
        parts.append(align(["of a clip", *_COLUMNS], rows))
    parts.append(_describe_leaks(manifest))
    return "\n\n".join(parts)


def _distribute(ordered: Sequence[float]) -> dict[str, float]:
    """The columns of a distribution, of values in ascending order."""
    last = len(ordered) - 1
    shares = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    quantiles = {name: ordered[round(share * last)] for name, share in shares.items()}
    return quantiles | {"mean": sum(ordered) / len(ordered)}


def _describe_whole(manifest: Manifest, *, completed: bool) -> str:
    count = manifest.inputs.get
    others = count("files_not_audio", 0)
    lines = [
        f"{quantity(count('total', 0), 'input')}: "
        f"{quantity(count('clips', 0), 'clip')} in the records, "
        f"{quantity(count('rejects', 0), 'reject')}."
        + f" {quantity(others, 'file')} beside them without audio."
        * bool(others),
        f"{quantity(len(manifest.genres), 'genre')}{_count_labels(manifest)}, "
        f"{quantity(manifest.num_shards, 'shard')} a split.",
        f"Split: {one_line(manifest.split_rule)}.",
        f"Fingerprint: {manifest.fingerprint[:16]}.",
    ]
    if not completed:
        lines.append("NOT COMPLETED: the job did not finish; do not use it.")
    return "\n".join(lines)


def _count_labels(manifest: Manifest) -> str:
    """How many genres a clip has, where it may have several."""
    if manifest.task != MULTI_LABEL:
        return ""
    labels = sum(sum(counts.values()) for counts in manifest.clips.values())
    clips = sum(manifest.clip_totals.values())
    return f", {labels / max(clips, 1):.1f} a clip on average"


def _describe_leaks(manifest: Manifest) -> str:
    lines = []
    for what, leaks in (
        ("artists", manifest.artists_in_several_splits),
        ("audio", manifest.audio_in_several_splits),
    ):
        if leaks:
            lines.append(f"In several splits, {what}: {one_line('; '.join(leaks))}.")
        else:
            lines.append(f"In several splits, {what}: none.")
    return "\n".join(lines)


def count_rejects(folder: str) -> dict[tuple[str, str], int]:
    """Numbers of rejects by stage and reason."""
    rejects = reading.read_rejects(folder)
    return dict(
        collections.Counter(
            (str(r.get("stage")), str(r.get("reason"))) for r in rejects
        )
    )


def make_progress(stage: str) -> Callable[[str], None]:
    """A function that prints what it is told of a stage, now and then."""
    last = time.monotonic()

    def show(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            print(f"{stage}: {text}", file=sys.stderr, flush=True)

    return show


def make_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        "inspect",
        description="Says what is in a dataset that pipeline.preprocess has made.",
        examples=[
            "inspect dataset",
            "inspect dataset --verify",
            "inspect dataset --recompute 8",
            "inspect gs://bucket/dataset --picture clips.png",
            "inspect dataset --parquet clips.parquet",
        ],
    )
    inputs = parser.add_argument_group("input")
    inputs.add_argument("dataset", help="folder with manifest.json, local or gs://")
    checks = parser.add_argument_group("checks")
    checks.add_argument(
        "--verify",
        action="store_true",
        help="check every record again; exit code 1 and a list if anything is wrong",
    )
    checks.add_argument(
        "--recompute",
        type=int,
        metavar="N",
        help="make the records of N clips anew from their files with librosa, of as "
        "many genres as can be, and say how far the dataset's are from them; exit code "
        "1 and a list if they are others",
    )
    outputs = parser.add_argument_group("output")
    outputs.add_argument(
        "--picture",
        metavar="PNG",
        help="draw the representations of a few clips as one picture",
    )
    outputs.add_argument(
        "--clips",
        type=int,
        default=4,
        metavar="N",
        help="clips in the picture, of as many genres as can be (default: %(default)s)",
    )
    outputs.add_argument(
        "--parquet",
        metavar="FILE",
        help="write the clips, a row each, with their statistics where the dataset has "
        "them, for pandas, DuckDB or the like; here or on gs://",
    )
    outputs.add_argument(
        "--croissant",
        action="store_true",
        help="describe that table, for catalogues of datasets and their loaders: "
        "FILE.croissant.json in place of FILE.parquet",
    )
    inputs.add_argument(
        "--against",
        metavar="FILE",
        help="say how far the clips' statistics are from those of FMA's features.csv, "
        "or of the ZIP that holds it",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Inspects; returns the exit code."""
    arguments = make_parser().parse_args(argv)
    folder = arguments.dataset
    try:
        require_credentials([folder])
        manifest = reading.read_manifest(folder)
        for flag, count in (
            ("--clips", arguments.clips),
            ("--recompute", arguments.recompute),
        ):
            if count is not None and count < 1:
                raise UserError(f"{flag} must be 1 or more. Received: {count}")
        completed = reading.is_completed(folder, manifest)
        described = None
        if arguments.croissant:
            if not (arguments.parquet or "").lower().endswith(".parquet"):
                raise UserError(
                    "--croissant describes the table of --parquet FILE.parquet. "
                    f"Received: {arguments.parquet}"
                )
            described = f"{arguments.parquet[: -len('.parquet')]}.croissant.json"
        for flag, path, kind in (
            ("--picture", arguments.picture, PICTURE),
            ("--parquet", arguments.parquet, PARQUET),
            ("--croissant", described, CROISSANT),
        ):
            if path:
                require_credentials([path])
                check_file(beam_files(path), path, kind, flag=flag)
        print(
            describe(
                manifest,
                reading.read_report(folder),
                count_rejects(folder),
                list(reading.read_clips(folder)),
                completed=completed,
            ),
            flush=True,
        )
        if arguments.picture:
            # Imports matplotlib.
            from pipeline.inspect.picture import draw_dataset, write_picture

            figure = draw_dataset(folder, manifest, arguments.clips)
            write_picture(figure, arguments.picture, flag="--picture")
            print(f"\nPicture: {one_line(arguments.picture)}")
        if arguments.parquet:
            # Imports pyarrow.
            from pipeline.inspect.table import write_parquet

            table = arguments.parquet
            rows, data = write_parquet(folder, manifest, table, flag="--parquet")
            print(f"\nTable: {one_line(table)}, {quantity(rows, 'clip')}")
            if described is not None:
                from pipeline.inspect.croissant import write_croissant

                write_croissant(described, manifest, table, data, flag="--croissant")
                print(f"Described: {one_line(described)}")
        if arguments.against:
            # Imports Beam.
            from pipeline.inspect.against import describe_distances

            print(f"\n{describe_distances(folder, manifest, arguments.against)}")
        code = 0
        if arguments.recompute:
            code = _recompute(folder, manifest, arguments.recompute)
    except UserError as error:
        print_error(error)
        return 2
    if arguments.verify:
        code = max(code, _verify(folder, manifest))
    if completed and not code:
        unverified = [] if arguments.verify else [["inspect", folder, "--verify"]]
        Reporter().finish([], ["train", "--data", folder], *unverified, aside=True)
    return code


def _recompute(folder: str, manifest: Manifest, count: int) -> int:
    # Imports librosa.
    from pipeline.inspect.recompute import recompute

    result = recompute(folder, manifest, count, make_progress("recompute"))
    if result.clips:
        print(f"\n{quantity(result.clips, 'clip')} made anew from the audio.")
        print(f"\n{result.describe()}")
    if result.problems:
        print("\nWrong:")
        for problem in result.problems:
            print(f"  {one_line(problem)}")
    return 1 if result.problems else 0


def _verify(folder: str, manifest: Manifest) -> int:
    from pipeline.inspect.verify import verify_dataset

    result = verify_dataset(folder, manifest, make_progress("verify"))
    repeated = ""
    if result.repeated_audio:
        repeated = (
            f" {result.repeated_audio:,} clips repeat the audio of another clip of "
            "their split."
        )
    for tracks in result.contradictions[:MOST_NAMED]:
        repeated += (
            f"\nThe same recording is there under several genres: {one_line(tracks)}."
        )
    unchecked = ""
    if manifest.split is None:
        unchecked = (
            " The manifest does not say how to work splits out; that was not checked."
        )
    files, records = quantity(result.files, "file"), quantity(result.records, "record")
    checked = f"{files}, {records} checked."
    if not result.problems:
        leaking = manifest.artists_in_several_splits or manifest.audio_in_several_splits
        but = " but the leaks above, kept on purpose" if leaking else ""
        print(f"\nVerified: {checked} Nothing is wrong{but}.{repeated}{unchecked}")
        return 0
    print(f"\n{checked}{repeated}{unchecked} Wrong:")
    for problem in result.problems:
        print(f"  {one_line(problem)}")
    return 1


if __name__ == "__main__":
    sys.exit(main())

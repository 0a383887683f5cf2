"""What a job tells people: its inputs, its outcome, its errors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from typing import Any

from pipeline.common.storage import WriteError
from pipeline.common.text_table import align
from pipeline.inputs.survey import Inputs
from pipeline.job.checks import IncompleteDatasetError
from pipeline.job.config import JobConfig
from pipeline.schema import SPLITS, Manifest
from pipeline.shards.result import DatasetConfig
from pipeline.shards.resume import SupersededError

#: What helps after an interruption.
GO_ON = "run the same command again to go on; finished shards are kept."
#: What a job raises to tell people, not programmers.
_FAILURES = (IncompleteDatasetError, SupersededError, WriteError)
_DISK_FULL = os.strerror(errno.ENOSPC)


def describe_inputs(inputs: Inputs, job: JobConfig) -> str:
    """Two lines on what a job is about to do."""
    size = sum(file.size for file in inputs.clips) / 1e6
    leaking = ""
    if inputs.leaking_artists:
        leaking = (
            f"\n{inputs.leaking_artists} artists are in several splits; their clips "
            + (
                "stay there, which makes scores too high (--leaks keep)."
                if job.leaks == "keep"
                else "stay in one of them, test before validation before training "
                "(--leaks drop)."
            )
        )
    return (
        f"{inputs.files} audio files, {inputs.tracks} wanted tracks; "
        f"{len(inputs.clips)} clips to process ({size:,.0f} MB), "
        f"{len(inputs.genres)} genres.\n"
        f"Split: {job.split.describe()}.{leaking}"
    )


def describe_resumption(finished: int, dataset: DatasetConfig) -> str:
    """What is there from a job that was interrupted."""
    return (
        f"{finished} of {dataset.num_shards} shards are there from a job that did not "
        "end; they are kept where inputs and options are the same."
    )


def describe_integrity(manifest: Manifest) -> str:
    """What was checked of a finished dataset, in a few sentences."""
    inputs, integrity = manifest.inputs, manifest.integrity
    lines = [
        f"Every input is in one place: {inputs['tracks']} tracks and "
        f"{inputs['files']} files are {inputs['clips']} clips, {inputs['rejects']} "
        f"rejects and {inputs['files_not_wanted']} files not wanted."
    ]
    for shared, what in (
        (manifest.artists_in_several_splits, "artists"),
        (manifest.audio_in_several_splits, "recordings"),
    ):
        if shared:
            named = "; ".join(shared[:3]) + ("; ..." if len(shared) > 3 else "")
            lines.append(f"Splits share {what} ({named}): scores will be too high.")
    if len(lines) == 1:
        lines.append(
            f"No artist (of {integrity['artists']}) and no recording (of "
            f"{integrity['audio']}) is in two splits."
        )
    if integrity["audio_with_several_ids"]:
        lines.append(
            f"{integrity['audio_with_several_ids']} recordings are there under several "
            "track ids, within a split."
        )
    return "\n".join(lines)


def make_table(report: Mapping[str, Any]) -> str:
    """The report of `pipeline.job.report.make_report` as text tables."""
    by_genre = report["clips_by_split_and_genre"]
    genres = sorted({genre for counts in by_genre.values() for genre in counts})
    clips = [
        [genre, *(str(by_genre[split].get(genre, 0)) for split in SPLITS)]
        for genre in genres
    ]
    clips.append(["all", *(str(sum(by_genre[split].values())) for split in SPLITS)])
    records = [
        [
            name,
            *(str(counts.get(split, 0)) for split in SPLITS),
            f"{report['record_bytes'].get(name, 0) / 1e6:,.1f} MB",
        ]
        for name, counts in sorted(report["records"].items())
    ]
    parts = [
        align(["clips", *SPLITS], clips),
        align(["records", *SPLITS, "size"], records),
    ]
    kept = report.get("shards", {}).get("kept", 0)
    if kept:
        made = report["shards"]["made"]
        parts.insert(0, f"{kept} shards kept from an earlier run, {made} made.")
    untested = [genre for genre in genres if not by_genre["test"].get(genre)]
    if untested and len(untested) < len(genres):
        parts.append(
            f"No test clip of {', '.join(untested)}: with so few clips, let "
            "cross-validation test all of them (python -m trainer.folds)."
        )
    repeated = report.get("repeated", 0)
    if repeated:
        parts.append(
            f"{repeated} of {report['clips']} clips are shorter than 30 s and were "
            "repeated until they are as long."
        )
    if report["rejects"]:
        reasons = sorted(report["rejects_by_reason"].items())
        rows = [[reason, str(count)] for reason, count in reasons]
        parts.append(align(["rejects", "inputs"], rows))
    columns = ("mean", "min", "p5", "median", "p95", "max")
    times = [
        [label, *(f"{report[key][column]:.1f}" for column in columns)]
        for label, key in (("decode", "decode_ms"), ("features", "feature_ms"))
        if report[key]["count"]
    ]
    parts.append(align(["ms a clip", *columns], times))
    return "\n\n".join(parts)


def explain_failure(error: BaseException) -> str | None:
    """What to tell people of an error; None where they need the traceback."""
    for kind in _FAILURES:
        message = find_message(error, kind)
        if message is not None:
            return message if kind is not WriteError else f"{message} Then {GO_ON}"
    if _DISK_FULL in str(error):
        return f"{_DISK_FULL}. Make room, then {GO_ON}"
    return None


def find_message(error: BaseException, kind: type[Exception]) -> str | None:
    """The message of an error of `kind` inside what a runner raises.

    In this process a runner raises the error itself, with the step appended;
    from a worker process it raises a RuntimeError that quotes the traceback.
    """
    name = re.escape(f"{kind.__module__}.{kind.__qualname__}: ")
    quoted = re.search(rf"{name}(.*)", str(error))
    message = quoted[1] if quoted else str(error) if isinstance(error, kind) else None
    return message and re.sub(r"( \[while running '.*)?$", "", message, count=1)

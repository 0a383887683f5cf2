"""What a job tells people: its inputs, its outcome, its errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.job import JobConfig
from pipeline.preflight import Inputs
from pipeline.schema import SPLITS
from pipeline.tables import align


def describe_inputs(inputs: Inputs, job: JobConfig) -> str:
    """Two lines on what a job is about to do."""
    size = sum(file.size for file in inputs.clips) / 1e6
    return (
        f"{inputs.files} audio files, {inputs.tracks} wanted tracks; "
        f"{len(inputs.clips)} clips to process ({size:,.0f} MB), "
        f"{len(inputs.genres)} genres.\n"
        f"Split: {job.completion.split_rule}."
    )


def make_table(report: Mapping[str, Any]) -> str:
    """The report of `pipeline.completion.make_report` as text tables."""
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


def find_message(error: BaseException, kind: type[Exception]) -> str | None:
    """The message of an error of `kind` inside what a runner raises.

    In this process a runner raises the error itself, with the step appended;
    from a worker process it raises a RuntimeError that quotes the traceback.
    """
    name = re.escape(f"{kind.__module__}.{kind.__qualname__}: ")
    quoted = re.search(rf"{name}(.*)", str(error))
    message = quoted[1] if quoted else str(error) if isinstance(error, kind) else None
    return message and re.sub(r"( \[while running '.*)?$", "", message, count=1)

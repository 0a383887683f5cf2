"""Is a dataset what it should be, before it is called complete?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.job.audit import AuditResult
from pipeline.representations import make_schemas
from pipeline.schema import CLIPS_FOLDER
from pipeline.schema.readers import READER_FILES
from pipeline.shards.finish import clips_file
from pipeline.shards.result import DatasetConfig, ShardReport


class IncompleteDatasetError(Exception):
    """The job ran, but what it made must not be trained on."""


def check_yield(
    report: Mapping[str, Any], max_reject_ratio: float, rejects: str
) -> None:
    """Refuses a dataset that is empty or lost too much.

    Args:
      report: of the job.
      max_reject_ratio: share of audio files that may fail to decode.
      rejects: path of their list.

    Raises:
      IncompleteDatasetError: says what and how to go on.
    """
    clips = report["clips"]
    failed = report["rejects_by_stage"].get("decode", 0)
    reasons = ", ".join(
        f"{count} {reason}"
        for reason, count in sorted(report["rejects_by_reason"].items())
    )
    where = f"see {rejects}"
    if not clips:
        raise IncompleteDatasetError(
            f"No clip could be used ({reasons or 'no inputs'}); {where}."
        )
    ratio = failed / (clips + failed)
    if ratio > max_reject_ratio:
        raise IncompleteDatasetError(
            f"{failed} of {clips + failed} audio files could not be used "
            f"({reasons}), a share of {ratio:.2f}; {where}, or raise "
            f"--max_reject_ratio. Received: {max_reject_ratio:g}"
        )
    if not report["clips_by_split"]["training"]:
        lost = f" ({reasons}; {where})" * bool(reasons)
        raise IncompleteDatasetError(
            f"None of the {clips} clips is in the training split{lost}, so there is "
            "nothing to train on; add clips, or give training a larger share with "
            "--split hash --split_percent."
        )


def check_audit(
    report: Mapping[str, Any], audit: AuditResult, dataset: DatasetConfig
) -> None:
    """Refuses a dataset that lost or doubled an input, or a record of a clip.

    Raises:
      IncompleteDatasetError: names what does not add up.
    """
    problems = list(audit.problems)
    clips = audit.counts.get("clips", 0)
    if clips != report["clips"]:
        problems.append(f"{report['clips']} clips were written, {clips} are known")
    schemas = make_schemas(dataset.representations, dataset.clip)
    for name, schema in schemas.items():
        for split, clip_count in report["clips_by_split"].items():
            expected = clip_count * schema.records_per_clip
            records = report["records"].get(name, {}).get(split, 0)
            if records != expected:
                problems.append(
                    f"{name} has {records} records in {split} in place of {expected}"
                )
    if problems:
        raise IncompleteDatasetError(
            "Not every input is in exactly one place, which is a fault of this "
            f"program: {'; '.join(problems)}. Nothing was completed in "
            f"{dataset.output}."
        )


def check_files(reports: Sequence[ShardReport], dataset: DatasetConfig) -> None:
    """Makes sure that all files are there as they were written, and no others.

    Raises:
      IncompleteDatasetError: names those that are not.
    """
    expected = {
        path: file.size for report in reports for path, file in report.files.items()
    }
    sizes = {
        f"{name}/{path}": size
        for name in dataset.representations
        for path, size in storage.list_sizes(join(dataset.output, name)).items()
        # What an earlier attempt of this step may have left.
        if path not in READER_FILES
    }
    lists = {clips_file(report.shard, dataset.num_shards) for report in reports}
    folder = join(dataset.output, CLIPS_FOLDER)
    listed = {f"{CLIPS_FOLDER}/{path}" for path in storage.list_sizes(folder)}
    wrong = sorted(
        {path for path in expected | sizes if expected.get(path) != sizes.get(path)}
        | (lists ^ listed)
    )
    if wrong:
        raise IncompleteDatasetError(
            f"{len(wrong)} files in {dataset.output} are missing, of another size, or "
            f"not of this job: {', '.join(wrong[:5])}. Did something else write there? "
            "Run the job again, in a folder of its own."
        )

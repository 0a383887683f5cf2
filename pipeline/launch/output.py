"""What can be found out, and refused, before a job starts."""

from __future__ import annotations

from pipeline.common import storage
from pipeline.job import complete
from pipeline.representations import NAMES
from pipeline.schema import (
    CLIPS_FOLDER,
    COMPLETED_FILE,
    JOB_REPORT_FILE,
    MANIFEST_FILE,
    REJECTS_FILE,
    SPLITS,
    UserError,
    shard_file,
)
from pipeline.shards import resume
from pipeline.shards.result import DatasetConfig

#: Folders and files of a dataset beside its shards; those that end a job again.
_FOLDERS = (
    CLIPS_FOLDER,
    "transform_fn",
    "transform_tmp",
    "transformed_metadata",
    storage.TEMPORARY_FOLDER,
)
_FILES = (
    MANIFEST_FILE,
    REJECTS_FILE,
    JOB_REPORT_FILE,
    complete.UNFINISHED + MANIFEST_FILE,
    complete.UNFINISHED + COMPLETED_FILE,
)


def check_not_completed(output: str) -> None:
    """Refuses a folder that holds a completed dataset.

    Raises:
      UserError: it does.
    """
    if storage.exists(storage.join(output, COMPLETED_FILE)):
        raise UserError(
            "--output already holds a completed dataset; give another folder, or "
            f"--overwrite to replace it. Received: {output}"
        )


def prepare_output(dataset: DatasetConfig, *, overwrite: bool) -> int:
    """Makes the dataset folder, without what an earlier job left half done.

    Shards that an unfinished job finished stay, so that those which are still what
    this job would make need not be made again.

    Args:
      dataset: names the folder and its layout.
      overwrite: replace a completed dataset, and keep nothing of an unfinished one.

    Returns:
      Number of shards that stay.

    Raises:
      UserError: the folder holds a completed dataset and `overwrite` is not set, or
        its name has wildcards.
    """
    output = dataset.output
    for flag, folder in (("--output", output), ("--wav_output", dataset.wav_output)):
        if set("*?[]") & set(folder):
            raise UserError(
                f"{flag} must not contain any of * ? [ ], which stand for other names "
                f"on some file systems. Received: {folder}"
            )
    if overwrite:
        # First, so that a half-deleted dataset is not taken for a whole one.
        storage.delete(storage.join(output, COMPLETED_FILE))
    else:
        check_not_completed(output)
    # From here on, no job that began earlier writes to the folder.
    resume.begin_run(dataset)
    for name in _FILES:
        storage.delete(storage.join(output, name))
    for folder in _FOLDERS:
        storage.delete_tree(storage.join(output, folder))
    finished = [] if overwrite else resume.list_finished(dataset)
    kept = {f"{resume.PROGRESS_FOLDER}/{resume.RUN_FILE}"}
    for shard in finished:
        kept.add(resume.result_file(shard, dataset.num_shards))
        kept |= {
            shard_file(name, split, shard, dataset.num_shards)
            for name in dataset.representations
            for split in SPLITS
        }
    for folder in (*NAMES, resume.PROGRESS_FOLDER):
        storage.delete_others(output, folder, kept)
    for name in (*dataset.representations, CLIPS_FOLDER, storage.TEMPORARY_FOLDER):
        storage.make_folder(storage.join(output, name))
    return len(finished)

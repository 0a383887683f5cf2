"""Before a labelling job: its configuration, its output folder; after it: a table."""

from __future__ import annotations

import argparse
import json
import uuid
from typing import Any

from pipeline.common import gcs, ownership, storage
from pipeline.common.files import beam_files
from pipeline.common.owned_kinds import LABELS, MARK_FILE
from pipeline.common.plain_text import align, one_line
from pipeline.inputs.audio_files import match_audio
from pipeline.inputs.join import AudioFile
from pipeline.launch.output import check_name, check_not_matched, name_stored
from pipeline.schema import COMPLETED_FILE, JOB_REPORT_FILE, REJECTS_FILE, UserError
from pipeline.shards import resume, runs
from trainer.predict.audio import find_paths
from trainer.predict.label.config import (
    LABELS_FILE,
    LABELS_FOLDER,
    LabelConfig,
    fingerprint_code,
    suggest_shards,
)
from trainer.predict.label.shards import rows_file
from trainer.predict.protocol import Predictor

_KINDS = ("jsonl", "parquet")


def make_config(
    flags: argparse.Namespace, predictor: Predictor
) -> tuple[LabelConfig, list[AudioFile]]:
    """Checks the flags against the inputs.

    Args:
      flags: of `label.__main__.make_parser`.
      predictor: what `--model` names.

    Returns:
      The job, and the files that it will read.

    Raises:
      UserError: the job would make no sense.
    """
    gcs.check_readable([flags.audio, flags.output])
    check_name("--output", flags.output)
    ownership.check_folder(beam_files(flags.output), flags.output, LABELS)
    files = match_audio(flags.audio)
    shards = flags.num_shards
    config = LabelConfig(
        audio=flags.audio,
        output=flags.output,
        models=tuple(flags.model),
        fingerprint=predictor.fingerprint,
        genres=predictor.genres,
        thresholds=tuple(predictor.thresholds or ()),
        paths=tuple(find_paths(predictor)) if predictor.thresholds else (),
        excerpts=flags.excerpts,
        top=flags.top,
        by_excerpt=flags.by_excerpt,
        embeddings=flags.embeddings,
        num_shards=suggest_shards(len(files)) if shards is None else shards,
        tools=fingerprint_code(),
        run=uuid.uuid4().hex,
    )
    completed = storage.exists(storage.join(flags.output, COMPLETED_FILE))
    if completed and not flags.overwrite:
        raise UserError(
            "--output already holds the labels of a completed job; give another "
            f"folder, or --overwrite to replace them. Received: {flags.output}"
        )
    stored = dict.fromkeys(name_stored(file.path) for file in files)
    read = [("--audio", path) for path in stored]
    read += [("--model", folder) for folder in flags.model]
    ownership.check_apart(flags.output, read)
    names = [LABELS_FILE, COMPLETED_FILE, MARK_FILE, JOB_REPORT_FILE, REJECTS_FILE]
    names += [rows_file(0, config.num_shards, kind) for kind in _KINDS]
    check_not_matched(flags.audio, "--output", flags.output, names)
    return config, files


def prepare_output(config: LabelConfig, *, overwrite: bool) -> int:
    """Takes over the folder, without what an earlier job left half done.

    Args:
      config: of the job.
      overwrite: replace the labels of a completed job.

    Returns:
      The number of shards that stay, of an unfinished job.

    Raises:
      UserError: the folder is not ours, or cannot be written to.
      SupersededError: another job has completed it meanwhile, or is about to.
    """
    folder = config.output
    files = beam_files(folder)
    ownership.check_folder(files, folder, LABELS)
    try:
        storage.make_folder(folder)
        with runs.locked(folder):
            ownership.check_folder(files, folder, LABELS)
            if storage.exists(storage.join(folder, COMPLETED_FILE)) and not overwrite:
                raise runs.SupersededError(runs.describe(folder))
            ownership.claim(files, folder, LABELS)
            runs.begin_run(config)
            finished = list_finished(config)
            kept = {f"{runs.PROGRESS_FOLDER}/{runs.RUN_FILE}"}
            for shard in finished:
                kept.add(resume.result_file(shard, config.num_shards))
                kept |= {rows_file(shard, config.num_shards, kind) for kind in _KINDS}
            ownership.remove(files, folder, LABELS, keep=kept)
            for name in (LABELS_FOLDER, storage.TEMPORARY_FOLDER):
                storage.make_folder(storage.join(folder, name))
            return len(finished)
    except storage.STORE_ERRORS as error:
        raise UserError(
            f"--output cannot be written to: {storage.explain(error)}. Received: "
            f"{folder}"
        ) from error


def list_finished(config: LabelConfig) -> list[int]:
    """Shards that earlier runs finished, with whatever files and options."""
    names = storage.list_sizes(storage.join(config.output, runs.PROGRESS_FOLDER))
    known = {f"{runs.PROGRESS_FOLDER}/{name}" for name in names}
    return [
        shard
        for shard in range(config.num_shards)
        if resume.result_file(shard, config.num_shards) in known
    ]


def describe_result(output: str) -> str:
    """What a finished job made, in tables."""
    summary: dict[str, Any] = json.loads(
        storage.read_text(storage.join(output, LABELS_FILE))
    )
    inputs = summary["inputs"]
    parts = [
        f"Every file is in one place: {inputs['files']:,} files are "
        f"{inputs['songs']:,} songs, {inputs['rejects']:,} rejects and "
        f"{inputs['not_audio']:,} that are no audio."
    ]
    songs = sorted(summary["songs"].items(), key=lambda item: -item[1])
    rows = [[one_line(genre), f"{count:,}"] for genre, count in songs if count]
    parts.append(align(["genre", "songs"], rows))
    if summary["rejects"]:
        rows = [[reason, f"{count:,}"] for reason, count in summary["rejects"].items()]
        parts.append(align(["rejects", "files"], rows))
    return "\n\n".join(parts)

"""Before a labelling job: its configuration, its output folder; after it: a table."""

from __future__ import annotations

import argparse
import json
import uuid
from typing import Any

from pipeline.common import gcs, ownership, storage
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import LABELS, MARK_FILE
from pipeline.common.plain_text import align, one_line
from pipeline.inputs.audio_files import match_audio
from pipeline.inputs.join import AudioFile
from pipeline.launch.output import (
    check_name,
    check_not_matched,
    name_stored,
    take_over,
)
from pipeline.schema import COMPLETED_FILE, JOB_REPORT_FILE, REJECTS_FILE, UserError
from pipeline.shards import runs
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
    gcs.check_readable([*flags.audio, flags.output])
    check_name("--output", flags.output)
    ownership.check_folder(beam_files(flags.output), flags.output, LABELS)
    files = match_audio(*flags.audio)
    shards = flags.num_shards
    config = LabelConfig(
        audio=tuple(flags.audio),
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
    completed = storage.exists(join(flags.output, COMPLETED_FILE))
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
    names += [f"{runs.NEXT_FOLDER}/{name}" for name in names]
    for pattern in flags.audio:
        check_not_matched(pattern, "--output", flags.output, names)
    return config, files


def prepare_output(config: LabelConfig, *, overwrite: bool) -> tuple[LabelConfig, int]:
    """Takes over the output folder, see `pipeline.launch.output.take_over`."""
    return take_over(
        config,
        LABELS,
        overwrite=overwrite,
        list_files=lambda shard: [
            rows_file(shard, config.num_shards, kind) for kind in _KINDS
        ],
        folders=[LABELS_FOLDER],
    )


def describe_result(output: str) -> str:
    """What a finished job made, in tables."""
    summary: dict[str, Any] = json.loads(storage.read_text(join(output, LABELS_FILE)))
    inputs = summary["inputs"]
    parts = [
        f"Every file is in one place: {inputs['files']:,} files are "
        f"{inputs['songs']:,} songs, {inputs['rejects']:,} rejects and "
        f"{inputs['not_audio']:,} that are no audio."
    ]
    songs = sorted(summary["songs"].items(), key=lambda item: -item[1])
    songs.append(("(none)", summary.get("songs_without_genre", 0)))
    rows = [[one_line(genre), f"{count:,}"] for genre, count in songs if count]
    parts.append(align(["genre", "songs"], rows))
    if summary["rejects"]:
        rows = [[reason, f"{count:,}"] for reason, count in summary["rejects"].items()]
        parts.append(align(["rejects", "files"], rows))
    return "\n\n".join(parts)

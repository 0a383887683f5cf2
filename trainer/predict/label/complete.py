"""The end of a labelling job: rejects, summary, report and, last, the marker."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.owned_kinds import LABELS
from pipeline.job.checks import IncompleteDatasetError
from pipeline.schema import COMPLETED_FILE, JOB_REPORT_FILE, REJECTS_FILE
from pipeline.shards import replace, runs
from trainer.predict.label.config import LABELS_FILE, LABELS_VERSION, LabelConfig
from trainer.predict.label.rows import make_schema
from trainer.predict.label.shards import LabelledShard

#: Problems that are named.
_MOST_NAMED = 5


def complete(
    config: LabelConfig, shards: Sequence[LabelledShard], problems: Sequence[str]
) -> None:
    """Checks what was made and writes the last files, the marker after all others.

    Args:
      config: of the job.
      shards: all of them.
      problems: files that are not in exactly one place.

    Raises:
      IncompleteDatasetError: no file could be used, or one was lost.
      SupersededError: a later run has taken over the folder.
      WriteError: the store does not take the files.
    """
    shards = sorted(shards, key=lambda shard: shard.shard)
    rejects = sorted(reject for shard in shards for reject in shard.rejects)
    summary = summarise(config, shards)
    with runs.completing(config) as done:
        if done:
            return
        _write(config, REJECTS_FILE, "".join(r.to_json() + "\n" for r in rejects))
        report = {
            "run": config.run,
            "shards": {
                "kept": sum(shard.kept for shard in shards),
                "made": sum(not shard.kept for shard in shards),
            },
        }
        _write(config, JOB_REPORT_FILE, json.dumps(report, indent=1) + "\n")
        if problems:
            named = "; ".join(sorted(problems)[:_MOST_NAMED])
            raise IncompleteDatasetError(
                "Not every file is in exactly one place, which is a fault of this "
                f"program: {named}. Nothing was completed in {runs.home(config)}."
            )
        if not summary["inputs"]["songs"]:
            reasons = ", ".join(f"{n} {r}" for r, n in summary["rejects"].items())
            raise IncompleteDatasetError(
                f"No file could be used ({reasons or 'none is audio'}); see "
                f"{join(config.output, REJECTS_FILE)}."
            )
        text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        marker = f"sha256 {LABELS_FILE} {digest}\n"
        replace.publish(config, {LABELS_FILE: text, COMPLETED_FILE: marker}, LABELS)


def summarise(config: LabelConfig, shards: Sequence[LabelledShard]) -> dict[str, Any]:
    """What is in the folder: the same for the same files, options and models."""
    songs = [song for shard in shards for song in shard.songs]
    reasons = collections.Counter(
        str(reject.reason) for shard in shards for reject in shard.rejects
    )
    counts = collections.Counter(genre for _, genres in songs for genre in genres)
    without = sum(not genres for _, genres in songs)
    not_audio = sum(len(shard.not_audio) for shard in shards)
    return {
        "labels_version": LABELS_VERSION,
        "models": list(config.models),
        "model": config.fingerprint,
        "genres": list(config.genres),
        "columns": make_schema(config).names,
        "options": {
            "audio": list(config.audio),
            "excerpts": config.excerpts,
            "top": config.top,
            "by_excerpt": config.by_excerpt,
            "embeddings": config.embeddings,
            "num_shards": config.num_shards,
        },
        "inputs": {
            "files": len(songs) + reasons.total() + not_audio,
            "songs": len(songs),
            "rejects": reasons.total(),
            "not_audio": not_audio,
        },
        # Of several genres a clip, a song counts for each that it is given.
        "songs": {genre: counts[genre] for genre in config.genres},
        **({"songs_without_genre": without} if config.thresholds else {}),
        "rejects": dict(sorted(reasons.items())),
        "seconds": round(sum(shard.seconds for shard in shards), 3),
        "files": {
            name: dataclasses.asdict(file)
            for shard in shards
            for name, file in shard.files.items()
        },
    }


def _write(config: LabelConfig, name: str, text: str) -> None:
    path = join(config.output, name)
    storage.write_atomically(path, text.encode(), scratch=config.output)

"""What a job tells people: its inputs, its outcome, its errors."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.common.credentials import SCHEME
from pipeline.common.plain_text import (
    align,
    explain_no_room,
    find_message,
    one_line,
    quantity,
)
from pipeline.common.storage import WriteError
from pipeline.inputs.assign import name_some
from pipeline.inputs.survey import Inputs, find_similar
from pipeline.job.checks import IncompleteDatasetError
from pipeline.job.config import JobConfig
from pipeline.representations.music_model import MODELS
from pipeline.schema import MULTI_LABEL, SPLITS, Manifest, UserError
from pipeline.shards.runs import SupersededError

#: What helps after an interruption.
GO_ON = "run the same command again to go on; finished shards are kept."
#: What a job raises to tell people, not programmers.
_FAILURES = (IncompleteDatasetError, SupersededError, WriteError, UserError)


def describe_inputs(inputs: Inputs, job: JobConfig) -> str:
    """Two lines on what a job is about to do, and what is odd about its inputs."""
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
    others = f" (and {quantity(inputs.other_files, 'other')})" * bool(
        inputs.other_files
    )
    lines = [
        f"{quantity(inputs.files - inputs.other_files, 'audio file')}{others}, "
        f"{quantity(inputs.tracks, 'wanted track')}; "
        f"{quantity(len(inputs.clips), 'clip')} to process ({size:,.0f} MB), "
        f"{quantity(len(inputs.genres), 'genre')}.",
        f"Split: {job.split.describe()}.{leaking}",
        *_describe_checksums(inputs),
        *_describe_labels_of(inputs),
        *_describe_metadata(inputs),
    ]
    return "\n".join(lines)


def describe_music_model(
    job: JobConfig, representations: Sequence[str] | None
) -> list[str]:
    """A line on the embeddings, where there are any or by default would be.

    Args:
      job: what is to be made.
      representations: what was asked for; None for the defaults.
    """
    dataset = job.dataset
    if dataset.music_weights:
        model = MODELS[dataset.clip.music_model]
        return [f"Embeddings: {model.name} ({model.licence}), from {model.trained_on}."]
    if representations is not None:
        return []
    if dataset.output.startswith(SCHEME):
        return [
            "Without embeddings: workers read the music model's weights from gs://; "
            "copy what ./launch.sh weights fetches there and give --music_model."
        ]
    return [
        "Without embeddings: the music model's weights are not there; "
        "./launch.sh weights fetches them."
    ]


def _describe_checksums(inputs: Inputs) -> Iterator[str]:
    known = sum(bool(file.sha1) for file in inputs.clips)
    if known:
        yield (
            f"The SHA-1 of {known} files is known from the checksums beside them, and "
            "is checked where a file is read whole."
        )


def _describe_labels_of(inputs: Inputs) -> Iterator[str]:
    """Which genres the tracks have, and which are left out."""
    rule = inputs.metadata.labels
    if rule.several:
        which = {
            "all": "every genre that a track has, with its ancestors",
            "leaf": "every genre that a track has, without those above them",
        }
        yield f"Labels: {which[rule.kind]}."
    if inputs.below_top:
        yield (
            f"{inputs.below_top:,} of {inputs.tracks:,} tracks carry no top genre; "
            "--labels all keeps them."
        )
    if inputs.several:
        genre, separator = inputs.several
        flags = "" if rule.several else "--labels all"
        if separator != rule.separator:
            flags += f" --genre_separator {shlex.quote(separator)}"
        yield (
            f"A genre names several ({one_line(genre)}); it counts as one: "
            f"{flags.strip()} takes them apart."
        )
    if inputs.rare:
        named = [f"{genre} ({count})" for genre, count in inputs.rare.items()]
        yield (
            f"Left out by --min_tracks, with the number of their tracks: "
            f"{one_line(', '.join(named))}."
        )


def _describe_metadata(inputs: Inputs) -> Iterator[str]:
    """What the metadata says that can hardly be meant."""
    if inputs.missing:
        near = ""
        if inputs.nearest:
            row, path = next(iter(inputs.nearest.items()))
            near = f" ({one_line(row)}: the nearest is {one_line(path)})"
        yield f"{inputs.missing} tracks find no file{near}; they will be rejected."
    if inputs.without_genre:
        yield (
            f"{inputs.without_genre} tracks have a genre such as nan, which stands for "
            "nothing; they will be rejected."
        )
    for names in find_similar(inputs.genres):
        yield f"These genres differ in case or punctuation alone: {one_line(names)}."
    if inputs.contradictions:
        yield (
            "The metadata gives several genres to the same file: "
            f"{one_line(name_some(inputs.contradictions))}; one row of each is used."
        )


def describe_resumption(finished: int, num_shards: int) -> str:
    """What is there from a job that was interrupted."""
    return (
        f"{finished} of {num_shards} shards are there from a job that did not "
        "end; they are kept where inputs and options are the same."
    )


def describe_integrity(manifest: Manifest) -> str:
    """What was checked of a finished dataset, in a few sentences."""
    inputs, integrity = manifest.inputs, manifest.integrity
    not_audio = inputs.get("files_not_audio", 0)
    others = f"; {not_audio} more are no audio" if not_audio else ""
    lines = [
        f"Every input is in one place: {quantity(inputs['tracks'], 'track')} and "
        f"{quantity(inputs['files'], 'file')} are {quantity(inputs['clips'], 'clip')}, "
        f"{quantity(inputs['rejects'], 'reject')}, "
        f"{quantity(inputs['files_not_wanted'], 'unwanted file')}{others}."
    ]
    for shared, what in (
        (manifest.artists_in_several_splits, "artists"),
        (manifest.audio_in_several_splits, "recordings"),
    ):
        if shared:
            named = "; ".join(shared[:3]) + ("; ..." if len(shared) > 3 else "")
            lines.append(
                f"Splits share {what} ({one_line(named)}): scores will be too high."
            )
    if len(lines) == 1:
        lines.append(
            f"No artist (of {integrity['artists']}) and no recording (of "
            f"{integrity['audio']}) is in two splits."
        )
    if manifest.task == MULTI_LABEL:
        clips = sum(manifest.clip_totals.values())
        labels = sum(sum(counts.values()) for counts in manifest.clips.values())
        lines.append(f"A clip has {labels / max(clips, 1):.1f} genres on average.")
    unused = [
        genre
        for genre in manifest.genres
        if not any(counts.get(genre) for counts in manifest.clips.values())
    ]
    if unused:
        lines.append(
            f"No clip of {one_line(', '.join(unused))} could be used: see the rejects."
        )
    if integrity["audio_with_several_ids"]:
        lines.append(
            f"{integrity['audio_with_several_ids']} recordings are there under several "
            "track ids, within a split."
        )
    return "\n".join(lines)


def summarise(report: Mapping[str, Any]) -> str:
    """The report of `pipeline.job.report.make_report` in a few lines."""
    by_genre = report["clips_by_split_and_genre"]
    genres = {genre for counts in by_genre.values() for genre, n in counts.items() if n}
    splits = ", ".join(f"{report['clips_by_split'][split]} {split}" for split in SPLITS)
    clips = quantity(report["clips"], "clip")
    lines = [f"{clips} of {quantity(len(genres), 'genre')}: {splits}."]
    shards = report.get("shards", {})
    if shards.get("kept"):
        lines.append(_describe_shards(shards))
    if report["rejects"]:
        reasons = sorted(report["rejects_by_reason"].items())
        named = ", ".join(f"{reason} {count}" for reason, count in reasons)
        lines.append(f"{quantity(report['rejects'], 'reject')}: {named}.")
    return "\n".join([*lines, *_describe_labels(report), *_describe_repeated(report)])


def _describe_shards(shards: Mapping[str, int]) -> str:
    kept = quantity(shards["kept"], "shard")
    return f"{kept} kept from an earlier run, {shards['made']} made."


def _describe_repeated(report: Mapping[str, Any]) -> Iterator[str]:
    repeated = report.get("repeated", 0)
    if repeated:
        yield (
            f"{repeated} of {report['clips']} clips are shorter than 30 s and were "
            "repeated until they are as long."
        )


def make_table(report: Mapping[str, Any]) -> str:
    """The report of `pipeline.job.report.make_report` as text tables."""
    by_genre = report["clips_by_split_and_genre"]
    genres = sorted({genre for counts in by_genre.values() for genre in counts})
    clips = [
        [genre, *(str(by_genre[split].get(genre, 0)) for split in SPLITS)]
        for genre in genres
    ]
    clips.append(["all", *(str(report["clips_by_split"][s]) for s in SPLITS)])
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
    shards = report.get("shards", {})
    if shards.get("kept"):
        parts.insert(0, _describe_shards(shards))
    parts += [*_describe_labels(report), *_describe_repeated(report)]
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


def _describe_labels(report: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a model from learning, or from being tested, a line each."""
    by_genre = report["clips_by_split_and_genre"]
    genres = sorted(
        {genre for counts in by_genre.values() for genre, n in counts.items() if n}
    )
    if len(genres) == 1:
        yield (
            f"All clips are of one genre, {one_line(genres[0])}: there is nothing to "
            "tell apart, and training refuses it."
        )
    untrained = [genre for genre in genres if not by_genre["training"].get(genre)]
    if untrained:
        names = one_line(", ".join(untrained))
        yield f"No training clip of {names}: a model cannot learn what it never hears."
    untested = [genre for genre in genres if not by_genre["test"].get(genre)]
    if untested:
        names = one_line(", ".join(untested))
        which = names if len(untested) < len(genres) else "any genre"
        yield (
            f"No test clip of {which}: with so few clips, let cross-validation test "
            "all of them (./launch.sh folds)."
        )
    for tracks in report.get("audio_with_several_genres", ()):
        yield f"The same recording is there under several genres: {one_line(tracks)}."


def explain_failure(error: BaseException) -> str | None:
    """What to tell people of an error; None where they need the traceback."""
    for kind in _FAILURES:
        message = find_message(error, kind)
        if message is not None:
            return message if kind is not WriteError else f"{message} Then {GO_ON}"
    advice = explain_no_room(error)
    return None if advice is None else f"{advice}, then {GO_ON}"

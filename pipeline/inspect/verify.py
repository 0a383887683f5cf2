"""Checks all of a finished dataset again, record by record.

Nothing here trusts the job that wrote it: what is checked is what the files hold.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.common.files import join
from pipeline.common.rejects import ROW_REASONS
from pipeline.inputs.splits import split_by_hash
from pipeline.inspect import reading
from pipeline.inspect.verify_shard import (
    ClipSummary,
    Identity,
    Problems,
    ShardReader,
    TrainingMoments,
)
from pipeline.schema import SINGLE_LABEL, SPLITS, Manifest, UserError
from pipeline.schema.readers import READER_FILES


@dataclasses.dataclass(kw_only=True)
class VerifyResult:
    """What a check finds.

    Attributes:
      problems: sentences; the dataset must not be used if there are any.
      files: number of shard files checked.
      records: number of records checked.
      repeated_audio: clips whose audio another clip of the same split has too.
      contradictions: clips of the same audio and several genres, in words.
    """

    problems: list[str]
    files: int
    records: int
    repeated_audio: int
    contradictions: list[str]


@dataclasses.dataclass(kw_only=True)
class _Content:
    """What the records hold, as far as it is needed to compare them.

    Attributes:
      clips: by track id, from the first representation.
      audio: digest of each clip's values in it.
    """

    clips: dict[str, Identity] = dataclasses.field(default_factory=dict)
    audio: dict[str, bytes] = dataclasses.field(default_factory=dict)


def verify_dataset(
    folder: str, manifest: Manifest, progress: Callable[[str], None]
) -> VerifyResult:
    """Checks every file and every record of a dataset.

    Args:
      folder: of the dataset.
      manifest: as it lies there.
      progress: is told of each file that is done.
    """
    problems = Problems()
    _check_files(folder, manifest, problems)
    content = _Content()
    files = records = 0
    total = len(manifest.representations) * len(SPLITS) * manifest.num_shards
    for number, name in enumerate(_order(manifest)):
        schema = manifest.representations[name]
        counts: collections.Counter[str] = collections.Counter()
        moments = TrainingMoments(schema)
        track_ids: set[str] = set()
        size = 0
        for split in SPLITS:
            for shard in range(manifest.num_shards):
                reader = ShardReader(
                    folder, manifest, schema, split, shard, problems, moments
                )
                for clip in reader.read():
                    track_ids.add(clip.track_id)
                    _compare(clip, number == 0, content, problems)
                counts[split] += reader.records
                records += reader.records
                size += reader.size
                files += 1
                progress(f"{files} of {total} files, {records:,} records")
        _check_counts(name, manifest, counts, size, problems)
        for track_id in sorted(content.clips.keys() - track_ids):
            problems.add("missing clip", f"{name} has no record of clip {track_id}")
        moments.check(manifest, problems)
    _check_clips(manifest, content.clips, problems)
    repeated = _check_leaks(manifest, content, problems)
    listed = _check_list(folder, manifest, content.clips, problems)
    _check_rejects(folder, manifest, content.clips, listed, problems)
    return VerifyResult(
        problems=problems.sentences(),
        files=files,
        records=records,
        repeated_audio=repeated,
        contradictions=_find_contradictions(manifest, content),
    )


def _order(manifest: Manifest) -> list[str]:
    """Representations; first one that tells clips apart by their sound."""
    first = ("windows", "features", "statistics", "mel")
    names = sorted(manifest.representations)
    return sorted(names, key=lambda n: first.index(n) if n in first else len(first))


def _check_files(folder: str, manifest: Manifest, problems: Problems) -> None:
    """Compares the files that are there with those that should be."""
    marker = reading.read_marker(folder)
    if marker is None:
        problems.add("marker", "COMPLETED is missing: the job did not finish")
    elif marker.partition("\n")[0] != manifest.fingerprint:
        problems.add("marker", "COMPLETED is that of another job than manifest.json")
    names = {
        file
        for name in manifest.representations
        for split in SPLITS
        for file in manifest.shard_files(name, split)
    }
    base = len(join(folder, ""))
    paths = {path[base:] for path in reading.list_files(join(folder, "*/*"))}
    shards = {path for path in paths if path.endswith(".tfrecord")}
    for path in sorted(names - shards):
        problems.add("missing file", f"{path} is missing")
    for path in sorted(shards - names):
        problems.add("stray file", f"{path} does not belong to this dataset")
    _check_reader_files(folder, manifest, paths, problems)
    for path in sorted(manifest.files.keys() - names):
        problems.add("manifest", f"the manifest lists {path}, which cannot be")


def _check_reader_files(
    folder: str, manifest: Manifest, paths: Collection[str], problems: Problems
) -> None:
    """Holds what other libraries read against the manifest, where it is there.

    Datasets of versions that did not write it have none.
    """
    expected = manifest.reader_files()
    names = {
        f"{name}/{file}" for name in manifest.representations for file in READER_FILES
    }
    there = names.intersection(paths)
    for path in sorted(expected.keys() - there if there else ()):
        problems.add("missing file", f"{path} is missing")
    for path in sorted(there - expected.keys()):
        problems.add("stray file", f"{path} does not belong to this dataset")
    for path in sorted(there & expected.keys()):
        if reading.read_bytes(join(folder, path)) != expected[path].encode():
            problems.add("reader's file", f"{path} does not fit the manifest")


def _compare(
    clip: ClipSummary, first: bool, content: _Content, problems: Problems
) -> None:
    """Holds a clip's records against those of the representations before."""
    known = content.clips.get(clip.track_id)
    if first:
        if known is not None:
            problems.add(
                "clip twice", f"{clip.where}: clip {clip.track_id} is there twice"
            )
        content.clips[clip.track_id] = clip.identity
        content.audio[clip.track_id] = clip.digest
    elif known is None:
        problems.add(
            "missing clip",
            f"{clip.where}: clip {clip.track_id} is in no other representation",
        )
    elif known != clip.identity:
        problems.add(
            "records disagree",
            f"{clip.where}: clip {clip.track_id} has another split, label, artist or "
            "decoder than in the other representations",
        )


def _check_counts(
    name: str,
    manifest: Manifest,
    counts: Mapping[str, int],
    size: int,
    problems: Problems,
) -> None:
    for split in SPLITS:
        stated = manifest.records.get(name, {}).get(split, 0)
        if counts[split] != stated:
            problems.add(
                "counts",
                f"{name} has {counts[split]:,} {split} records; the manifest says "
                f"{stated:,}",
            )
    if size != manifest.record_bytes.get(name, 0):
        problems.add(
            "counts",
            f"{name} has {size:,} bytes that can be read; the manifest says "
            f"{manifest.record_bytes.get(name, 0):,}",
        )


def _check_clips(
    manifest: Manifest, clips: Mapping[str, Identity], problems: Problems
) -> None:
    """Counts by split and genre, and the rule that assigned the splits."""
    counts = collections.Counter(
        (clip.split, label) for clip in clips.values() for label in clip.labels
    )
    totals = collections.Counter(clip.split for clip in clips.values())
    for split in SPLITS:
        if totals[split] != manifest.clip_totals.get(split, 0):
            problems.add(
                "counts",
                f"{totals[split]:,} clips are in {split}; the manifest says "
                f"{manifest.clip_totals.get(split, 0):,}",
            )
        for label, genre in enumerate(manifest.genres):
            stated = manifest.clips.get(split, {}).get(genre, 0)
            if counts[split, label] != stated:
                problems.add(
                    "counts",
                    f"{counts[split, label]:,} {split} clips are labelled {genre}; the "
                    f"manifest says {stated:,}",
                )
    if manifest.split is None or manifest.split.rule != "hash":
        return
    training, validation, test = manifest.split.percent
    for track_id, clip in sorted(clips.items()):
        split = split_by_hash(clip.artist_id, track_id, (training, validation, test))
        if split != clip.split:
            problems.add(
                "split", f"clip {track_id} is in {clip.split}, its hash says {split}"
            )


def _check_leaks(manifest: Manifest, content: _Content, problems: Problems) -> int:
    """Looks for artists and audio in several splits; counts repeated audio."""
    artists: dict[str, set[str]] = collections.defaultdict(set)
    groups: dict[bytes, list[str]] = collections.defaultdict(list)
    for track_id, clip in content.clips.items():
        if clip.artist_id:
            artists[clip.artist_id].add(clip.split)
        groups[content.audio[track_id]].append(track_id)
    shared = [
        f"artist {artist} is in {_name_splits(splits)}"
        for artist, splits in sorted(artists.items())
        if len(splits) > 1
    ]
    _add_leaks("artists", shared, manifest, problems)
    repeated, same = 0, []
    for tracks in groups.values():
        repeated += len(tracks) - 1
        splits = {content.clips[track_id].split for track_id in tracks}
        if len(splits) > 1:
            same.append(
                f"clips {', '.join(sorted(tracks)[:5])} are the same audio, in "
                f"{_name_splits(splits)}"
            )
    _add_leaks("audio", same, manifest, problems)
    return repeated


def _find_contradictions(manifest: Manifest, content: _Content) -> list[str]:
    """Clips that are the same audio under several genres."""
    groups: dict[bytes, dict[tuple[int, ...], str]] = collections.defaultdict(dict)
    for track_id, clip in sorted(content.clips.items()):
        groups[content.audio[track_id]].setdefault(clip.labels, track_id)
    genres = manifest.genres
    return sorted(
        ", ".join(
            f"{track_id} ({', '.join(genres[label] for label in labels)})"
            for labels, track_id in clips
        )
        for clips in (sorted(group.items()) for group in groups.values())
        if len(clips) > 1
    )


def _add_leaks(
    kind: str, leaks: Sequence[str], manifest: Manifest, problems: Problems
) -> None:
    """Leaks that the manifest counts were left in on purpose (`--leaks keep`)."""
    name = f"{kind}_in_several_splits"
    stated = manifest.integrity.get(name, 0)
    if len(leaks) == stated:
        return
    for sentence in leaks:
        problems.add(f"leak of {kind}", sentence)
    if stated:
        problems.add(
            "manifest",
            f"the manifest says {name}: {stated:,}; there are {len(leaks):,}",
        )


def _check_list(
    folder: str, manifest: Manifest, clips: Mapping[str, Identity], problems: Problems
) -> dict[str, str]:
    """Holds the list of clips, which has the checksums of their audio, against them.

    Returns:
      The ids of the clips, by the paths of their files.
    """
    listed: dict[str, str] = {}
    paths: dict[str, str] = {}
    splits: dict[str, set[str]] = collections.defaultdict(set)
    try:
        for clip in reading.read_clips(folder):
            track_id, split = clip["track_id"], clip["split"]
            splits[clip["audio"]].add(split)
            listed[track_id] = split
            paths[clip["path"]] = track_id
            identity = clips.get(track_id)
            if identity is None:
                continue
            genres = [manifest.genres[label] for label in identity.labels]
            named = [clip["genre"]] if manifest.task == SINGLE_LABEL else clip["genres"]
            stated = (split, named, clip["artist_id"], clip["decoder"])
            if stated != (identity.split, genres, identity.artist_id, identity.decoder):
                problems.add(
                    "list of clips",
                    f"clip {track_id} is listed with another split, genre, artist or "
                    "decoder than its records have",
                )
    except (ValueError, KeyError, TypeError, UserError) as error:
        problems.add("list of clips", f"the list of clips cannot be read: {error!r}")
    for track_id in sorted(clips.keys() - listed.keys()):
        problems.add("list of clips", f"clip {track_id} is not listed in clips/")
    for track_id in sorted(listed.keys() - clips.keys()):
        problems.add("list of clips", f"clip {track_id} is listed, but has no records")
    shared = {audio: names for audio, names in splits.items() if len(names) > 1}
    if len(shared) != manifest.integrity.get("audio_in_several_splits", 0):
        for audio, names in sorted(shared.items()):
            problems.add(
                "leak of audio",
                f"audio {audio} is in {_name_splits(names)}, by the list of clips",
            )
    return paths


def _name_splits(splits: set[str]) -> str:
    return " and ".join(split for split in SPLITS if split in splits)


def _check_rejects(
    folder: str,
    manifest: Manifest,
    clips: Mapping[str, Identity],
    listed: Mapping[str, str],
    problems: Problems,
) -> None:
    """Every input is in one place: the records or the rejects.

    Of an id, another row or file may be in the other one.
    """
    reasons: collections.Counter[str] = collections.Counter()
    try:
        for reject in reading.read_rejects(folder):
            reasons[reject["reason"]] += 1
            track_id = listed.get(reject["path"])
            if track_id is not None and reject["reason"] not in ROW_REASONS:
                problems.add(
                    "in two places",
                    f"clip {track_id} is in the records and in the rejects "
                    f"({reject['reason']})",
                )
    except (ValueError, KeyError, TypeError, UserError) as error:
        problems.add("rejects", f"the rejects cannot be read: {error!r}")
    if dict(reasons) != dict(manifest.rejects):
        problems.add(
            "counts",
            f"the rejects are {dict(sorted(reasons.items()))}; the manifest says "
            f"{dict(sorted(manifest.rejects.items()))}",
        )
    inputs = {"clips": len(clips), "rejects": reasons.total()}
    inputs["total"] = inputs["clips"] + inputs["rejects"]
    for name, count in inputs.items():
        if manifest.inputs.get(name) != count:
            problems.add(
                "counts",
                f"{count:,} inputs ({name}) are there; the manifest says "
                f"{manifest.inputs.get(name)}",
            )

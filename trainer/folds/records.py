"""Datasets of folds: each clip's fold, and the records of a dataset by fold."""

from __future__ import annotations

import collections
import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from pipeline import schema
from trainer.data.clip_list import read_clip_list
from trainer.data.dataset import Dataset
from trainer.data.music_model import read_music_model
from trainer.data.streams import parse_batch, untuned
from trainer.evaluation.card import list_some

_BATCH = 64
#: One to test, the others to train on.
MIN_FOLDS = 2
#: One in so many clips of the folds that train is held out of them, to stop by.
STOPPING = 8
#: Artists (clips, where none is known) of a genre, on average, below which none is:
#: each counts more in training.
MIN_GROUPS_TO_STOP = 10
EMPTY_FILE = schema.ShardFile(records=0, size=0, crc32c="00000000")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FoldedClips:
    """Which fold each clip of a dataset is tested in.

    Attributes:
      track_ids: sorted.
      labels: genres, int64 `(clips,)`; or, of several a clip, uint8 `(clips, genres)`.
      artist_ids: of each clip; empty where it is not known.
      folds: int64 `(clips,)`, from 0.
      stopping: whether a clip is one to stop by, where its fold trains: bool
        `(clips,)`.
      count: number of folds.
      rule: sentence that says how they were made.
      notes: sentences for reports.
    """

    track_ids: tuple[str, ...]
    labels: npt.NDArray[Any]
    artist_ids: tuple[str, ...]
    folds: npt.NDArray[np.int64]
    stopping: npt.NDArray[np.bool_]
    count: int
    rule: str
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """A line on the folds."""
        sizes = np.bincount(self.folds, minlength=self.count).tolist()
        return f"{len(self.track_ids)} clips, {self.rule}; sizes {sizes}"

    @property
    def parts(self) -> npt.NDArray[np.int64]:
        """Part of the records that a clip is in: two a fold, one to stop by."""
        parts: npt.NDArray[np.int64] = 2 * self.folds + self.stopping
        return parts

    def by_track(self) -> dict[str, int]:
        """From track id to part."""
        return dict(zip(self.track_ids, self.parts.tolist(), strict=True))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FoldFile:
    """The records of one representation in one part of the clips.

    Attributes:
      sums: of the records' mean in each segment, `(segments,)`.
      squares: likewise of their mean square.
      file: what the manifest says about the file.
    """

    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    file: schema.ShardFile


def assign_folds(dataset: Dataset, folds: int, seed: int) -> FoldedClips:
    """Spreads the clips of all splits over folds, whole artists at a time.

    So do copies of a recording, with all that is by their artists.
    Genres are spread as evenly as artists allow. Of several genres a clip, it is its
    rarest one that is: frequent ones are even by their numbers.

    Raises:
      UserError: a genre has fewer artists (or clips, where no artist is known) than
        there are folds; of several genres a clip, there are fewer artists at all.
    """
    manifest = dataset.manifest
    label_column = manifest.representations[dataset.smallest].label.name
    columns = ("track_id", "artist_id", label_column)
    clips: dict[str, tuple[str, npt.NDArray[Any]]] = {}
    for split in schema.SPLITS:
        for batch in dataset.read_columns(dataset.smallest, split, columns):
            for track, artist, label in zip(
                *(batch[column] for column in columns), strict=True
            ):
                clips[track.decode()] = (artist.decode(), label)
    tracks = tuple(sorted(clips))
    labels = np.array([clips[track][1] for track in tracks])
    marks = mark(labels, len(manifest.genres))
    rarest = np.where(marks > 0, marks.sum(axis=0), len(tracks) + 1).argmin(axis=1)
    artists = [clips[track][0] or f"\0{track}" for track in tracks]
    recording_of = dict(read_clip_list(dataset.folder, "audio"))
    groups = join_groups(artists, [recording_of.get(t, f"\0{t}") for t in tracks])
    known = sum(bool(clips[track][0]) for track in tracks)
    unit = "artists" if known else "clips"
    members = {
        genre: len({groups[row] for row in np.flatnonzero(marks[:, column])})
        for column, genre in enumerate(manifest.genres)
    }
    several = labels.ndim > 1
    everybody = {"the dataset": len(set(groups))} if several else members
    heard = {name: found for name, found in everybody.items() if found}
    if sum(found > 0 for found in members.values()) < 2:
        raise schema.UserError(
            f"{dataset.folder} holds clips of fewer than two genres, between which a "
            "classifier could tell; preprocess clips of more genres."
        )
    if short := {name: found for name, found in heard.items() if found < folds}:
        named = list_some([f"{name} ({found})" for name, found in short.items()], 10)
        most = min(short.values())
        fewer = f"use --folds {most}, " * (most >= MIN_FOLDS)
        raise schema.UserError(
            f"{folds} folds need as many {unit}, and there are fewer in {named}; "
            f"{fewer}add {unit}, or preprocess other --genres alone."
        )
    few = [genre for genre, found in members.items() if 0 < found < folds]
    numbers = np.zeros(len(tracks), np.int64)
    stopping = np.zeros(len(tracks), bool)
    with warnings.catch_warnings():
        # A genre may have fewer clips than there are parts.
        warnings.simplefilter("ignore", UserWarning)
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for fold, (_, test) in enumerate(splitter.split(rarest, rarest, groups)):
            numbers[test] = fold
        if len(set(groups)) >= MIN_GROUPS_TO_STOP * len(manifest.genres):
            splitter = StratifiedGroupKFold(STOPPING, shuffle=True, random_state=seed)
            _, held = next(splitter.split(rarest, rarest, groups))
            stopping[held] = True
    return FoldedClips(
        track_ids=tracks,
        labels=labels,
        artist_ids=tuple(clips[track][0] for track in tracks),
        folds=numbers,
        stopping=stopping,
        count=folds,
        rule=f"cross-validation in {folds} folds, "
        + ("whole artists together" if known else "by clip: no artist is known")
        + ", copies of a recording together" * (set(groups) != set(artists)),
        notes=(
            f"Fewer than {folds} {unit} have {', '.join(few)}: not every fold tests "
            "them, and some that do have heard little of them.",
        )
        if few
        else (),
    )


def join_groups(artists: Sequence[str], recordings: Sequence[str]) -> list[str]:
    """Groups that share neither an artist nor a recording with each other.

    Args:
      artists: of each clip.
      recordings: of each clip.

    Returns:
      Of each clip, the first artist of its group.
    """
    names, artist = np.unique(artists, return_inverse=True)
    _, recording = np.unique(recordings, return_inverse=True)
    nodes = len(names) + int(recording.max(initial=0)) + 1
    edges = (np.ones(len(artist), bool), (artist, len(names) + recording))
    _, group = connected_components(coo_array(edges, shape=(nodes, nodes)), False)
    first: dict[int, str] = {}
    return [
        first.setdefault(int(number), name)
        for number, name in zip(group[artist], artists, strict=True)
    ]


def mark(labels: npt.NDArray[Any], genres: int) -> npt.NDArray[np.uint8]:
    """1 for each genre of a clip, 0 for all others: uint8 `(clips, genres)`.

    Args:
      labels: as `FoldedClips.labels`.
      genres: number of genres.
    """
    if labels.ndim > 1:
        return np.asarray(labels, np.uint8)
    return np.asarray(labels[:, np.newaxis] == np.arange(genres), np.uint8)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FoldedRecords:
    """The records of a dataset by part, of which datasets of folds are made.

    Attributes:
      dataset: the original one.
      clips: the folds.
      files: what each part holds, by representation.
      folder: where the files are.
    """

    dataset: Dataset
    clips: FoldedClips
    files: Mapping[str, Sequence[FoldFile]]
    folder: str

    def link(self, folder: str, fold: int | None, *, stopping: bool = True) -> None:
        """Makes a dataset that tests one fold and trains on the others.

        Args:
          folder: the new dataset's; its shards are links.
          fold: to test; None to train on all and test none.
          stopping: whether clips to stop by are the validation split, or train too.
        """
        count = 2 * self.clips.count
        role_of = [
            "test"
            if number // 2 == fold
            else ("validation" if stopping and number % 2 else "training")
            for number in range(count)
        ]
        manifest = self.dataset.manifest
        by_role: dict[str, dict[str, int]] = {}
        files: dict[str, schema.ShardFile] = {}
        for name in manifest.representations:
            os.makedirs(f"{folder}/{name}")
            counts = collections.Counter[str]()
            for number, role in enumerate(role_of):
                for split in schema.SPLITS:
                    shard = schema.shard_file(name, split, number, count)
                    if split == role:
                        source = os.path.abspath(
                            f"{self.folder}/{name}/{number}.tfrecord"
                        )
                        os.symlink(source, f"{folder}/{shard}")
                        files[shard] = self.files[name][number].file
                        counts[split] += files[shard].records
                    else:
                        with open(f"{folder}/{shard}", "wb"):
                            files[shard] = EMPTY_FILE
            by_role[name] = {split: counts[split] for split in schema.SPLITS}
        rule = self.clips.rule
        training = [n for n, role in enumerate(role_of) if role == "training"]
        roles_of_clips = np.array(role_of)[self.clips.parts]
        marks = mark(self.clips.labels, len(manifest.genres))
        changed = dataclasses.replace(
            manifest,
            num_shards=count,
            clips={
                split: {
                    genre: int(marks[roles_of_clips == split, label].sum())
                    for label, genre in enumerate(manifest.genres)
                }
                for split in schema.SPLITS
            },
            clip_totals={
                split: int(np.sum(roles_of_clips == split)) for split in schema.SPLITS
            },
            records=by_role,
            normalisation={
                name: _normalise([self.files[name][number] for number in training])
                for name, layout in manifest.representations.items()
                if layout.segments
            },
            split_rule=rule if fold is None else f"{rule}, fold {fold + 1}",
            split=None,
            artists_in_several_splits=(),
            files=files,
            fingerprint=schema.fingerprint(
                [manifest.fingerprint, self.clips.by_track(), fold, stopping]
            ),
        )
        if schema.EMBEDDINGS in manifest.representations:
            for name, content in read_music_model(
                self.dataset.folder, schema.EMBEDDINGS
            ).items():
                with open(f"{folder}/{name}", "wb") as weights:
                    weights.write(content)
        with open(f"{folder}/{schema.MANIFEST_FILE}", "w") as file:
            file.write(changed.to_json())
        with open(f"{folder}/{schema.COMPLETED_FILE}", "w") as file:
            file.write(schema.completion_marker(changed, changed.to_json()))


def split_records(dataset: Dataset, clips: FoldedClips, folder: str) -> FoldedRecords:
    """Writes all records again, a file for each representation and part."""
    part_of = clips.by_track()
    parts = 2 * clips.count
    fold_files: dict[str, list[FoldFile]] = {}
    for name, layout in dataset.manifest.representations.items():
        os.makedirs(f"{folder}/{name}")
        writers = [
            tf.io.TFRecordWriter(f"{folder}/{name}/{part}.tfrecord")
            for part in range(parts)
        ]
        edges = np.cumsum([0, *(segment.length for segment in layout.segments)])
        lengths = np.diff(edges)
        sums = np.zeros((parts, len(lengths)))
        squares = np.zeros_like(sums)
        counts = [0] * parts
        for split in schema.SPLITS:
            files = dataset.files(name, split)
            for batch in untuned(tf.data.TFRecordDataset(files).batch(_BATCH)):
                parsed = parse_batch(batch, layout, ("track_id", layout.value.name))
                values = parsed[layout.value.name].numpy()
                for record, track, value in zip(
                    batch.numpy(), parsed["track_id"].numpy(), values, strict=True
                ):
                    part = part_of[track.decode()]
                    writers[part].write(record)
                    counts[part] += 1
                    if layout.segments:
                        flat = value.astype(np.float64)
                        sums[part] += np.add.reduceat(flat, edges[:-1]) / lengths
                        squared = np.add.reduceat(flat**2, edges[:-1])
                        squares[part] += squared / lengths
        for writer in writers:
            writer.close()
        fold_files[name] = [
            FoldFile(
                sums=sums[part],
                squares=squares[part],
                file=_describe(f"{folder}/{name}/{part}.tfrecord", counts[part]),
            )
            for part in range(parts)
        ]
    return FoldedRecords(dataset=dataset, clips=clips, files=fold_files, folder=folder)


def _describe(path: str, records: int) -> schema.ShardFile:
    with open(path, "rb") as file:
        content = file.read()
    return schema.ShardFile(
        records=records, size=len(content), crc32c=f"{google_crc32c.value(content):08x}"
    )


def _normalise(parts: list[FoldFile]) -> schema.Normalisation:
    records = sum(part.file.records for part in parts)
    mean = sum(part.sums for part in parts) / records
    square = sum(part.squares for part in parts) / records
    return schema.Normalisation(
        mean=tuple(np.asarray(mean).tolist()),
        variance=tuple(np.maximum(square - mean**2, 0).tolist()),
    )

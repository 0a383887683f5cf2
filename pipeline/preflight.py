"""What can be found out, and refused, before a job starts."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import soundfile
from apache_beam.io.filesystem import BeamIOError

from pipeline import completion, progress, storage
from pipeline.dataset_files import REPORT_FILE
from pipeline.finishing import CLIPS_FOLDER
from pipeline.metadata import (
    Layout,
    MetadataConfig,
    Track,
    audio_key,
    read_layout,
    read_tracks,
)
from pipeline.progress import DatasetConfig
from pipeline.representations import NAMES
from pipeline.schema import (
    COMPLETED_FILE,
    MANIFEST_FILE,
    SPLITS,
    UserError,
    fingerprint,
    shard_file,
)
from pipeline.transforms import AudioFile, audio_file

#: Packages whose version can change a record.
SHAPING_PACKAGES = (
    "imageio-ffmpeg",
    "librosa",
    "numpy",
    "pydub",
    "scipy",
    "soundfile",
    "soxr",
)
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
    completion.REJECTS_FILE,
    REPORT_FILE,
    completion.UNFINISHED + MANIFEST_FILE,
    completion.UNFINISHED + COMPLETED_FILE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a job is given.

    Attributes:
      layout: of the metadata file.
      genres: of the wanted tracks, in alphabetical order; with `--genres`, in
        the order given.
      tracks: number of wanted tracks.
      clips: audio files of wanted tracks with a genre.
      files: number of audio files matched.
      leaking_artists: number of artists that the metadata puts into several splits.
    """

    layout: Layout
    genres: tuple[str, ...]
    tracks: int
    clips: tuple[AudioFile, ...]
    files: int
    leaking_artists: int = 0


def inspect_inputs(audio: str, metadata: MetadataConfig) -> Inputs:
    """Lists the audio and reads the metadata once.

    Args:
      audio: glob.
      metadata: which tracks.

    Raises:
      UserError: there is nothing to do, or the metadata cannot be used.
    """
    files = match_audio(audio)
    try:
        with (
            storage.open_patiently(metadata.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            layout = read_layout(csv.reader(text), metadata)
        with (
            storage.open_patiently(metadata.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            wanted = {t.key: t for t in read_tracks(text, metadata) if t.wanted}
    except storage.STORE_ERRORS as error:
        raise UserError(
            f"--metadata cannot be read: {error}. Received: {metadata.path}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--metadata must be UTF-8 text ({error}). Received: {metadata.path}"
        ) from error
    genres = _order_genres(wanted.values(), metadata)
    base = metadata.audio_base
    clips = {
        key: file
        for file in sorted(files, reverse=True)
        if (key := audio_key(file.path, base, layout.kind)) in wanted
        and wanted[key].genre
    }
    return Inputs(
        layout=layout,
        genres=genres,
        tracks=len(wanted),
        clips=tuple(clips[key] for key in sorted(clips)),
        files=len(files),
        leaking_artists=_count_leaking_artists(wanted.values()),
    )


def match_audio(pattern: str) -> list[AudioFile]:
    """Lists the files of a glob.

    Raises:
      UserError: there are none, or the file system is unknown.
    """
    try:
        matched = storage.match(pattern)
    except (ValueError, BeamIOError) as error:
        raise UserError(
            f"--audio cannot be matched: {error}. Received: {pattern}"
        ) from error
    if not matched:
        raise UserError(
            "--audio matches no file; give a quoted glob such as 'fma_small/**.mp3'. "
            f"Received: {pattern}"
        )
    for found in matched:
        if not found.path.isprintable() and not _is_text(found.path):
            raise UserError(
                "--audio matches a file whose name is not UTF-8 text; rename it. "
                f"Received: {found.path!r}"
            )
    return [audio_file(found) for found in matched]


def _is_text(path: str) -> bool:
    """Whether a path can be sent to a worker: it may hold bytes of no encoding."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _order_genres(tracks: Iterable[Track], metadata: MetadataConfig) -> tuple[str, ...]:
    present = {track.genre for track in tracks if track.genre}
    unknown = [genre for genre in metadata.genres if genre not in present]
    if unknown:
        raise UserError(
            f"--genres: unknown genre {unknown[0]!r}; no track of {metadata.path} "
            f"(subset {metadata.subset}) has it."
        )
    if not present:
        raise UserError(
            f"{metadata.path} has no track with a genre in the subset "
            f"{metadata.subset!r}; choose a larger --subset or another file."
        )
    return metadata.genres or tuple(sorted(present))


def _count_leaking_artists(tracks: Iterable[Track]) -> int:
    splits: dict[str, set[str]] = {}
    for track in tracks:
        if track.artist_id:
            splits.setdefault(track.artist_id, set()).add(track.split)
    return sum(len(found) > 1 for found in splits.values())


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
    progress.begin_run(dataset)
    for name in _FILES:
        storage.delete(storage.join(output, name))
    for folder in _FOLDERS:
        storage.delete_tree(storage.join(output, folder))
    finished = [] if overwrite else progress.list_finished(dataset)
    kept = {f"{progress.PROGRESS_FOLDER}/{progress.RUN_FILE}"}
    for shard in finished:
        kept.add(progress.result_file(shard, dataset.num_shards))
        kept |= {
            shard_file(name, split, shard, dataset.num_shards)
            for name in dataset.representations
            for split in SPLITS
        }
    for folder in (*NAMES, progress.PROGRESS_FOLDER):
        storage.delete_others(output, folder, kept)
    for name in (*dataset.representations, CLIPS_FOLDER, storage.TEMPORARY_FOLDER):
        storage.make_folder(storage.join(output, name))
    return len(finished)


def find_versions() -> dict[str, str]:
    """Versions of all that can change a record's numbers."""
    versions = {name: importlib.metadata.version(name) for name in SHAPING_PACKAGES}
    return versions | {"libsndfile": soundfile.__libsndfile_version__}


def fingerprint_tools(versions: Mapping[str, str]) -> str:
    """Digest of all that makes the files, apart from inputs and options.

    Args:
      versions: of libraries and decoders.
    """
    package = Path(__file__).parent
    code = {
        path.relative_to(package).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in package.rglob("*.py")
    }
    return fingerprint({"versions": dict(versions), "code": code})

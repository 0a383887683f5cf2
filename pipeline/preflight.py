"""What can be found out, and refused, before a job starts."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import io
from collections.abc import Iterable

import soundfile
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from pipeline import storage
from pipeline.metadata import (
    Layout,
    MetadataConfig,
    Track,
    audio_key,
    read_layout,
    read_tracks,
)
from pipeline.representations import NAMES
from pipeline.schema import COMPLETED_FILE, MANIFEST_FILE, UserError
from pipeline.transforms import AudioFile

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
    """

    layout: Layout
    genres: tuple[str, ...]
    tracks: int
    clips: tuple[AudioFile, ...]
    files: int


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
            storage.open_for_reading(metadata.path) as file,
            io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
        ):
            layout = read_layout(csv.reader(text), metadata)
        with (
            storage.open_for_reading(metadata.path) as file,
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
    )


def match_audio(pattern: str) -> list[AudioFile]:
    """Lists the files of a glob.

    Raises:
      UserError: there are none, or the file system is unknown.
    """
    try:
        matched = FileSystems.match([pattern])[0].metadata_list
    except (ValueError, BeamIOError) as error:
        raise UserError(
            f"--audio cannot be matched: {error}. Received: {pattern}"
        ) from error
    if not matched:
        raise UserError(
            "--audio matches no file; give a quoted glob such as 'fma_small/**.mp3'. "
            f"Received: {pattern}"
        )
    return [AudioFile(item.path, item.size_in_bytes) for item in matched]


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


def prepare_output(output: str, *, overwrite: bool) -> None:
    """Makes the dataset folder, without what an earlier job left there.

    Raises:
      UserError: it holds a completed dataset and `overwrite` is not set.
    """
    marker = storage.join(output, COMPLETED_FILE)
    if storage.exists(marker):
        if not overwrite:
            raise UserError(
                "--output already holds a completed dataset; give another folder, or "
                f"--overwrite to replace it. Received: {output}"
            )
        # First, so that a half-deleted dataset is not taken for a whole one.
        storage.delete(marker)
    for folder in (
        *NAMES,
        "transform_fn",
        "transformed_metadata",
        storage.TEMPORARY_FOLDER,
    ):
        storage.delete_tree(storage.join(output, folder))
    storage.delete(storage.join(output, MANIFEST_FILE))


def make_folders(output: str, representations: tuple[str, ...]) -> None:
    """Makes the folders before several workers would do it at once."""
    for name in (*representations, storage.TEMPORARY_FOLDER):
        storage.make_folder(storage.join(output, name))


def find_versions() -> dict[str, str]:
    """Versions of all that can change a record's numbers."""
    versions = {name: importlib.metadata.version(name) for name in SHAPING_PACKAGES}
    return versions | {"libsndfile": soundfile.__libsndfile_version__}

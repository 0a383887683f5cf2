"""The folders that a job writes to: whose they are, and what stays in them."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from pipeline.common import ownership, storage
from pipeline.common.files import beam_files, join
from pipeline.common.owned_kinds import DATASET, MARK_FILE, WAVS, Kind
from pipeline.inputs import globs
from pipeline.inputs.archives import paths
from pipeline.inputs.audio_files import glob_folder, parse_globs
from pipeline.inputs.names import relative_path, wav_name
from pipeline.inputs.survey import Inputs
from pipeline.job.config import JobConfig
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
from pipeline.shards import replace, resume, runs
from pipeline.shards.finish import clips_file
from pipeline.shards.result import DatasetConfig

#: Bytes of a file's name, as file systems allow them.
MAX_NAME_BYTES = 255

_Place = TypeVar("_Place", bound=runs.Place)


def check_output(folder: str, *, overwrite: bool) -> None:
    """Refuses a folder that is not ours, or holds a dataset to keep; writes nothing.

    Raises:
      UserError: it is one of those.
    """
    check_name("--output", folder)
    ownership.check_folder(beam_files(folder), folder, DATASET)
    if not overwrite and storage.exists(join(folder, COMPLETED_FILE)):
        raise UserError(
            "--output already holds a completed dataset; give another folder, or "
            f"--overwrite to replace it. Received: {folder}"
        )


def check_name(flag: str, folder: str) -> None:
    """Refuses a folder whose name has wildcards.

    Raises:
      UserError: it has.
    """
    if set("*?[]") & set(folder):
        raise UserError(
            f"{flag} must not contain any of * ? [ ], which stand for other names "
            f"on some file systems. Received: {folder}"
        )


def check_apart(job: JobConfig, inputs: Inputs) -> None:
    """Refuses outputs that would replace inputs, or be read as inputs.

    Raises:
      UserError: names the flag, the input and the place.
    """
    dataset = job.dataset
    files = {"--metadata": [job.metadata.path], "--audio": inputs.paths}
    if inputs.genres_file:
        files["--genres_file"] = [inputs.genres_file]
    read = [
        (flag, path)
        for flag, names in files.items()
        for path in dict.fromkeys(map(name_stored, names))
    ]
    ownership.check_apart(dataset.output, read)
    names = [MANIFEST_FILE, COMPLETED_FILE, MARK_FILE, JOB_REPORT_FILE]
    names += [clips_file(0, dataset.num_shards), REJECTS_FILE]
    names += [
        shard_file(name, split, 0, dataset.num_shards)
        for name in dataset.representations
        for split in SPLITS
    ]
    names += [f"{runs.NEXT_FOLDER}/{name}" for name in names]
    for pattern in job.audio:
        check_not_matched(pattern, "--output", dataset.output, names)
    wavs = dataset.wav_output
    if not wavs:
        return
    check_name("--wav_output", wavs)
    ownership.check_apart(dataset.output, [("--wav_output", wavs)])
    targets = list_wavs(job, inputs)
    ownership.check_files_apart(wavs, targets, read, flag="--wav_output")
    for pattern in job.audio:
        check_not_matched(pattern, "--wav_output", wavs, [*targets, MARK_FILE])
    for name in targets:
        if len(os.fsencode(posixpath.basename(name))) > MAX_NAME_BYTES:
            raise UserError(
                "--wav_output would give a file a name that is longer than "
                f"{MAX_NAME_BYTES} bytes: {name}. Rename the audio file, or leave "
                "--wav_output out."
            )
    ownership.check_folder(beam_files(wavs), wavs, WAVS, flag="--wav_output")


def name_stored(path: str) -> str:
    """The file that holds an input: itself, or its ZIP."""
    found = paths.split(path)
    return found[0] if found else path


def list_wavs(job: JobConfig, inputs: Inputs) -> list[str]:
    """Names of the files that `--wav_output` makes, below its folder."""
    base = job.metadata.folder.path
    names = {clip.path: relative_path(clip.path, base) for clip in inputs.clips}
    return [
        wav_name(name.lstrip("/"), whole=path in inputs.whole_names)
        for path, name in names.items()
    ]


def check_not_matched(
    pattern: str, flag: str, folder: str, names: Iterable[str]
) -> None:
    """Refuses a folder where the glob would match what is written.

    Args:
      pattern: of `--audio`.
      flag: that named the folder.
      folder: to be written to.
      names: of the files that will be, relative to it.

    Raises:
      UserError: it would match one.
    """
    glob = parse_globs(pattern)[0]
    if paths.split(glob.folder):
        return  # Nothing is written into a ZIP.
    base = ownership.resolve(glob_folder(glob)).rstrip("/") + "/"
    matches = re.compile(globs.translate(glob.rest)).fullmatch
    root = ownership.resolve(folder).rstrip("/")
    if not f"{root}/".startswith(base):
        return
    for name in names:
        if matches(f"{root}/{name}".removeprefix(base)):
            raise UserError(
                f"{flag} lies where --audio looks for files: {pattern} would match "
                f"{name} there. Give a folder elsewhere, or a narrower --audio. "
                f"Received: {folder}"
            )


def prepare_job(
    job: JobConfig, inputs: Inputs, *, overwrite: bool
) -> tuple[JobConfig, int]:
    """A job that may write to its folders, see `prepare_output`."""
    wavs = list_wavs(job, inputs) if job.dataset.wav_output else []
    dataset, finished = prepare_output(job.dataset, overwrite=overwrite, wavs=wavs)
    return dataclasses.replace(job, dataset=dataset), finished


def prepare_output(
    dataset: DatasetConfig, *, overwrite: bool, wavs: Iterable[str] = ()
) -> tuple[DatasetConfig, int]:
    """Takes over the folders of a dataset, see `take_over`.

    Args:
      dataset: names the folders and their layout.
      overwrite: see `take_over`.
      wavs: names of the WAVs that will be written.

    Returns:
      The dataset with the folder to write to, and the number of shards that stay.

    Raises:
      UserError: a folder is not ours, or its name has wildcards.
      SupersededError: see `take_over`.
    """
    folder = dataset.output
    check_name("--output", folder)
    # Before anything is made where nothing may be.
    ownership.check_folder(beam_files(folder), folder, DATASET)
    if dataset.wav_output:
        check_name("--wav_output", dataset.wav_output)
        ownership.claim(
            beam_files(dataset.wav_output),
            dataset.wav_output,
            WAVS,
            names=wavs,
            flag="--wav_output",
        )

    def list_files(shard: int) -> Iterator[str]:
        for name in dataset.representations:
            for split in SPLITS:
                yield shard_file(name, split, shard, dataset.num_shards)

    folders = (*dataset.representations, CLIPS_FOLDER)
    return take_over(
        dataset, DATASET, overwrite=overwrite, list_files=list_files, folders=folders
    )


def find_place(place: _Place) -> _Place:
    """The place with the folder to write to: in what is complete, `_next/`."""
    folder = place.output
    if not storage.exists(join(folder, COMPLETED_FILE)):
        return place
    return dataclasses.replace(
        place, output=join(folder, runs.NEXT_FOLDER), replaces=folder
    )


def take_over(
    place: _Place,
    kind: Kind,
    *,
    overwrite: bool,
    list_files: Callable[[int], Iterable[str]],
    folders: Sequence[str],
) -> tuple[_Place, int]:
    """Takes over the output folder, without what an earlier job left half done.

    Shards that an unfinished job finished stay, so that those which are still what
    this job would make need not be made again. What is complete stays as it is until
    the new one, which is built in it under `_next/`, is complete.

    Args:
      place: names the folder.
      kind: of the folder.
      overwrite: replace what is complete; of what is unfinished and replaces nothing,
        keep nothing.
      list_files: of a shard, relative to the folder.
      folders: that shards are written to, likewise.

    Returns:
      The place with the folder to write to, and the number of shards that stay.

    Raises:
      UserError: the folder is not ours, or cannot be written to.
      SupersededError: what it holds is complete and `overwrite` is not set (users are
        told of it before), or another job is completing it.
    """
    folder = place.output
    files = beam_files(folder)
    ownership.check_folder(files, folder, kind)
    try:
        storage.make_folder(folder)
        with runs.locked(folder):
            replace.finish_replacing(folder, kind)
            ownership.check_folder(files, folder, kind)
            place = find_place(place)
            if place.replaces:
                if not overwrite:
                    raise runs.SupersededError(runs.describe(folder))
                overwrite = False
            output = place.output
            ownership.claim(files, output, kind)
            # From here on, no job that began earlier writes to the folder.
            runs.begin_run(place)
            finished = [] if overwrite else resume.list_finished(place)
            kept = {f"{runs.PROGRESS_FOLDER}/{runs.RUN_FILE}"}
            if place.run:
                laid = storage.list_sizes(runs.own_folder(place))
                own = f"{storage.TEMPORARY_FOLDER}/{place.run}"
                kept |= {f"{own}/{name}" for name in laid}
            for shard in finished:
                kept.add(resume.result_file(shard, place.num_shards))
                kept.update(list_files(shard))
            ownership.remove(files, output, kind, keep=kept)
            for name in (*folders, storage.TEMPORARY_FOLDER):
                storage.make_folder(join(output, name))
            return place, len(finished)
    except storage.STORE_ERRORS as error:
        raise UserError(
            f"--output cannot be written to: {storage.explain(error)}. Received: "
            f"{folder}"
        ) from error

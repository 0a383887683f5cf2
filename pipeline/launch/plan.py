"""What a job will do: its configuration from the command line, its cost, its end."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
)

from pipeline.common import gcs
from pipeline.common.clip_config import ClipConfig
from pipeline.common.credentials import SCHEME
from pipeline.common.progress import SILENT, Reporter
from pipeline.common.progress.command_line import suggest
from pipeline.inputs import globs
from pipeline.inputs.archives.reading import find_csv
from pipeline.inputs.audio_files import locate_audio
from pipeline.inputs.genres import LABELS, LabelRule
from pipeline.inputs.metadata import MetadataConfig
from pipeline.inputs.names import AudioFolder
from pipeline.inputs.splits import SplitConfig
from pipeline.inputs.survey import Inputs, inspect_inputs
from pipeline.job.config import JobConfig
from pipeline.job.graph import build
from pipeline.job.normalisation.process import select_schemas, start_analyst
from pipeline.launch import estimate, local, output
from pipeline.launch.flink import rest
from pipeline.launch.flink.run import open_run
from pipeline.launch.runners import check_flags, try_runner
from pipeline.launch.versions import find_versions, fingerprint_tools
from pipeline.representations import DEFAULTS, NAMES, embeddings
from pipeline.representations.music_model import MODELS, prepare_one_thread
from pipeline.representations.weights import find_weights
from pipeline.schema import UserError
from pipeline.shards.result import DatasetConfig

#: A shard is the unit of work; this many clips take a vCPU some seconds.
CLIPS_A_SHARD = 64
SHARDS = (16, 4096)


def parse_beam_options(
    arguments: Sequence[str], flags: Sequence[str] = ()
) -> PipelineOptions:
    """Parses Beam's options, refusing what it does not know.

    Args:
      arguments: the options.
      flags: of the command itself, one of which may have been meant.

    Raises:
      UserError: an option is neither ours nor Beam's.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for group in PipelineOptions.__subclasses__():
        with contextlib.suppress(argparse.ArgumentError):
            group._add_argparse_args(known)
    values, unknown = known.parse_known_args(list(arguments))
    names = [name for name in unknown if os.path.exists(name)]
    if names:
        raise UserError(
            "only --audio takes several files; put a glob for another flag in quotes, "
            f"or the shell puts names in its place. Received: {' '.join(names[:3])}"
            + " ..."
            * (len(names) > 3)
        )
    if unknown:
        given = [word.partition("=")[0] for word in unknown]
        # Ours come first, and Beam has hundreds.
        hint = suggest(given, flags) or suggest(given, known._option_string_actions)
        raise UserError(
            f"unknown option; see --help. Received: {' '.join(unknown)}{hint}"
        )
    if values.labels and "--labels" in flags and values.runner != "DataflowRunner":
        raise UserError(
            "--label is Beam's and names jobs on Dataflow; did you mean --labels? "
            f"Received: --label {' '.join(values.labels)}"
        )
    options = PipelineOptions(list(arguments))
    check_flags(options)
    # Nothing lives in __main__, so nothing of it has to travel.
    options.view_as(SetupOptions).save_main_session = False
    return options


def make_job(
    arguments: argparse.Namespace,
    assume_inputs: Callable[[MetadataConfig], Inputs] | None = None,
) -> tuple[JobConfig, Inputs]:
    """Checks the arguments against the inputs.

    Args:
      arguments: of `pipeline.preprocess.make_parser`.
      assume_inputs: stands for a look at inputs that cannot be reached.

    Raises:
      UserError: the job would make no sense.
    """
    if arguments.num_shards < 1:
        raise UserError(
            f"--num_shards must be 1 or more. Received: {arguments.num_shards}"
        )
    if arguments.min_tracks < 0:
        raise UserError(
            f"--min_tracks must be 0 or more. Received: {arguments.min_tracks}"
        )
    if not 0 <= arguments.max_reject_ratio <= 1:
        raise UserError(
            "--max_reject_ratio must lie between 0 and 1. Received: "
            f"{arguments.max_reject_ratio:g}"
        )
    names, music_weights, music_model = _choose_representations(arguments)
    clip = ClipConfig(
        windows_per_clip=arguments.windows_per_clip,
        mel_images_per_clip=arguments.mel_images_per_clip,
        music_model=music_model,
        embedding_patches=arguments.embedding_patches,
        embedding_records=arguments.embedding_records,
        mel_channels=arguments.mel_channels,
        min_duration=arguments.min_duration,
        excerpt=arguments.excerpt,
        ignore_checksums=arguments.ignore_checksums,
    )
    if assume_inputs is None:
        paths = [*arguments.audio, arguments.metadata, arguments.genres_file]
        gcs.check_readable([*paths, arguments.output, arguments.wav_output])
        folder = locate_audio(*arguments.audio)
        table = find_csv(arguments.metadata, "tracks.csv", "--metadata")
    else:
        folder = AudioFolder(path=globs.parse(arguments.audio[0]).folder)
        table = arguments.metadata
    metadata = MetadataConfig(
        path=table,
        subset=arguments.subset,
        genres=tuple(g.strip() for g in arguments.genres.split(",") if g.strip()),
        split=_make_split(arguments),
        folder=folder,
        labels=_make_labels(arguments),
    )
    if assume_inputs is None:
        if not arguments.estimate:
            output.check_output(arguments.output, overwrite=arguments.overwrite)
        inputs = inspect_inputs(
            arguments.audio,
            metadata,
            genres_file=find_csv(arguments.genres_file, "genres.csv", "--genres_file"),
            min_tracks=arguments.min_tracks,
        )
    else:
        inputs = assume_inputs(metadata)
    versions = find_versions()
    dataset = DatasetConfig(
        output=arguments.output or "",
        representations=names,
        clip=clip,
        genres=inputs.genres,
        task=metadata.labels.task,
        num_shards=arguments.num_shards,
        wav_output=arguments.wav_output,
        music_weights=music_weights,
        audio_base=metadata.folder.path,
        tools=fingerprint_tools(versions),
        run=uuid.uuid4().hex,
    )
    job = JobConfig(
        audio=tuple(arguments.audio),
        metadata=inputs.metadata,
        nearest=inputs.nearest,
        metadata_kind=inputs.layout.kind,
        split=inputs.layout.split,
        dataset=dataset,
        max_reject_ratio=arguments.max_reject_ratio,
        versions=versions,
        leaks=arguments.leaks,
        description=arguments.description,
        synthetic=arguments.synthetic,
    )
    if not arguments.estimate:
        output.check_apart(job, inputs)
    return job, inputs


def _choose_representations(
    arguments: argparse.Namespace,
) -> tuple[tuple[str, ...], str, str]:
    """Names in their own order, the music model's weights, and its name."""
    names = arguments.representations
    if names is not None and embeddings.NAME not in names:
        return tuple(name for name in NAMES if name in names), "", ""
    weights = find_weights(arguments.music_model)
    if (
        weights
        and (arguments.output or "").startswith(SCHEME)
        and not weights[1].startswith(SCHEME)
    ):
        # Workers of a cloud do not see this machine's cache.
        if names is not None or arguments.music_model:
            raise UserError(
                "--music_model must be a file of weights on gs://, which workers can "
                f"read; copy it there. Received: {weights[1]}"
            )
        weights = None
    if weights is None and names is not None:
        raise UserError(
            f"--representations {embeddings.NAME} needs the music model's weights; "
            "./launch.sh weights fetches them, or --music_model names a file."
        )
    if weights is None:
        return DEFAULTS, "", ""
    model, path = weights
    # Before anything starts TensorFlow in this process; workers inherit it.
    prepare_one_thread()
    chosen = names or (*DEFAULTS, embeddings.NAME)
    return tuple(name for name in NAMES if name in chosen), path, model.name


def _make_labels(arguments: argparse.Namespace) -> LabelRule:
    if arguments.genre_separator is None:
        return LabelRule(kind=arguments.labels)
    if arguments.labels == LABELS[0]:
        raise UserError(
            "--genre_separator is for several genres a track, --labels all or leaf. "
            f"Received: {arguments.genre_separator!r}"
        )
    return LabelRule(kind=arguments.labels, separator=arguments.genre_separator)


def _make_split(arguments: argparse.Namespace) -> SplitConfig | None:
    if arguments.split is None:
        return None
    try:
        training, validation, test = map(float, arguments.split_percent.split(","))
    except ValueError as error:
        raise UserError(
            "--split_percent takes three numbers, e.g. 80,10,10. Received: "
            f"{arguments.split_percent}"
        ) from error
    return SplitConfig(rule=arguments.split, percent=(training, validation, test))


def find_cluster(options: PipelineOptions) -> rest.Cluster | None:
    """The Flink cluster that the options name; None for other runners.

    Raises:
      UserError: it is not there, or Beam does not support it.
    """
    name = (options.view_as(StandardOptions).runner or "").rpartition(".")[2]
    master = options.view_as(FlinkRunnerOptions).flink_master
    if name != "FlinkRunner" or master in ("[auto]", "[local]"):
        return None
    return rest.find_cluster(options)


def make_paths_absolute(arguments: argparse.Namespace) -> None:
    """Workers elsewhere have other current folders; changed in place."""
    arguments.audio = list(map(_make_absolute, arguments.audio))
    names = ["metadata", "output", "wav_output"]
    names += ["music_model"] * (arguments.music_model not in MODELS)
    for name in names:
        setattr(arguments, name, _make_absolute(getattr(arguments, name)))


def _make_absolute(path: str) -> str:
    return os.path.abspath(path) if path and "://" not in path else path


@contextlib.contextmanager
def checked_runner(
    job: JobConfig,
    inputs: Inputs,
    flags: Sequence[str],
    cluster: rest.Cluster | None = None,
    *,
    detach: bool = False,
    reporter: Reporter = SILENT,
) -> Iterator[Callable[[JobConfig], None]]:
    """Makes sure that the runner can run something; yields what runs a job there.

    Raises:
      UserError: it cannot; says why.
    """
    if cluster is not None:
        with open_run(flags, cluster, job, inputs, detach=detach) as run:
            yield run
        return
    try_runner(parse_beam_options(flags), flags)
    yield lambda prepared: run_job(prepared, inputs, flags, reporter)


def suggest_shards(clips: int) -> int:
    """Number of shards for a number of clips, whatever the number of workers."""
    low, high = SHARDS
    shards = low
    while shards < high and shards * CLIPS_A_SHARD < clips:
        shards *= 2
    return shards


def run_job(
    job: JobConfig, inputs: Inputs, flags: Sequence[str], reporter: Reporter = SILENT
) -> None:
    """Runs a job on whatever runner Beam's flags name, and waits for its end."""
    dataset = job.dataset
    is_local = local.is_local(parse_beam_options(flags))
    with contextlib.ExitStack() as stack:
        analyst = dataset.analyst if is_local else ""
        normalised = select_schemas(dataset.representations, dataset.clip)
        if is_local and normalised and not analyst:
            analyst = stack.enter_context(start_analyst())

        def add_steps(pipeline: beam.Pipeline, here: local.LocalRun) -> None:
            changed = job.with_dataset(
                progress_file=here.progress_file,
                launcher=here.launcher,
                analyst=analyst,
                decode_ahead=here.spare_cores,
            )
            build(pipeline, changed)

        names = dataset.representations
        run_steps(add_steps, len(inputs.clips), flags, reporter, names=names)


def run_steps(
    add_steps: Callable[[beam.Pipeline, local.LocalRun], None],
    total: int,
    flags: Sequence[str],
    reporter: Reporter = SILENT,
    *,
    names: Collection[str] = DEFAULTS,
) -> None:
    """Runs a graph on whatever runner Beam's flags name, and waits for its end.

    Args:
      add_steps: adds them to a pipeline.
      total: how much there is to do.
      flags: of Beam.
      reporter: is told how many are done.
      names: representations that it makes, or what costs as much.
    """
    options = parse_beam_options(flags)
    if not local.is_local(options):
        with beam.Pipeline(options=options) as pipeline:
            add_steps(pipeline, local.LocalRun())
        return
    cores, memory = local.count_cores(), local.find_memory()
    local.choose_mode(
        options, flags, estimate.choose_workers(total, names, cores, memory)
    )
    reporter.detail(f"Running {local.describe_mode(options)}.")
    with local.show_progress(total, reporter) as progress_file:
        here = local.LocalRun(
            progress_file=progress_file,
            launcher=os.getpid(),
            spare_cores=local.has_spare_cores(options),
        )
        pipeline = beam.Pipeline(runner=local.make_runner(options), options=options)
        add_steps(pipeline, here)
        local.run(pipeline)


def estimate_job(job: JobConfig, inputs: Inputs) -> str:
    """Measures a few clips and says what the whole job takes."""
    prices = estimate.Prices()
    sample = estimate.measure_some(job, inputs)
    return estimate.describe(
        estimate.extrapolate(inputs.clips, sample, prices), sample, prices
    )


def note_command(
    job: JobConfig, argv: Sequence[str], name: str = "preprocess"
) -> JobConfig:
    """Lets the dataset's report say what makes the same again."""
    command = shlex.join(["./launch.sh", name, *argv])
    return dataclasses.replace(job, command=command)

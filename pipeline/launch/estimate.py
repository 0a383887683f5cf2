"""What a job will take and cost, from its inputs' list and a few clips."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from typing import BinaryIO

from pipeline.common.plain_text import align, quantity
from pipeline.common.rejects import AudioError
from pipeline.common.storage import read_ahead
from pipeline.decoding.waveform import Waveform, load_waveform
from pipeline.inputs.join import AudioFile, Clip
from pipeline.inputs.survey import Inputs
from pipeline.job.config import JobConfig
from pipeline.representations import embeddings
from pipeline.schema import UserError
from pipeline.shards.records import make_records, make_workspace, warm_up
from pipeline.shards.result import DatasetConfig
from pipeline.shards.shard import READ_AHEAD, fetch_audio

#: Clips measured, evenly spread over the matched ones.
SAMPLE = 12
#: CPU time of the whole job over that of its clips alone, as measured with
#: worker processes (docs/reference/performance.md).
JOB_OVERHEAD = 1.25
#: Seconds until workers compute: measured here; assumed for Dataflow's VMs.
LOCAL_START = 12.0
DATAFLOW_START = 240.0
#: What a clip takes of a core to decode, and to compute by representation.
DECODING_SECONDS = 0.026
COMPUTING_SECONDS = {
    "windows": 0.001,
    "mel": 0.007,
    "features": 0.016,
    "statistics": 0.030,
    "embeddings": 0.093,
}
#: What a job in one process, and one with workers, adds to a clip.
HERE_OVERHEAD, WORKERS_OVERHEAD = 1.1, 1.05
#: Until workers compute, a job in one process does so for this long; each worker that
#: makes embeddings imports TensorFlow and builds the network.
WORKERS_START, NETWORKS_START = 4.0, 5.0
#: Memory of a worker with its decoder, of its network, and of the rest of the job.
WORKER_BYTES, NETWORK_BYTES, JOB_BYTES = 300 << 20, 300 << 20, 600 << 20
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """Dataflow's list prices for batch jobs in us-central1, in US dollars.

    As published in 2024; check them before you rely on them. The worker is an
    n1-standard machine: 3.75 GB of memory a vCPU, and 25 GB of disk.
    """

    vcpu_hour: float = 0.056
    memory_gb_hour: float = 0.003557
    disk_gb_hour: float = 0.000054
    memory_gb: float = 3.75
    disk_gb: float = 25.0
    dated: str = "2024, us-central1"

    @property
    def worker_hour(self) -> float:
        """Price of one vCPU with its memory and disk for an hour."""
        return (
            self.vcpu_hour
            + self.memory_gb * self.memory_gb_hour
            + self.disk_gb * self.disk_gb_hour
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A few clips, measured.

    Attributes:
      clips: number that could be used.
      rejects: number that could not.
      cpu_seconds: CPU time of a usable file.
      embedding_seconds: what of it the music model takes; 0 without embeddings.
      record_bytes: size of a clip's records, by representation.
    """

    clips: int
    rejects: int
    cpu_seconds: float
    embedding_seconds: float
    record_bytes: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A job with a number of workers: seconds here and on Dataflow, and a bill.

    The bill, in US dollars, leaves out storage and network.
    """

    workers: int
    local_seconds: float
    dataflow_seconds: float
    dollars: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A job's size, time and price.

    Attributes:
      clips: number to process.
      bytes_in: size of their files.
      bytes_out: size of the records, by representation.
      cpu_seconds: of the whole job on cores like this one.
      runs: with one worker and more.
    """

    clips: int
    bytes_in: int
    bytes_out: Mapping[str, float]
    cpu_seconds: float
    runs: Sequence[Run]


def spread(files: Sequence[AudioFile], count: int = SAMPLE) -> list[AudioFile]:
    """Up to `count` files, evenly spaced."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def measure_some(job: JobConfig, inputs: Inputs, count: int = SAMPLE) -> Sample:
    """Makes the records of up to `count` clips of a job, and writes nothing.

    Raises:
      UserError: there are none.
    """
    if not inputs.clips:
        raise UserError(
            "No file of --audio belongs to a wanted track of --metadata. Received: "
            f"{' '.join(job.audio)} and {job.metadata.path}"
        )
    return measure(spread(inputs.clips, count), job.dataset)


def measure(files: Sequence[AudioFile], config: DatasetConfig) -> Sample:
    """Makes the records of some files in memory, and writes nothing."""
    workspace = make_workspace(config)
    warm_up(config.representations, config.clip, workspace)
    sizes = dict.fromkeys(config.representations, 0)
    usable = 0
    cpu = embedding = 0.0
    names = [name for name in config.representations if name != embeddings.NAME]
    clips = [
        Clip(
            track_id=str(number),
            artist_id="",
            labels=(0,),
            split="training",
            path=file.path,
            size=file.size,
        )
        for number, file in enumerate(files)
    ]

    def make(
        clip: Clip, waveform: Waveform, names: Sequence[str]
    ) -> dict[str, Sequence[bytes]]:
        made = make_records(clip, waveform, names, config.clip, workspace, config.label)
        return dict(made.records)

    def fetch(clip: Clip) -> tuple[BinaryIO, float]:
        started = time.thread_time()
        file = fetch_audio(clip, config.clip.excerpt)
        return file, time.thread_time() - started

    with concurrent.futures.ThreadPoolExecutor(READ_AHEAD) as executor:
        for clip, reading in read_ahead(
            clips, fetch, executor=executor, depth=READ_AHEAD
        ):
            try:
                file, reading_seconds = reading.result()
                with file:
                    started = time.thread_time()
                    waveform = load_waveform(file, config.clip)
                    records = make(clip, waveform, names)
            except AudioError:
                continue
            cpu += time.thread_time() - started + reading_seconds
            if embeddings.NAME in config.representations:
                started = time.process_time()  # TensorFlow has threads of its own.
                records |= make(clip, waveform, [embeddings.NAME])
                embedding += time.process_time() - started
            usable += 1
            for name, values in records.items():
                sizes[name] += sum(map(len, values))
    return Sample(
        clips=usable,
        rejects=len(files) - usable,
        cpu_seconds=(cpu + embedding) / max(usable, 1),
        embedding_seconds=embedding / max(usable, 1),
        record_bytes={name: size / max(usable, 1) for name, size in sizes.items()},
    )


def choose_workers(clips: int, names: Collection[str], cores: int, memory: int) -> int:
    """Number of processes with which a job on this machine is done first.

    Their start has to be worth it, and they must find memory. The times and sizes are
    those of docs/reference/performance.md.

    Args:
      clips: to process.
      names: representations.
      cores: that the job may use.
      memory: bytes that it may take.

    Returns:
      1 for the job's own process alone, else the number of workers.
    """
    network = embeddings.NAME in names
    size = WORKER_BYTES + NETWORK_BYTES * network
    workers = min(cores, (memory - JOB_BYTES) // size)
    if workers < 2:
        return 1
    computing = sum(COMPUTING_SECONDS[name] for name in names)
    # With a core to spare, the next clip is decoded meanwhile.
    here = HERE_OVERHEAD * max(computing, DECODING_SECONDS)
    there = WORKERS_OVERHEAD * (computing + DECODING_SECONDS) / workers
    start = WORKERS_START + NETWORKS_START * network
    return workers if clips * (here - there) > start else 1


def extrapolate(files: Sequence[AudioFile], sample: Sample, prices: Prices) -> Estimate:
    """Scales a sample to the whole job.

    Args:
      files: all that will be processed.
      sample: some of them, measured.
      prices: of Dataflow.
    """
    usable = len(files) * sample.clips / max(sample.clips + sample.rejects, 1)
    seconds = len(files) * sample.cpu_seconds * JOB_OVERHEAD
    runs = []
    for workers in WORKERS:
        dataflow = seconds / workers + DATAFLOW_START
        run = Run(
            workers=workers,
            local_seconds=seconds / workers + LOCAL_START,
            dataflow_seconds=dataflow,
            dollars=workers * dataflow / 3600 * prices.worker_hour,
        )
        runs.append(run)
    return Estimate(
        clips=len(files),
        bytes_in=sum(file.size for file in files),
        bytes_out={name: size * usable for name, size in sample.record_bytes.items()},
        cpu_seconds=seconds,
        runs=runs,
    )


def describe(estimate: Estimate, sample: Sample, prices: Prices) -> str:
    """An estimate as text."""
    part = f", {sample.embedding_seconds * 1000:.0f} ms of them for its embedding"
    rejects = part * bool(sample.embedding_seconds)
    unusable = quantity(sample.rejects, "file")
    rejects += f"; {unusable} not usable" * bool(sample.rejects)
    rows = [
        ["clips", f"{estimate.clips:,}"],
        ["audio to read", _size(estimate.bytes_in)],
        *(
            [f"{name} to write", _size(size)]
            for name, size in estimate.bytes_out.items()
        ),
        ["CPU time", _duration(estimate.cpu_seconds)],
    ]
    runs = [
        [
            str(run.workers),
            _duration(run.local_seconds),
            _duration(run.dataflow_seconds),
            f"{run.dollars:.3f}",
            f"{run.dollars / max(estimate.clips, 1) * 1000:.4f}",
        ]
        for run in estimate.runs
    ]
    header = ["workers", "local", "Dataflow", "US$", "US$ per 1,000 clips"]
    return "\n\n".join(
        [
            f"{quantity(sample.clips, 'clip')} measured: "
            f"{sample.cpu_seconds * 1000:.0f} ms of CPU each{rejects}",
            align(["the job", "in all"], rows),
            align(header, runs),
            f"Dataflow: one-vCPU workers at list prices of {prices.dated} (vCPU "
            f"${prices.vcpu_hour}, memory ${prices.memory_gb_hour} and disk "
            f"${prices.disk_gb_hour:.6f} a GB, per hour), without storage\nand network;"
            f" its start-up of {DATAFLOW_START / 60:.0f} minutes and vCPUs as fast as "
            "these cores are assumed, not measured.",
        ]
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"

"""Makes one shard: reads ahead, computes clip by clip, commits whole files.

A shard index stands for one file of every representation and split. All of
them are computed and written where the clips are decoded, so that neither
audio nor records ever cross a shuffle, and they are the same bytes for any
runner, worker or attempt.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import io
import os
import posixpath
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

import soundfile

from pipeline import mp3, storage
from pipeline.clip import Clip, Moments, make_records
from pipeline.config import SAMPLE_RATE, ClipConfig
from pipeline.metadata import relative_path
from pipeline.rejects import AudioError, Reason, Reject
from pipeline.schema import fingerprint
from pipeline.shard_writer import ShardWriter
from pipeline.spectrum import Float32, Workspace

#: Clips read at the same time, ahead of the computation: at 65 ms a clip this
#: hides half a second of latency.
READ_AHEAD = 8
#: A larger file may hold far more than a clip: only its excerpt is read.
WHOLE_FILE_BYTES = 4 << 20
READ_ATTEMPTS = 3
#: Pause before the second attempt; it doubles for each one after.
RETRY_SECONDS = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What to make of the clips, and where.

    Attributes:
      output: dataset folder.
      representations: names.
      clip: clip parameters.
      genres: ordered; labels are indices into it.
      num_shards: files of each split of each representation.
      wav_output: folder for decoded clips; empty for none.
      audio_base: folder that the audio's relative paths start from.
      progress_file: local file that grows by a byte a clip; empty for none.
    """

    output: str
    representations: tuple[str, ...]
    clip: ClipConfig
    genres: tuple[str, ...]
    num_shards: int = 16
    wav_output: str = ""
    audio_base: str = ""
    progress_file: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What a shard holds, in numbers.

    Attributes:
      shard: index.
      clips: number by (split, genre).
      records: number by (representation, split).
      record_bytes: size of the files by representation.
      decoders: number of clips by decoder.
      decode_ms: each clip's decoding time.
      feature_ms: each clip's time for all representations.
      artists: distinct (artist_id, split), without unknown artists.
      digest: of the clips' identities, in order.
    """

    shard: int
    clips: Mapping[tuple[str, str], int]
    records: Mapping[tuple[str, str], int]
    record_bytes: Mapping[str, int]
    decoders: Mapping[str, int]
    decode_ms: Sequence[float]
    feature_ms: Sequence[float]
    artists: Sequence[tuple[str, str]]
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardResult:
    """All that leaves a shard's worker.

    Attributes:
      report: numbers.
      rejects: clips that could not be used.
      moments: of each training clip, by representation.
    """

    report: ShardReport
    rejects: Sequence[Reject]
    moments: Sequence[Mapping[str, Moments]]


def make_shard(
    shard: int, clips: Iterable[Clip], config: DatasetConfig, workspace: Workspace
) -> ShardResult:
    """Computes and writes all clips of one shard.

    Making the same shard twice, at the same time or after a failure, leaves
    one complete set of files.

    Args:
      shard: index, below `config.num_shards`.
      clips: in any order; they are written by ascending id.
      config: dataset parameters.
      workspace: the thread's buffers.
    """
    tally: collections.Counter[tuple[str, str]] = collections.Counter()
    decoders: collections.Counter[str] = collections.Counter()
    artists: set[tuple[str, str]] = set()
    used: list[tuple[str, str, str, int]] = []
    decode_ms: list[float] = []
    feature_ms: list[float] = []
    rejects: list[Reject] = []
    moments: list[Mapping[str, Moments]] = []
    wavs: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    with (
        concurrent.futures.ThreadPoolExecutor(READ_AHEAD) as executor,
        ShardWriter(
            output=config.output,
            representations=config.representations,
            shard=shard,
            num_shards=config.num_shards,
            executor=executor,
        ) as writer,
    ):
        ordered = sorted(clips)
        fetch = functools.partial(fetch_audio, excerpt=config.clip.excerpt)
        for clip, reading in storage.read_ahead(
            ordered, fetch, executor=executor, depth=READ_AHEAD
        ):
            try:
                with reading.result() as file:
                    made = make_records(
                        clip, file, config.representations, config.clip, workspace
                    )
            except AudioError as error:
                rejects.append(_make_reject(clip, error))
            else:
                for name, records in made.records.items():
                    writer.write(name, clip.split, records)
                if clip.split == "training":
                    moments.append(made.moments)
                if clip.artist_id:
                    artists.add((clip.artist_id, clip.split))
                used.append((clip.track_id, clip.genre, clip.split, clip.size))
                tally[clip.split, clip.genre] += 1
                decoders[made.decoder] += 1
                decode_ms.append(made.decode_ms)
                feature_ms.append(made.feature_ms)
                if config.wav_output:
                    wavs.append(executor.submit(write_wav, clip, made.samples, config))
                    if len(wavs) > READ_AHEAD:  # Each holds 5 MB of samples.
                        wavs.popleft().result()
            _count_progress(config.progress_file)
        for wav in wavs:
            wav.result()
        writer.commit()
    report = ShardReport(
        shard=shard,
        clips=dict(tally),
        records=dict(writer.records),
        record_bytes=dict(writer.record_bytes),
        decoders=dict(decoders),
        decode_ms=decode_ms,
        feature_ms=feature_ms,
        artists=sorted(artists),
        digest=fingerprint(used),
    )
    return ShardResult(report=report, rejects=rejects, moments=moments)


def fetch_audio(clip: Clip, excerpt: str) -> BinaryIO:
    """Reads what decoding a clip takes: the whole file, or an excerpt's bytes.

    Args:
      clip: names the file.
      excerpt: `middle` or `start`.

    Raises:
      AudioError: the store does not give the file, also when asked again.
    """
    attempt = 1
    while True:
        try:
            return _open_audio(clip, excerpt)
        except storage.STORE_ERRORS as error:
            if attempt == READ_ATTEMPTS:
                raise AudioError(Reason.UNREADABLE, str(error)) from error
        time.sleep(RETRY_SECONDS * 2 ** (attempt - 1))
        attempt += 1


def _open_audio(clip: Clip, excerpt: str) -> BinaryIO:
    file = storage.open_for_reading(clip.path)
    if clip.size <= WHOLE_FILE_BYTES:
        with file:
            return io.BytesIO(file.read())
    source = mp3.prepare(file, excerpt)
    if source is not file:
        file.close()
    return source


def write_wav(clip: Clip, samples: Float32, config: DatasetConfig) -> None:
    """Keeps a decoded clip as a 32-bit float WAV, which decodes to the same bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    name = posixpath.splitext(relative_path(clip.path, config.audio_base))[0] + ".wav"
    path = storage.join(config.wav_output, *name.lstrip("/").split("/"))
    storage.write_atomically(path, buffer.getvalue(), scratch=config.wav_output)


def _make_reject(clip: Clip, error: AudioError) -> Reject:
    return Reject(
        path=clip.path,
        track_id=clip.track_id,
        stage="decode",
        reason=error.reason,
        message=str(error),
    )


def _count_progress(path: str) -> None:
    """Appends a byte: the file's size is the number of clips done, by anyone."""
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)

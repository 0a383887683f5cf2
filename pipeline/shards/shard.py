"""Makes one shard: reads and decodes ahead, computes clip by clip, commits whole files.

A shard index stands for one file of every representation and split. All of
them are computed and written where the clips are decoded, so that neither
audio nor records ever cross a shuffle, and they are the same bytes for any
runner, worker or attempt.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import soundfile

from pipeline.common import storage
from pipeline.common.clip_config import SAMPLE_RATE
from pipeline.common.files import join
from pipeline.common.regular_file import NotAFileError
from pipeline.common.rejects import AudioError, Reason, Reject
from pipeline.decoding import mp3
from pipeline.decoding.waveform import Loader, Waveform, load_waveform
from pipeline.inputs.archives import paths, reading
from pipeline.inputs.checksums import check_sha1
from pipeline.inputs.join import Clip
from pipeline.inputs.names import relative_path, wav_name
from pipeline.representations.spectrum import Float32, Workspace
from pipeline.shards import resume, runs
from pipeline.shards.moments import Moments
from pipeline.shards.records import make_records
from pipeline.shards.result import DatasetConfig, ShardResult, WrittenClip
from pipeline.shards.writer import open_writer

T = TypeVar("T")
R = TypeVar("R")

#: Clips read at the same time, ahead of the computation: at 65 ms a clip this
#: hides half a second of latency.
READ_AHEAD = 8
#: A larger file may hold far more than a clip: only its excerpt is read.
WHOLE_FILE_BYTES = 4 << 20


def keep_or_make_shard(
    shard: int,
    clips: Iterable[Clip],
    config: DatasetConfig,
    workspace: Workspace,
    load: Loader = load_waveform,
) -> tuple[ShardResult, bool]:
    """Makes a shard, unless an earlier run has made the very same.

    Its result is kept for later runs either way.

    Args:
      shard: index, below `config.num_shards`.
      clips: in any order.
      config: dataset parameters.
      workspace: the thread's buffers.
      load: decodes a file.

    Returns:
      The result, and whether an earlier run made the shard.

    Raises:
      WriteError: the store does not take the files.
      SupersededError: a later run has taken over the folder.
    """
    clips = list(clips)
    fingerprint = resume.fingerprint_shard(shard, clips, config)
    earlier = resume.find_finished(shard, fingerprint, config)
    if earlier is not None:
        for _ in clips:
            count_progress(config.progress_file)
        return earlier, True
    with runs.writing(config):
        resume.forget_result(shard, config)
    attempt = 1
    while True:
        try:
            result = make_shard(shard, clips, config, workspace, load)
            break
        except storage.WriteError as error:
            if attempt == storage.ATTEMPTS or not error.transient:
                raise
        attempt += 1
    with runs.writing(config):
        resume.write_result(result, config)
    return result, False


def make_shard(
    shard: int,
    clips: Iterable[Clip],
    config: DatasetConfig,
    workspace: Workspace,
    load: Loader = load_waveform,
) -> ShardResult:
    """Computes and writes all clips of one shard.

    Making the same shard twice, at the same time or after a failure, leaves
    one complete set of files.

    Args:
      shard: index, below `config.num_shards`.
      clips: in any order; they are written by ascending id.
      config: dataset parameters.
      workspace: the thread's buffers.
      load: decodes a file.

    Raises:
      WriteError: the store does not take the files.
      SupersededError: a later run has taken over the folder.
    """
    clips = sorted(clips)
    entries: list[WrittenClip] = []
    decode_ms: list[float] = []
    compute_ms: list[float] = []
    moments: list[Mapping[str, Moments]] = []
    wavs: collections.deque[concurrent.futures.Future[None]] = collections.deque()
    unique, rejects = _reject_repeated(clips)

    def decode(_: Clip, file: BinaryIO) -> tuple[Waveform, float]:
        started = time.perf_counter()
        waveform = load(file, config.clip)
        return waveform, (time.perf_counter() - started) * 1000

    with open_writer(shard, config, READ_AHEAD) as (writer, executor):
        for clip, decoding in decode_ahead(
            unique,
            functools.partial(fetch_audio, excerpt=config.clip.excerpt),
            decode,
            executor=executor,
            ahead=config.decode_ahead,
        ):
            try:
                waveform, milliseconds = decoding.result()
            except AudioError as error:
                rejects.append(_make_reject(clip, "decode", error.reason, str(error)))
            except storage.ReadError as error:  # Of a file read while it is decoded.
                rejects.append(
                    _make_reject(clip, "decode", Reason.UNREADABLE, str(error))
                )
            else:
                content = make_records(
                    clip,
                    waveform,
                    config.representations,
                    config.clip,
                    workspace,
                    config.label,
                )
                for name, records in content.records.items():
                    writer.write(name, clip.split, records)
                if clip.split == "training":
                    moments.append(content.moments)
                entries.append(
                    WrittenClip(
                        track_id=clip.track_id,
                        artist_id=clip.artist_id,
                        genres=tuple(config.genres[label] for label in clip.labels),
                        split=clip.split,
                        path=clip.path,
                        size=clip.size,
                        seconds=waveform.seconds,
                        decoder=waveform.decoder,
                        audio=content.audio,
                    )
                )
                decode_ms.append(milliseconds)
                compute_ms.append(content.compute_ms)
                if config.wav_output:
                    # Another clip will be decoded to the same memory.
                    samples = waveform.samples[: waveform.length].copy()
                    wavs.append(executor.submit(write_wav, clip, samples, config))
                    if len(wavs) > READ_AHEAD:  # Each holds 5 MB of samples.
                        wavs.popleft().result()
            count_progress(config.progress_file)
        for wav in wavs:
            wav.result()
        writer.commit(runs.writing(config))
    return ShardResult(
        shard=shard,
        fingerprint=resume.fingerprint_shard(shard, clips, config),
        clips=tuple(entries),
        files=writer.files,
        rejects=tuple(rejects),
        moments=_stack(moments),
        decode_ms=tuple(decode_ms),
        compute_ms=tuple(compute_ms),
    )


def decode_ahead(
    items: Iterable[T],
    fetch: Callable[[T], BinaryIO],
    decode: Callable[[T, BinaryIO], R],
    *,
    executor: concurrent.futures.Executor,
    ahead: bool,
) -> Iterator[tuple[T, concurrent.futures.Future[R]]]:
    """Reads files ahead, and decodes them in their order.

    Args:
      items: what to decode, in order.
      fetch: opens one.
      decode: decodes one, in a thread of its own.
      executor: runs `fetch`, for up to `READ_AHEAD` items at the same time.
      ahead: decode the next item while one is used.

    Yields:
      Each item, in order, with the future of what `decode` returns; what it or `fetch`
      raises appears there.
    """

    def open_and_decode(item: tuple[T, concurrent.futures.Future[BinaryIO]]) -> R:
        with item[1].result() as file:
            return decode(item[0], file)

    readings = storage.read_ahead(items, fetch, executor=executor, depth=READ_AHEAD)
    # One thread: a decoder has one process, which takes one file after the other.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        for (item, _), decoding in storage.read_ahead(
            readings, open_and_decode, executor=thread, depth=int(ahead)
        ):
            yield item, decoding


def _reject_repeated(clips: Sequence[Clip]) -> tuple[list[Clip], list[Reject]]:
    """Tells clips, sorted by id, from those whose id another one has already."""
    unique: list[Clip] = []
    rejects: list[Reject] = []
    for clip in clips:
        if unique and clip.track_id == unique[-1].track_id:
            message = f"{unique[-1].path} is used for this track id"
            rejects.append(_make_reject(clip, "join", Reason.DUPLICATE_ID, message))
        else:
            unique.append(clip)
    return unique, rejects


def _stack(moments: Sequence[Mapping[str, Moments]]) -> dict[str, Moments]:
    """Moments of single clips, (segments,), as arrays (clips, segments)."""
    return {
        name: Moments(
            mean=np.stack([clip[name].mean for clip in moments]),
            variance=np.stack([clip[name].variance for clip in moments]),
        )
        for name in (moments[0] if moments else ())
    }


def fetch_audio(clip: Clip, excerpt: str) -> BinaryIO:
    """Reads what decoding a clip takes: the whole file, or an excerpt's bytes.

    Args:
      clip: names the file.
      excerpt: `middle` or `start`.

    Raises:
      AudioError: the store does not give the file, also when asked again; or what
        the name leads to is none.
    """
    try:
        file = open_audio(clip.path, clip.size)
        if isinstance(file, io.BytesIO) or paths.split(clip.path):  # Unpacked whole.
            check_sha1(file, clip.sha1)
        if isinstance(file, io.BytesIO):
            return file
        source = mp3.prepare(file, excerpt)
    except NotAFileError as error:
        raise AudioError(Reason.NOT_A_FILE, str(error.strerror)) from error
    except storage.STORE_ERRORS as error:
        raise AudioError(Reason.UNREADABLE, str(error)) from error
    if isinstance(source, io.BytesIO):
        file.close()  # Else it is still read from.
    return source


def open_audio(path: str, size: int) -> BinaryIO:
    """Opens a file to decode; a small one is read whole, to `io.BytesIO`.

    Args:
      path: on any file system, or in a ZIP.
      size: in bytes, when it was listed.

    Raises:
      OSError: the store does not give it (`storage.STORE_ERRORS`), or it is no file.
    """
    if size <= WHOLE_FILE_BYTES and not paths.split(path):
        data = storage.read_bytes(path, WHOLE_FILE_BYTES + 1)
        if len(data) <= WHOLE_FILE_BYTES:
            return io.BytesIO(data)
        # It has grown since it was listed.
    return reading.open_input(path, sparsely=True)


def write_wav(clip: Clip, samples: Float32, config: DatasetConfig) -> None:
    """Keeps a decoded clip as a 32-bit float WAV, which decodes to the same bits.

    Args:
      clip: names the WAV.
      samples: the audio's own, mono at 44,100 Hz.
      config: has the folder.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    # libsndfile writes the time into its PEAK chunk, behind name, size and version.
    time = buffer.getbuffer()[:256].tobytes().index(b"PEAK") + 12
    buffer.getbuffer()[time : time + 4] = bytes(4)
    name = wav_name(relative_path(clip.path, config.audio_base), whole=clip.whole_name)
    path = join(config.wav_output, name.lstrip("/"))
    storage.write_atomically(path, buffer.getvalue(), scratch=config.wav_output)


def _make_reject(clip: Clip, stage: str, reason: Reason, message: str) -> Reject:
    return Reject(
        path=clip.path,
        track_id=clip.track_id,
        stage=stage,
        reason=reason,
        message=message,
    )


def count_progress(path: str) -> None:
    """Appends a byte: the file's size is the number of clips done, by anyone."""
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b".")
        finally:
            os.close(descriptor)

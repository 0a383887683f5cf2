"""Audio files to genres, by the same predictor as `./launch.sh predict`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.common import storage
from pipeline.common.regular_file import NotAFileError
from pipeline.common.rejects import AudioError, Reason
from pipeline.decoding.excerpts import Part
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.inputs.join import AudioFile
from pipeline.shards.shard import READ_AHEAD, decode_ahead, open_audio
from trainer.predict.audio import AudioPredictor, join_records
from trainer.predict.network import Embedder
from trainer.predict.protocol import Predictor

#: Clips that a model gets at once. While it is asked, one more file is decoded, which
#: takes about as long as a network takes for the mel images of two.
BATCH_CLIPS = 2


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SongLabels:
    """What the models say of one file.

    Attributes:
      probabilities: of each genre in each excerpt, float64 `(excerpts, genres)`; the
        mean over the models.
      starts: where each excerpt begins, in seconds.
      seconds: length of the file.
      embeddings: the network's penultimate layer, float32 `(excerpts, width)`; width
        0 where nobody asked for it.
    """

    probabilities: NDArray[np.float64]
    starts: tuple[float, ...]
    seconds: float
    embeddings: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Song:
    """A file that is decoded: records by representation, where its clips lie."""

    file: AudioFile
    records: Mapping[str, NDArray[Any]]
    starts: tuple[float, ...]
    seconds: float


def open_song(file: AudioFile) -> BinaryIO:
    """Opens a file for decoding; one that is small is read whole.

    Raises:
      AudioError: the store does not give it, or what its name leads to is no file.
    """
    if file.problem:
        raise AudioError(Reason.UNREADABLE, file.problem)
    try:
        return open_audio(file.path, file.size)
    except NotAFileError as error:
        raise AudioError(Reason.NOT_A_FILE, str(error.strerror)) from error
    except storage.STORE_ERRORS as error:
        raise AudioError(Reason.UNREADABLE, storage.explain(error)) from error


class SongLabeller:
    """Names the genres of files, many at a time; for one thread.

    Args:
      predictor: the models; several threads may share them.
      decoder: of this thread.
      excerpts: take no more than this many of a long file.
      embedder: asks for the penultimate layer; None for none.

    Raises:
      UserError: the models cannot be asked for audio.
    """

    def __init__(
        self,
        predictor: Predictor,
        decoder: IsolatedDecoder,
        *,
        excerpts: int,
        embedder: Embedder | None = None,
    ) -> None:
        self._predictor = predictor
        # Has this thread's buffers.
        self._audio = AudioPredictor(predictor, excerpts=excerpts)
        self._decoder = decoder
        self._embedder = embedder

    def label(
        self, files: Iterable[AudioFile]
    ) -> Iterator[tuple[AudioFile, SongLabels | AudioError]]:
        """Yields each file with its genres, or with why it cannot be used.

        Files are read ahead, the next one is decoded while a model is asked, and a
        model gets the clips of several at once.
        """
        with concurrent.futures.ThreadPoolExecutor(READ_AHEAD) as executor:
            waiting: list[_Song] = []
            for file, decoding in decode_ahead(
                files,
                open_song,
                self._decode,
                executor=executor,
                ahead=True,
            ):
                try:
                    waiting.append(decoding.result())
                except AudioError as error:
                    yield file, error
                except storage.ReadError as error:
                    yield file, AudioError(Reason.UNREADABLE, str(error))
                if sum(len(song.starts) for song in waiting) >= BATCH_CLIPS:
                    yield from self._ask(waiting)
                    waiting.clear()
            yield from self._ask(waiting)

    def _decode(self, file: AudioFile, opened: BinaryIO) -> _Song:
        """Makes a file's records, those of a clip while the next one is decoded."""
        audio = self._audio

        def use(part: Part) -> tuple[Mapping[str, NDArray[Any]], float, float]:
            return audio.make_records([part]), part.start, part.seconds

        clips = self._decoder.use_parts(opened, audio.config, audio.excerpts, use)
        return _Song(
            file=file,
            records=join_records([records for records, _, _ in clips]),
            starts=tuple(start for _, start, _ in clips),
            seconds=clips[0][2],
        )

    def _ask(self, songs: Sequence[_Song]) -> Iterator[tuple[AudioFile, SongLabels]]:
        if not songs:
            return
        records = join_records([song.records for song in songs])
        probabilities = np.asarray(self._predictor.predict(records), np.float64)
        embeddings = np.zeros((len(probabilities), 0), np.float32)
        if self._embedder is not None:
            embeddings = self._embedder.embed(records)
        ends = itertools.accumulate(len(song.starts) for song in songs)
        for song, end in zip(songs, ends, strict=True):
            part = slice(end - len(song.starts), end)
            yield (
                song.file,
                SongLabels(
                    probabilities=probabilities[part],
                    starts=song.starts,
                    seconds=song.seconds,
                    embeddings=embeddings[part],
                ),
            )

"""Checks that shard files are those that the manifest is about."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence

import google_crc32c
import tensorflow as tf

from pipeline.common.progress import BYTE, SILENT, Reporter
from pipeline.common.regular_file import NotAFileError, check_regular
from pipeline.schema import SPLITS, ShardFile, UserError
from trainer.data.dataset import Dataset
from trainer.data.index import find_bad_label
from trainer.data.streams import READS, parse_batch, untuned

#: Bytes that are read at once.
PIECE = 4 * 2**20

ADVICE = "copy the dataset again, or preprocess it again."


def check_files(
    dataset: Dataset,
    representation: str,
    *,
    splits: Sequence[str] = SPLITS,
    worker: int = 0,
    workers: int = 1,
    reporter: Reporter = SILENT,
) -> None:
    """Reads a representation's files once, and compares them with the manifest.

    A file that was cut off, altered, or put there by another run is named before
    training starts.

    Args:
      dataset: an open dataset.
      representation: one that it holds.
      splits: of which files are checked.
      worker: index of this process, which checks the files that it will read.
      workers: number of processes.
      reporter: is told how far it is.

    Raises:
      UserError: a file is missing or is not the one that the manifest describes.
    """
    files = [
        file
        for split in splits
        for file in dataset.files(representation, split, worker=worker, workers=workers)
    ]
    names = [file.removeprefix(f"{dataset.folder.rstrip('/')}/") for file in files]
    known = dataset.manifest.files
    total = sum(known[name].size for name in names if name in known)
    size = 0
    with (
        concurrent.futures.ThreadPoolExecutor(READS) as pool,
        reporter.stage(f"Checksums of {representation}", total, BYTE) as stage,
    ):
        for count in pool.map(lambda file: _check_file(dataset, file), files):
            size += count
            stage.update(size)
    reporter.detail(
        f"{len(files)} files of {representation}, {size / 1e6:.1f} MB, are whole"
    )


def _check_file(dataset: Dataset, path: str) -> int:
    name = path.removeprefix(f"{dataset.folder.rstrip('/')}/")
    expected = dataset.manifest.files.get(name)
    if expected is None:
        raise UserError(f"{path} is not in the dataset's manifest; {ADVICE}")
    try:
        if "://" not in path:
            check_regular(path)
        actual = _describe_file(path, expected.size + 1)
    except NotAFileError as error:
        raise UserError(f"{path} {error.strerror}; {ADVICE}") from error
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); {ADVICE}") from error
    except tf.errors.OpError as error:
        raise UserError(f"Cannot read {path} ({error.message}); {ADVICE}") from error
    if actual.size != expected.size:
        raise UserError(
            f"{path} has {actual.size} bytes, the manifest says {expected.size}: it "
            f"was cut off, or comes from another run; {ADVICE}"
        )
    if actual.crc32c != expected.crc32c:
        raise UserError(
            f"{path} has the checksum {actual.crc32c}, the manifest says "
            f"{expected.crc32c}: it is damaged, or comes from another run; {ADVICE}"
        )
    return actual.size


def _describe_file(path: str, limit: int) -> ShardFile:
    """Size and checksum of a file, of which no more than `limit` bytes are read."""
    size, crc = 0, 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while piece := file.read(min(PIECE, limit - size)):
            size += len(piece)
            crc = google_crc32c.extend(crc, piece)
    if size == limit:
        size = max(size, tf.io.gfile.stat(path).length)
    return ShardFile(records=0, size=size, crc32c=f"{crc:08x}")


def find_bad_record(dataset: Dataset, representation: str) -> str:
    """Says which record cannot be read, for an error that does not say it.

    Reads file by file and record by record until it comes to it.
    """
    layout = dataset.representation(representation)
    columns = [field.name for field in layout.fields]
    genres = len(dataset.manifest.genres)
    for split in SPLITS:
        for file in dataset.files(representation, split):
            number = 0
            try:
                for record in untuned(tf.data.TFRecordDataset(file)):
                    parsed = parse_batch(tf.expand_dims(record, 0), layout, columns)
                    problem = find_bad_label(parsed[layout.label.name].numpy(), genres)
                    if problem:
                        return f"Record {number} of {file} has {problem}"
                    number += 1
            except tf.errors.OpError as error:
                reason = error.message.splitlines()[0]
                return f"Record {number} of {file} cannot be read ({reason})"
    return f"A record of {representation} in {dataset.folder} cannot be read"

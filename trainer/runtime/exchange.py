"""What the processes of a run tell each other about clips."""

from __future__ import annotations

import io
import json

import numpy as np
import numpy.typing as npt

from trainer.data.index import Index
from trainer.runtime.devices import Devices, gather


def gather_clips(
    devices: Devices, index: Index, probabilities: npt.NDArray[np.float32]
) -> tuple[Index, npt.NDArray[np.float32]]:
    """Joins what all processes know of a split, process by process.

    Args:
      devices: all processes of the run call this at the same point.
      index: what this process' records are about.
      probabilities: of these records, `(n, genres)`.
    """
    if devices.workers == 1:
        return index, probabilities
    parts = [_unpack(part) for part in gather(devices, _pack(index, probabilities))]
    indices = [part[0] for part in parts]
    return Index(
        tuple(name for part in indices for name in part.track_ids),
        np.concatenate([part.labels for part in indices]),
        tuple(name for part in indices for name in part.artist_ids),
    ), np.concatenate([part[1] for part in parts])


def _pack(index: Index, probabilities: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    names = json.dumps([index.track_ids, index.artist_ids]).encode()
    np.savez(
        buffer,
        names=np.frombuffer(names, np.uint8),
        labels=index.labels,
        probabilities=probabilities,
    )
    return buffer.getvalue()


def _unpack(content: bytes) -> tuple[Index, npt.NDArray[np.float32]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        track_ids, artist_ids = json.loads(archive["names"].tobytes())
        index = Index(tuple(track_ids), archive["labels"], tuple(artist_ids))
        return index, archive["probabilities"]

"""Loads whole splits as normalised vectors, after checking that they are usable."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import psutil

from pipeline.schema import SPLITS, UserError
from trainer.data.dataset import Arrays, Dataset, load_arrays
from trainer.data.normalisation import expand_normalisation, normalise


class TooLargeError(UserError):
    """A representation does not fit into memory; another may."""


def load_normalised(dataset: Dataset, representation: str) -> dict[str, Arrays]:
    """Reads all splits, normalised as inside the neural networks.

    Raises:
      UserError: the files do not hold what the manifest says, or a value is not
        finite.
    """
    splits = {split: load_arrays(dataset, representation, split) for split in SPLITS}
    check_finite(splits, dataset.folder)
    mean, variance = expand_normalisation(
        dataset.manifest.representations[representation],
        dataset.manifest.normalisation[representation],
    )
    for arrays in splits.values():
        normalise(arrays.values, mean, variance)
    return splits


def needed_bytes(dataset: Dataset, representation: str) -> int:
    """Memory that the baselines take at most, beside the libraries' own."""
    records = [dataset.count(representation, split) for split in SPLITS]
    values = dataset.manifest.representations[representation].value.size
    # Float32 values; distances, a kernel or products, and what computing them takes.
    return sum(records) * (4 * values + 3 * 8 * records[0])


def check_memory(dataset: Dataset, representation: str) -> None:
    """Refuses a dataset that would not fit into the memory that is free.

    Raises:
      TooLargeError: it would not.
    """
    needed = needed_bytes(dataset, representation)
    available = psutil.virtual_memory().available
    if needed > available:
        raise TooLargeError(
            f"The baselines on {representation} need {needed / 1e9:.1f} GB of memory "
            f"for the dataset in {dataset.folder}, {available / 1e9:.1f} GB are free; "
            "use a larger machine, a smaller dataset, or another --representation."
        )


def check_clips(dataset: Dataset) -> None:
    """Refuses splits that no classifier can be trained on or measured with.

    Raises:
      UserError: fewer than two genres to train on, or no test clips.
    """
    dataset.check_genres()
    if not dataset.manifest.clip_totals["test"]:
        raise UserError(
            f"The test split in {dataset.folder} holds no clips; preprocess more "
            "clips, or let cross-validation test all of them (./launch.sh folds)."
        )


def check_finite(splits: Mapping[str, Arrays], folder: str) -> None:
    """Refuses values that no classifier can use.

    Raises:
      UserError: a clip holds a value that is not finite.
    """
    for split, arrays in splits.items():
        # The sum is not finite where a value is not, and needs no second array.
        with np.errstate(invalid="ignore"):
            sums = arrays.values.sum(axis=1, dtype=np.float64)
        for bad in np.flatnonzero(~np.isfinite(sums))[:1]:
            raise UserError(
                f"Clip {arrays.track_ids[bad]} of the {split} split in {folder} holds "
                "values that are not finite; preprocess the dataset again."
            )

"""How good models are that few clips of a genre trained.

    ./launch.sh run benchmarks.few_clips --data OUT --output RESULTS --clips 2 4 8

From a dataset, whose own split is ignored, so many clips of each genre are drawn for
training, all of an artist or none; all others are the test. Nothing is kept back to
stop or to choose by. The models are those of `./launch.sh train` and `./launch.sh
baselines`, with their defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

import trainer.runtime.quiet  # noqa: F401  (before anything that imports TensorFlow)
from pipeline.schema import UserError
from trainer.baselines.__main__ import choose_representations, train_baselines
from trainer.baselines.fitting import BASELINES
from trainer.config import MODELS, TrainConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.folds.records import FoldedClips, assign_folds, split_records
from trainer.training.train import train


def draw_clips(dataset: Dataset, count: int, seed: int) -> FoldedClips:
    """Clips to train on, in fold 1, and to test, in fold 0; whole artists.

    Raises:
      UserError: a genre has no artists with so many clips together.
    """
    clips = assign_folds(dataset, 2, seed)
    rng = np.random.default_rng(seed)
    pairs = zip(clips.artist_ids, clips.track_ids, strict=True)
    groups = np.array([artist or f"clip {track}" for artist, track in pairs])
    chosen: set[str] = set()
    for label, genre in enumerate(dataset.manifest.genres):
        names = groups[clips.labels == label]
        missing = count - int(np.isin(names, list(chosen)).sum())
        for name in rng.permutation(np.unique(names)):
            size = int((names == name).sum())
            alone = (groups == name).sum() == size  # of this genre only
            if name not in chosen and size <= missing and alone:
                chosen.add(str(name))
                missing -= size
        if missing:
            raise UserError(
                f"{genre} has no artists with {count} clips together; give fewer "
                "--clips."
            )
    return dataclasses.replace(
        clips,
        folds=np.isin(groups, list(chosen)).astype(np.int64),
        stopping=np.zeros(len(groups), bool),
        rule=f"{count} training clips a genre, drawn with seed {seed}",
    )


def measure(
    dataset: Dataset, count: int, seed: int, models: Sequence[str], weights: str | None
) -> dict[str, float]:
    """Test accuracy of each model."""
    clips = draw_clips(dataset, count, seed)
    accuracies = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = f"{scratch}/data"
        split_records(dataset, clips, f"{scratch}/records").link(data, 0)
        few = open_dataset(data)
        for name in choose_representations(few, None):
            for report in train_baselines(few, name, BASELINES, f"{scratch}/models"):
                accuracies[report.name] = report.test.accuracy
        for model in models:
            config = TrainConfig(
                data=data,
                model=model,
                output=f"{scratch}/{model}",
                seed=seed,
                weights=weights if model == "mel" else None,
            )
            result = train(config)
            if result is not None:
                accuracies[model] = result.test.accuracy
    return accuracies


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True, help="JSON file")
    parser.add_argument("--clips", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["embeddings"])
    parser.add_argument("--weights", help="ImageNet weights for mel")
    flags = parser.parse_args(argv)
    dataset = open_dataset(flags.data)
    results = []
    for count in flags.clips:
        for seed in flags.seeds:
            found = measure(dataset, count, seed, flags.models, flags.weights)
            results.append({"clips": count, "seed": seed, "accuracy": found})
            with open(flags.output, "w") as file:
                json.dump(results, file, indent=1)
    for count in flags.clips:
        rows = [one["accuracy"] for one in results if one["clips"] == count]
        for name in sorted(rows[0]):
            values = [row[name] for row in rows]
            print(f"{count} {name}: {np.mean(values):.3f} +- {np.std(values):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

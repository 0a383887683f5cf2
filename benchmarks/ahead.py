"""Wall and CPU time of a clip in one process, with and without decoding ahead.

    ./launch.sh run benchmarks.ahead CLIP.mp3 --representations windows mel features

One shard of clips that are made from the given ones; both ways alternate.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import threadpoolctl

from benchmarks.clips import make_clips
from pipeline.common.clip_config import ClipConfig
from pipeline.common.plain_text import align
from pipeline.decoding.isolation import IsolatedDecoder
from pipeline.inputs.join import Clip
from pipeline.representations import DEFAULTS, NAMES, embeddings
from pipeline.representations.music_model import prepare_one_thread
from pipeline.representations.weights import find_weights
from pipeline.schema import UserError
from pipeline.shards.records import make_workspace, warm_up
from pipeline.shards.result import DatasetConfig
from pipeline.shards.shard import make_shard


def make_config(output: Path, names: Sequence[str], images: int) -> DatasetConfig:
    """A dataset of one shard, with its folders.

    Raises:
      UserError: the music model's weights are not there.
    """
    weights = find_weights("") if embeddings.NAME in names else None
    if embeddings.NAME in names and weights is None:
        raise UserError("embeddings need weights: ./launch.sh weights")
    model, path = weights or (None, "")
    for folder in (*names, "_temporary"):
        (output / folder).mkdir(parents=True)
    return DatasetConfig(
        output=str(output),
        representations=tuple(names),
        clip=ClipConfig(
            mel_images_per_clip=images, music_model=model.name if model else ""
        ),
        genres=("genre",),
        num_shards=1,
        music_weights=path,
    )


def measure(
    clips: Sequence[Clip], config: DatasetConfig, rounds: int
) -> dict[bool, list[tuple[float, float]]]:
    """Milliseconds a clip, wall and CPU of both processes: by whether ahead."""
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    workspace = make_workspace(config)
    with threadpoolctl.threadpool_limits(1), IsolatedDecoder() as decoder:
        warm_up(config.representations, config.clip, workspace)
        [helper] = psutil.Process().children()
        make_shard(0, clips[:3], config, workspace, decoder.load_waveform)
        for _ in range(rounds):
            for ahead, found in times.items():
                changed = dataclasses.replace(config, decode_ahead=ahead)
                cpu, wall = _read_cpu(helper), time.monotonic()
                make_shard(0, clips, changed, workspace, decoder.load_waveform)
                wall, cpu = time.monotonic() - wall, _read_cpu(helper) - cpu
                found.append((wall * 1000 / len(clips), cpu * 1000 / len(clips)))
    return times


def _read_cpu(helper: psutil.Process) -> float:
    return time.process_time() + sum(helper.cpu_times()[:2])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audio", nargs="+", help="MP3s of 30 s")
    parser.add_argument("--representations", nargs="+", choices=NAMES, default=DEFAULTS)
    parser.add_argument("--mel_images_per_clip", type=int, default=5)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    flags = parser.parse_args(argv)
    prepare_one_thread()
    with tempfile.TemporaryDirectory(prefix="ahead-") as scratch:
        folder = Path(scratch) / "clips"
        make_clips([Path(path) for path in flags.audio], folder, flags.clips)
        clips = [
            Clip(
                track_id=path.stem,
                artist_id="",
                labels=(0,),
                split="training",
                path=str(path),
                size=path.stat().st_size,
            )
            for path in sorted(folder.glob("*.mp3"))
        ]
        config = make_config(
            Path(scratch) / "dataset", flags.representations, flags.mel_images_per_clip
        )
        times = measure(clips, config, flags.rounds)
    rows = [
        ["yes" if ahead else "no", f"{wall:.1f}", f"{cpu:.1f}"]
        for ahead, found in times.items()
        for wall, cpu in found
    ]
    print(align(["ahead", "wall ms", "CPU ms"], rows))
    totals = {ahead: sum(wall for wall, _ in found) for ahead, found in times.items()}
    print(f"wall, ahead / not ahead: {totals[True] / totals[False]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

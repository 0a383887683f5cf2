"""Small corpora on disk for the tests of Beam transforms and command lines."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from pipeline.inputs.join import Clip

RATE = 22_050


def write_tone(path: Path, hertz: float, seconds: float = 6.0) -> Path:
    """A quiet tone with noise; WAV or FLAC by extension, decodes in a moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(int(hertz)).normal(0, 0.01, len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time) + noise, RATE)
    return path


def write_plain_corpus(folder: Path, clips: int = 6) -> tuple[str, Path]:
    """Tones of two genres by different artists; returns glob and CSV.

    Clip i is `i.wav` by artist `a{i}`; two of three are in training.
    """
    rows = []
    splits = ["training", "training", "test", "training", "training", "validation"]
    for index in range(clips):
        write_tone(folder / "audio" / f"{index}.wav", 200 + 40 * index)
        rows.append(
            {
                "path": f"{index}.wav",
                "genre": ["High", "Low"][index % 2],
                "track_id": f"t{index}",
                "artist_id": f"a{index}",
                "split": splits[index % 6],
            }
        )
    metadata = folder / "tracks.csv"
    write_csv(metadata, rows)
    return f"{folder}/audio/*.wav", metadata


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_clip(path: Path, track_id: str = "t0", **changes: object) -> Clip:
    values: dict[str, object] = {
        "track_id": track_id,
        "artist_id": "a0",
        "labels": (1,),
        "split": "training",
        "path": str(path),
        "size": path.stat().st_size if path.exists() else 0,
    }
    return Clip(**(values | changes))  # type: ignore[arg-type]

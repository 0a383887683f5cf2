"""Load for the benchmarks: many distinct 30 s MP3s from a few."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.decoding import mp3, mpeg


def split_frames(data: bytes) -> list[bytes]:
    """The audio frames of an MP3, without tags and without its Xing frame."""
    stream = mp3.read_stream(io.BytesIO(data))
    if stream is None:
        raise ValueError("Expected an MP3. Received: no MPEG frames")
    frames = []
    position = stream.start
    while (frame := mpeg.parse_frame(data, position)) is not None:
        frames.append(data[position : position + frame.size])
        position += frame.size
    return frames[1:] if stream.header else frames


def make_clips(sources: Sequence[Path], folder: Path, count: int) -> Path:
    """Writes `count` MP3s, each a source rotated by some frames, and a CSV.

    Rotating keeps length, bit rate and decoding cost, and makes every file's
    content its own.

    Args:
      sources: MP3s of 30 s.
      folder: destination.
      count: number of clips.

    Returns:
      Path of the CSV `path,genre,track_id,artist_id,split`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    streams = [split_frames(source.read_bytes()) for source in sources]
    rows = []
    for number in range(count):
        frames = streams[number % len(streams)]
        turn = number // len(streams) * len(frames) // (count // len(streams) + 1)
        name = f"{number:06d}.mp3"
        data = b"".join(frames[turn:] + frames[:turn])
        (folder / name).write_bytes(mpeg.add_length(data))
        split = ["validation", "test"][number % 2] if number % 10 > 7 else "training"
        # No artist is in two splits: leaks would be taken out.
        artist = f"{split} {number % 97}"
        rows.append([name, f"Genre {number % 8}", name[:6], artist, split])
    metadata = folder / "tracks.csv"
    with metadata.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "genre", "track_id", "artist_id", "split"])
        writer.writerows(rows)
    return metadata

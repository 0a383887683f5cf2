"""How far the clips' statistics are from those of FMA's features.csv.

The file has three header rows (feature, statistics, number), a row `track_id`, and 518
numbers a track. Tracks are compared whose file is a 30 s clip, so that ours are of all
of it.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.common import storage
from pipeline.common.files import join
from pipeline.common.plain_text import align
from pipeline.common.rejects import AudioError
from pipeline.inputs.archives.reading import find_csv, read_text
from pipeline.inspect import reading
from pipeline.representations import statistics
from pipeline.schema import SPLITS, Manifest, UserError, shorten

Float64 = NDArray[np.float64]

#: Seconds of a file that is a clip as FMA trims them.
CLIP_SECONDS = (29.0, 31.0)
#: Of a value that is the same but for rounding and versions of libraries.
SAME = 0.01

WHAT_DIFFERS = """\
What differs in FMA's, by its own program (features.py):
  - It reads each file at its native rate and as long as it is; its table of workers is
    made for durations up to 11,000 s, so the published numbers may be those of
    untrimmed tracks, where ours are of the 30 s clip at 44,100 Hz.
  - Five calls leave out the sampling rate: centroid, bandwidth and roll-off come out
    half as high (a ratio of 2), contrast and chroma_stft in other bands.
  - Its librosa (0.5) decoded MP3s by ffmpeg and resampled, padded and tuned otherwise
    than librosa 0.11, which ours are proved against."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distance:
    """How far one of the eleven features is from theirs, over clips and its values.

    Attributes:
      feature: name.
      values: number of its statistics.
      correlation: median over values of Pearson's over clips; NaN where nothing varies.
      difference: median of |ours - theirs|, in standard deviations of theirs.
      ratio: median of ours over theirs, of the means over time.
      same: share of values within 1 % of theirs.
    """

    feature: str
    values: int
    correlation: float
    difference: float
    ratio: float
    same: float


def describe_distances(folder: str, manifest: Manifest, path: str) -> str:
    """Holds a dataset's statistics against a features.csv, which may lie in a ZIP.

    Raises:
      UserError: the dataset has no statistics, the file is not features.csv, or they
        have no clip in common.
    """
    if statistics.NAME not in manifest.representations:
        raise UserError(
            f"--against needs the representation {statistics.NAME}; preprocess with "
            f"--representations {statistics.NAME}. Received: {folder}"
        )
    seconds = {
        str(clip.get("track_id")): clip.get("seconds")
        for clip in reading.read_clips(folder)
    }
    clips = {
        track
        for track, length in seconds.items()
        if isinstance(length, int | float)
        and CLIP_SECONDS[0] <= length <= CLIP_SECONDS[1]
    }
    ours = _read_ours(folder, manifest, clips)
    theirs = read_features(find_csv(path, "features.csv", "--against"), set(ours))
    # FMA's program leaves numbers out where it could not read a file.
    common = sorted(track for track in theirs if np.isfinite(theirs[track]).all())
    if not common:
        raise UserError(
            f"--against has all numbers of none of the {len(clips)} clips of 30 s in "
            f"{folder}; give the features.csv of the same tracks. Received: {path}"
        )
    rows = compare(
        np.array([ours[track] for track in common]),
        np.array([theirs[track] for track in common]),
    )
    return "\n".join(
        [
            f"Against {path}: {len(common):,} clips are in both; "
            f"{len(clips) - len(theirs):,} are not in it, "
            + f"{len(theirs) - len(common):,} lack numbers in it, "
            * (len(theirs) > len(common))
            + f"{len(seconds) - len(clips):,} more are no 30 s and were left out.",
            "",
            align(
                [
                    *("feature", "values", "correlation", "difference (sd)"),
                    *("ratio of means", "within 1 %"),
                ],
                [
                    [
                        row.feature,
                        str(row.values),
                        f"{row.correlation:.3f}",
                        f"{row.difference:.3f}",
                        f"{row.ratio:.3f}",
                        f"{row.same:.0%}",
                    ]
                    for row in rows
                ],
            ),
            "",
            WHAT_DIFFERS,
        ]
    )


def _read_ours(
    folder: str, manifest: Manifest, clips: Collection[str]
) -> dict[str, NDArray[np.float32]]:
    schema = manifest.representations[statistics.NAME]
    found: dict[str, NDArray[np.float32]] = {}
    for split in SPLITS:
        for file in manifest.shard_files(statistics.NAME, split):
            values = reading.read_values(join(folder, file), schema, clips)
            found |= {track: vectors[0] for track, vectors in values.items()}
    return found


def read_features(path: str, tracks: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """The rows of some tracks, in the order of our statistics, by track id.

    Raises:
      UserError: the file cannot be read, or is not FMA's features.csv.
    """
    try:
        with read_text(path) as text:
            return dict(_parse(csv.reader(text, strict=True), tracks, path))
    except (*storage.STORE_ERRORS, AudioError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"--against cannot be read: {error}. Received: {path}"
        ) from error


def _parse(
    rows: Iterator[list[str]], tracks: Collection[str], path: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    header = [next(rows, []) for _ in range(4)]
    names = [
        f"{feature}_{statistic}_{number}"
        for feature, statistic, number in zip(*header[:3], strict=False)
    ]
    wanted = [segment.name for segment in statistics.SEGMENTS]
    places = {name: place for place, name in enumerate(names)}
    missing = [name for name in wanted if name not in places]
    if missing or header[3][:1] != ["track_id"]:
        lacks = missing[0] if missing else "a fourth row that begins with track_id"
        raise UserError(
            f"{path} is not FMA's features.csv (rows feature, statistics, number, "
            f"track_id, and 518 columns); it lacks {lacks}."
        )
    columns = [places[name] for name in wanted]
    for number, row in enumerate(rows, 5):
        track = row[0] if row else ""
        if track.isdecimal() and str(int(track)) in tracks:
            try:
                values = np.array([float(row[c] or "nan") for c in columns], np.float32)
            except (ValueError, IndexError) as error:
                raise UserError(
                    f"{path} row {number}: expected 518 numbers. Received: "
                    f"{shorten(row)}"
                ) from error
            yield str(int(track)), values


def compare(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> list[Distance]:
    """Holds statistics of the same clips against each other.

    Args:
      ours: shape (clips, 518).
      theirs: shape (clips, 518).
    """
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    names = [segment.name for segment in statistics.SEGMENTS]
    distances = []
    for feature in statistics.FEATURES:
        columns = [k for k, name in enumerate(names) if name.startswith(f"{feature}_")]
        means = [k for k in columns if names[k].startswith(f"{feature}_mean_")]
        a, b = mine[:, columns], other[:, columns]
        deviation = np.nanstd(b, axis=0)
        varies = deviation > 0
        scale = np.where(varies, deviation, 1)
        usable = np.abs(other[:, means]) > 1e-9
        ratios = mine[:, means][usable] / other[:, means][usable]
        distances.append(
            Distance(
                feature=feature,
                values=len(columns),
                correlation=_median(_correlate(a, b)),
                difference=_median((np.abs(a - b) / scale).ravel()),
                ratio=_median(ratios),
                same=float(np.mean(np.abs(a - b) <= SAME * np.abs(b) + 1e-12)),
            )
        )
    return distances


def _correlate(a: Float64, b: Float64) -> Float64:
    """Pearson's correlation of each column where both vary."""
    a = a - a.mean(axis=0)
    b = b - b.mean(axis=0)
    norm = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    found: Float64 = (a * b).sum(axis=0)[norm > 0] / norm[norm > 0]
    return found


def _median(values: Sequence[float] | Float64) -> float:
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if known.size else float("nan")

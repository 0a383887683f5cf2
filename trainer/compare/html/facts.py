"""What the page says about a dataset, read from its records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from pipeline.schema import JOB_REPORT_FILE, Manifest
from trainer.compare.html.charts import wave_picture
from trainer.compare.html.clip_media import (
    clip_picture,
    features_picture,
    find_examples,
    find_values,
)
from trainer.compare.html.markup import Markup, element
from trainer.data.artists import read_artists
from trainer.data.dataset import Dataset
from trainer.evaluation.model_files import read_file
from trainer.evaluation.typed_json import parse_json

#: HTML of a clip of each genre, by genre and representation.
Pictures = Mapping[str, Mapping[str, Markup]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the page says about a dataset.

    Attributes:
      manifest: the dataset's.
      artists: number of different artists by split; empty if none is known.
      shared_artists: number of artists that two splits share, by the records.
      pictures: of a clip of each genre.
      command: what made the dataset, where it was recorded.
    """

    manifest: Manifest
    artists: Mapping[str, int]
    shared_artists: int
    pictures: Pictures
    command: str = ""


def read_facts(dataset: Dataset) -> DataFacts:
    """Reads from a dataset what the page shows of it."""
    by_split = {
        split: {artist for artist in tracks.values() if artist}
        for split, tracks in read_artists(dataset).items()
    }
    seen: set[str] = set()
    shared: set[str] = set()
    for artists in by_split.values():
        shared |= seen & artists
        seen |= artists
    return DataFacts(
        manifest=dataset.manifest,
        artists={split: len(artists) for split, artists in by_split.items()}
        if seen
        else {},
        shared_artists=len(shared),
        pictures=draw_examples(dataset),
        command=_read_command(f"{dataset.folder.rstrip('/')}/{JOB_REPORT_FILE}"),
    )


def _read_command(path: str) -> str:
    content = read_file(path)
    try:
        return "" if content is None else str(parse_json(content).get("command", ""))
    except (ValueError, AttributeError):
        return ""


def draw_examples(dataset: Dataset) -> Pictures:
    """A training clip of each genre, drawn in each representation that can be."""
    chosen = find_examples(dataset)
    representations = dataset.manifest.representations
    values = {
        name: find_values(dataset, name, set(chosen.values()))
        for name in ("windows", "mel", "features")
        if name in representations
    }
    examples: dict[str, Mapping[str, Markup]] = {}
    for genre, track in chosen.items():
        pictures: dict[str, Markup] = {}
        if track in values.get("windows", {}):
            windows = values["windows"][track]
            label = (
                f"{genre}: {len(windows)} windows of the waveform, one after another"
            )
            pictures["windows"] = wave_picture(np.concatenate(windows), label)
        if track in values.get("mel", {}):
            pictures["mel"] = element(
                "img",
                src=clip_picture(values["mel"][track]),
                alt=f"{genre}: mel image, the clip from left to right, low sounds at "
                "the bottom, bright is loud",
                class_="mel",
                width=224,
                height=224,
            )
        if track in values.get("features", {}):
            segments = representations["features"].segments
            frames = segments[0].length
            rows = sum(segment.length == frames for segment in segments)
            pictures["features"] = element(
                "img",
                src=features_picture(values["features"][track][0], rows, frames),
                alt=f"{genre}: {rows} features by time; blue is below the row's mean, "
                "red above",
                class_="rows",
                width=258,
                height=rows,
            )
        examples[genre] = pictures
    return examples

"""Small synthetic datasets in the pipeline's format, for the trainer's tests.

Written with `tf.io` and `tf.train.Example` alone, so that the trainer is tested
against the contract in `pipeline.schema` and not against the pipeline's writer.
Every genre leaves a mark of its own, which any model can learn.
"""

from __future__ import annotations

import collections
import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import google_crc32c
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline import schema

GENRES = ("Folk", "Jazz", "Rock")
CLIPS = {"training": 4, "validation": 2, "test": 2}
FEATURE_ROWS = 33
FEATURE_SCALARS = 4

Array = npt.NDArray[np.float32] | npt.NDArray[np.uint8]


def write_dataset(
    folder: str | pathlib.Path,
    *,
    representations: Sequence[str] = ("windows", "mel", "features", "statistics"),
    clips_per_split_and_genre: Mapping[str, int] = CLIPS,
    genres: Sequence[str] = GENRES,
    num_shards: int = 2,
    clips_per_artist: int = 1,
    windows_per_clip: int = 4,
    window_length: int = 1000,
    image_size: int = 32,
    frames: int = 20,
    statistics: int = 518,
    noise: float = 0.3,
    several: bool = False,
    seed: int = 0,
) -> schema.Manifest:
    """Writes records, manifest and marker; returns the manifest.

    The sizes default to small ones; 10,000, 224, 2,582 and 518 are the real ones.

    Args:
      folder: dataset folder; anything that `tf.io.gfile` can write.
      representations: which of windows, mel, features, statistics to write.
      clips_per_split_and_genre: clips of each genre, by split.
      genres: genre names.
      num_shards: shards of each split; clips go to them in turn.
      clips_per_artist: consecutive clips of a genre that share an artist.
      windows_per_clip: records of a clip in `windows`.
      window_length: samples of a window.
      image_size: rows and columns of a mel image.
      frames: frames of each of the 33 feature rows.
      statistics: values of the statistics vector.
      noise: standard deviation of what hides the genre's mark (of height 1).
      several: every other clip of a genre also has the next one, and the mark of both;
        the last genre is a kind of another one.
      seed: makes the values reproducible.
    """
    folder = str(folder)
    schemas = {
        name: representation_schema(
            name,
            windows_per_clip=windows_per_clip,
            window_length=window_length,
            image_size=image_size,
            frames=frames,
            statistics=statistics,
        )
        for name in representations
    }
    rng = np.random.default_rng(seed)
    records: dict[str, dict[str, int]] = {name: {} for name in representations}
    sizes: dict[str, int] = collections.Counter()
    shard_files: dict[str, schema.ShardFile] = {}
    values: dict[str, list[Array]] = {name: [] for name in representations}
    track = 0
    for split in schema.SPLITS:
        count = clips_per_split_and_genre.get(split, 0)
        labels = [label for _ in range(count) for label in range(len(genres))]
        tracks = range(track, track + len(labels))
        track += len(labels)
        for name, layout in schemas.items():
            tf.io.gfile.makedirs(f"{folder}/{name}")
            files = [
                f"{folder}/{schema.shard_file(name, split, shard, num_shards)}"
                for shard in range(num_shards)
            ]
            with contextlib.ExitStack() as stack:
                writers = [
                    stack.enter_context(tf.io.TFRecordWriter(file)) for file in files
                ]
                for clip, (track_id, label) in enumerate(
                    zip(tracks, labels, strict=True)
                ):
                    for index in range(layout.records_per_clip):
                        own = [label]
                        if several and clip // len(genres) % 2:
                            own.append((label + 1) % len(genres))
                        value = make_value(layout, own, len(genres), noise, rng)
                        if split == "training":
                            values[name].append(value)
                        writers[clip % num_shards].write(
                            make_example(
                                layout,
                                track_id,
                                mark(own, len(genres)) if several else label,
                                index,
                                value,
                                artist_of(split, clip, len(genres), clips_per_artist),
                            )
                        )
            records[name][split] = len(labels) * layout.records_per_clip
            for file in files:
                described = describe_file(file)
                sizes[name] += described.size
                shard_files[file.removeprefix(f"{folder}/")] = described
    manifest = schema.Manifest(
        genres=tuple(genres),
        representations=schemas,
        num_shards=num_shards,
        clips={
            split: dict.fromkeys(genres, count + several * (count // 2))
            for split in schema.SPLITS
            for count in [clips_per_split_and_genre.get(split, 0)]
        },
        task=schema.MULTI_LABEL if several else schema.SINGLE_LABEL,
        clip_totals={
            split: len(genres) * clips_per_split_and_genre.get(split, 0)
            for split in schema.SPLITS
        },
        genre_paths={genres[-1]: ("Popular", genres[-1])} if several else {},
        records=records,
        record_bytes=dict(sizes),
        normalisation={
            name: measure_normalisation(layout, values[name])
            for name, layout in schemas.items()
            if layout.segments and values[name]
        },
        settings={"sample_rate": 44_100},
        split_rule="synthetic clips, split by number",
        artists_in_several_splits=(),
        inputs={"written": track},
        rejects={},
        versions={},
        files=shard_files,
        fingerprint=schema.fingerprint([seed, track, *sorted(representations)]),
    )
    write_text(f"{folder}/{schema.MANIFEST_FILE}", manifest.to_json())
    write_text(f"{folder}/{schema.COMPLETED_FILE}", manifest.fingerprint + "\n")
    return manifest


def describe_file(path: str) -> schema.ShardFile:
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    return schema.ShardFile(
        records=sum(1 for _ in tf.data.TFRecordDataset(path)),
        size=len(content),
        crc32c=f"{google_crc32c.value(content):08x}",
    )


def write_text(path: str, text: str) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def representation_schema(
    name: str,
    *,
    windows_per_clip: int,
    window_length: int,
    image_size: int,
    frames: int,
    statistics: int,
) -> schema.RepresentationSchema:
    if name == "windows":
        return schema.RepresentationSchema(
            name=name,
            value=schema.Field(
                name="window",
                dtype="float32",
                shape=(window_length,),
                encoding="float_list",
            ),
            records_per_clip=windows_per_clip,
            segments=(schema.Segment(name="amplitude", length=window_length),),
        )
    if name == "mel":
        return schema.RepresentationSchema(
            name=name,
            value=schema.Field(
                name="image",
                dtype="uint8",
                shape=(image_size, image_size, 3),
                encoding="raw_bytes",
            ),
            records_per_clip=1,
            segments=(),
        )
    if name == "features":
        segments = [
            schema.Segment(name=f"row_{row}", length=frames)
            for row in range(FEATURE_ROWS)
        ]
        segments += [
            schema.Segment(name=f"scalar_{scalar}", length=1)
            for scalar in range(FEATURE_SCALARS)
        ]
    elif name == "statistics":
        segments = [
            schema.Segment(name=f"statistic_{value}", length=1)
            for value in range(statistics)
        ]
    else:
        raise ValueError(f"Unknown representation: {name!r}")
    return schema.RepresentationSchema(
        name=name,
        value=schema.Field(
            name=name,
            dtype="float32",
            shape=(sum(segment.length for segment in segments),),
            encoding="float_list",
        ),
        records_per_clip=1,
        segments=tuple(segments),
    )


def artist_of(split: str, clip: int, genres: int, clips_per_artist: int) -> str:
    number, label = divmod(clip, genres)
    return f"{split}-artist-{label}-{number // clips_per_artist}"


def mark(labels: Sequence[int], genres: int) -> npt.NDArray[np.uint8]:
    """1 for each label among zeros."""
    values = np.zeros(genres, np.uint8)
    values[list(labels)] = 1
    return values


def make_value(
    layout: schema.RepresentationSchema,
    labels: Sequence[int],
    genres: int,
    noise: float,
    rng: np.random.Generator,
) -> Array:
    """One record's value: a mark of each of its genres under noise."""
    shape = layout.value.shape
    random = rng.normal(0.0, noise, shape)
    if layout.name == "windows":
        wave = np.zeros(shape[0])
        for label in labels:
            cycles = 10.0 * 2.0**label
            phase = rng.uniform(0, 2 * np.pi)
            wave += np.sin(2 * np.pi * cycles * np.arange(shape[0]) / shape[0] + phase)
        return (0.2 * (wave + random)).astype(np.float32)
    if layout.name == "mel":
        for label in labels:
            period = 2.0 ** (1 + label)
            stripes = np.cos(2 * np.pi * np.arange(shape[1]) / period)
            random += stripes[:, np.newaxis]
        return np.clip(80 + 100 * random, 0, 255).astype(np.uint8)
    start = 0
    for number, segment in enumerate(layout.segments):
        part = slice(start, start + segment.length)
        random[part] += float(number % genres in labels)
        # Segments of very different location and scale: unusable as they are.
        random[part] = 3.0 * number + (1.0 + number % 7) * random[part]
        start += segment.length
    return random.astype(np.float32)


def make_example(
    layout: schema.RepresentationSchema,
    track_id: int,
    label: int | npt.NDArray[np.uint8],
    index: int,
    value: Array,
    artist_id: str = "",
) -> bytes:
    def text(content: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[content.encode()]))

    def integer(number: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))

    if layout.value.encoding == "raw_bytes":
        array = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.tobytes()]))
    else:
        array = tf.train.Feature(float_list=tf.train.FloatList(value=value.ravel()))
    features = {
        "track_id": text(f"{track_id:06d}"),
        "artist_id": text(artist_id or f"artist-{track_id}"),
        "decoder": text("synthetic"),
        "index": integer(index),
        layout.value.name: array,
    }
    if isinstance(label, int):
        features["label"] = integer(label)
    else:
        marks = tf.train.BytesList(value=[label.tobytes()])
        features["labels"] = tf.train.Feature(bytes_list=marks)
    example: bytes = tf.train.Example(
        features=tf.train.Features(feature=features)
    ).SerializeToString()
    return example


def measure_normalisation(
    layout: schema.RepresentationSchema, values: Sequence[Array]
) -> schema.Normalisation:
    stacked = np.stack([value.ravel() for value in values]).astype(np.float64)
    parts = list(_split(stacked, layout.segments))
    return schema.Normalisation(
        mean=tuple(float(part.mean()) for part in parts),
        variance=tuple(float(part.var()) for part in parts),
    )


def _split(
    stacked: npt.NDArray[np.float64], segments: Sequence[schema.Segment]
) -> Iterator[npt.NDArray[np.float64]]:
    start = 0
    for segment in segments:
        yield stacked[:, start : start + segment.length]
        start += segment.length

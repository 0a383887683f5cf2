"""What records and their files look like."""

from __future__ import annotations

import dataclasses
import math

#: How a field is stored in a `tf.train.Example`.
ENCODINGS = ("int64_list", "float_list", "bytes_list", "raw_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One feature of a `tf.train.Example`.

    Attributes:
      name: key in the Example.
      dtype: NumPy name of one value: int64, float32, uint8, or `string`.
      shape: dimensions of the decoded value; () for a scalar.
      encoding: one of `ENCODINGS`. `raw_bytes` is an array's C-order bytes in
        a single bytes value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    encoding: str

    def __post_init__(self) -> None:
        """Refuses encodings that no reader knows."""
        if self.encoding not in ENCODINGS:
            raise ValueError(
                f"Expected one of {ENCODINGS}. Received: encoding={self.encoding!r}"
            )

    @property
    def size(self) -> int:
        """Number of values in one decoded array."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """A named run of values in a flattened float array.

    All `length` values of a segment share one mean and one variance: a frame's
    position in the clip has no meaning of its own.
    """

    name: str
    length: int


#: Features that every record of every representation carries, beside its label.
CLIP_FIELDS = (
    Field(name="track_id", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="artist_id", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="decoder", dtype="string", shape=(), encoding="bytes_list"),
    Field(name="index", dtype="int64", shape=(), encoding="int64_list"),
)

#: A clip has one genre, or several.
SINGLE_LABEL, MULTI_LABEL = "single_label", "multi_label"
TASKS = (SINGLE_LABEL, MULTI_LABEL)
#: Of a single label: the index of the clip's genre.
LABEL_FIELD = Field(name="label", dtype="int64", shape=(), encoding="int64_list")
#: Name of the field of several: 1 for each of the clip's genres, 0 for all others.
LABELS_NAME = "labels"


def make_label_field(task: str, genres: int) -> Field:
    """The field that holds a clip's genre, or genres.

    Args:
      task: one of `TASKS`.
      genres: number of genres there are.
    """
    if task == SINGLE_LABEL:
        return LABEL_FIELD
    return Field(name=LABELS_NAME, dtype="uint8", shape=(genres,), encoding="raw_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepresentationSchema:
    """What the records of one representation look like.

    Attributes:
      name: folder under the dataset, and value of the trainer's `--model`.
      value: the field that holds the array itself.
      records_per_clip: how many records (with `index` 0, 1, ...) a clip has.
      segments: the parts of the flattened value, in order, where it is
        normalised with training statistics; empty where it is not (images).
      label: the field that holds a clip's genre, or genres.
    """

    name: str
    value: Field
    records_per_clip: int
    segments: tuple[Segment, ...]
    label: Field = LABEL_FIELD

    def __post_init__(self) -> None:
        """Checks that the segments cover the value exactly."""
        total = sum(segment.length for segment in self.segments)
        if self.segments and total != self.value.size:
            raise ValueError(
                f"The segments of {self.name!r} must sum to {self.value.size} values. "
                f"Received: {total}"
            )

    @classmethod
    def of_vectors(
        cls, name: str, value: str, segments: tuple[Segment, ...], records: int = 1
    ) -> RepresentationSchema:
        """Float32 vectors that consist of segments.

        Args:
          name: of the representation.
          value: name of the vector's field.
          segments: the parts of a vector, in order.
          records: of a clip.
        """
        size = sum(segment.length for segment in segments)
        field = Field(name=value, dtype="float32", shape=(size,), encoding="float_list")
        return cls(name=name, value=field, records_per_clip=records, segments=segments)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All features of one record: the clip's, its label, then the value."""
        return (*CLIP_FIELDS, self.label, self.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and variance of each segment over the training split."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFile:
    """What a shard file holds.

    Attributes:
      records: number of records.
      size: in bytes.
      crc32c: checksum of all bytes, eight hexadecimal digits; the same that Cloud
        Storage keeps of an object, in base64.
    """

    records: int
    size: int
    crc32c: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """How clips were assigned to splits.

    Attributes:
      rule: `fma`, by what the metadata says; `hash`, by a hash of the artist's id.
      percent: share of each of `SPLITS`, in their order, under `hash`; else empty.
    """

    rule: str
    percent: tuple[float, ...] = ()

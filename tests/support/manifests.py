"""A manifest of representations that nothing computes."""

from pipeline.schema import (
    Field,
    Manifest,
    Normalisation,
    RepresentationSchema,
    Segment,
    Split,
)

VECTOR = Field(name="vector", dtype="float32", shape=(5,), encoding="float_list")


def make_manifest() -> Manifest:
    vectors = RepresentationSchema(
        name="vectors",
        value=VECTOR,
        records_per_clip=2,
        segments=(Segment(name="a", length=3), Segment(name="b", length=2)),
    )
    image = Field(name="image", dtype="uint8", shape=(4, 4, 3), encoding="raw_bytes")
    images = RepresentationSchema(
        name="images", value=image, records_per_clip=1, segments=()
    )
    return Manifest(
        genres=("Hip-Hop", "Old-Time / Historic", "Café"),
        representations={"vectors": vectors, "images": images},
        num_shards=2,
        clips={"training": {"Hip-Hop": 3}, "validation": {}, "test": {"Café": 1}},
        records={"vectors": {"training": 6}, "images": {"training": 3}},
        record_bytes={"vectors": 1234, "images": 0},
        normalisation={"vectors": Normalisation(mean=(0.1, -2.0), variance=(1e-9, 3))},
        settings={"hop_length": 512, "min_duration": 5.0},
        split_rule="by hash",
        split=Split(rule="hash", percent=(80.0, 10.0, 10.0)),
        artists_in_several_splits=("7",),
        inputs={"clips": 4, "rejects": 1, "total": 5},
        rejects={"silent": 1},
        versions={"numpy": "2.0"},
        fingerprint="0" * 64,
    )

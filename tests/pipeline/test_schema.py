import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.schema import (
    CLIP_FIELDS,
    LABEL_FIELD,
    Field,
    Manifest,
    RepresentationSchema,
    Segment,
    UserError,
)
from tests.support.manifests import VECTOR, make_manifest


def change(text: str, **changes: object) -> str:
    raw = json.loads(text)
    for name, value in changes.items():
        if value is None:
            del raw[name]
        else:
            raw[name] = value
    return json.dumps(raw)


def test_manifest_survives_json():
    manifest = make_manifest()
    assert Manifest.from_json(manifest.to_json(), source="m") == manifest


def test_a_manifest_without_the_fields_of_its_split_is_read():
    old = change(make_manifest().to_json(), split=None)
    manifest = dataclasses.replace(make_manifest(), split=None)
    assert Manifest.from_json(old, source="m") == manifest


def test_manifest_json_does_not_depend_on_insertion_order():
    manifest = make_manifest()
    turned = dataclasses.replace(
        manifest,
        representations=dict(reversed(manifest.representations.items())),
        inputs=dict(reversed(manifest.inputs.items())),
    )
    assert turned.to_json() == manifest.to_json()
    assert manifest.to_json().endswith("}\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "schema version None"),
        ("3", "schema version None"),
        ("{}", "schema version None"),
        (change(make_manifest().to_json(), schema_version=99), "schema version 99"),
        (change(make_manifest().to_json(), genres=None), "['genres']"),
        (change(make_manifest().to_json(), colour="red"), "['colour']"),
    ],
)
def test_a_manifest_of_another_kind_is_refused_with_its_path(text, found):
    with pytest.raises(UserError) as caught:
        Manifest.from_json(text, source="data/manifest.json")
    message = str(caught.value)
    assert message.startswith("data/manifest.json ")
    assert found in message
    assert "preprocess the dataset again" in message
    assert "\n" not in message


def test_shard_files():
    assert make_manifest().shard_files("images", "test") == [
        "images/test-00000-of-00002.tfrecord",
        "images/test-00001-of-00002.tfrecord",
    ]


def test_fields_of_a_record_are_the_clips_and_the_value():
    representation = make_manifest().representations["vectors"]
    assert representation.fields == (*CLIP_FIELDS, LABEL_FIELD, VECTOR)
    names = [field.name for field in representation.fields]
    assert names == ["track_id", "artist_id", "decoder", "index", "label", "vector"]


def test_field_size():
    image = Field(name="i", dtype="uint8", shape=(4, 5, 3), encoding="raw_bytes")
    scalar = Field(name="s", dtype="int64", shape=(), encoding="int64_list")
    assert (image.size, scalar.size) == (60, 1)


def test_a_field_has_a_known_encoding():
    with pytest.raises(ValueError, match="Received: encoding='pickle'"):
        dataclasses.replace(VECTOR, encoding="pickle")


@pytest.mark.parametrize("lengths", [(4,), (3, 3), (5, 1)])
def test_segments_cover_the_value(lengths):
    segments = tuple(Segment(name="s", length=length) for length in lengths)
    with pytest.raises(ValueError, match=f"5 values. Received: {sum(lengths)}"):
        RepresentationSchema(
            name="v", value=VECTOR, records_per_clip=1, segments=segments
        )


def test_fingerprint():
    value = {"a": 1, "b": [1, 2.5, "é"]}
    digest = schema.fingerprint(value)
    assert digest == schema.fingerprint(dict(reversed(value.items())))
    assert digest != schema.fingerprint({"a": 1, "b": [2.5, 1, "é"]})
    # Datasets on disk depend on it.
    canonical = rb'{"a":1,"b":[1,2.5,"\u00e9"]}'
    assert digest == hashlib.sha256(canonical).hexdigest()


@pytest.mark.parametrize(
    "module",
    [
        "schema",
        "common.clip_config",
        "common.rejects",
        "inputs.splits",
        "common.quiet",
    ],
)
def test_needs_the_standard_library_alone(module):
    root = Path(__file__).resolve().parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import pipeline.{module}"
    # -S leaves out installed packages.
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)

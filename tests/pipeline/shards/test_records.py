import dataclasses
import io
import itertools

import numpy as np
import pytest

from pipeline.common.clip_config import CLIP_SAMPLES, ClipConfig
from pipeline.common.quiet import keep_back_stderr
from pipeline.decoding.waveform import Waveform, load_waveform
from pipeline.inputs.join import Clip
from pipeline.representations import compute_representations, make_schemas
from pipeline.representations.spectrum import Workspace
from pipeline.schema import Field, RepresentationSchema, Segment
from pipeline.shards.moments import compute_moments
from pipeline.shards.records import checksum_audio, make_records, warm_up
from tests.support.audio_files import encode, make_music

with keep_back_stderr():
    import tensorflow as tf

NAMES = ("windows", "mel", "features")
CONFIG = ClipConfig(windows_per_clip=3)
CLIP = Clip(
    track_id="fma/2",
    artist_id="Ólafur",
    labels=(4,),
    split="training",
    path="a.mp3",
    size=1,
)


@pytest.fixture(scope="module")
def made(music_mp3):
    return make_records(CLIP, load(music_mp3), NAMES, CONFIG, Workspace())


@pytest.fixture(scope="module")
def samples(music_mp3):
    return load(music_mp3).samples


@pytest.fixture(scope="module")
def arrays(samples):
    return compute_representations(samples, NAMES, CONFIG, Workspace())


def load(data: bytes) -> Waveform:
    return load_waveform(io.BytesIO(data), CONFIG)


def parse(record: bytes, schema: RepresentationSchema) -> dict[str, object]:
    """Reads a record with TensorFlow, by the schema alone."""
    spec = {}
    for field in schema.fields:
        if field.encoding in ("bytes_list", "raw_bytes"):
            spec[field.name] = tf.io.FixedLenFeature((), tf.string)
        else:
            spec[field.name] = tf.io.FixedLenFeature(field.shape, field.dtype)
    parsed = tf.io.parse_single_example(record, spec)
    values = {name: value.numpy() for name, value in parsed.items()}
    if schema.value.encoding == "raw_bytes":
        raw = np.frombuffer(values[schema.value.name], schema.value.dtype)
        values[schema.value.name] = raw.reshape(schema.value.shape)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_records_hold_the_clip_and_its_arrays(made, arrays, name):
    schema = make_schemas(NAMES, CONFIG)[name]
    records = made.records[name]
    assert (
        len(records) == schema.records_per_clip == {"windows": 3, "mel": 5}.get(name, 1)
    )
    for index, record in enumerate(records):
        values = parse(record, schema)
        np.testing.assert_array_equal(
            values.pop(schema.value.name), arrays[name][index]
        )
        assert values == {
            "track_id": b"fma/2",
            "artist_id": "Ólafur".encode(),
            "decoder": b"libsndfile",
            "label": 4,
            "index": index,
        }
        # Nothing else is in it.
        features = tf.train.Example.FromString(record).features.feature
        assert set(features) == {field.name for field in schema.fields}


def test_what_else_a_clip_gives(made, samples):
    assert set(made.moments) == {"windows", "features"}
    assert made.audio == checksum_audio(samples)
    assert made.compute_ms > 0


def test_the_same_audio_has_the_same_checksum():
    music = (make_music(6, seed=3) * 32_000).astype(np.int16)
    files = [
        encode(music, kind="FLAC"),
        encode(music, kind="WAV"),
        encode(make_music(6, seed=4), kind="FLAC"),
    ]
    flac, wav, other = (
        make_records(CLIP, load(data), (), CONFIG, Workspace()).audio for data in files
    )
    assert flac == wav != other


def test_a_checksum_sees_any_sample():
    samples = np.linspace(-1, 1, CLIP_SAMPLES, dtype=np.float32)
    original = checksum_audio(samples)
    assert len(original) == 32
    for at in (0, CLIP_SAMPLES // 2, CLIP_SAMPLES - 1):
        changed = samples.copy()
        changed[at] += np.float32(1e-6)
        assert checksum_audio(changed) != original


def test_bytes_are_the_same_each_time(made, music_mp3):
    workspace = Workspace()
    warm_up(NAMES, CONFIG, workspace)
    other = load(encode(make_music(6, seed=3), kind="FLAC"))
    make_records(CLIP, other, NAMES, CONFIG, workspace)
    again = make_records(CLIP, load(music_mp3), NAMES, CONFIG, workspace)
    assert again.records == made.records


def test_results_outlive_the_workspace(samples):
    workspace = Workspace()
    kept = compute_representations(samples, NAMES, CONFIG, workspace)
    copies = {name: array.copy() for name, array in kept.items()}
    warm_up(NAMES, CONFIG, workspace)
    for name in NAMES:
        np.testing.assert_array_equal(kept[name], copies[name])


@pytest.mark.parametrize("name", NAMES)
def test_representations_do_not_depend_on_each_other(arrays, samples, name):
    alone = compute_representations(samples, (name,), CONFIG, Workspace())
    assert set(alone) == {name}
    np.testing.assert_array_equal(alone[name], arrays[name])


def test_clips_are_sorted_by_track():
    clips = [
        dataclasses.replace(CLIP, track_id=name, labels=(5 - i,))
        for i, name in enumerate(("10", "9", "1"))
    ]
    assert [clip.track_id for clip in sorted(clips)] == ["1", "10", "9"]


# Moments


def make_schema(lengths: tuple[int, ...]) -> RepresentationSchema:
    return RepresentationSchema(
        name="v",
        value=Field(
            name="v", dtype="float32", shape=(sum(lengths),), encoding="float_list"
        ),
        records_per_clip=2,
        segments=tuple(
            Segment(name=f"s{index}", length=length)
            for index, length in enumerate(lengths)
        ),
    )


def expect_moments(schema, values) -> tuple[np.ndarray, np.ndarray]:
    edges = np.cumsum([0, *(segment.length for segment in schema.segments)])
    parts = [values[:, a:b].astype(np.float64) for a, b in itertools.pairwise(edges)]
    return np.array([p.mean() for p in parts]), np.array([p.var() for p in parts])


@pytest.mark.parametrize(
    "lengths", [(7,), (3, 3), (1, 2, 2, 1, 1, 5), (4, 4, 1, 4), (1, 1, 1)]
)
@pytest.mark.parametrize("records", [1, 3])
def test_moments_of_each_segment(lengths, records):
    schema = make_schema(lengths)
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(-3, 3, (1, schema.value.size)))
    values = scale * rng.standard_normal((records, schema.value.size)) + 5
    values = values.astype(np.float32)
    moments = compute_moments(schema, values)
    mean, variance = expect_moments(schema, values)
    assert moments.mean.dtype == moments.variance.dtype == np.float32
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-4, atol=1e-12)


def test_moments_of_a_small_spread_about_a_large_mean():
    values = (10_000 + np.random.default_rng(0).uniform(0, 1, (1, 5_000))).astype(
        np.float32
    )
    schema = make_schema((5_000,))
    _, variance = expect_moments(schema, values)
    np.testing.assert_allclose(
        compute_moments(schema, values).variance, variance, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["windows", "features"])
def test_moments_of_a_clip(made, arrays, name):
    schema = make_schemas(NAMES, CONFIG)[name]
    mean, variance = expect_moments(schema, arrays[name])
    np.testing.assert_allclose(made.moments[name].mean, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(made.moments[name].variance, variance, rtol=1e-4)


def test_moments_do_not_change_the_values():
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    compute_moments(make_schema((2, 2)), values)
    np.testing.assert_array_equal(values.ravel(), np.arange(8))

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.clip_config import ClipConfig
from pipeline.common.rejects import Reason, Reject
from pipeline.inputs.join import Clip
from pipeline.schema import ShardFile
from pipeline.shards.moments import Moments
from pipeline.shards.result import DatasetConfig, ShardResult, WrittenClip
from pipeline.shards.resume import fingerprint_shard

CLIP = Clip(
    track_id="t",
    artist_id="a",
    labels=(1,),
    split="training",
    path="x.mp3",
    size=5,
    modified=1.5,
)
CONFIG = DatasetConfig(
    output="out",
    representations=("windows", "mel"),
    clip=ClipConfig(),
    genres=("High", "Low"),
)

TEXT = st.text(max_size=5)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WRITTEN = st.builds(
    WrittenClip,
    **dict.fromkeys(
        ["track_id", "artist_id", "split", "path", "decoder", "audio"], TEXT
    ),
    genres=st.lists(TEXT).map(tuple),
    size=st.integers(0),
    seconds=FLOATS,
)
REJECTS = st.builds(
    Reject,
    **dict.fromkeys(["path", "track_id", "stage", "message"], TEXT),
    reason=st.sampled_from(Reason),
)
FILES = st.builds(ShardFile, records=st.integers(0), size=st.integers(0), crc32c=TEXT)


@given(
    st.builds(
        ShardResult,
        shard=st.integers(0),
        fingerprint=TEXT,
        clips=st.tuples(WRITTEN, WRITTEN),
        files=st.dictionaries(TEXT, FILES),
        rejects=st.tuples(REJECTS),
        moments=st.just({}),
        decode_ms=st.tuples(FLOATS),
        compute_ms=st.tuples(),
    )
)
def test_results_survive_json(result):
    assert ShardResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_moments_survive_json_bit_for_bit(rows):
    random = np.random.default_rng(0)
    moments = Moments(
        mean=random.standard_normal((rows, 37)).astype(np.float32),
        variance=np.full((rows, 37), 1e-42, np.float32),
    )
    result = ShardResult(
        shard=0,
        fingerprint="",
        clips=(),
        files={},
        rejects=(),
        moments={"features": moments},
        decode_ms=(),
        compute_ms=(),
    )
    found = ShardResult.from_json(result.to_json()).moments["features"]
    for name in ("mean", "variance"):
        expected, got = getattr(moments, name), getattr(found, name)
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"clips": [{"x": 1}]}'])
def test_what_is_no_result_is_refused(text):
    with pytest.raises(ValueError, match=r"^(Expected a shard's result|Expecting)"):
        ShardResult.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"track_id": "u"},
        {"artist_id": "b"},
        {"labels": (0,)},
        {"split": "test"},
        {"path": "y.mp3"},
        {"size": 6},
        {"modified": 2.5},
    ],
)
def test_every_property_of_a_clip_is_in_the_fingerprint(changes):
    assert set(changes) <= {field.name for field in dataclasses.fields(Clip)}
    original = fingerprint_shard(0, [CLIP], CONFIG)
    changed = dataclasses.replace(CLIP, **changes)
    assert fingerprint_shard(0, [changed], CONFIG) != original
    assert fingerprint_shard(0, [CLIP, changed], CONFIG) == fingerprint_shard(
        0, [changed, CLIP], CONFIG
    )


#: Options that do not shape a shard: where it lies, and who makes it.
NOT_SHAPING = {
    # The model that they are of is among the settings.
    "music_weights": "other.npz",
    "output": "b",
    "progress_file": "p",
    "run": "r",
    "launcher": 7,
    "analyst": "a",
    "decode_ahead": True,
    "replaces": "o",
}
SHAPING = {
    "representations": ("mel",),
    "clip": ClipConfig(windows_per_clip=9),
    "genres": ("Low", "High"),
    "task": "multi_label",
    "num_shards": 5,
    "wav_output": "w",
    "audio_base": "b",
    "tools": "t",
}


def test_every_option_that_shapes_a_shard_is_in_the_fingerprint():
    fields = {field.name for field in dataclasses.fields(DatasetConfig)}
    assert fields >= NOT_SHAPING.keys() | SHAPING.keys()
    original = fingerprint_shard(0, [CLIP], CONFIG)
    for name in fields - NOT_SHAPING.keys():
        assert name in SHAPING, f"Does {name} shape a shard?"
        changed = dataclasses.replace(CONFIG, **{name: SHAPING[name]})
        assert fingerprint_shard(0, [CLIP], changed) != original, name
    for name, value in NOT_SHAPING.items():
        changed = dataclasses.replace(CONFIG, **{name: value})
        assert fingerprint_shard(0, [CLIP], changed) == original, name
    assert fingerprint_shard(1, [CLIP], CONFIG) != original

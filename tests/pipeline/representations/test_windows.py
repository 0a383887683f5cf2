import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.clip_config import CLIP_SAMPLES, WINDOW_SAMPLES, ClipConfig
from pipeline.representations import windows
from pipeline.representations.spectrum import Spectrum, Workspace
from pipeline.representations.windows import window_starts

LAST = CLIP_SAMPLES - WINDOW_SAMPLES


def test_known_starts():
    assert window_starts(1).tolist() == [655_983]
    assert window_starts(2).tolist() == [0, 1_311_967]
    assert window_starts(3).tolist() == [0, 655_983, 1_311_967]
    assert window_starts(5).tolist() == [0, 327_991, 655_983, 983_975, 1_311_967]


def test_the_single_window_lies_in_the_middle():
    before = window_starts(1)[0]
    after = CLIP_SAMPLES - before - WINDOW_SAMPLES
    assert abs(before - after) <= 1


@given(count=st.integers(2, 2_000))
def test_windows_are_spread_evenly_from_start_to_end(count):
    starts = window_starts(count)
    assert len(starts) == count
    assert starts[0] == 0
    assert starts[-1] == LAST
    gaps = np.diff(starts)
    assert gaps.min() > 0
    assert gaps.max() - gaps.min() <= 1


def test_as_many_windows_as_fit_start_at_every_sample():
    starts = window_starts(LAST + 1)
    np.testing.assert_array_equal(starts, np.arange(LAST + 1))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_windows_are_the_waveforms_samples(count):
    samples = np.arange(CLIP_SAMPLES, dtype=np.float32)  # exact below 2^24
    config = ClipConfig(windows_per_clip=count)
    cut = windows.compute(Spectrum(samples, Workspace()), config)
    assert cut.shape == (count, WINDOW_SAMPLES)
    assert cut.dtype == np.float32
    for window, start in zip(cut, window_starts(count), strict=True):
        np.testing.assert_array_equal(window, np.arange(start, start + WINDOW_SAMPLES))
    assert not np.shares_memory(cut, samples)


def test_schema():
    schema = windows.make_schema(ClipConfig(windows_per_clip=3))
    assert schema.name == "windows"
    assert schema.records_per_clip == 3
    assert schema.value.shape == (10_000,)
    assert schema.value.dtype == "float32"

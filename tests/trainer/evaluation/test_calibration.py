import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from trainer.evaluation.calibration import (
    BOUNDS,
    apply_temperature,
    fit_temperature,
    measure_reliability,
)
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.tasks.single_label import SingleLabel
from trainer.evaluation.tasks.task import judge


def draw_clips(clips, temperature, genres=5, seed=0):
    """Labels drawn from true probabilities, and what a model says of them."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.standard_normal((clips, genres))
    true = softmax(scores, axis=1)
    labels = (true.cumsum(axis=1) > rng.random((clips, 1))).argmax(axis=1)
    return softmax(scores * temperature, axis=1), labels


def make_predictions(probabilities, labels):
    tracks = tuple(map(str, range(len(labels))))
    return ClipPredictions(tracks, labels, probabilities)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_probabilities_is_found(temperature):
    probabilities, labels = draw_clips(20_000, temperature)
    assert fit_temperature(np.log(probabilities), labels) == pytest.approx(
        temperature, rel=0.05
    )
    scaled = apply_temperature(probabilities, temperature)
    assert measure_reliability(scaled, labels).error < 0.02


def test_calibration_error_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.38, 0.62]])
    labels = np.array([0, 1, 0, 0])
    found = measure_reliability(probabilities, labels)
    assert [(b.clips, b.accuracy) for b in found.bins] == [(2, 0.5), (2, 0.5)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.635, 0.95])
    assert found.error == pytest.approx((2 * 0.135 + 2 * 0.45) / 4)


def test_certainty_has_a_bin():
    found = measure_reliability(np.eye(3), np.arange(3))
    assert (found.error, len(found.bins)) == (0, 1)


@given(st.floats(0.2, 20), st.integers(0, 99))
def test_scaling_keeps_the_order_and_sums_to_1(temperature, seed):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), 6)
    scaled = apply_temperature(probabilities, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(
        np.argsort(scaled, axis=1), np.argsort(probabilities, axis=1)
    )
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities)


def test_certain_mistakes_and_certain_hits_stay_within_bounds():
    right = np.eye(4)[np.arange(40) % 4]
    labels = np.arange(40) % 4
    low = fit_temperature(np.log(0.9 * right + 0.025), labels)
    high = fit_temperature(np.log(right + 1e-12), np.roll(labels, 1))
    assert BOUNDS[0] <= low < BOUNDS[0] * 1.01
    assert BOUNDS[1] * 0.99 < high <= BOUNDS[1]


def test_the_temperature_is_fitted_to_validation_and_judged_on_test():
    validation = make_predictions(*draw_clips(2000, 3.0, seed=1))
    test = make_predictions(*draw_clips(2000, 3.0, seed=2))
    task, paths = SingleLabel(), dict.fromkeys("abcde", "")
    fit = task.fit(validation, 5)
    _, found = judge(task, [test], [fit], fit, paths)
    expected = fit_temperature(np.log(validation.probabilities), validation.labels)
    assert found.temperature == pytest.approx(expected, rel=1e-3)
    assert found.clips == 2000
    assert found.before == measure_reliability(test.probabilities, test.labels)
    assert found.after.error < 0.05 < found.before.error
    assert found.after.log_loss < found.before.log_loss


def test_too_few_validation_clips_calibrate_nothing():
    few = make_predictions(*draw_clips(9, 1.0))
    task, paths = SingleLabel(), dict.fromkeys("abcde", "")
    for clips in (few, None):
        fit = task.fit(clips, 5)
        assert judge(task, [few], [fit], fit, paths)[1] is None

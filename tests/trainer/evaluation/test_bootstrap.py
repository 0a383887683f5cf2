import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from trainer.evaluation import bootstrap
from trainer.evaluation.bootstrap import (
    draw_shares,
    draw_sums,
    group_clips,
    percentile_interval,
    score_intervals,
)


def alone(clips):
    return group_clips((), [str(index) for index in range(clips)])


def accuracy_interval(hits, clips, groups=None):
    labels = np.zeros(clips, np.int64)
    predicted = (np.arange(clips) >= hits).astype(np.int64)
    groups = alone(clips) if groups is None else groups
    return score_intervals(labels, predicted, groups, 2)[0]


@pytest.mark.parametrize(("hits", "clips"), [(20, 40), (5, 40), (400, 800)])
def test_interval_of_single_clips_is_the_binomial_one(hits, clips):
    low, high = accuracy_interval(hits, clips)
    distribution = stats.binom(clips, hits / clips)
    assert low == pytest.approx(distribution.ppf(0.025) / clips, abs=1.01 / clips)
    assert high == pytest.approx(distribution.ppf(0.975) / clips, abs=1.01 / clips)


def test_clips_of_an_artist_are_drawn_together():
    # Four artists of ten clips each, all of an artist's right or wrong.
    groups = np.repeat(np.arange(4), 10)
    low, high = accuracy_interval(20, 40, groups)
    distribution = stats.binom(4, 0.5)
    assert low == distribution.ppf(0.025) / 4
    assert high == distribution.ppf(0.975) / 4


def test_groups_are_artists_or_clips_however_they_are_ordered():
    found = group_clips(["b", "a", "", "b", ""], ["1", "2", "3", "4", "5"])
    assert found.tolist() == [1, 0, 2, 1, 3]
    assert group_clips((), ["x", "y"]).tolist() == [0, 1]
    # An artist called as a clip is, is another group.
    assert len(set(group_clips(["7", ""], ["1", "7"]).tolist())) == 2


def test_draws_are_of_whole_groups_and_as_many_as_there_are():
    groups = np.array([0, 1, 1, 2])
    values = np.array([[1, 1], [1, 10], [1, 10], [1, 100]])
    clips, sums = draw_sums(values, groups).T
    assert clips.min() >= 3
    assert clips.max() <= 6
    possible = {
        (a + 2 * b + c, a + 20 * b + 100 * c)
        for a in range(4)
        for b in range(4)
        for c in range(4)
        if a + b + c == 3
    }
    assert set(zip(clips.tolist(), sums.tolist(), strict=True)) <= possible
    assert len(sums) == bootstrap.RESAMPLES


def test_macro_f1_of_draws_is_that_of_the_clips_drawn(monkeypatch):
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, (2, 30))
    groups = rng.integers(0, 9, 30)
    drawn = []
    monkeypatch.setattr(bootstrap, "percentile_interval", drawn.append)
    score_intervals(labels, predicted, groups, 4)
    accuracy, macro_f1 = drawn
    columns = np.eye(30)
    for draw, times in enumerate(draw_sums(columns, groups)[:50]):
        rows = np.repeat(np.arange(30), times.astype(int))
        pairs = labels[rows], predicted[rows]
        expected = metrics.f1_score(*pairs, average="macro")
        assert macro_f1[draw] == pytest.approx(expected)
        assert accuracy[draw] == pytest.approx(metrics.accuracy_score(*pairs))


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.6
    groups = alone(400)

    def difference(one, two):
        shares = [draw_shares(hits, groups) for hits in (one, two)]
        return percentile_interval(shares[0] - shares[1])

    # The second is right where the first is, but for 20 clips.
    second = first.copy()
    second[np.flatnonzero(first)[:20]] = False
    low, high = difference(first, second)
    assert 0.02 < low < 0.05 < high < 0.08
    # As good, but right elsewhere: noise.
    other = np.roll(first, 7)
    low, high = difference(first, other)
    assert low < 0 < high
    assert difference(first, first) == (0, 0)

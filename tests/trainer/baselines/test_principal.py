import numpy as np
import pytest
from sklearn.decomposition import PCA

from trainer.baselines import principal
from trainer.baselines.artist_folds import fold_by_artist
from trainer.baselines.principal import find_components
from trainer.data.distances import squared_distances


@pytest.fixture
def clips() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(12, 400)) * np.arange(12, 0, -1)[:, None]
    rows = rng.normal(size=(90, 12)) @ directions + rng.normal(size=(90, 400)) + 5
    return rows[:60].astype(np.float32), rows[60:].astype(np.float32)


@pytest.mark.parametrize("small", [1000, 10])
def test_components_are_those_of_scikit_learn(clips, monkeypatch, small):
    monkeypatch.setattr(principal, "SMALL", small)
    training, others = clips
    found = find_components(squared_distances(training, training), 8)
    oracle = PCA(8, svd_solver="full").fit(training.astype(float))
    again = find_components(squared_distances(training, training), 8)
    np.testing.assert_array_equal(found.vectors, again.vectors)
    assert found.share == pytest.approx(oracle.explained_variance_ratio_.sum())
    for rows in (training, others):
        scores = found.project(squared_distances(rows, training)) / found.scale
        expected = oracle.transform(rows.astype(float))
        signs = np.sign((scores * expected).sum(axis=0))
        np.testing.assert_allclose(scores * signs, expected, rtol=1e-3, atol=0.05)


def test_scores_are_about_1(clips):
    training, _ = clips
    found = find_components(squared_distances(training, training), 8)
    scores = found.project(squared_distances(training, training))
    assert np.mean(np.square(scores)) == pytest.approx(1, rel=1e-4)


def test_there_are_no_more_components_than_the_clips_span(clips):
    training, _ = clips
    distances = squared_distances(training[:5], training[:5])
    assert find_components(distances).vectors.shape == (5, 4)
    alike = np.zeros((4, 4))
    found = find_components(alike)
    assert found.project(alike).shape == (4, 0)


def test_an_artist_is_in_one_fold():
    artists = ["a"] * 7 + ["b"] * 3 + ["c"] * 3 + ["d", "e", ""] + [""]
    tracks = [str(number) for number in range(len(artists))]
    folds = fold_by_artist(artists, tracks, folds=3)
    for artist in "abcde":
        own = {
            fold for fold, name in zip(folds, artists, strict=True) if name == artist
        }
        assert len(own) == 1
    assert sorted(np.bincount(folds)) == [4, 6, 7] or max(np.bincount(folds)) == 7
    # Clips without an artist are on their own.
    assert folds[-1] >= 0
    np.testing.assert_array_equal(folds, fold_by_artist(artists, tracks, folds=3))


def test_artists_that_were_learnt_are_left_out():
    folds = fold_by_artist(["a", "b", "a", "c"], list("1234"), known={"a"}, folds=5)
    assert folds.tolist() == [-1, 0, -1, 1]
    # Where nothing else is left, they have to do.
    assert fold_by_artist(["a", "a"], ["1", "2"], known={"a"}).tolist() == [0, 0]

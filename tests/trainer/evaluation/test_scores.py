import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from trainer.evaluation.predictions import ClipPredictions, mean_by_clip
from trainer.evaluation.scores import evaluate

GENRES = ("Folk", "Jazz", "Rock")


def make_predictions(labels, probabilities):
    return ClipPredictions(
        track_ids=tuple(f"{index:06d}" for index in range(len(labels))),
        labels=np.array(labels, np.int64),
        probabilities=np.array(probabilities, np.float64),
    )


def random_predictions(clips, genres, seed):
    rng = np.random.default_rng(seed)
    return make_predictions(
        rng.integers(0, genres, clips), rng.dirichlet(np.ones(genres), clips)
    )


def test_evaluate_gives_what_was_computed_by_hand():
    predictions = make_predictions(
        [0, 0, 1, 2],
        [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]],
    )
    result = evaluate(predictions, GENRES)
    assert result.clips == 4
    assert result.accuracy == 0.5
    assert result.confusion == ((1, 1, 0), (0, 1, 0), (1, 0, 0))
    folk, jazz, rock = result.genres
    assert (folk.genre, folk.precision, folk.recall, folk.support) == (
        "Folk",
        0.5,
        0.5,
        2,
    )
    assert (jazz.precision, jazz.recall, jazz.support) == (0.5, 1.0, 1)
    assert jazz.f1 == pytest.approx(2 / 3)
    assert (rock.precision, rock.recall, rock.f1, rock.support) == (0.0, 0.0, 0.0, 1)
    assert result.macro_f1 == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert result.top_3 == 1.0
    expected = -(math.log(0.7) + math.log(0.3) + math.log(0.8) + math.log(0.1)) / 4
    assert result.log_loss == pytest.approx(expected)
    assert result.chance_accuracy == pytest.approx(1 / 3)
    assert result.majority_accuracy == 0.5


@given(clips=st.integers(1, 60), genres=st.integers(2, 9), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_evaluate_agrees_with_scikit_learn(clips, genres, seed):
    predictions = random_predictions(clips, genres, seed)
    labels, predicted = predictions.labels, predictions.predicted
    every = np.arange(genres)
    result = evaluate(predictions, [str(genre) for genre in every])
    assert result.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.macro_f1 == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    assert result.log_loss == pytest.approx(
        metrics.log_loss(labels, predictions.probabilities, labels=every)
    )
    if genres > 3:
        assert result.top_3 == pytest.approx(
            metrics.top_k_accuracy_score(
                labels, predictions.probabilities, k=3, labels=every
            )
        )


def test_top_3_of_three_genres_is_always_reached():
    assert evaluate(random_predictions(20, 3, 0), GENRES).top_3 == 1.0


def test_top_3_counts_every_hit_even_with_ties():
    uniform = make_predictions([0, 1, 2, 3], np.full((4, 4), 1 / 4))
    result = evaluate(uniform, ("a", "b", "c", "d"))
    assert result.accuracy == pytest.approx(1 / 4)
    assert result.top_3 == pytest.approx(3 / 4)
    many = evaluate(
        make_predictions([0, 1, 39], np.full((3, 40), 1 / 40)),
        list(map(str, range(40))),
    )
    assert (many.accuracy, many.top_3) == pytest.approx((1 / 3, 2 / 3))


def test_log_loss_of_a_certain_mistake_is_finite():
    result = evaluate(make_predictions([0], [[0.0, 1.0, 0.0]]), GENRES)
    assert result.log_loss == pytest.approx(-math.log(np.finfo(float).eps))


def test_macro_f1_leaves_out_genres_that_do_not_occur():
    result = evaluate(make_predictions([0, 1], [[1, 0, 0], [0, 1, 0]]), GENRES)
    assert result.macro_f1 == 1.0
    assert result.genres[2].support == 0


def test_artists_are_counted_and_widen_the_interval():
    alone = random_predictions(60, 3, 0)
    artists = tuple(f"a{index % 6}" for index in range(60))
    together = ClipPredictions(
        alone.track_ids, alone.labels, alone.probabilities, artists
    )
    assert evaluate(alone, GENRES).artists == 0
    assert evaluate(together, GENRES).artists == 6
    # All clips of an artist are right, or none: six outcomes, not sixty.
    right = np.array([int(artist[1]) < 3 for artist in artists])
    probabilities = np.zeros((60, 3))
    probabilities[np.arange(60), np.where(right, 0, 1)] = 1
    labels = np.zeros(60, np.int64)
    by_clip = evaluate(ClipPredictions(alone.track_ids, labels, probabilities), GENRES)
    by_artist = evaluate(
        ClipPredictions(alone.track_ids, labels, probabilities, artists), GENRES
    )
    assert by_clip.accuracy == by_artist.accuracy == 0.5
    width = {
        id(each): each.accuracy_interval[1] - each.accuracy_interval[0]
        for each in (by_clip, by_artist)
    }
    assert width[id(by_artist)] > 2 * width[id(by_clip)]


def test_mean_by_clip_averages_interleaved_records():
    result = mean_by_clip(
        ["b", "a", "b", "c", "a", "b"],
        [1, 0, 1, 2, 0, 1],
        [
            [0.0, 0.9, 0.1],
            [0.8, 0.1, 0.1],
            [0.3, 0.3, 0.4],
            [0.2, 0.2, 0.6],
            [0.4, 0.5, 0.1],
            [0.6, 0.0, 0.4],
        ],
    )
    assert result.track_ids == ("b", "a", "c")
    np.testing.assert_array_equal(result.labels, [1, 0, 2])
    np.testing.assert_allclose(
        result.probabilities, [[0.3, 0.4, 0.3], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]
    )


def test_mean_by_clip_of_nothing_is_empty():
    result = mean_by_clip([], np.zeros(0, np.int64), np.zeros((0, 3)))
    assert result.track_ids == ()
    assert result.probabilities.shape == (0, 3)


def test_mean_by_clip_refuses_a_clip_with_two_labels():
    with pytest.raises(ValueError, match="same label"):
        mean_by_clip(["a", "a"], [0, 1], np.ones((2, 2)))


def test_mean_by_clip_refuses_different_lengths():
    with pytest.raises(ValueError, match="Received: 2, 1 and 2"):
        mean_by_clip(["a", "b"], [0], np.ones((2, 2)))


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0], [[math.nan, 0.5]], "finite"),
        ([0], [[-0.1, 1.1]], "not negative"),
        ([2], [[0.5, 0.5]], "indices of 2 genres"),
        ([-1], [[0.5, 0.5]], "indices of 2 genres"),
        ([0], [[0.5, 0.5], [0.5, 0.5]], r"shape=\(2, 2\)"),
        ([0], [0.5], r"shape=\(1,\)"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        make_predictions(labels, probabilities)


def test_artists_must_be_as_many_as_clips():
    with pytest.raises(ValueError, match="Received: 1"):
        ClipPredictions(("a", "b"), np.zeros(2, np.int64), np.ones((2, 2)), ("x",))


def test_evaluate_refuses_no_clips_and_wrong_genres():
    with pytest.raises(ValueError, match="at least one clip"):
        evaluate(make_predictions([], np.zeros((0, 3))), GENRES)
    with pytest.raises(ValueError, match="Received: 2"):
        evaluate(random_predictions(3, 3, 0), GENRES[:2])

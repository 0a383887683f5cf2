import dataclasses
import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from trainer.baselines import choice, classifiers
from trainer.baselines.choice import Classifier, Examples
from trainer.data import distances
from trainer.data.distances import squared_distances
from trainer.evaluation.calibration import fit_temperature
from trainer.predict import classical

GENRES = 4
FITS = {
    "logistic_regression": classifiers.fit_logistic_regression,
    "gaussian_nb": classifiers.fit_gaussian_nb,
    "knn": classifiers.fit_knn,
    "rbf_svm": classifiers.fit_rbf_svm,
    "pca_logistic_regression": classifiers.fit_on_components(
        classifiers.fit_logistic_regression
    ),
    "pca_rbf_svm": classifiers.fit_on_components(
        classifiers.fit_rbf_svm, on_distances=True
    ),
}
ON_VALUES = ("logistic_regression", "gaussian_nb")
#: What choosing does not look at.
UNUSED = {"classes": np.arange(GENRES), "extract": lambda rows: None}


def make_clips(clips, values=300, seed=0, genres=GENRES, noise=4.0):
    centres = np.random.default_rng(9).normal(size=(genres, values))
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % genres
    rows = centres[labels] + rng.normal(0, noise, (clips, values))
    return (rows / noise).astype(np.float32), labels


def make_examples(values=300, genres=GENRES, validation=20):
    rows, labels = make_clips(60, values, genres=genres)
    others, other_labels = make_clips(validation, values, seed=1, genres=genres)
    return Examples(
        training=rows,
        training_labels=labels,
        validation=others,
        validation_labels=other_labels,
        genres=genres,
    )


def on_distances(examples):
    return dataclasses.replace(
        examples,
        training=squared_distances(examples.training, examples.training),
        validation=squared_distances(examples.validation, examples.training),
    )


def fit(name, examples, test):
    """Fits a classifier; returns it and its probabilities of the test rows."""
    if name not in ON_VALUES:
        test = squared_distances(test, examples.training)
        examples = on_distances(examples)
    classifier = FITS[name](examples)
    return classifier, classifier.predict(test)


@pytest.mark.parametrize("columns", [1, 7, 4096, 10_000])
def test_squared_distances_equal_those_of_float64(columns, monkeypatch):
    monkeypatch.setattr(distances, "COLUMN_BLOCK", 4096)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, columns)).astype(np.float32)
    others = rng.normal(size=(5, columns)).astype(np.float32)
    expected = euclidean_distances(rows.astype(float), others.astype(float)) ** 2
    np.testing.assert_allclose(
        squared_distances(rows, others), expected, rtol=2e-6, atol=1e-5
    )


def test_squared_distances_of_rows_to_themselves_are_symmetric_with_0_diagonal():
    rows, _ = make_clips(30, 5000)
    result = squared_distances(rows, rows)
    np.testing.assert_array_equal(np.diagonal(result), 0)
    np.testing.assert_allclose(result, result.T, rtol=1e-12)
    assert np.all(result >= 0)


def test_distances_between_equal_rows_are_never_negative():
    rows = np.full((4, 9000), 1.7, np.float32)
    assert np.all(squared_distances(rows, rows.copy()) >= 0)


def test_logistic_regression_equals_scikit_learn():
    examples = make_examples()
    test, _ = make_clips(40, seed=2)
    classifier, probabilities = fit("logistic_regression", examples, test)
    # Later candidates, fitted with the same model, have not changed this one.
    assert classifier.parameters["C"] < 100 / 300
    direct = LogisticRegression(C=classifier.parameters["C"], tol=1e-7, max_iter=5000)
    direct.fit(examples.training.astype(float), examples.training_labels)
    expected = direct.predict_proba(test)
    np.testing.assert_array_equal(probabilities.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(probabilities, expected, atol=0.01)


def test_logistic_regression_says_when_it_did_not_converge(monkeypatch, recwarn):
    monkeypatch.setattr(classifiers, "LOGISTIC_MAX_ITERATIONS", 1)
    classifier = classifiers.fit_logistic_regression(make_examples())
    assert classifier.notes == ("Stopped after 1 iterations.",)
    assert not recwarn.list


@pytest.mark.parametrize("smoothing", [1e-9, 0.1])
def test_gaussian_nb_equals_scikit_learn(monkeypatch, smoothing):
    monkeypatch.setattr(classifiers, "NAIVE_BAYES_SMOOTHING", (smoothing,))
    monkeypatch.setattr(classifiers, "ROW_BLOCK", 7)
    examples = make_examples()
    test, _ = make_clips(40, seed=2)
    classifier, probabilities = fit("gaussian_nb", examples, test)
    direct = GaussianNB(var_smoothing=smoothing)
    direct.fit(examples.training.astype(float), examples.training_labels)
    joint = direct.predict_joint_log_proba(test.astype(float))
    expected = softmax(joint / classifier.parameters["temperature"], axis=1)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_knn_equals_scikit_learn(monkeypatch, k):
    monkeypatch.setattr(classifiers, "NEIGHBOURS", (k,))
    examples = make_examples()
    test, _ = make_clips(40, seed=2)
    classifier, probabilities = fit("knn", examples, test)
    assert classifier.parameters == {"k": k}
    direct = KNeighborsClassifier(k, algorithm="brute")
    direct.fit(examples.training.astype(float), examples.training_labels)
    np.testing.assert_allclose(probabilities, direct.predict_proba(test.astype(float)))


@pytest.mark.parametrize(
    ("per_genre", "k"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)]
)
def test_neighbours_are_no_more_than_a_genre_has(per_genre, k):
    rows, labels = make_clips(GENRES * per_genre, noise=0.1)
    examples = Examples(
        training=rows,
        training_labels=labels,
        validation=rows[:0],
        validation_labels=labels[:0],
        genres=GENRES,
    )
    classifier, probabilities = fit("knn", examples, rows)
    assert classifier.parameters == {"k": k}
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)


def test_svm_on_distances_equals_svm_on_values():
    examples = make_examples()
    test, _ = make_clips(40, seed=2)
    classifier, probabilities = fit("rbf_svm", examples, test)
    direct = SVC(
        C=classifier.parameters["C"],
        gamma=classifier.parameters["gamma"],
        break_ties=True,
    )
    direct.fit(examples.training.astype(float), examples.training_labels)
    decision = direct.decision_function(test.astype(float))
    expected = softmax(decision / classifier.parameters["temperature"], axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    np.testing.assert_array_equal(probabilities.argmax(1), direct.predict(test))
    assert classifier.parameters["support_vectors"] == direct.n_support_.sum()


@pytest.mark.parametrize(("genres", "accuracy"), [(2, 0.7), (GENRES, 0.6)])
@pytest.mark.parametrize("name", FITS)
def test_classifiers_learn(name, genres, accuracy):
    test, labels = make_clips(80, seed=2, genres=genres)
    _, probabilities = fit(name, make_examples(genres=genres), test)
    assert probabilities.shape == (80, genres)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.mean(probabilities.argmax(1) == labels) > accuracy


@pytest.mark.parametrize("genres", [2, GENRES])
@pytest.mark.parametrize("name", FITS)
def test_arrays_predict_what_was_fitted(name, genres):
    examples = make_examples(genres=genres)
    # One genre has no training clips, if more than two are left.
    known = examples.training_labels != (1 if genres > 2 else genres)
    examples = dataclasses.replace(
        examples,
        training=examples.training[known],
        training_labels=examples.training_labels[known],
    )
    test, _ = make_clips(40, seed=2, genres=genres)
    classifier, expected = fit(name, examples, test)
    absent = np.setdiff1d(np.arange(genres), classifier.classes)
    assert len(absent) == (genres > 2)
    np.testing.assert_array_equal(expected[:, absent], 0)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    kind, arrays = classical.to_arrays(classifier.extract(examples.training))
    found = classical.from_arrays(kind, arrays).predict(test)
    assert found.shape == (40, len(classifier.classes))
    np.testing.assert_allclose(found, expected[:, classifier.classes], atol=2e-5)


@pytest.mark.parametrize("name", FITS)
def test_chosen_parameters_are_taken_again(name):
    examples = make_examples()
    test, _ = make_clips(40, seed=2)
    first, expected = fit(name, examples, test)
    empty = dataclasses.replace(
        examples,
        validation=examples.validation[:0],
        validation_labels=examples.validation_labels[:0],
        chosen=first.parameters,
    )
    second, found = fit(name, empty, test)
    for parameters in (first.parameters, second.parameters):
        parameters.pop("iterations", None)
    assert second.parameters == first.parameters
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("name", FITS)
def test_without_validation_clips_defaults_are_taken(name):
    test, labels = make_clips(80, seed=2)
    classifier, probabilities = fit(name, make_examples(validation=0), test)
    assert classifier.parameters.get("temperature", 1.0) == 1.0
    assert np.mean(probabilities.argmax(1) == labels) > 0.5


@pytest.mark.parametrize("name", FITS)
def test_parameters_are_chosen_by_the_validation_labels(name):
    examples = make_examples(validation=200)
    test, _ = make_clips(40, seed=2)
    chosen = set()
    for seed in range(8):
        shuffled = np.random.default_rng(seed).permutation(examples.validation_labels)
        classifier, _ = fit(
            name, dataclasses.replace(examples, validation_labels=shuffled), test
        )
        parameters = dict(classifier.parameters)
        parameters.pop("temperature", None)
        chosen.add(tuple(parameters.items()))
    assert len(chosen) > 1


def test_choose_takes_the_first_of_equals():
    def constant(genre, name):
        return Classifier(
            parameters={"name": name},
            predict=lambda rows: np.tile(np.eye(GENRES)[genre], (len(rows), 1)),
            **UNUSED,
        )

    examples = dataclasses.replace(
        make_examples(), validation_labels=np.array([0] * 12 + [1] * 8)
    )
    candidates = [constant(1, "a"), constant(0, "b"), constant(0, "c")]
    assert choice.choose(candidates, examples).parameters == {"name": "b"}
    with pytest.raises(ValueError, match="at least one candidate"):
        choice.choose([], examples)


def test_accuracies_are_averaged_over_folds():
    hits = np.array([True, True, True, False, False, True])
    folds = np.array([0, 0, 0, 1, 2, -1])
    assert choice.mean_over_folds(hits, None) == pytest.approx(4 / 6)
    assert choice.mean_over_folds(hits, folds) == pytest.approx(1 / 3)
    nowhere = np.full(6, -1)
    assert choice.mean_over_folds(hits, nowhere) == pytest.approx(4 / 6)


def test_folds_decide_which_candidate_is_taken():
    def named(name, predicted):
        return Classifier(
            parameters={"name": name},
            predict=lambda rows: np.eye(GENRES)[predicted],
            **UNUSED,
        )

    # One artist has 8 of 12 clips; "many" is right on these alone.
    examples = dataclasses.replace(
        make_examples(validation=12),
        validation_labels=np.zeros(12, np.int64),
        folds=np.array([0] * 8 + [1] * 2 + [2] * 2),
    )
    candidates = [named("many", [0] * 8 + [1] * 4), named("few", [1] * 8 + [0] * 4)]
    assert choice.choose(candidates, examples).parameters == {"name": "few"}
    without = dataclasses.replace(examples, folds=None)
    assert choice.choose(candidates, without).parameters == {"name": "many"}


def test_of_several_genres_a_clip_average_precision_decides():
    labels = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], np.uint8)

    def named(name, scores):
        return Classifier(
            parameters={"name": name}, predict=lambda rows: scores, **UNUSED
        )

    examples = Examples(
        training=np.zeros((4, 1)),
        training_labels=labels,
        validation=np.zeros((4, 1)),
        validation_labels=labels,
        genres=2,
    )
    candidates = [named("wrong", 1.0 - labels), named("right", 1.0 * labels)]
    assert choice.choose(candidates, examples).parameters == {"name": "right"}


def test_temperature_leaves_out_genres_that_are_never_predicted():
    scores = np.array([[1.0, -np.inf], [1.0, -np.inf]])
    assert fit_temperature(scores, np.array([1, 1])) == 1.0


def peak_of(function):
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


# The components are those of the SVM on them.
@pytest.mark.parametrize("name", [n for n in FITS if n != "pca_logistic_regression"])
def test_no_classifier_copies_its_input(name, monkeypatch):
    monkeypatch.setattr(distances, "COLUMN_BLOCK", 512)
    monkeypatch.setattr(classifiers, "ROW_BLOCK", 16)
    rows, labels = make_clips(500, 8_000)
    examples = Examples(
        training=rows,
        training_labels=labels,
        validation=rows[:40],
        validation_labels=labels[:40],
        genres=GENRES,
    )
    # lbfgs keeps twenty vectors as long as its solution, however many the clips.
    solution = 30 * 8 * GENRES * rows.shape[1] if name == "logistic_regression" else 0
    # An eigenvalue problem of as many rows as there are clips.
    square = 2 * 8 * len(rows) ** 2 if name.startswith("pca") else 0
    peak = peak_of(lambda: fit(name, examples, rows[:100]))
    assert peak < 0.5 * rows.nbytes + solution + square

"""Scores, thresholds, calibration and files of several genres a clip."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pipeline.representations.music_model import MODELS
from pipeline.schema import UserError
from tests.support.manifests import make_manifest
from tests.support.model_reports import write_report
from trainer.evaluation.card import format_card
from trainer.evaluation.predictions import ClipPredictions, mean_by_clip
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import read_result
from trainer.evaluation.tasks import multi_label_draws
from trainer.evaluation.tasks.multi_label import MultiLabel, MultiLabelReport
from trainer.evaluation.tasks.multi_label_draws import draw_scores, macro_interval
from trainer.evaluation.tasks.multi_label_scores import evaluate
from trainer.evaluation.tasks.task import make_report, parse_report, task_of
from trainer.evaluation.tasks.thresholds import (
    apply_temperature,
    choose_thresholds,
    find_threshold,
    fit_temperature,
)

GENRES = ("Folk", "IDM", "Jazz", "Rock")


def make_predictions(clips: int = 60, seed: int = 0) -> ClipPredictions:
    """Probabilities that know something; nobody has the last genre."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((clips, 4)) < (0.5, 0.2, 0.1, 0.0)).astype(np.uint8)
    odds = rng.normal(0, 1, (clips, 4)) + 2 * labels - 1
    return ClipPredictions(
        track_ids=tuple(f"t{n}" for n in range(clips)),
        labels=labels,
        probabilities=np.round(1 / (1 + np.exp(-odds)), 2),
        artist_ids=tuple(f"a{n % 20}" for n in range(clips)),
    )


def test_scores_are_scikit_learns():
    predictions = make_predictions()
    thresholds = np.array([0.5, 0.4, 0.3, 0.9])
    found = evaluate(predictions, GENRES, thresholds)
    labels, p = predictions.labels, predictions.probabilities
    ap = [average_precision_score(labels[:, g], p[:, g]) for g in range(3)]
    auc = [roc_auc_score(labels[:, g], p[:, g]) for g in range(3)]
    assert [s.average_precision for s in found.genres] == [*ap, None]
    assert [s.roc_auc for s in found.genres] == [*auc, None]
    assert found.macro_ap == pytest.approx(np.mean(ap))
    assert found.macro_auc == pytest.approx(np.mean(auc))
    assert found.micro_ap == pytest.approx(
        average_precision_score(labels, p, average="micro")
    )
    given_ = p >= thresholds
    used = (labels.any(axis=0)) | given_.any(axis=0)
    macro = f1_score(labels[:, used], given_[:, used], average="macro")
    assert found.macro_f1 == pytest.approx(macro)
    assert found.micro_f1 == pytest.approx(f1_score(labels, given_, average="micro"))
    assert found.prevalence == pytest.approx(labels[:, :3].mean())
    low, high = found.macro_ap_interval
    assert low < found.macro_ap < high
    assert found.artists == 20


def test_the_interval_is_that_of_scikit_learn_on_clips_drawn_by_artist(monkeypatch):
    predictions = make_predictions(30, seed=3)
    groups = np.arange(30) % 7
    drawn = []
    original = multi_label_draws.draw_times

    def note(*arguments, **options):
        for start, times in original(*arguments, **options):
            drawn.append(times)
            yield start, times

    monkeypatch.setattr(multi_label_draws, "draw_times", note)
    monkeypatch.setattr(multi_label_draws, "RESAMPLES", 60)
    labels, p = predictions.labels, predictions.probabilities
    found = draw_scores(labels, p, groups)
    for score, scores in (
        (average_precision_score, found.ap),
        (roc_auc_score, found.auc),
    ):
        expected = np.full((60, 4), np.nan)
        for draw, times in enumerate(np.concatenate(drawn)):
            rows = np.repeat(np.arange(30), times[groups].astype(int))
            for g in range(4):
                if labels[rows, g].any() and not labels[rows, g].all():
                    expected[draw, g] = score(labels[rows, g], p[rows, g])
        np.testing.assert_allclose(scores, expected)
        means = np.nanmean(expected, axis=1)
        interval = macro_interval(scores)
        assert interval == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert found.genre_interval(0) == pytest.approx(
        tuple(np.nanpercentile(found.ap[:, 0], [2.5, 97.5]))
    )
    assert found.genre_interval(3) is None


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=30)
)
def test_no_threshold_has_a_higher_f1(pairs):
    labels = np.array([label for label, _ in pairs], np.uint8)
    p = np.array([number / 20 for _, number in pairs])
    if not labels.any():
        assert find_threshold(labels, p) == 0.5
        return

    def score(threshold: float) -> float:
        hits = np.count_nonzero(labels[p >= threshold])
        return 2 * hits / (np.count_nonzero(p >= threshold) + np.count_nonzero(labels))

    found = score(find_threshold(labels, p))
    assert found >= max(score(threshold) for threshold in np.unique(p))


def test_rare_genres_take_the_threshold_of_all():
    predictions = make_predictions(200)
    labels = predictions.labels.copy()
    labels[np.flatnonzero(labels[:, 2])[4:], 2] = 0
    predictions = dataclasses.replace(predictions, labels=labels)
    found = choose_thresholds(predictions, 4)
    shared = find_threshold(labels.ravel(), predictions.probabilities.ravel())
    assert found[2] == found[3] == shared
    assert found[0] == find_threshold(labels[:, 0], predictions.probabilities[:, 0])
    assert choose_thresholds(None, 2).tolist() == [0.5, 0.5]


def test_the_temperature_undoes_what_scaled_the_log_odds():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.02, 0.98, (4000, 3))
    labels = (rng.random(truth.shape) < truth).astype(np.uint8)
    too_sure = apply_temperature(truth, 1 / 3)
    assert fit_temperature(too_sure, labels) == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(apply_temperature(too_sure, 3), truth, rtol=1e-4)
    assert apply_temperature(truth, 1.0) is truth


def test_records_of_a_clip_are_averaged_with_their_genres():
    labels = np.array([[1, 0], [1, 1], [1, 0]], np.uint8)
    found = mean_by_clip(["a", "b", "a"], labels, [[0.2, 0.4], [0.5, 0.5], [0.4, 0.0]])
    np.testing.assert_allclose(found.probabilities, [[0.3, 0.2], [0.5, 0.5]])
    assert found.labels.tolist() == [[1, 0], [1, 1]]
    with pytest.raises(ValueError, match="same label"):
        mean_by_clip(["a", "a"], labels[:2], np.zeros((2, 2)))


@pytest.fixture(scope="module")
def manifest():
    return dataclasses.replace(
        make_manifest(),
        genres=GENRES,
        task="multi_label",
        clips={"training": dict.fromkeys(GENRES, 10), "validation": {}, "test": {}},
        clip_totals={"training": 20, "validation": 60, "test": 60},
        genre_paths={"IDM": ("Electronic", "IDM")},
    )


@pytest.fixture(scope="module")
def report(manifest) -> MultiLabelReport:
    return make_report(
        manifest,
        {
            "training": make_predictions(seed=2),
            "validation": make_predictions(seed=1),
            "test": make_predictions(),
        },
        name="m",
        model="Dense net",
        representation="mel",
        parameters={"epochs": 1},
        train_seconds=1.0,
        notes=["A note."],
    )


def test_a_report_is_read_as_it_was_written(report):
    text = report.to_json()
    assert parse_report(text, source="r") == report
    assert report.test.genres[1].path == "Electronic > IDM"
    assert report.calibration.clips == 60
    assert report.notes[0] == "A note."
    with pytest.raises(UserError, match="does not hold a report"):
        Report.from_json(text, source="r")


@pytest.mark.parametrize(
    ("key", "value"),
    [("macro_ap", 1.5), ("clips", 0), ("genres", []), ("macro_auc", None)],
)
def test_numbers_that_no_training_gives_are_refused(report, key, value):
    raw = json.loads(report.to_json())
    raw["test"][key] = value
    with pytest.raises(UserError, match="train the model again"):
        parse_report(json.dumps(raw), source="r")


def test_files_of_a_report(report, tmp_path):
    predictions, validation = make_predictions(), make_predictions(seed=1)
    write_report(str(tmp_path), report, predictions, validation)
    result = read_result(str(tmp_path))
    for found, expected in (
        (result.predictions, predictions),
        (result.validation, validation),
    ):
        assert found.track_ids == expected.track_ids
        assert found.artist_ids == expected.artist_ids
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.probabilities, expected.probabilities)
    text = (tmp_path / "predictions.csv").read_text()
    first = next(csv.DictReader(io.StringIO(text)))
    scaled = apply_temperature(
        predictions.probabilities, report.calibration.temperature
    )
    given = scaled[0] >= np.array(report.thresholds)
    assert json.loads(first["predicted"]) == [*np.array(GENRES)[given]]
    card = (tmp_path / "model_card.md").read_text()
    assert "Electronic" in card
    assert "No test clip has Rock" in card
    (tmp_path / "predictions.csv").write_text(text.replace("Folk", "Fork"))
    with pytest.raises(UserError, match="train the model again"):
        read_result(str(tmp_path))


def test_the_card_names_licence_and_music_model(report):
    facts = MODELS["MSD_vgg"].to_dict()
    parts = task_of(report).make_card_parts(report)
    text = format_card(dataclasses.replace(report, music_model=facts), parts)
    assert "Million Song Dataset" in text
    assert "## Licence" in text
    assert "CC BY 4.0" in text
    assert "With temperature" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| Electronic")]
    low, high = report.test.genres[1].average_precision_interval
    assert f"{low:.3f} to {high:.3f}" in line
    synthetic = dataclasses.replace(report, synthetic=True)
    assert format_card(synthetic, parts).startswith("> **Trained on synthetic")


def test_prevalences_lie_between_none_and_all(manifest):
    empty = dataclasses.replace(
        manifest, clips={"training": {"Folk": 20}, "validation": {}, "test": {}}
    )
    p = np.array(MultiLabel.of(empty).prevalence)
    assert 0.9 < p[0] < 1
    assert np.all((p[1:] > 0) & (p[1:] < 0.1))
    weights = MultiLabel.of(empty).weights
    assert weights.min() == 1
    assert weights.max() <= 10

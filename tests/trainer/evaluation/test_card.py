import dataclasses

import pytest

from pipeline.representations.music_model import MODELS
from tests.support.model_reports import make_model_report
from trainer.evaluation.card import find_limits, format_card, format_exports
from trainer.evaluation.tasks.single_label import SingleLabel

KERAS = {"seed": 0, "trainable_weights": 10}


def make_card(**changes):
    return show(make_model_report(**changes))


def show(report):
    return format_card(report, SingleLabel().make_card_parts(report))


def limits_of(report):
    return find_limits(report, SingleLabel().make_card_parts(report))


def test_synthetic_data_are_named_in_the_first_line():
    text = make_card(description="184 clips", synthetic=True)
    assert text.splitlines()[0].startswith("> **Trained on synthetic demo music.**")
    assert "It has never heard real music." in text
    assert "CC0" in text
    text = make_card(description="fma_small, 8,000 clips")
    assert text.splitlines()[0] == "# kNN on features"
    assert "ynthetic" not in text
    assert "CC BY 4.0" in text
    assert "* fma_small, 8,000 clips" in text


def test_scores_are_the_reports():
    report = make_model_report()
    text = show(report)
    low, high = report.test.accuracy_interval
    assert f"| accuracy | {report.test.accuracy:.3f} |" in text
    assert f"over 6 artists | {low:.3f} to {high:.3f} |" in text
    for scores in report.test.genres:
        numbers = (scores.precision, scores.recall, scores.f1)
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        assert f"| {scores.genre} | {cells} | {scores.support} |" in text
    assert f"temperature {report.calibration.temperature:.2f}" in text
    assert report.fingerprint in text
    assert "24 training, 9 validation, 12 test" in text


def test_genres_cannot_break_the_table():
    report = make_model_report()
    odd = dataclasses.replace(report.test.genres[0], genre="a|b")
    test = dataclasses.replace(report.test, genres=(odd, *report.test.genres[1:]))
    assert "| a\\|b |" in make_card(test=test)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "Fewer than 20 test clips of Folk"),
        ({"notes": ("The moon was full.",)}, "The moon was full."),
        ({"training_accuracy": 0.99}, "It overfits: accuracy 0.990 in training"),
    ],
)
def test_limits_come_from_the_facts(changes, limit):
    assert any(limit in each for each in limits_of(make_model_report(**changes)))
    assert limit in make_card(**changes)


def test_limits_that_do_not_hold_are_not_named():
    report = make_model_report(training_accuracy=None, notes=())
    genres = tuple(
        dataclasses.replace(scores, support=50, recall=0.5)
        for scores in report.test.genres
    )
    good = dataclasses.replace(report.test, genres=genres, accuracy_interval=(0.8, 0.9))
    assert len(limits_of(dataclasses.replace(report, test=good))) == 1
    alone = dataclasses.replace(good, artists=0)
    limits = limits_of(dataclasses.replace(report, test=alone))
    assert any("Artists are not known" in limit for limit in limits)
    poor = dataclasses.replace(good, accuracy_interval=(0.1, 0.9))
    limits = limits_of(dataclasses.replace(report, test=poor))
    assert any("cannot be told from" in limit for limit in limits)


def test_how_to_use_a_model_depends_on_its_kind():
    assert "launch.sh predict" in make_card(parameters=KERAS)
    assert "launch.sh predict" in make_card(weights=80)
    assert "was not kept" in make_card()
    assert "too few validation clips" in make_card(calibration=None)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_music_model_is_named_with_what_it_may_have_heard(name):
    facts = MODELS[name].to_dict()
    text = make_card(music_model=facts)
    section = text.partition("## Music model")[2].partition("## Scores")[0]
    for part in (facts["sha256"], "ISC", "music_model.npz"):
        assert part in section
    assert ("Million Song Dataset" in section) == name.startswith("MSD")
    assert ("MTT\\_vgg" in section or "MTT_vgg" in section) or name.startswith("MTT")
    assert "lie beside the model" in section
    of_ensemble = make_card(music_model=facts, parameters={"members": ["a", "b"]})
    assert "lie beside its members" in of_ensemble
    assert "Music model" not in make_card()


def test_exported_files_are_named_with_what_they_lose():
    facts = {"quantize": "int8", "test_clips": 6, "largest_difference": 0.01}
    facts |= {"validation_clips": 8, "validation_accuracy": 0.5}
    files = {"model-int8.onnx": {**facts, "validation_accuracy_quantized": 0.49}}
    files["model.onnx"] = {"quantize": None, "test_clips": 0}
    text = format_exports(files)
    assert (
        "| `model-int8.onnx` | int8 | 0.01 (6 clips) | 0.500, 0.490 (8 clips) |" in text
    )
    assert "| `model.onnx` | float32 | not measured (0 clips) | the same |" in text

import csv
import dataclasses
import io
import json
import os
import random
import resource
import shlex

import markdown_it
import numpy as np
import pytest
from matplotlib import image as images

from pipeline.schema import UserError
from tests.support.mutations import mutate_bytes, mutate_json
from trainer.compare.__main__ import command_line, main, make_parser
from trainer.compare.comparison import comparison_json, make_comparison
from trainer.compare.html.hard_clips import find_hard_clips
from trainer.compare.html.page import format_page
from trainer.compare.report_files import FILES
from trainer.compare.single_label import ARTICLE_GENRES
from trainer.compare.text import format_markdown, format_text
from trainer.evaluation import plots
from trainer.evaluation.predictions import ClipPredictions
from trainer.evaluation.report import Report
from trainer.evaluation.report_folder import predictions_csv, read_results
from trainer.evaluation.scores import evaluate

GENRES = ("Electronic", "Folk", "Hip-Hop", "Rock")


def make_predictions(hits, clips=40, genres=GENRES):
    """Predictions of which the first `hits` are right."""
    labels = np.arange(clips) % len(genres)
    predicted = np.where(np.arange(clips) < hits, labels, (labels + 1) % len(genres))
    probabilities = np.full((clips, len(genres)), 0.1)
    probabilities[np.arange(clips), predicted] = 0.7
    return ClipPredictions(
        track_ids=tuple(map(str, range(clips))),
        labels=labels.astype(np.int64),
        probabilities=probabilities,
    )


def write_model(folder, name, hits, clips=40, genres=GENRES, **changes):
    predictions = make_predictions(hits, clips, genres)
    report = Report(
        name=name,
        model=name.upper(),
        representation="features",
        parameters={"k": 5},
        clips={"training": 160, "validation": 40, "test": clips},
        test=evaluate(predictions, genres),
        validation=None,
        training_accuracy=0.9,
        train_seconds=12.34,
        fingerprint="f" * 64,
        split_rule="FMA's own split, artist-disjoint",
    )
    report = dataclasses.replace(report, **changes)
    (folder / name).mkdir(parents=True)
    (folder / name / "report.json").write_text(report.to_json())
    text = predictions_csv(predictions, report)
    (folder / name / "predictions.csv").write_text(text)
    return report


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    write_model(folder, "knn", 14)
    write_model(folder, "cnn", 30, training_accuracy=None, notes=("A note.",))
    write_model(folder, "svm", 22, representation="statistics", notes=("A note.",))
    (folder / "empty").mkdir()
    return folder


def error_of(capsys, *argv):
    assert main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not captured.out
    return captured.err


def test_table_is_sorted_and_aligned_and_says_what_was_tested(models, capsys):
    assert main(["--models", str(models)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "40 test clips, 4 genres. Splits: FMA's own split, artist-disjoint."
    )
    header, rule, *rows = lines[1:7]
    assert [row.split()[0] for row in rows] == ["CNN", "SVM", "KNN", "chance"]
    assert all(len(line) <= 100 for line in lines[1:7])
    column = header.index("accuracy")
    width = len("accuracy")
    assert [float(row[column : column + width]) for row in rows] == [
        0.75,
        0.55,
        0.35,
        0.25,
    ]
    assert rule[column : column + width] == "-" * width
    end = header.index("train") + len("train")
    assert rows[0][:end].rstrip() == rows[0][: end - len("train")].rstrip()
    assert rows[1][:end].endswith("0.900")
    assert rows[1].endswith("12.3")
    low, high = map(float, rows[0].split()[3].split("-"))
    assert 0.55 < low < 0.75 < high < 0.9


def test_the_command_of_a_report_is_one_that_can_be_given_again():
    words = ["--models", "my models", "--audio", "a b", "c.zip", "--ensemble", "0"]
    for given in (words, words[:2]):
        flags = make_parser().parse_args(given)
        del flags.quiet, flags.verbose
        command = shlex.split(command_line(flags))
        assert command[:2] == ["./launch.sh", "compare"]
        again = make_parser().parse_args(command[2:])
        del again.quiet, again.verbose
        assert again == flags


def test_noise_is_told_from_differences(models, capsys):
    assert main(["--models", str(models)]) == 0
    out = capsys.readouterr().out
    # The models are right about nested sets of clips: 30, 22 and 14 of 40.
    assert "No other model is within noise of the first (95 %, over clips)." in out
    write_model(models, "twin", 29)
    assert main(["--models", str(models)]) == 0
    out = capsys.readouterr().out
    assert (
        "~ is within noise of the first (95 % bootstrap of the difference over" in out
    )
    [marked] = [line for line in out.splitlines() if "~0." in line]
    assert marked.startswith("TWIN ")
    page = (models.parent / "report.html").read_text()
    assert "bootstrap of the difference over clips): TWIN (features)." in page
    content = json.loads((models.parent / "report.json").read_text())
    close = {m["name"]: m["within_noise_of_best"] for m in content["models"]}
    assert close == {"cnn": True, "twin": True, "svm": False, "knn": False}
    low, high = content["models"][2]["behind_best_interval"]
    assert 0.05 < low < 0.2 < high < 0.4


def test_models_without_predictions_are_never_called_noise(models):
    (models / "svm" / "predictions.csv").unlink()
    assert main(["--models", str(models)]) == 0
    content = json.loads((models.parent / "report.json").read_text())
    assert content["models"][1]["behind_best_interval"] is None
    assert content["models"][1]["within_noise_of_best"] is False
    (models / "cnn" / "predictions.csv").unlink()
    assert main(["--models", str(models)]) == 0
    content = json.loads((models.parent / "report.json").read_text())
    close = [model["within_noise_of_best"] for model in content["models"]]
    assert close == [True, False, False]


def test_files_are_written_above_the_models_and_their_paths_printed(models, capsys):
    assert main(["--models", f"{models}/", "--verbose"]) == 0
    printed = [
        line.removeprefix("wrote ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("wrote ")
    ]
    names = [
        "report.html",
        "report.json",
        "report.md",
        "comparison.png",
        "confusions.png",
    ]
    assert printed == [str(models.parent / name) for name in names]
    for name in names[3:]:
        picture = images.imread(models.parent / name)
        assert min(picture.shape[:2]) > 200


def test_output_folder_is_made(models, tmp_path):
    output = tmp_path / "new" / "report"
    assert main(["--models", str(models), "--output", str(output)]) == 0
    assert (output / "report.md").is_file()


def test_json_holds_the_numbers_unrounded(models):
    assert main(["--models", str(models)]) == 0
    content = json.loads((models.parent / "report.json").read_text())
    assert [model["name"] for model in content["models"]] == ["cnn", "svm", "knn"]
    expected = evaluate(make_predictions(22), GENRES)
    svm = content["models"][1]
    assert svm["test"]["accuracy"] == expected.accuracy
    assert svm["test"]["accuracy_interval"] == list(expected.accuracy_interval)
    assert svm["test"]["macro_f1_interval"] == list(expected.macro_f1_interval)
    assert svm["test"]["top_3"] == expected.top_3
    assert svm["test"]["confusion"] == [list(row) for row in expected.confusion]
    assert svm["representation"] == "statistics"
    assert content["models"][0]["training_accuracy"] is None
    assert content["test_clips"] == 40
    assert content["genres"] == list(GENRES)
    assert content["chance_accuracy"] == 0.25
    assert content["article"]["accuracy"] == 0.4


def test_markdown_holds_every_table_and_each_note_once(models):
    assert main(["--models", str(models)]) == 0
    text = (models.parent / "report.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables[:6]}) == 1
    assert "| CNN | features | 0.750 |" in text
    assert "about 40 %" in text
    assert text.count("A note.") == 1
    assert "- cnn, svm: A note." in text
    scores = evaluate(make_predictions(30), GENRES).genres
    assert (
        "| genre | test clips | CNN, features | SVM, statistics | KNN, features |"
        in text
    )
    for score in scores:
        assert f"| {score.genre} | {score.support} | {score.f1:.3f} |" in text


def test_equal_models_are_told_apart_by_their_folder(models, capsys):
    write_model(models, "cnn-2", 31, model="CNN")
    assert main(["--models", str(models)]) == 0
    output = capsys.readouterr().out
    assert "CNN (cnn)  " in output
    assert "CNN (cnn-2)  " in output
    assert "SVM  " in output


def test_most_frequent_genre_is_shown_where_it_beats_chance(tmp_path, capsys):
    predictions = make_predictions(20)
    skewed = dataclasses.replace(
        predictions, labels=np.repeat([0, 1, 2, 3], [25, 5, 5, 5])
    )
    write_model(tmp_path, "knn", 20, test=evaluate(skewed, GENRES))
    assert main(["--models", str(tmp_path), "--output", str(tmp_path / "o")]) == 0
    output = capsys.readouterr().out
    assert output.split("most frequent genre")[1].split()[0] == "0.625"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"representation": "mel"}, True),
        ({"representation": "mel", "shared_artists": ["a"]}, True),
        ({"representation": "mel", "synthetic": True}, False),
        ({}, False),
    ],
)
def test_the_article_stands_beside_the_same_measurement(tmp_path, changes, shown):
    genres = sorted(ARTICLE_GENRES)
    write_model(tmp_path / "m", "cnn", 20, genres=genres, **changes)
    assert main(["--models", str(tmp_path / "m")]) == 0
    text = (tmp_path / "report.md").read_text()
    assert ("| 2020 article | mel | 0.400 |" in text) == shown
    assert ("on mel images reaches" in text) == shown
    several = "artists" if "shared_artists" in changes else "no artist"
    assert (f"with {several} in several splits" in text) == shown
    assert ("did not measure the same thing" in text) != shown


def test_reports_of_different_datasets_are_refused_by_name(models, capsys):
    write_model(models, "old", 9, fingerprint="0" * 64)
    message = error_of(capsys, "--models", str(models))
    assert "dataset 000000000000 (40 test clips" in message
    assert ": old" in message
    assert ": cnn, knn, svm" in message
    assert not (models.parent / "report.md").exists()


@pytest.mark.parametrize(
    "changes", [{"clips": 36}, {"genres": ("Electronic", "Folk", "Jazz", "Rock")}]
)
def test_reports_of_other_clips_or_genres_are_refused(models, capsys, changes):
    write_model(models, "old", 9, **changes)
    assert ": old" in error_of(capsys, "--models", str(models))


def test_no_models_are_a_user_error(tmp_path, capsys):
    message = error_of(capsys, "--models", str(tmp_path / "none"))
    assert f"no folder {tmp_path / 'none'}" in message
    message = error_of(capsys, "--models", str(tmp_path))
    assert "report.json" in message


def test_damaged_report_is_a_user_error(models, capsys):
    (models / "knn" / "report.json").write_text("{}")
    message = error_of(capsys, "--models", str(models))
    assert str(models / "knn" / "report.json") in message


def test_relative_folder_writes_beside_itself(models, monkeypatch):
    monkeypatch.chdir(models.parent)
    assert main(["--models", "models"]) == 0
    assert (models.parent / "report.md").is_file()


def test_pictures_are_the_same_each_time(models):
    comparison = make_comparison(read_results(str(models)), str(models))
    evaluations = [report.test for report in comparison.reports]
    names = comparison.labels
    for draw in (plots.confusions_png, lambda e, n: plots.comparison_png(e, n, "t")):
        assert draw(evaluations, names) == draw(evaluations, names)


def test_genres_of_any_script_are_drawn_without_a_word(recwarn):
    titles = ["日本語", "Ελληνικά", "\U0001f3b8"]
    evaluations = [evaluate(make_predictions(20), ("日本", "הרים", *GENRES[2:]))]
    plots.confusions_png(evaluations, titles[:1])
    plots.comparison_png(evaluations, titles[1:2], titles[2])
    assert [str(warning.message) for warning in recwarn] == []


def test_bars_are_as_long_as_the_accuracy(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "figure_png", lambda figure: figures.append(figure))
    evaluations = [evaluate(make_predictions(hits), GENRES) for hits in (30, 10)]
    plots.comparison_png(evaluations, ["a", "b"], "title")
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [0.75, 0.25]
    (chance,) = [line for line in axes.lines if list(line.get_xdata()) == [0.25, 0.25]]
    assert chance.get_linestyle() == "--"
    ends = [path.vertices for path in axes.collections[0].get_paths()]
    for end, evaluation in zip(ends, evaluations, strict=True):
        np.testing.assert_allclose(end[:, 0], evaluation.accuracy_interval)


def test_confusion_rows_are_shares_of_the_true_genre(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "figure_png", lambda figure: figures.append(figure))
    plots.confusion_png(evaluate(make_predictions(20), GENRES), "title")
    (image,) = figures[0].axes[0].images
    shares = np.asarray(image.get_array())
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(np.diagonal(shares), 0.5)
    np.testing.assert_allclose(shares[0, 1], 0.5)


HOSTILE = (
    "<script>alert(1)</script>",
    "# heading",
    '=HYPERLINK("x|y")',
    "a\n\x1b[31m$\\x$",
)


def test_text_of_others_stays_text_in_every_format(tmp_path, capsys):
    write_model(
        tmp_path / "m",
        "cnn",
        20,
        genres=HOSTILE,
        model="![M](x)",
        representation="*mel*",
        description="<b>bold</b>\n\n# big",
        split_rule="`rule`\n---",
        notes=("[link](javascript:alert(1))",),
        parameters={"<i>": "|"},
    )
    assert main(["--models", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count("\n") < 20
    text = (tmp_path / "report.md").read_text()
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    kinds = [t.type for token in tokens for t in (token, *(token.children or ()))]
    assert kinds.count("heading_open") == 3
    assert kinds.count("html_block") == 1  # The mark that it is ours.
    assert not {"html_inline", "link_open", "hr", "em_open", "fence"} & set(kinds)
    assert kinds.count("image") == 2
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert "\x1b" not in page
    text = (tmp_path / "m" / "cnn" / "predictions.csv").read_text()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert {row[2] for row in rows[1:]} >= {f"'{HOSTILE[2]}"}
    cells = [cell for row in rows for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    result = read_results(str(tmp_path / "m"))[0]
    expected = make_predictions(20).predicted
    np.testing.assert_array_equal(result.predictions.predicted, expected)


@pytest.mark.parametrize("name", FILES)
def test_files_of_others_are_not_replaced(models, capsys, name):
    """Also where the report would be theirs by name."""
    theirs = models.parent / name
    theirs.write_text("precious")
    message = error_of(capsys, "--models", str(models))
    assert f"Received: {theirs}" in message
    assert theirs.read_text() == "precious"
    assert sorted(path.name for path in models.parent.iterdir()) == sorted(
        [models.name, name]
    )


def test_a_report_of_ours_is_replaced(models):
    for _ in range(2):
        assert main(["--models", str(models)]) == 0
    assert sorted(path.name for path in models.parent.iterdir()) == sorted(
        [models.name, *FILES]
    )


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(models, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for before in (None, b"old"):
        if before is not None:
            assert main(["--models", str(models)]) == 0
            before = (models.parent / "report.html").read_bytes()
            capsys.readouterr()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        try:
            code = main(["--models", str(models)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        error = capsys.readouterr().err
        assert code == 2
        assert "--output cannot be written: File too large" in error
        assert error.count("\n") == 1
        names = {path.name for path in models.parent.iterdir()} - {models.name}
        assert names == (set() if before is None else set(FILES))
        if before is not None:
            assert (models.parent / "report.html").read_bytes() == before


def test_a_folder_that_takes_no_files_is_a_sentence(models, capsys):
    (models.parent / "file").touch()
    output = models.parent / "file" / "report"
    message = error_of(capsys, "--models", str(models), "--output", str(output))
    assert "--output cannot be written" in message


def damage_model(folder, rng):
    """Damages one file of a model's folder."""
    path = rng.choice(sorted(folder.iterdir()))
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        content = json.dumps(mutate_json(json.loads(content), rng)).encode()
    else:
        content = mutate_bytes(content, rng)
    path.write_bytes(content)


def try_models(folder, seed):
    """Compares a damaged model with a whole one; returns what became of it."""
    write_model(folder, "cnn", 30, representation="mel", genres=sorted(ARTICLE_GENRES))
    write_model(folder, "knn", 14, representation="mel", genres=sorted(ARTICLE_GENRES))
    history = {
        "name": "training",
        "epochs": [1, 2],
        "metrics": {"loss": [1.0, 0.5], "validation_loss": [1.0, 0.7]},
        "seconds": [1.0, 1.0],
        "best_epoch": 2,
    }
    (folder / "cnn" / "history.json").write_text(json.dumps({"phases": [history]}))
    damage_model(folder / "cnn", random.Random(seed))
    try:
        comparison = make_comparison(read_results(str(folder)), str(folder))
    except UserError:
        return "refused"
    format_text(comparison).encode()
    format_markdown(comparison).encode()
    format_page(comparison, hard_clips=find_hard_clips(comparison)).encode()
    comparison_json(comparison)
    return "compared"


@pytest.mark.parametrize(
    "count", [25, pytest.param(500, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_models_are_refused_or_compared(tmp_path, count, monkeypatch):
    monkeypatch.setattr("trainer.evaluation.bootstrap.RESAMPLES", 50)
    outcomes = {try_models(tmp_path / str(seed), seed) for seed in range(count)}
    assert outcomes == {"refused", "compared"}


def test_what_is_no_regular_file_is_not_waited_for(models, capsys):
    for name in ("report.json", "predictions.csv", "history.json"):
        path = models / "knn" / name
        content = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        assert "is a FIFO" in error_of(capsys, "--models", str(models))
        path.unlink()
        if content is not None:
            path.write_bytes(content)

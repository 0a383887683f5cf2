"""Several genres a track: from files to a report, and to a new song."""

import json

import numpy as np
import pytest
import tensorflow as tf

from pipeline import preprocess
from pipeline.inspect import reading
from pipeline.launch import messages
from pipeline.schema import Manifest
from tests.support.corpora import write_csv, write_tone
from trainer import task
from trainer.baselines import __main__ as baselines
from trainer.compare import __main__ as compare
from trainer.data.dataset import open_dataset
from trainer.evaluation.report_folder import read_report, read_result
from trainer.evaluation.tasks.thresholds import apply_temperature
from trainer.export import __main__ as export
from trainer.export import litert, onnx_file
from trainer.folds import __main__ as folds
from trainer.predict import __main__ as predict
from trainer.predict.label import __main__ as label
from trainer.predict.loading import load_predictor
from trainer.predict.network import load_network

#: A low tone is Calm, a high one Loud; one of both, Loud > Bright.
TONES = {"Calm": 200.0, "Loud": 2_000.0, "Bright": 6_000.0}
TREE = "genre_id,parent,title\n1,0,Calm\n2,0,Loud\n3,2,Bright\n"
SPLITS = ("training",) * 6 + ("validation",) * 4 + ("test",) * 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    rows = []
    for number in range(len(SPLITS) * len(TONES)):
        genre = list(TONES)[number % len(TONES)]
        name = f"{number:02d}.wav"
        write_tone(folder / "audio" / name, TONES[genre] * (1 + number / 200))
        rows.append(
            {
                "path": name,
                "genre": f"{genre};Steady" if number % 2 else genre,
                "artist_id": f"a{number}",
                "split": SPLITS[number // len(TONES)],
            }
        )
    write_csv(folder / "tracks.csv", rows)
    (folder / "genres.csv").write_text(TREE)
    arguments = [f"--audio={folder}/audio/*.wav", f"--metadata={folder}/tracks.csv"]
    arguments += [f"--output={folder}/data", f"--genres_file={folder}/genres.csv"]
    arguments += ["--labels=all", "--representations", "statistics"]
    arguments += ["--num_shards=2", "--direct_running_mode=in_memory"]
    assert preprocess.main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def models(dataset):
    """A network and the baselines, on the records of several genres."""
    folder = dataset / "models"
    data = f"--data={dataset}/data"
    flags = ["--model=statistics", "--epochs=25", "--learning_rate=0.01"]
    assert task.main([data, f"--output={folder}/statistics", *flags]) == 0
    assert baselines.main([data, f"--output={folder}"]) == 0
    return folder


def test_clips_are_counted_once_whatever_their_genres(dataset):
    report = reading.read_report(str(dataset / "data"))
    [first, *_] = messages.summarise(report).splitlines()
    assert first == "39 clips of 4 genres: 18 training, 12 validation, 9 test."


def test_every_model_finds_the_genres(dataset, models):
    manifest = Manifest.from_json(
        (dataset / "data" / "manifest.json").read_bytes(), source="m"
    )
    assert manifest.genres == ("Bright", "Calm", "Loud", "Steady")
    names = {path.parent.name for path in models.glob("*/report.json")}
    assert names == {
        "statistics",
        "logistic_regression-statistics",
        "knn-statistics",
        "pca_logistic_regression-statistics",
    }
    for name in names:
        report = json.loads((models / name / "report.json").read_text())
        by_genre = {row["path"]: row for row in report["test"]["genres"]}
        assert set(by_genre) == {"Calm", "Loud", "Loud > Bright", "Steady"}
        for path in ("Calm", "Loud", "Loud > Bright"):
            assert by_genre[path]["average_precision"] > 0.9, name
        assert report["test"]["macro_ap"] > report["test"]["prevalence"]


def test_the_models_are_compared(models, tmp_path, capsys):
    output = tmp_path / "report"
    assert compare.main([f"--models={models}", f"--output={output}"]) == 0
    out = capsys.readouterr().out
    assert "macro AP" in out
    assert "chance" in out
    page = (output / "report.html").read_text()
    assert "Loud &gt; Bright" in page
    for part in ("Calibration error", "Threshold", "Most wrong", "39 clips of 4"):
        assert part in page
    content = json.loads((output / "report.json").read_text())
    assert content["task"] == "multi_label"
    assert len(content["models"]) == 5
    assert content["models"][0]["behind_best_interval"] == [0, 0]
    assert "Average precision by genre" in (output / "report.md").read_text()
    [ensemble] = [m for m in content["models"] if m["model"] == "Ensemble"]
    assert 2 <= len(ensemble["parameters"]["members"]) <= 3
    assert ensemble["test"]["macro_ap"] > 0.6


def test_the_ensemble_of_the_folder_answers(dataset, models, capsys):
    """By its own temperature and thresholds."""
    assert compare.main([f"--models={models}", f"--output={dataset}/report"]) == 0
    predictor = load_predictor(str(models))
    report = read_report(str(models / "ensemble"))
    assert predictor.thresholds == report.thresholds
    assert predictor.temperature == report.calibration.temperature
    values = open_dataset(f"{dataset}/data").load("statistics", "test").values
    found = predictor.predict({"statistics": values[:, None]})
    result = read_result(str(models / "ensemble"))
    expected = apply_temperature(
        result.predictions.probabilities, predictor.temperature
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    capsys.readouterr()
    song = str(write_tone(dataset / "loud.wav", 6_300.0))
    assert predict.main(["--model", str(models), song]) == 0
    assert "Loud > Bright" in capsys.readouterr().out


def test_folds_test_every_clip_once(dataset, tmp_path, capsys):
    output = tmp_path / "models"
    flags = ["--folds=2", "--epochs=5", "--learning_rate=0.02"]
    code = folds.main([f"--data={dataset}/data", f"--output={output}", *flags])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "statistics: macro AP" in out
    data = open_dataset(f"{dataset}/data")
    records = {"statistics": data.load("statistics", "test").values[:, None]}
    names = {path.parent.name for path in output.glob("*/report.json")}
    assert len(names) == 4
    for name in names:
        report = read_report(str(output / name))
        assert report.test.clips == report.calibration.clips == 39
        assert report.test.artists == 39
        assert report.parameters["folds"] == 2
        assert not any("every genre is given" in note for note in report.notes)
        [bright] = [s for s in report.test.genres if s.path == "Loud > Bright"]
        assert bright.support == 13
        assert bright.average_precision > 0.9
        predictor = load_predictor(str(output / name))
        assert predictor.thresholds == report.thresholds
        assert predictor.predict(records).shape == (9, 4)
    assert compare.main([f"--models={output}", f"--data={dataset}/data"]) == 0
    ensemble = read_report(str(output / "ensemble"))
    assert ensemble.parameters["folds"] == 2
    assert ensemble.test.clips == ensemble.calibration.clips == 39
    assert load_predictor(str(output)).thresholds == ensemble.thresholds


def test_labels_name_the_genres_over_their_thresholds(dataset, models, tmp_path):
    write_tone(tmp_path / "audio" / "a.wav", 6_300.0)
    output = tmp_path / "labels"
    arguments = ["--model", str(models / "statistics"), f"--output={output}"]
    arguments += [f"--audio={tmp_path}/audio/*.wav", "--direct_running_mode=in_memory"]
    assert label.main(arguments) == 0
    [row] = [
        json.loads(line)
        for path in output.glob("labels/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {"Loud", "Loud > Bright"} <= {given["genre"] for given in row["given"]}
    assert "Calm" not in {given["genre"] for given in row["given"]}


@pytest.mark.parametrize("name", ["statistics", "logistic_regression-statistics"])
def test_a_song_gets_the_genres_over_their_thresholds(dataset, models, name, capsys):
    song = str(write_tone(dataset / "new.wav", 6_300.0))
    assert predict.main(["--model", str(models / name), "--json", song]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"Loud", "Loud > Bright"} <= set(found["given"])
    assert "Calm" not in found["given"]
    assert predict.main(["--model", str(models / name), song]) == 0
    out = capsys.readouterr().out
    assert "genres over their thresholds" in out
    assert "Loud > Bright" in out
    both = ["--model", str(models / "statistics"), "--model", str(models / name)]
    assert predict.main([*both, "--json", song]) == 0
    assert "Loud" in json.loads(capsys.readouterr().out)["given"]


def test_the_export_answers_as_the_model(dataset, models):
    folder = models / "statistics"
    assert export.main(["--model", str(folder), f"--output={dataset}/export"]) == 0
    values = open_dataset(f"{dataset}/data").load("statistics", "test").values
    network = load_network(str(folder))
    expected = network.predict({"statistics": values[:, None]})
    served = tf.saved_model.load(f"{dataset}/export").signatures["serve_records"]
    [name] = served.structured_input_signature[1]
    found = served(**{name: tf.constant(values)})
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)
    given = expected >= np.array(network.thresholds)
    assert (found["given"].numpy() == given).mean() > 0.99


@pytest.mark.parametrize(
    ("name", "form", "quantize"),
    [
        ("statistics", "litert", "int8"),
        ("statistics", "litert", "float16"),
        ("statistics", "onnx", "int8"),
        ("statistics", "onnx", None),
        ("knn-statistics", "litert", None),
        ("knn-statistics", "onnx", None),
    ],
)
def test_a_file_gives_the_same_probabilities(
    dataset, models, tmp_path, capsys, name, form, quantize
):
    for module in export.MODULES[form]:
        pytest.importorskip(module)
    arguments = ["--model", str(models / name), f"--output={tmp_path}/export"]
    arguments += ["--format", form] + (["--quantize", quantize] if quantize else [])
    code = export.main(arguments)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    [path] = (tmp_path / "export").glob("model*.json")
    facts = json.loads(path.read_text())
    predictor = load_predictor(str(models / name))
    assert facts["thresholds"] == list(predictor.thresholds)
    assert facts["test_clips"] == 9
    assert (facts["largest_difference"] < 1e-4) or quantize
    if quantize:
        assert facts["validation_macro_ap_quantized"] > 0.5
        assert "validation macro AP" in captured.out
    content = (tmp_path / "export" / path.stem).read_bytes()
    values = open_dataset(f"{dataset}/data").load("statistics", "test").values
    if form == "litert":
        found = litert.Runner(content, "serve_records")(statistics=values)
    else:
        found = onnx_file.Runner(content)(statistics=values)
    expected = predictor.predict({"statistics": values[:, None]})
    np.testing.assert_allclose(
        found["probabilities"], expected, atol=0.1 if quantize else 1e-4
    )
    # Not one of several, but each by itself.
    assert np.abs(expected.sum(axis=1) - 1).max() > 0.1


def test_what_makes_no_sense_is_refused(dataset, models, tmp_path, capsys):
    data = f"--data={dataset}/data"
    output = f"--output={tmp_path}/m"
    assert baselines.main([data, output, "--models", "gaussian_nb"]) == 2
    assert "tells one genre from the others" in capsys.readouterr().err
    assert folds.main([data, output, "--folds=40"]) == 2
    message = "40 folds need as many artists, and there are fewer in the dataset (39)"
    assert message in capsys.readouterr().err

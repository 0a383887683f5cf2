"""Several genres a track: from files to a report, and to a new song."""

import json

import pytest

from pipeline import preprocess
from pipeline.schema import Manifest
from tests.support.corpora import write_csv, write_tone
from trainer import task
from trainer.baselines import __main__ as baselines
from trainer.compare import __main__ as compare
from trainer.export import __main__ as export
from trainer.folds import __main__ as folds
from trainer.predict import __main__ as predict

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
    assert "AP, AUC and F1 are macro averages." in out
    assert "chance" in out
    page = (output / "report.html").read_text()
    assert "Loud &gt; Bright" in page
    assert 'href="#thresholds"' in page
    content = json.loads((output / "report.json").read_text())
    assert content["task"] == "multi_label"
    assert len(content["models"]) == 4
    assert "Average precision by genre" in (output / "report.md").read_text()


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


def test_the_export_answers_as_the_model(dataset, models, capsys):
    import numpy as np
    import tensorflow as tf

    from trainer.data.dataset import open_dataset
    from trainer.predict.network import load_network

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


def test_what_makes_no_sense_is_refused(dataset, models, tmp_path, capsys):
    data = f"--data={dataset}/data"
    output = f"--output={tmp_path}/m"
    assert baselines.main([data, output, "--models", "gaussian_nb"]) == 2
    assert "tells one genre from the others" in capsys.readouterr().err
    assert folds.main([data, output, "--folds=3"]) == 2
    assert "several genres each" in capsys.readouterr().err

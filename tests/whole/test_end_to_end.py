"""From MP3s to a genre: every command line in turn, on a small demo corpus."""

import json
from pathlib import Path

import pytest

from pipeline import preprocess
from pipeline.common.rejects import Reason
from pipeline.demo.corpus import make_corpus
from pipeline.demo.layout import DemoConfig
from pipeline.schema import Manifest

GENRES = ("Electronic", "Folk", "Rock")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    config = DemoConfig(
        output=folder,
        genres=GENRES,
        artists_per_genre=(2, 1, 1),
        tracks_per_artist=(2, 1, 1),
        clip_seconds=10.0,
    )
    make_corpus(config)
    return folder


@pytest.fixture(scope="module")
def dataset(corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("dataset")
    code = preprocess.main(
        [
            f"--audio={corpus}/fma_demo/**.mp3",
            f"--metadata={corpus}/fma_metadata/tracks.csv",
            "--subset=small",
            f"--output={output}",
            "--num_shards=4",
            "--windows_per_clip=2",
            "--representations",
            "windows",
            "mel",
            "features",
            "statistics",
        ]
    )
    assert code == 0
    return output


@pytest.fixture(scope="module")
def models(dataset, tmp_path_factory) -> Path:
    from trainer import task
    from trainer.baselines import __main__ as baselines

    folder = tmp_path_factory.mktemp("models")
    for model in ("windows", "features", "statistics"):
        code = task.main(
            [
                f"--data={dataset}",
                f"--model={model}",
                f"--output={folder}/{model}",
                "--epochs=2",
                "--batch_size=4",
            ]
        )
        assert code == 0
    assert baselines.main([f"--data={dataset}", f"--output={folder}"]) == 0
    return folder


def read_manifest(dataset: Path) -> Manifest:
    return Manifest.from_json((dataset / "manifest.json").read_text(), source="test")


def test_every_input_is_in_one_place(corpus, dataset):
    manifest = read_manifest(dataset)
    lines = (dataset / "rejects-00000-of-00001.jsonl").read_text().splitlines()
    rejects = [json.loads(line) for line in lines]
    planted = json.loads((corpus / "planted.json").read_text())["broken"]
    assert planted
    found = {
        (Path(reject["path"]).name, Reason(reject["reason"])) for reject in rejects
    }
    expected = {(Path(b["path"]).name, Reason(b["reason"])) for b in planted}
    assert found == expected
    files = {path.name for path in (corpus / "fma_demo").rglob("*.mp3")}
    rejected = {Path(reject["path"]).name for reject in rejects} & files
    clips = sum(sum(counts.values()) for counts in manifest.clips.values())
    assert clips + len(rejected) == len(files)
    assert manifest.inputs["total"] == clips + len(rejects)
    assert manifest.genres == GENRES
    assert manifest.artists_in_several_splits == ()


def test_models_are_compared_on_held_out_tracks(models, tmp_path, capsys):
    from trainer.compare import __main__ as compare

    assert compare.main([f"--models={models}", f"--output={tmp_path}"]) == 0
    table = capsys.readouterr().out
    for name in ("1-D CNN", "Dense net", "kNN", "RBF SVM"):
        assert name in table
    assert "statistics" in table
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_a_model_names_the_genre_of_a_file(corpus, models, capsys):
    from trainer.predict import __main__ as predict

    planted = json.loads((corpus / "planted.json").read_text())["broken"]
    broken = {Path(item["path"]).name for item in planted}
    good, *_ = (
        path
        for path in sorted((corpus / "fma_demo").rglob("*.mp3"))
        if path.name not in broken
    )
    assert predict.main([f"--model={models}/windows", "--json", str(good)]) == 0
    line = json.loads(capsys.readouterr().out)
    assert set(line["genres"]) == set(GENRES)
    assert sum(line["genres"].values()) == pytest.approx(1, abs=1e-4)


def test_the_trainer_refuses_an_unfinished_dataset(dataset, tmp_path, capsys):
    from trainer import task

    (tmp_path / "manifest.json").write_text((dataset / "manifest.json").read_text())
    assert task.main([f"--data={tmp_path}", "--model=windows"]) == 2
    error = capsys.readouterr().err
    assert "COMPLETED" in error
    assert str(tmp_path) in error
    assert error.count("\n") == 1

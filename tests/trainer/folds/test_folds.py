import contextlib
import dataclasses
import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from pipeline.schema import SPLITS, Manifest, UserError
from tests.support.trainer_fixtures import write_dataset
from tests.support.training_run import make_clusters
from trainer.baselines.vectors import load_normalised
from trainer.compare import __main__ as compare
from trainer.data.clip_list import read_clip_list
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.report_folder import Result, read_report
from trainer.export import __main__ as export
from trainer.folds import __main__ as folds
from trainer.folds.cross_validation import (
    Plan,
    cross_validate,
    find_epochs,
    scratch_folder,
)
from trainer.folds.records import assign_folds, join_groups, split_records
from trainer.predict.ensemble import Ensemble
from trainer.predict.loading import load_predictor
from trainer.training.fit import DivergedError

pytestmark = pytest.mark.usefixtures("undrawn")
GENRES = ("Folk", "Jazz")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """24 clips of two genres, each by an artist of its own."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(
        folder,
        representations=("windows", "statistics"),
        genres=GENRES,
        clips_per_split_and_genre={"training": 7, "validation": 2, "test": 3},
        statistics=37,
    )
    return folder


@pytest.fixture(scope="module")
def dataset(data):
    return open_dataset(str(data))


def test_every_clip_is_tested_once_and_genres_are_even(dataset):
    clips = assign_folds(dataset, 4, 0)
    assert len(clips.track_ids) == len(set(clips.track_ids)) == 24
    for fold in range(4):
        labels = clips.labels[clips.folds == fold]
        assert np.bincount(labels).tolist() == [3, 3]
    again = assign_folds(dataset, 4, 0)
    np.testing.assert_array_equal(clips.folds, again.folds)
    assert not np.array_equal(clips.folds, assign_folds(dataset, 4, 1).folds)


def test_artists_stay_together(dataset, monkeypatch):
    read = Dataset.read_columns

    def read_columns(*arguments):
        for batch in read(*arguments):
            # Tracks 0 to 3 are by one artist, and so on.
            artists = [b"%d" % (int(track) // 4) for track in batch["track_id"]]
            yield {**batch, "artist_id": np.array(artists, object)}

    monkeypatch.setattr(Dataset, "read_columns", read_columns)
    clips = assign_folds(dataset, 3, 0)
    fold_of = {}
    for track, fold in clips.by_track().items():
        fold_of.setdefault(int(track) // 4, set()).add(fold)
    assert len(fold_of) == 6
    assert all(len(found) == 1 for found in fold_of.values())
    assert "whole artists together" in clips.rule


def test_copies_of_a_recording_are_never_heard_and_tested(data, tmp_path):
    """Tracks 0, 5 and 9 are one recording, under three artists."""
    copy = shutil.copytree(data, tmp_path / "data [1]")
    same = ("000000", "000005", "000009")
    lines = [
        json.dumps({"track_id": track, "audio": "same" if track in same else track})
        for track in (f"{number:06d}" for number in range(24))
    ]
    (copy / "clips").mkdir()
    (copy / "clips" / "00000-of-00001.jsonl").write_text("\n".join(lines) + "\n")
    copied = open_dataset(str(copy))
    for seed in range(5):
        clips = assign_folds(copied, 4, seed)
        fold_of = dict(zip(clips.track_ids, clips.parts.tolist(), strict=True))
        assert len({fold_of[track] for track in same}) == 1
        assert clips.rule.endswith("together, copies of a recording together")


@pytest.mark.parametrize(
    "content",
    [
        b'{"track_id": "0"}',
        # Else all clips would be copies of one recording.
        b'{"track_id": "0", "audio": null}',
        b'{"track_id": "0", "audio": ""}',
        b'["0", "a"]',
        b"\xad\xff",
    ],
)
def test_a_damaged_list_of_clips_is_one_sentence(tmp_path, content):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "00000-of-00001.jsonl").write_bytes(content + b"\n")
    with pytest.raises(UserError, match="jsonl is damaged; copy the dataset anew"):
        list(read_clip_list(str(tmp_path), "audio"))


def test_groups_are_joined_by_way_of_others():
    artists, recordings = ["a", "b", "b", "c", "d"], ["1", "1", "2", "2", "3"]
    assert join_groups(artists, recordings) == ["a", "a", "a", "a", "d"]
    assert join_groups(artists, list("12345")) == artists


def test_too_few_artists_of_a_genre_are_refused(dataset):
    with pytest.raises(UserError) as caught:
        assign_folds(dataset, 13, 0)
    assert str(caught.value) == (
        "13 folds need as many artists, and there are fewer in Folk (12), Jazz (12); "
        "use --folds 12, add artists, or preprocess other --genres alone."
    )


@pytest.mark.parametrize(
    ("genres", "message"),
    [
        (("Folk", "Jazz"), r"in Folk \(1\), Jazz \(1\); add artists, or"),
        (("Folk",), r"data holds clips of fewer than two genres.*of more genres\.$"),
    ],
)
def test_advice_is_of_use(tmp_path, genres, message):
    """No folds that cannot be, and no folder that is gone by then."""
    write_dataset(
        tmp_path / "data",
        representations=("statistics",),
        genres=genres,
        clips_per_split_and_genre={"training": 1},
    )
    with pytest.raises(UserError, match=message):
        assign_folds(open_dataset(str(tmp_path / "data")), 2, 0)


def test_a_fold_is_a_whole_dataset_with_statistics_of_its_own(dataset, tmp_path):
    clips = assign_folds(dataset, 3, 0)
    assert clips.stopping.sum() == 3
    records = split_records(dataset, clips, f"{tmp_path}/records")
    stopping = dict(zip(clips.track_ids, clips.stopping.tolist(), strict=True))
    tested = []
    for fold in range(3):
        folder = f"{tmp_path}/fold-{fold}"
        records.link(folder, fold)
        opened = open_dataset(folder)
        splits = {
            name: opened.load("statistics", name)
            for name in ("training", "validation", "test")
        }
        # Four fifths, or here two thirds, train, less the few to stop by.
        assert len(splits["test"].labels) == 8
        assert 13 <= len(splits["training"].labels) < 16
        assert all(stopping[track] for track in splits["validation"].track_ids)
        assert not any(stopping[track] for track in splits["training"].track_ids)
        tested += splits["test"].track_ids
        everything = [t for split in splits.values() for t in split.track_ids]
        assert sorted(everything) == sorted(clips.track_ids)
        values = splits["training"].values.astype(np.float64)
        found = opened.manifest.normalisation["statistics"]
        np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.variance, values.var(axis=0), rtol=1e-5)
        windows = opened.load("windows", "training").values.astype(np.float64)
        found = opened.manifest.normalisation["windows"]
        np.testing.assert_allclose(found.variance, [windows.var()], rtol=1e-5)
        normal = load_normalised(opened, "statistics")["training"].values
        np.testing.assert_allclose(normal.std(axis=0), 1, rtol=1e-3)
        counts = opened.manifest.clips["test"]
        assert sum(counts.values()) == len(splits["test"].labels)
    assert sorted(tested) == sorted(clips.track_ids)


def test_folds_of_other_clips_are_other_datasets(dataset, tmp_path):
    """By their fingerprints: outputs of a frozen base are kept under these."""
    found = set()
    for seed in range(2):
        clips = assign_folds(dataset, 3, seed)
        folder = f"{tmp_path}/{seed}"
        split_records(dataset, clips, f"{folder}/records").link(f"{folder}/fold", 0)
        found.add(open_dataset(f"{folder}/fold").manifest.fingerprint)
    assert len(found) == 2


def test_the_last_fit_hears_all_clips(dataset, tmp_path):
    clips = assign_folds(dataset, 3, 0)
    records = split_records(dataset, clips, f"{tmp_path}/records")
    counts = {}
    for stopping in (True, False):
        folder = f"{tmp_path}/{stopping}"
        records.link(folder, None, stopping=stopping)
        manifest = open_dataset(folder).manifest
        counts[stopping] = [sum(manifest.clips[split].values()) for split in SPLITS]
    assert counts == {True: [21, 3, 0], False: [24, 0, 0]}


def test_of_few_clips_none_is_kept_back_to_stop_by(tmp_path):
    write_dataset(
        tmp_path,
        representations=("statistics",),
        genres=GENRES,
        clips_per_split_and_genre={"training": 9},
        statistics=37,
    )
    dataset = open_dataset(str(tmp_path))
    assert not assign_folds(dataset, 3, 0).stopping.any()
    # By which a search would judge.
    plan = Plan(output=f"{tmp_path}/o", folds=3, models=("statistics",), trials=2)
    with pytest.raises(UserError, match="--tune judges by clips that are kept back"):
        cross_validate(dataset, plan)
    assert not (tmp_path / "o").exists()


def test_a_cross_validation_from_the_command_line(data, dataset, tmp_path, capsys):
    output = tmp_path / "models"
    code = folds.main(
        [
            f"--data={data}",
            f"--output={output}",
            "--folds=3",
            "--models",
            "statistics",
            "baselines",
            "--epochs=2",
            "--batch_size=4",
            "--verbose",
        ]
    )
    out = capsys.readouterr().out
    assert code == 0, out
    assert "== Fold 3 of 3" in out
    assert "empty" not in out
    names = {path.name for path in output.iterdir()}
    assert {"statistics", "knn-statistics"} <= names
    assert not any(name.startswith(".folds") for name in names)
    for name in names:
        report = read_report(str(output / name))
        assert report.test.clips == 24
        assert report.test.artists == 24
        assert report.parameters["folds"] == 3
        assert "3 folds" in report.split_rule
        parts = [read_report(str(output / name / f"fold-{i}")) for i in range(3)]
        mean = np.mean([part.test.accuracy for part in parts])
        assert report.test.accuracy == pytest.approx(mean)
        # A last model, of all clips, answers.
        predictor = load_predictor(str(output / name))
        records = {"statistics": dataset.load("statistics", "test").values[:, None]}
        assert predictor.predict(records).shape == (6, 2)
        assert predictor.temperature == report.calibration.temperature
        assert report.calibration.clips == 24
        assert report.clips["training"] + report.clips["validation"] == 16
        command = shlex.split(report.command)
        assert command[:2] == ["./launch.sh", "folds"]
        folds.make_parser().parse_args(command[2:])
        assert command[command.index("--models") + 1 :][:2] == [
            "statistics",
            "baselines",
        ]
        assert command[command.index("--epochs") + 1] == "2"
    assert "model.keras" in {
        path.name for path in (output / "statistics" / "fold-0").iterdir()
    }
    manifest = Manifest.from_json(
        (output / "statistics" / "manifest.json").read_text(), source=""
    )
    assert sum(manifest.clips["training"].values()) == 24
    # An export is held against the original dataset's records, all of which it heard.
    folder = f"{output}/statistics"
    found = export.find_dataset(None, folder, manifest)
    assert found.folder == str(data)
    assert found.manifest.fingerprint == manifest.fingerprint
    with pytest.raises(UserError, match="of a cross-validation has heard all"):
        export.find_dataset(str(data), folder, manifest, quantize=True)
    # What was cross-validated is compared and shown with the original dataset.
    assert compare.main([f"--models={output}"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "24 clips of 2 genres" in page
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["test_clips"] == 24
    (best,) = [m for m in content["models"] if m["model"] == "Ensemble"]
    assert best["parameters"]["folds"] == 3
    assert best["test"]["clips"] == best["test"]["artists"] == 24
    assert best["calibration"]["clips"] == 24
    assert isinstance(load_predictor(str(output)), Ensemble)
    assert load_predictor(str(output)).temperature == best["calibration"]["temperature"]


def test_what_a_killed_run_leaves_is_removed_by_the_next_one(tmp_path):
    with scratch_folder(str(tmp_path)) as running:
        left, somebodys = tmp_path / ".folds-killed", tmp_path / ".folds-mine"
        shutil.copytree(running, left)
        (left / "records").mkdir()
        somebodys.mkdir()
        with scratch_folder(str(tmp_path)) as scratch:
            found = {path.name for path in tmp_path.iterdir()}
        names = {Path(running).name, Path(scratch).name, ".folds-mine"}
        assert found == names
    assert [path.name for path in tmp_path.iterdir()] == [".folds-mine"]


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ([], "tuning.train"),
        (["--tune=3", "--learning_rate=0.01"], "train.Run"),
    ],
)
def test_a_signal_that_python_swallows_stops_before_the_next_piece_of_work(
    data, tmp_path, capsys, monkeypatch, flags, part
):
    begun = []

    def work(*_, **__):
        begun.append(True)
        with contextlib.suppress(KeyboardInterrupt):  # As Python in a finaliser.
            os.kill(os.getpid(), signal.SIGTERM)
        if flags:  # Which ends no search.
            raise DivergedError("no number")

    monkeypatch.setattr(f"trainer.training.{part}", work)
    words = [f"--data={data}", f"--output={tmp_path / 'o'}", "--folds=2", *flags]
    assert folds.main([*words, "--models", "windows", "statistics"]) == 75
    assert "stopped: by SIGTERM" in capsys.readouterr().err
    assert len(begun) == 1


def test_flags_of_one_model_go_to_that_model(data, capsys, tmp_path):
    plan = Plan(
        output="o",
        folds=2,
        models=("mel", "statistics"),
        flags={"weights": "w.h5", "fine_tune_layers": 3, "epochs": 7},
    )
    mel, other = (plan.config(model, "d", "o") for model in plan.models)
    assert (mel.weights, mel.fine_tune_layers, mel.epochs) == ("w.h5", 3, 7)
    assert (other.weights, other.fine_tune_layers, other.epochs) == (None, 0, 7)
    logged = dataclasses.replace(plan, flags={"tensorboard_dir": "logs/"})
    found = [logged.config("mel", "d", f"o/mel/fold-{n}") for n in range(2)]
    # A curve for each training.
    assert [one.tensorboard_dir for one in found] == ["logs/fold-0", "logs/fold-1"]
    argv = [f"--data={data}", f"--output={tmp_path / 'o'}", "--weights=w.h5"]
    assert folds.main(argv) == 2
    assert "--weights is for the model mel" in capsys.readouterr().err


def test_linear_heads_on_few_clips_keep_none_back(dataset):
    clips = assign_folds(dataset, 3, 0)
    plan = Plan(output="o", folds=3, models=("mel", "statistics", "windows"))
    found = [plan.stops_by_itself(model, clips) for model in plan.models]
    assert found == [True, True, False]
    tuned = dataclasses.replace(plan, trials=3)
    deep = dataclasses.replace(plan, flags={"fine_tune_layers": 9})
    assert not tuned.stops_by_itself("statistics", clips)
    assert not deep.stops_by_itself("mel", clips)
    many = dataclasses.replace(clips, track_ids=tuple(map(str, range(500))))
    assert not plan.stops_by_itself("statistics", many)


def test_the_last_network_trains_as_long_as_the_folds_did():
    def trained(*epochs):
        return Result(report=None, phases=[{"best_epoch": epoch} for epoch in epochs])

    found = find_epochs([trained(10, 2), trained(20, 3), trained(60, 9)])
    assert found == (20, 3)
    assert find_epochs([trained(0), trained(0)]) == (1, 1)


def test_wrong_flags_are_user_errors(data, tmp_path, capsys, monkeypatch):
    argv = [f"--data={data}", f"--output={tmp_path / 'o'}"]
    assert folds.main([*argv, "--folds=1"]) == 2
    assert "--folds must be 2 or more" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setenv("TF_CONFIG", make_clusters()[0])
        assert folds.main(argv) == 2
        assert "TF_CONFIG names more; unset it" in capsys.readouterr().err
    assert folds.main(["--data=/nowhere", argv[1]]) == 2
    assert "no dataset folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        folds.main([*argv, "--folds=3", "--models", "windows", "--no_such_flag"])
    assert error.value.code == 2
    argv += ["--folds=3", "--models=statistics", "--batch_size=1000"]
    assert folds.main(argv) == 2
    assert "Training statistics failed" in capsys.readouterr().err

"""Networks of several genres a clip, from dataset to model folder."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support.trainer_fixtures import GENRES, write_dataset
from trainer.config import TrainConfig
from trainer.data.dataset import open_dataset
from trainer.evaluation.report_folder import read_report, read_result
from trainer.evaluation.tasks.multi_label import MultiLabelReport
from trainer.evaluation.tasks.task import find_task
from trainer.training.train import train

CLIPS = {"training": 16, "validation": 8, "test": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "data"
    write_dataset(
        folder,
        representations=("windows", "mel", "statistics"),
        clips_per_split_and_genre=CLIPS,
        several=True,
        statistics=24,
        noise=0.1,
    )
    return folder


def test_records_are_read_with_all_of_their_genres(folder):
    dataset = open_dataset(str(folder))
    arrays = dataset.load("statistics", "training")
    assert arrays.labels.shape == (48, 3)
    assert arrays.labels.dtype == np.uint8
    assert set(arrays.labels.sum(axis=1).tolist()) == {1, 2}
    counts = arrays.labels.sum(axis=0).tolist()
    assert counts == [dataset.manifest.clips["training"][genre] for genre in GENRES]
    [(values, labels)] = dataset.evaluation_batches("statistics", "test", 64)
    assert values.shape[0] == labels.shape[0] == 24
    index = dataset.load_index("windows", "test")
    assert index.labels.shape == (96, 3)


@pytest.mark.parametrize(
    ("representation", "options"),
    [
        ("statistics", {"epochs": 30, "learning_rate": 0.01}),
        ("windows", {"epochs": 4}),
        ("mel", {"epochs": 3, "weights": "none"}),
    ],
)
def test_each_network_learns_several_genres(folder, tmp_path, representation, options):
    output = tmp_path / "model"
    config = TrainConfig(
        data=str(folder), output=str(output), model=representation, **options
    )
    report = train(config)
    assert isinstance(report, MultiLabelReport)
    assert report == read_report(str(output))
    test = report.test
    assert test.clips == 24
    assert [scores.path for scores in test.genres] == [
        "Folk",
        "Jazz",
        "Popular > Rock",
    ]
    if representation == "statistics":
        assert test.macro_ap > 0.9 > 2 * test.prevalence - 0.2
        assert test.micro_f1 > 0.8
    predictions = read_result(str(output)).predictions
    assert predictions.labels.sum() == sum(s.support for s in test.genres)
    assert (output / "average_precision.png").read_bytes()[:4] == b"\x89PNG"
    assert not (output / "confusion.png").exists()
    card = (output / "model_card.md").read_text()
    assert "| macro average precision |" in card
    assert "Rock | 1.000 |" in card or representation != "statistics"
    model = tf.keras.models.load_model(output / "model.keras")
    assert model.layers[-1].output.shape[-1] == 3


def test_a_model_begins_with_the_genres_log_odds(folder):
    task = find_task(open_dataset(str(folder)).manifest)
    p = np.array(task.prevalence)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(task.bias))), p)
    assert task.activation == "sigmoid"


def test_the_loss_is_kerass_and_its_minimum_is_the_truth(folder):
    """Weights shift no probability: the share of clips is what minimises the loss."""
    import keras

    task = find_task(open_dataset(str(folder)).manifest)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (6, 3)).astype(np.uint8)
    p = rng.uniform(0.01, 0.99, (6, 3)).astype(np.float32)
    expected = keras.losses.binary_crossentropy(labels.astype(np.float32), p)
    np.testing.assert_allclose(task.losses(labels, p), expected, rtol=1e-4)
    loss, hits = task.measure(labels, p)
    assert loss == pytest.approx(float(np.sum(expected)), rel=1e-4)
    assert hits == float(np.sum(task.hits(tf.constant(labels), tf.constant(p))))

    share = 0.2
    clips = np.zeros((1000, 3), np.uint8)
    clips[: int(1000 * share)] = 1
    grid = np.linspace(0.05, 0.5, 91, dtype=np.float32)
    means = [
        float(np.mean(task.objectives(clips, np.full((1000, 3), q, np.float32), 0.0)))
        for q in grid
    ]
    assert grid[int(np.argmin(means))] == pytest.approx(share, abs=0.006)


def test_labels_that_no_pipeline_writes_are_refused(tmp_path):
    from pipeline.schema import UserError, shard_file
    from tests.support.trainer_fixtures import make_example

    folder = tmp_path / "data"
    manifest = write_dataset(
        folder, representations=("statistics",), several=True, statistics=8
    )
    layout = manifest.representations["statistics"]
    value = np.zeros(8, np.float32)
    path = folder / shard_file("statistics", "test", 0, 2)
    for marks, part in (([0, 0, 0], "no genre at all"), ([0, 2, 1], "must be 0 or 1")):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for track in range(3):
                labels = np.array(marks, np.uint8)
                writer.write(make_example(layout, track, labels, 0, value))
        with pytest.raises(UserError, match=part):
            open_dataset(str(folder)).load("statistics", "test")
